// Products of up to 64 rows of activations with a weight matrix, at the speed at which the weights arrive.
//
// A block of 8 warps owns NT tiles of 8 weight rows. The columns go round the warps in chunks of 32, so that a warp's
// load of a tile takes 64 bytes of each of 8 rows and the block's 512. Each lane copies 16 bytes at a time into a ring
// of its own in shared memory and is the only one to read them: no barrier paces the stream. The ring is filled before
// the kernel's inputs are ready, as weights depend on nothing, so the memory stays busy while kernels change.
//
// The tensor cores multiply: activations are the 16 rows of a tile, weights its 8 columns. The order of the columns
// does not matter to a product as long as both sides agree: lane 4g + t takes 8 consecutive columns for two
// instructions. With at most 8 rows (SPLIT) the tile's other 8 rows hold what rounding to bf16 takes away from the
// first, and cost nothing: activations then have 16 bits.

static constexpr int WARPS = 8;
static constexpr int THREADS = 32 * WARPS;
static constexpr int CHUNK = 32;
// Columns that the warps take in one round.
static constexpr int ROUND = WARPS * CHUNK;
// Keeps lines of activations apart so that a quarter of a warp reads all banks once.
static constexpr int LINE_PAD = 32;

// Shared memory of a block, in this order: the ring; lines of activations for `phase` columns; the warps' partial sums;
// the rows' sums of squares.
template <int MT, bool SPLIT, int NT, int STAGES, int PASS> struct Shared {
    static constexpr int RESULTS = SPLIT ? 8 : 16 * MT;
    uint4* ring;
    bf16* lines;
    float* sums;
    float* squares;
    int pitch;

    __device__ Shared(uint4* base, int rows, int phase) {
        pitch = phase + LINE_PAD;
        ring = base;
        lines = (bf16*)(ring + STAGES * NT * THREADS);
        sums = (float*)(lines + (SPLIT ? 2 : 1) * rows * pitch);
        squares = sums + WARPS * PASS * 8 * RESULTS;
    }

    // The 8 columns of a row that lane t wants of a chunk; `low` for what rounding took away.
    __device__ uint4 read(int row, int rows, int column, bool low) const {
        if (row >= rows) return make_uint4(0, 0, 0, 0);
        return *(const uint4*)(lines + (low ? rows + row : row) * pitch + column);
    }
};

// Activations of bf16 in memory: [rows, K], and after `rows` of them what rounding took away, if SPLIT.
template <int K, bool SPLIT> struct Rounded {
    const bf16* input;

    __device__ void prepare() const {}

    template <class S> __device__ void stage(const S& shared, int rows, int start, int width) const {
        int vectors = width / 8;
        for (int index = threadIdx.x; index < (SPLIT ? 2 : 1) * rows * vectors; index += THREADS) {
            int line = index / vectors, column = index % vectors * 8;
            const bf16* source = input + (size_t)line * K + start + column;
            *(uint4*)(shared.lines + line * shared.pitch + column) = *(const uint4*)source;
        }
    }

    template <class S> __device__ float scale(const S&, int, int) const { return 1.0f; }
};

