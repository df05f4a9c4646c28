// What passes of many rows do between their products, which a library does: norms, attention, activations. Here the
// tensor cores are what there is too little of, not the memory: everything has one bf16.

static constexpr int NORM_ROWS = 8;

// output [rows, HIDDEN] = norm(x) (Zhang and Sennrich 2019, arXiv:1910.07467), a warp for each row.
KERNEL(32 * NORM_ROWS) norm_rows(const float* x, const float* weight, bf16* output, int rows) {
    let_next_start();
    int row = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    inputs_ready();
    if (row >= rows) return;
    const float4* source = (const float4*)(x + (size_t)row * HIDDEN);
    const float4* factors = (const float4*)weight;
    float squares = 0.0f;
    for (int i = lane; i < HIDDEN / 4; i += 32) {
        float4 v = source[i];
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / HIDDEN + EPSILON);
    u32* place = (u32*)(output + (size_t)row * HIDDEN);
    for (int i = lane; i < HIDDEN / 4; i += 32) {
        float4 v = source[i], w = factors[i];
        place[2 * i] = pack(to_bf16(v.x * scale * w.x), to_bf16(v.y * scale * w.y));
        place[2 * i + 1] = pack(to_bf16(v.z * scale * w.z), to_bf16(v.w * scale * w.w));
    }
}

static constexpr int SILU_THREADS = 256;

// output [rows, INTERMEDIATE] = silu(gate) · up of input [rows, 2 · INTERMEDIATE], gates first; a row of blocks for each
// row.
KERNEL(SILU_THREADS) silu_rows(const float* input, bf16* output) {
    let_next_start();
    int pair = blockIdx.x * SILU_THREADS + threadIdx.x;
    inputs_ready();
    if (pair >= INTERMEDIATE / 2) return;
    const float* gates = input + (size_t)blockIdx.y * 2 * INTERMEDIATE + 2 * pair;
    bf16 results[2];
    for (int i = 0; i < 2; i++) {
        float gate = gates[i], up = gates[INTERMEDIATE + i];
        results[i] = to_bf16(gate / (1.0f + expf(-gate)) * up);
    }
    *(u32*)(output + (size_t)blockIdx.y * INTERMEDIATE + 2 * pair) = pack(results[0], results[1]);
}

static constexpr int TEAM_WARPS = 4;
static constexpr int TEAM_THREADS = 32 * TEAM_WARPS;
static constexpr int TEAM_QUERIES = 16 * TEAM_WARPS;
// Pages that are copied together, and how many times that the block holds.
static constexpr int TEAM_PAGES = 2;
static constexpr int TEAM_STAGES = HEAD_DIM <= 128 ? 3 : 2;
static constexpr int PAGE_VECTORS = PAGE_HEAD / 8;
static constexpr int TEAM_PITCH = HEAD_DIM + 8;

struct TeamMemory {
    uint4 ring[TEAM_STAGES][TEAM_PAGES][PAGE_VECTORS];
    alignas(16) bf16 queries[TEAM_QUERIES * TEAM_PITCH];
};

static_assert(sizeof(TeamMemory) == TEAM_SHARED, "the host counts otherwise");

