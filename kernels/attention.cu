// Attention over pages: up to 8 queries that share a key head read each of its pages once. They are the group's heads
// of one row, or of a few consecutive rows of a sequence, each of which sees positions up to its own.
//
// A block of 4 warps takes a run of pages, its warps by turns, each with a running maximum (Milakov and Gimelshein
// 2018, arXiv:1805.02867). A long context is split among blocks (Dao et al., Flash-Decoding); the last to be done
// combines them. As in product.cu, each lane copies what only it will read, a tile's spare rows keep what rounding
// takes from queries and weights, and pages from before the launch are asked for before the inputs are ready.

static constexpr int ATTENTION_WARPS = 4;
static constexpr int ATTENTION_THREADS = 32 * ATTENTION_WARPS;
static constexpr int QUERIES = 8;
// 16-byte vectors of a page that a lane reads: half keys, half values.
static constexpr int LANE_VECTORS = PAGE_HEAD / 8 / 32;
static constexpr int LANE_KEYS = LANE_VECTORS / 2;
// Pages in flight per warp.
static constexpr int PAGES_AHEAD = HEAD_DIM <= 64 ? 4 : HEAD_DIM <= 128 ? 2 : 1;
// Fewer pages are not worth a block.
static constexpr int LEAST_PAGES = 4;
static constexpr int QUERY_PITCH = HEAD_DIM + 32;
static constexpr float LOG2_E = 1.4426950408889634f;

// What a block knows of its queries: sums of weighted values, [QUERIES, HEAD_DIM], and of weights, relative to
// 2^highest.
struct Partial {
    float values[QUERIES][HEAD_DIM];
    float highest[QUERIES];
    float total[QUERIES];
};

// Runs of consecutive rows of one sequence, of up to QUERIES / GROUP rows each; every row is one where `first` is null.
struct Runs {
    const int* first;
    const int* count;
};

struct AttentionMemory {
    uint4 ring[PAGES_AHEAD * LANE_VECTORS * ATTENTION_THREADS];
    alignas(16) bf16 queries[2 * QUERIES * QUERY_PITCH];
    Partial partials[ATTENTION_WARPS];
    u32 last;
};

static_assert(sizeof(AttentionMemory) == ATTENTION_SHARED, "the host counts otherwise");
static_assert(sizeof(Partial) == PARTIAL_BYTES, "the host counts otherwise");

// Writes a query's result where the product with the output matrix reads it: [rows, QUERY_WIDTH], and if `split` what
// rounding took away after all of them.
__device__ __forceinline__ void store_attended(bf16* output, int rows, bool split, int row, int column, float value) {
    bf16 high, low;
    halve(value, high, low);
    output[(size_t)row * QUERY_WIDTH + column] = high;
    if (split) output[(size_t)(rows + row) * QUERY_WIDTH + column] = low;
}

// 2^x for differences to a maximum: 0 for -inf - anything.
__device__ __forceinline__ float shrink(float from, float to) {
    return from == MINUS_INFINITY ? 0.0f : exp2f(from - to);
}