// Activations that are RMS-normed on the way (Zhang and Sennrich 2019, arXiv:1910.07467): the weights of the norm are
// multiplied in, the row's own factor at the end. `pick` names the rows of `input` where not all in order.
template <int K, bool SPLIT> struct Normed {
    const float* input;
    const float* weight;
    const int* pick;

    __device__ void prepare() const {
        for (int column = threadIdx.x * 32; column < K; column += THREADS * 32) prefetch(weight + column);
    }

    // Warps that share a row.
    __device__ static int share(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : rows <= 4 ? 2 : 1; }

    template <class S> __device__ void stage(const S& shared, int rows, int start, int width) const {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32, parts = share(rows), part = warp % parts;
        for (int row = warp / parts; row < rows; row += WARPS / parts) {
            const float* source = input + (size_t)(pick ? pick[row] : row) * K + start;
            bf16* line = shared.lines + row * shared.pitch;
            float squares = 0.0f;
            for (int column = (part * 32 + lane) * 8; column < width; column += parts * 256) {
                float4 first = *(const float4*)(source + column), second = *(const float4*)(source + column + 4);
                const float* factor = weight + start + column;
                float4 low = *(const float4*)factor, high = *(const float4*)(factor + 4);
                float values[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
                float weights[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
                bf16 rounded[8], rest[8];
                for (int i = 0; i < 8; i++) {
                    squares += values[i] * values[i];
                    halve(values[i] * weights[i], rounded[i], rest[i]);
                }
                store(line + column, rounded);
                if (SPLIT) store(line + rows * shared.pitch + column, rest);
            }
            squares = warp_sum(squares);
            if (lane == 0) {
                float* sum = shared.squares + row * 8 + part;
                *sum = start == 0 ? squares : *sum + squares;
            }
        }
    }

    __device__ static void store(bf16* place, const bf16 (&v)[8]) {
        *(uint4*)place = make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
    }

    template <class S> __device__ float scale(const S& shared, int row, int rows) const {
        float squares = 0.0f;
        for (int part = 0; part < share(rows); part++) squares += shared.squares[row * 8 + part];
        return 1.0f / sqrtf(squares / K + EPSILON);
    }
};

// Multiplies. `groups` of NT tiles go round the blocks. `weights(group, tile, lane row)` is where a weight row begins,
// any row for a tile that is not there. `finish(group, tile, sum)` takes PASS tiles' results: sum(tile, n, row).
// Activations come in phases of `phase` columns, a multiple of ROUND or all K.
template <int K, int MT, bool SPLIT, int NT, int STAGES, int PASS, class Input,
          class Weights, class Ready, class Finish>
__device__ __forceinline__ void product(
    int rows, int phase, int groups, const Input& input, const Weights& weights, const Ready& ready,
    const Finish& finish
) {
    static_assert(NT % PASS == 0 && (!SPLIT || MT == 1) && K % CHUNK == 0, "");
    static constexpr int ROUNDS = (K + ROUND - 1) / ROUND;
    typedef Shared<MT, SPLIT, NT, STAGES, PASS> Memory;
    LAUNCH_SHARED(shared_memory);
    Memory shared(shared_memory, rows, phase);
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

    uint4* ring = shared.ring + threadIdx.x;
    auto request = [&](int item) {
        int group = blockIdx.x + item / ROUNDS * gridDim.x, chunk = warp + item % ROUNDS * WARPS;
        if (group < groups && chunk * CHUNK < K) {
#pragma unroll
            for (int tile = 0; tile < NT; tile++) {
                const bf16* source = weights(group, tile, g) + chunk * CHUNK + t * 8;
                copy_async(ring + (item % STAGES * NT + tile) * THREADS, source);
            }
        }
        copies_end();
    };

    let_next_start();
    input.prepare();
#pragma unroll
    for (int item = 0; item < STAGES; item++) request(item);
    inputs_ready();
    ready();

    bool staged = false;
    int item = 0;
    for (int group = blockIdx.x; group < groups; group += gridDim.x) {
        float results[NT][MT][4] = {};
        for (int start = 0; start < K; start += phase) {
            int width = smaller(phase, K - start);
            if (!staged || phase < K) {
                __syncthreads();
                input.stage(shared, rows, start, width);
                __syncthreads();
                staged = true;
            }
            for (int round = start / ROUND; round < divide_up(start + width, ROUND); round++, item++) {
                copies_done<STAGES - 1>();
                int column = (warp + round * WARPS) * CHUNK;
                if (column < K) {
                    uint4 w[NT];
#pragma unroll
                    for (int tile = 0; tile < NT; tile++) w[tile] = ring[(item % STAGES * NT + tile) * THREADS];
#pragma unroll
                    for (int mt = 0; mt < MT; mt++) {
                        int at = column - start + t * 8;
                        uint4 a = shared.read(mt * 16 + g, rows, at, false);
                        uint4 b = shared.read(SPLIT ? g : mt * 16 + 8 + g, rows, at, SPLIT);
#pragma unroll
                        for (int tile = 0; tile < NT; tile++) {
                            multiply_tile(results[tile][mt], a.x, b.x, a.y, b.y, w[tile].x, w[tile].y);
                            multiply_tile(results[tile][mt], a.z, b.z, a.w, b.w, w[tile].z, w[tile].w);
                        }
                    }
                }
                request(item + STAGES);
            }
        }
        auto place = [&](int warp, int tile, int n, int row) -> float& {
            return shared.sums[((warp * PASS + tile) * 8 + n) * Memory::RESULTS + row];
        };
        auto sum = [&](int tile, int n, int row) {
            float total = 0.0f;
#pragma unroll
            for (int warp = 0; warp < WARPS; warp++) total += place(warp, tile, n, row);
            return total * input.scale(shared, row, rows);
        };
#pragma unroll
        for (int first = 0; first < NT; first += PASS) {
            __syncthreads();
#pragma unroll
            for (int tile = 0; tile < PASS; tile++) {
#pragma unroll
                for (int mt = 0; mt < MT; mt++) {
                    const float(&c)[4] = results[first + tile][mt];
#pragma unroll
                    for (int n = 0; n < 2; n++) {
                        place(warp, tile, 2 * t + n, mt * 16 + g) = SPLIT ? c[n] + c[2 + n] : c[n];
                        if (!SPLIT) place(warp, tile, 2 * t + n, mt * 16 + 8 + g) = c[2 + n];
                    }
                }
            }
            __syncthreads();
            finish(group, first, sum);
        }
    }
    copies_done<0>();
}