// Attention of runs of consecutive rows of a sequence, TEAM_QUERIES / GROUP each, whose keys and values are all in the
// cache: blocks [runs, KV_HEADS]. A block's warps share its pages in shared memory, each with 16 of its queries, and go
// through them with a running maximum (Dao et al. 2022, arXiv:2205.14135). `output` is [rows, QUERY_WIDTH].
KERNEL(TEAM_THREADS) attend_rows(
    const float* qkv, const float* query_norm, const float* frequencies, const bf16* cache, int layer, Rows rows,
    Runs runs, bf16* output
) {
    LAUNCH_SHARED(shared_memory);
    TeamMemory& shared = *(TeamMemory*)shared_memory;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int kv_head = blockIdx.y;

    let_next_start();
    int first_row = runs.first[blockIdx.x], count = runs.count[blockIdx.x], queries = count * GROUP;
    int first_position = rows.position(first_row), known = first_position + count;
    int steps = divide_up(known, TEAM_PAGES * PAGE);
    const u32* table = rows.table(first_row);
    inputs_ready();

    auto request = [&](int step) {
        for (int index = step * TEAM_PAGES; index < (step + 1) * TEAM_PAGES && index * PAGE < known; index++) {
            const uint4* source = (const uint4*)page_head(cache, table[index], layer, kv_head);
            uint4* place = shared.ring[step % TEAM_STAGES][index % TEAM_PAGES];
            for (int i = threadIdx.x; i < PAGE_VECTORS; i += TEAM_THREADS) copy_async(place + i, source + i);
        }
        copies_end();
    };
    for (int step = 0; step < TEAM_STAGES - 1; step++) request(step);

    // Each warp makes the queries that it uses.
    for (int query = warp * 16; query < smaller(queries, warp * 16 + 16); query++) {
        int row = first_row + query / GROUP;
        const float* head = qkv + (size_t)row * QKV_WIDTH + (kv_head * GROUP + query % GROUP) * HEAD_DIM;
        Angles angles(frequencies, rows.position(row));
        rotate_head(head, query_norm, angles, [&](int element, float value) {
            shared.queries[query * TEAM_PITCH + element] = to_bf16(value * (LOG2_E / sqrtf((float)HEAD_DIM)));
        });
    }
    __syncwarp();
    // A lane's two queries, and below which positions they see.
    uint4 mine[2][HEAD_DIM / 32];
    int visible[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int query = warp * 16 + half * 8 + g;
        visible[half] = first_position + smaller(query, queries - 1) / GROUP + 1;
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 32; i++) {
            const uint4* place = (const uint4*)(shared.queries + query * TEAM_PITCH + i * 32 + t * 8);
            mine[half][i] = query < queries ? *place : make_uint4(0, 0, 0, 0);
        }
    }

    float values[HEAD_DIM / 8][4] = {}, highest[2] = {MINUS_INFINITY, MINUS_INFINITY}, total[2] = {};
    for (int step = 0; step < steps; step++) {
        copies_done<TEAM_STAGES - 2>();
        // This step's pages are there for all, and all have left those that the next copies replace.
        __syncthreads();
        request(step + TEAM_STAGES - 1);
        for (int index = 0; index < TEAM_PAGES; index++) {
            int position = (step * TEAM_PAGES + index) * PAGE;
            if (position >= known) break;
            const uint4* page = shared.ring[step % TEAM_STAGES][index] + lane;
            float weights[2][4] = {};
#pragma unroll
            for (int part = 0; part < 2; part++) {
#pragma unroll
                for (int i = 0; i < HEAD_DIM / 32; i++) {
                    uint4 key = page[(part * (HEAD_DIM / 32) + i) * 32], a = mine[0][i], b = mine[1][i];
                    multiply_tile(weights[part], a.x, b.x, a.y, b.y, key.x, key.y);
                    multiply_tile(weights[part], a.z, b.z, a.w, b.w, key.z, key.w);
                }
            }
            float factor[2];
            bf16 rounded[2][4];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float peak = highest[half];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float& weight = weights[i / 2][half * 2 + i % 2];
                    if (position + i / 2 * 8 + 2 * t + i % 2 >= visible[half]) weight = MINUS_INFINITY;
                    peak = fmaxf(peak, weight);
                }
                peak = fmaxf(peak, __shfl_xor_sync(FULL_WARP, peak, 1));
                peak = fmaxf(peak, __shfl_xor_sync(FULL_WARP, peak, 2));
                factor[half] = shrink(highest[half], peak);
                highest[half] = peak;
                total[half] *= factor[half];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    rounded[half][i] = to_bf16(shrink(weights[i / 2][half * 2 + i % 2], peak));
                    total[half] += to_float(rounded[half][i]);
                }
            }
            u32 a[4] = {
                pack(rounded[0][0], rounded[0][1]), pack(rounded[1][0], rounded[1][1]),
                pack(rounded[0][2], rounded[0][3]), pack(rounded[1][2], rounded[1][3])
            };
            // What lies beyond the last position was never written, or by another sequence: 0 times that need not be 0.
            u32 near_mask = 0, far_mask = 0;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (position + 2 * t + i < known) near_mask |= 0xffffu << (16 * i);
                if (position + 8 + 2 * t + i < known) far_mask |= 0xffffu << (16 * i);
            }
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 16; i++) {
                uint4 value = page[(LANE_KEYS + i) * 32];
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    values[2 * i][c] *= factor[c / 2];
                    values[2 * i + 1][c] *= factor[c / 2];
                }
                multiply_tile(values[2 * i], a[0], a[1], a[2], a[3], value.x & near_mask, value.y & far_mask);
                multiply_tile(values[2 * i + 1], a[0], a[1], a[2], a[3], value.z & near_mask, value.w & far_mask);
            }
        }
    }
    copies_done<0>();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(FULL_WARP, total[half], 1);
        total[half] += __shfl_xor_sync(FULL_WARP, total[half], 2);
        int query = warp * 16 + half * 8 + g;
        if (query >= queries) continue;
        bf16* place = output + (size_t)(first_row + query / GROUP) * QUERY_WIDTH;
        place += (kv_head * GROUP + query % GROUP) * HEAD_DIM + 2 * t;
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 8; i++) {
            const float* v = values[i] + 2 * half;
            *(u32*)(place + i * 8) = pack(to_bf16(v[0] / total[half]), to_bf16(v[1] / total[half]));
        }
    }
}
