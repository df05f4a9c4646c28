// The products of a layer, and the one that gives every id a logit. Compiled for each width of rows: ROW_TILES tiles of
// 16, or ROW_SPLIT for at most 8. TILES_* and STAGES_* are chosen by the host for the number of multiprocessors.

static constexpr int MT = ROW_TILES;
static constexpr bool SPLIT = ROW_SPLIT;

// Tiles whose results are added up at once, where it may be all of NT, and at least LEAST.
__device__ constexpr int pass(int tiles, int least) { return SPLIT ? tiles : least; }

// Deals the results of a pass to the threads: deal(tile, n, row).
template <int TILES, class Deal> __device__ __forceinline__ void deal_results(int rows, const Deal& deal) {
    for (int index = threadIdx.x; index < 8 * TILES * rows; index += THREADS)
        deal(index / 8 % TILES, index % 8, index / (8 * TILES));
}

// Where activations go that the next product reads: [rows, width] in bf16, then what rounding took away.
template <bool SPLIT_ROWS>
__device__ __forceinline__ void store_rounded(bf16* output, int rows, int width, int row, int column, float value) {
    bf16 high, low;
    halve(value, high, low);
    output[(size_t)row * width + column] = high;
    if (SPLIT_ROWS) output[(size_t)(rows + row) * width + column] = low;
}

// A row of a matrix of `count`; rows beyond the last read the last, and nobody looks at the result.
template <int K> __device__ __forceinline__ const bf16* weight_row(const bf16* weights, int row, int count) {
    return weights + (size_t)smaller(row, count - 1) * K;
}

// output [rows, QKV_WIDTH] = norm(x) · weightsᵀ + bias.
KERNEL(THREADS)
qkv(const bf16* weights, const float* bias, const float* norm, const float* x, float* output, int rows, int phase) {
    static constexpr int TILES = QKV_WIDTH / 8, PASS = pass(TILES_QKV, 1);
    Normed<HIDDEN, SPLIT> input = {x, norm, nullptr};
    product<HIDDEN, MT, SPLIT, TILES_QKV, STAGES_QKV, PASS>(
        rows, phase, (TILES + TILES_QKV - 1) / TILES_QKV, input,
        [&](int group, int tile, int n) {
            return weight_row<HIDDEN>(weights, (group * TILES_QKV + tile) * 8 + n, QKV_WIDTH);
        },
        [] {},
        [&](int group, int first, auto sum) {
            deal_results<PASS>(rows, [&](int tile, int n, int row) {
                int column = (group * TILES_QKV + first + tile) * 8 + n;
                if (column < QKV_WIDTH)
                    output[(size_t)row * QKV_WIDTH + column] = sum(tile, n, row) + (QKV_BIAS ? bias[column] : 0.0f);
            });
        }
    );
}

// x [rows, HIDDEN] += input · weightsᵀ, where the input has K columns.
template <int K, int NT, int STAGES>
__device__ __forceinline__ void add_product(const bf16* weights, const bf16* input, float* x, int rows, int phase) {
    static constexpr int TILES = HIDDEN / 8, PASS = pass(NT, 1);
    // The first value that a thread will add to; asked for early, since it comes from far.
    float before = 0.0f;
    Rounded<K, SPLIT> rounded = {input};
    product<K, MT, SPLIT, NT, STAGES, PASS>(
        rows, phase, (TILES + NT - 1) / NT, rounded,
        [&](int group, int tile, int n) { return weight_row<K>(weights, (group * NT + tile) * 8 + n, HIDDEN); },
        [&] {
            int column = (blockIdx.x * NT + threadIdx.x / 8 % PASS) * 8 + threadIdx.x % 8;
            int row = threadIdx.x / (8 * PASS);
            if (row < rows && column < HIDDEN) before = x[(size_t)row * HIDDEN + column];
        },
        [&](int group, int first, auto sum) {
            bool fresh = group == blockIdx.x && first == 0;
            deal_results<PASS>(rows, [&](int tile, int n, int row) {
                int column = (group * NT + first + tile) * 8 + n;
                bool known = fresh;
                fresh = false;
                if (column >= HIDDEN) return;
                float* place = x + (size_t)row * HIDDEN + column;
                *place = (known ? before : *place) + sum(tile, n, row);
            });
        }
    );
}

KERNEL(THREADS)
output(const bf16* weights, const bf16* input, float* x, int rows, int phase) {
    add_product<QUERY_WIDTH, TILES_OUTPUT, STAGES_OUTPUT>(weights, input, x, rows, phase);
}

KERNEL(THREADS)
down(const bf16* weights, const bf16* input, float* x, int rows, int phase) {
    add_product<INTERMEDIATE, TILES_DOWN, STAGES_DOWN>(weights, input, x, rows, phase);
}

// output [rows, INTERMEDIATE] = silu(norm(x) · gateᵀ) · (norm(x) · upᵀ). Tiles come in pairs, gate and up.
KERNEL(THREADS)
gate_up(const bf16* weights, const float* norm, const float* x, bf16* output, int rows, int phase) {
    static constexpr int PAIRS = INTERMEDIATE / 8, PASS = pass(TILES_GATE_UP, 2);
    static_assert(TILES_GATE_UP % 2 == 0, "");
    Normed<HIDDEN, SPLIT> input = {x, norm, nullptr};
    product<HIDDEN, MT, SPLIT, TILES_GATE_UP, STAGES_GATE_UP, PASS>(
        rows, phase, (2 * PAIRS + TILES_GATE_UP - 1) / TILES_GATE_UP, input,
        [&](int group, int tile, int n) {
            int pair = smaller(group * (TILES_GATE_UP / 2) + tile / 2, PAIRS - 1);
            return weights + (size_t)(tile % 2 * INTERMEDIATE + pair * 8 + n) * HIDDEN;
        },
        [] {},
        [&](int group, int first, auto sum) {
            deal_results<PASS / 2>(rows, [&](int pair, int n, int row) {
                int column = ((group * TILES_GATE_UP + first) / 2 + pair) * 8 + n;
                if (column >= INTERMEDIATE) return;
                float gate = sum(2 * pair, n, row), up = sum(2 * pair + 1, n, row);
                store_rounded<SPLIT>(output, rows, INTERMEDIATE, row, column, gate / (1.0f + expf(-gate)) * up);
            });
        }
    );
}

// logits [rows, VOCABULARY] = norm(x) · weightsᵀ for the picked rows of x, or the first where `pick` is null.
KERNEL(THREADS)
head(const bf16* weights, const float* norm, const float* x, const int* pick, float* logits, int rows, int phase) {
    static constexpr int TILES = (VOCABULARY + 7) / 8, PASS = pass(TILES_HEAD, 1);
    Normed<HIDDEN, SPLIT> input = {x, norm, pick};
    product<HIDDEN, MT, SPLIT, TILES_HEAD, STAGES_HEAD, PASS>(
        rows, phase, (TILES + TILES_HEAD - 1) / TILES_HEAD, input,
        [&](int group, int tile, int n) {
            return weight_row<HIDDEN>(weights, (group * TILES_HEAD + tile) * 8 + n, VOCABULARY);
        },
        [] {},
        [&](int group, int first, auto sum) {
            deal_results<PASS>(rows, [&](int tile, int n, int row) {
                int column = (group * TILES_HEAD + first + tile) * 8 + n;
                if (column < VOCABULARY) logits[(size_t)row * VOCABULARY + column] = sum(tile, n, row);
            });
        }
    );
}