// Blocks [splits, KV_HEADS, runs]. With `store`, the rows' own keys and values go to the cache first, which needs runs
// of one row. `scratch` is [runs, KV_HEADS, splits] and `counters` [runs, KV_HEADS], zero before and after.
KERNEL(ATTENTION_THREADS) attend(
    const float* qkv, const float* query_norm, const float* key_norm, const float* frequencies, bf16* cache,
    int layer, Rows rows,
    Runs runs, int row_count, int split, int store, Partial* scratch, u32* counters, bf16* output
) {
    LAUNCH_SHARED(shared_memory);
    AttentionMemory& shared = *(AttentionMemory*)shared_memory;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int kv_head = blockIdx.y;

    let_next_start();
    int first_row = runs.first ? runs.first[blockIdx.z] : blockIdx.z;
    int queries = (runs.first ? runs.count[blockIdx.z] : 1) * GROUP;
    int first_position = rows.position(first_row);
    int pages = (first_position + (queries / GROUP - 1)) / PAGE + 1;
    int share = larger(LEAST_PAGES, divide_up(pages, gridDim.x));
    int splits = divide_up(pages, share);
    if (blockIdx.x >= splits) return;
    int begin = blockIdx.x * share + warp, end = smaller(pages, (blockIdx.x + 1) * share);
    const u32* table = rows.table(first_row);
    int old_pages = rows.held[rows.sequence(first_row)] / PAGE;

    uint4* ring = shared.ring + threadIdx.x;
    auto request = [&](int item) {
        int page = begin + item * ATTENTION_WARPS;
        if (page < end) {
            const uint4* source = (const uint4*)page_head(cache, table[page], layer, kv_head) + lane;
#pragma unroll
            for (int i = 0; i < LANE_VECTORS; i++)
                copy_async(ring + (item % PAGES_AHEAD * LANE_VECTORS + i) * ATTENTION_THREADS, source + i * 32);
        }
        copies_end();
    };
    int requested = 0;
    int early = smaller(end, old_pages);
    while (requested < PAGES_AHEAD && begin + requested * ATTENTION_WARPS < early) request(requested++);

    Angles first_angles(frequencies, first_position);
    if (QK_NORM && lane * 32 < HEAD_DIM) {
        prefetch(query_norm + lane * 32);
        prefetch(key_norm + lane * 32);
    }

    inputs_ready();
    for (int query = warp; query < queries; query += ATTENTION_WARPS) {
        int row = first_row + query / GROUP;
        Angles angles = row == first_row ? first_angles : Angles(frequencies, rows.position(row));
        const float* head = qkv + (size_t)row * QKV_WIDTH + (kv_head * GROUP + query % GROUP) * HEAD_DIM;
        rotate_head(head, query_norm, angles, [&](int element, float value) {
            bf16 high, low;
            halve(value * (LOG2_E / sqrtf((float)HEAD_DIM)), high, low);
            shared.queries[query * QUERY_PITCH + element] = high;
            shared.queries[(QUERIES + query) * QUERY_PITCH + element] = low;
        });
    }
    if (store && blockIdx.x == splits - 1 && warp == ATTENTION_WARPS - 1) {
        bf16* page = page_head(cache, table[first_position / PAGE], layer, kv_head);
        store_head(qkv + (size_t)first_row * QKV_WIDTH, key_norm, first_angles, page, first_position, kv_head);
    }
    __syncthreads();
    while (requested < PAGES_AHEAD) request(requested++);

    uint4 high[HEAD_DIM / 32], low[HEAD_DIM / 32];
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 32; i++) {
        bool there = g < queries;
        const bf16* query = shared.queries + g * QUERY_PITCH + i * 32 + t * 8;
        high[i] = there ? *(const uint4*)query : make_uint4(0, 0, 0, 0);
        low[i] = there ? *(const uint4*)(query + QUERIES * QUERY_PITCH) : make_uint4(0, 0, 0, 0);
    }
    // This lane's query sees positions below this.
    int visible = first_position + smaller(g, queries - 1) / GROUP + 1;
    int known = first_position + queries / GROUP;

    float values[HEAD_DIM / 8][4] = {}, highest = MINUS_INFINITY, total = 0.0f;
    for (int item = 0; begin + item * ATTENTION_WARPS < end; item++) {
        copies_done<PAGES_AHEAD - 1>();
        const uint4* page = ring + item % PAGES_AHEAD * LANE_VECTORS * ATTENTION_THREADS;
        int position = (begin + item * ATTENTION_WARPS) * PAGE;

        float scores[2][4] = {};
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int i = 0; i < HEAD_DIM / 32; i++) {
                uint4 key = page[(half * (HEAD_DIM / 32) + i) * ATTENTION_THREADS];
                multiply_tile(scores[half], high[i].x, low[i].x, high[i].y, low[i].y, key.x, key.y);
                multiply_tile(scores[half], high[i].z, low[i].z, high[i].w, low[i].w, key.z, key.w);
            }
        }
        float weights[4], peak = highest;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = position + i / 2 * 8 + 2 * t + i % 2;
            weights[i] = at < visible ? scores[i / 2][i % 2] + scores[i / 2][2 + i % 2] : MINUS_INFINITY;
            peak = fmaxf(peak, weights[i]);
        }
        peak = fmaxf(peak, __shfl_xor_sync(FULL_WARP, peak, 1));
        peak = fmaxf(peak, __shfl_xor_sync(FULL_WARP, peak, 2));
        float factor = shrink(highest, peak);
        highest = peak;
        total *= factor;
        bf16 rounded[4], rest[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            weights[i] = shrink(weights[i], peak);
            total += weights[i];
            halve(weights[i], rounded[i], rest[i]);
        }
        u32 a[4] = {
            pack(rounded[0], rounded[1]), pack(rest[0], rest[1]), pack(rounded[2], rounded[3]), pack(rest[2], rest[3])
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
            uint4 value = page[(LANE_KEYS + i) * ATTENTION_THREADS];
#pragma unroll
            for (int c = 0; c < 4; c++) {
                values[2 * i][c] *= factor;
                values[2 * i + 1][c] *= factor;
            }
            multiply_tile(values[2 * i], a[0], a[1], a[2], a[3], value.x & near_mask, value.y & far_mask);
            multiply_tile(values[2 * i + 1], a[0], a[1], a[2], a[3], value.z & near_mask, value.w & far_mask);
        }
        request(item + PAGES_AHEAD);
    }
    copies_done<0>();
    total += __shfl_xor_sync(FULL_WARP, total, 1);
    total += __shfl_xor_sync(FULL_WARP, total, 2);
    Partial& mine = shared.partials[warp];
    if (g < queries) {
#pragma unroll
        for (int i = 0; i < HEAD_DIM / 8; i++) {
            mine.values[g][i * 8 + 2 * t] = values[i][0] + values[i][2];
            mine.values[g][i * 8 + 2 * t + 1] = values[i][1] + values[i][3];
        }
        if (t == 0) {
            mine.highest[g] = highest;
            mine.total[g] = total;
        }
    }
    __syncthreads();

    // Combines `count` partials for one element: the sum of values, and of weights, relative to the highest of all.
    auto combine = [&](const Partial* partials, int count, int query, int element, float& highest, float& total) {
        highest = MINUS_INFINITY;
        for (int i = 0; i < count; i++) highest = fmaxf(highest, partials[i].highest[query]);
        float value = 0.0f;
        total = 0.0f;
        for (int i = 0; i < count; i++) {
            float factor = shrink(partials[i].highest[query], highest);
            total += partials[i].total[query] * factor;
            value += partials[i].values[query][element] * factor;
        }
        return value;
    };
    auto finish = [&](const Partial* partials, int count) {
        for (int index = threadIdx.x; index < queries * HEAD_DIM; index += ATTENTION_THREADS) {
            int query = index / HEAD_DIM, element = index % HEAD_DIM;
            float highest, total, value = combine(partials, count, query, element, highest, total);
            int column = (kv_head * GROUP + query % GROUP) * HEAD_DIM + element;
            store_attended(output, row_count, split, first_row + query / GROUP, column, value / total);
        }
    };
    if (splits == 1) return finish(shared.partials, ATTENTION_WARPS);

    int group = blockIdx.z * KV_HEADS + kv_head;
    Partial* parts = scratch + (size_t)group * gridDim.x;
    for (int index = threadIdx.x; index < queries * HEAD_DIM; index += ATTENTION_THREADS) {
        int query = index / HEAD_DIM, element = index % HEAD_DIM;
        float highest, total, value = combine(shared.partials, ATTENTION_WARPS, query, element, highest, total);
        parts[blockIdx.x].values[query][element] = value;
        if (element == 0) {
            parts[blockIdx.x].highest[query] = highest;
            parts[blockIdx.x].total[query] = total;
        }
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        shared.last = atomicAdd(&counters[group], 1) == splits - 1;
        if (shared.last) counters[group] = 0;
    }
    __syncthreads();
    if (!shared.last) return;
    __threadfence();
    finish(parts, splits);
}
