// From logits to a drafted token and the distribution that it was drawn from, without the host: the most likely 32 ids,
// a draw from them, and the token's embedding as the next step's input.
//
// Candidates are 64-bit keys, of which the larger is the better: the logit's bits in an order of integers, then the id
// counted down, so that among equal logits the lowest id wins. 0 is no candidate. A warp holds 32 of them, a lane each,
// sorted.

static constexpr int SAMPLE_WARPS = ROW_THREADS / 32;
// Keys that a warp sorts at once.
static constexpr int LISTS = 4;
// Logits of a block.
static constexpr int SLICE = ROW_THREADS * LISTS;
static constexpr int SLICES = (VOCABULARY + SLICE - 1) / SLICE;

// How to draw a row, uploaded with each launch.
struct Sampling {
    double temperature;
    // 1 to 32.
    int top_m;
    // Ids below this may be drawn.
    int usable;
};

// A drafted token, as the host reads it.
struct Drawn {
    // What it was drawn from: probabilities above 0 in descending order; a point mass has none.
    double q[32];
    u32 ids[32];
    u32 token;
    int count;
    float confidence;
    // No id had a finite logit.
    int fault;
};

static_assert(sizeof(Drawn) == 400 && sizeof(Sampling) == 16, "the host reads otherwise");

__device__ __forceinline__ u64 candidate(float logit, int id) {
    // Also turns -0 into 0, which is as good.
    u32 bits = __float_as_uint(logit + 0.0f);
    if ((bits & 0x7f800000u) == 0x7f800000u) return 0;
    u32 order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)order << 32 | (u32)~id;
}

__device__ __forceinline__ u32 candidate_id(u64 key) { return ~(u32)key; }

__device__ __forceinline__ float candidate_logit(u64 key) {
    u32 order = (u32)(key >> 32);
    return from_bits(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

// Keeps the better of a lane's key and that of the lane `distance` away, or the worse.
__device__ __forceinline__ u64 exchange(u64 key, int distance, bool better) {
    u64 other = __shfl_xor_sync(FULL_WARP, key, distance);
    return (key > other) == better ? key : other;
}

// Batcher's bitonic sort, best first, of several lists of 32 at once.
template <int COUNT> __device__ __forceinline__ void sort(u64 (&keys)[COUNT]) {
    int lane = threadIdx.x % 32;
    for (int size = 2; size <= 32; size *= 2) {
        for (int distance = size / 2; distance > 0; distance /= 2) {
            bool better = ((lane & distance) == 0) == ((lane & size) == 0);
#pragma unroll
            for (int i = 0; i < COUNT; i++) keys[i] = exchange(keys[i], distance, better);
        }
    }
}

// The best 32 of two sorted lists, sorted.
__device__ __forceinline__ u64 merge(u64 a, u64 b) {
    int lane = threadIdx.x % 32;
    b = __shfl_sync(FULL_WARP, b, 31 - lane);
    u64 key = a > b ? a : b;
    for (int distance = 16; distance > 0; distance /= 2) key = exchange(key, distance, (lane & distance) == 0);
    return key;
}

// The best of all warps' lists, in warp 0.
__device__ __forceinline__ u64 merge_warps(u64 key, u64 (&lists)[SAMPLE_WARPS][32]) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    lists[warp][lane] = key;
    __syncthreads();
    for (int distance = SAMPLE_WARPS / 2; distance > 0; distance /= 2) {
        if (warp < distance) {
            key = merge(key, lists[warp + distance][lane]);
            lists[warp][lane] = key;
        }
        __syncthreads();
    }
    return key;
}

// Draws from the sorted candidates, by warp 0. `weights` and the sums are in double precision and added in order: what
// is reported is what is drawn from, bit by bit.
__device__ __forceinline__ void draw(u64 key, Sampling sampling, double uniform, double (&weights)[32], Drawn& drawn) {
    int lane = threadIdx.x;
    u64 best_key = __shfl_sync(FULL_WARP, key, 0);
    float logit = candidate_logit(key), best = candidate_logit(best_key);
    float among = warp_sum(key ? expf(logit - best) : 0.0f);
    // False for NaN, too.
    bool samples = sampling.temperature > 0.0;
    bool listed = samples && key && lane < sampling.top_m;
    weights[lane] = listed ? exp(((double)logit - (double)best) / sampling.temperature) : 0.0;
    __syncwarp();
    double total = 0.0;
    for (int i = 0; i < 32; i++) total += weights[i];
    double q = weights[lane] / total;
    __syncwarp();
    weights[lane] = q;
    __syncwarp();
    int count = 0, winner = 0;
    for (double cumulative = 0.0; count < 32 && weights[count] > 0.0; count++) {
        if (count == 0 || uniform >= cumulative) winner = count;
        cumulative += weights[count];
    }
    drawn.q[lane] = listed ? q : 0.0;
    drawn.ids[lane] = listed ? candidate_id(key) : 0;
    u32 token = __shfl_sync(FULL_WARP, candidate_id(key), winner);
    if (lane != 0) return;
    drawn.token = best_key ? token : 0;
    drawn.count = count;
    drawn.confidence = 1.0f / among;
    drawn.fault = !best_key;
}

// Draws the next token of each row, [SLICES, rows] blocks; the last block of a row to be done draws, and embeds the
// token. `found` is [rows, SLICES, 32], `counters` [rows], zero before and after; `drawn` and `uniforms` are this
// step's.
KERNEL(ROW_THREADS) sample(
    const float* logits, const Sampling* samplings, const double* uniforms, const bf16* embedding, u64* found,
    u32* counters,
    Drawn* drawn, float* x
) {
    __shared__ u64 lists[SAMPLE_WARPS][32];
    __shared__ double weights[32];
    __shared__ bool last;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.y;
    let_next_start();
    Sampling sampling = samplings[row];
    inputs_ready();

    u64 keys[LISTS];
    int usable = smaller(sampling.usable, VOCABULARY);
#pragma unroll
    for (int i = 0; i < LISTS; i++) {
        int id = blockIdx.x * SLICE + i * ROW_THREADS + threadIdx.x;
        keys[i] = id < usable ? candidate(logits[(size_t)row * VOCABULARY + id], id) : 0;
    }
    sort(keys);
    u64 key = merge(merge(keys[0], keys[1]), merge(keys[2], keys[3]));
    key = merge_warps(key, lists);
    u64* mine = found + (size_t)row * SLICES * 32;
    if (warp == 0) {
        mine[blockIdx.x * 32 + lane] = key;
        __threadfence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(&counters[row], 1) == SLICES - 1;
        if (last) counters[row] = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();

    key = 0;
    for (int slice = warp; slice < SLICES; slice += SAMPLE_WARPS) {
        u64 other = mine[slice * 32 + lane];
        // A list whose best is no better than our worst has nothing.
        if (__shfl_sync(FULL_WARP, other, 0) > __shfl_sync(FULL_WARP, key, 31)) key = merge(key, other);
    }
    key = merge_warps(key, lists);
    if (warp == 0) draw(key, sampling, uniforms[row], weights, drawn[row]);
    __syncthreads();
    embed_row(embedding, drawn[row].token, x + (size_t)row * HIDDEN);
}
