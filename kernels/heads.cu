// What happens to a head between the product that makes it and attention: RMS norm of queries and keys where the model
// has it (Qwen3), rotation (Su et al. 2021, arXiv:2104.09864; element i with i + HEAD_DIM / 2), and its place in the
// cache.

// Pairs of a head that a lane rotates: lane, lane + 32, ….
static constexpr int PAIRS = (HEAD_DIM / 2 + 31) / 32;

// Cosines and sines of a lane's pairs at a position.
struct Angles {
    float cosine[PAIRS], sine[PAIRS];

    __device__ Angles(const float* frequencies, int position) {
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            int pair = threadIdx.x % 32 + 32 * i;
            sincosf(pair < HEAD_DIM / 2 ? (float)position * frequencies[pair] : 0.0f, &sine[i], &cosine[i]);
        }
    }
};

// Norms and rotates one head, by one warp; put(element, value) takes it. `norm` is read if QK_NORM.
template <class Put>
__device__ __forceinline__ void
rotate_head(const float* head, const float* norm, const Angles& angles, const Put& put) {
    float first[PAIRS], second[PAIRS], squares = 0.0f;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int pair = threadIdx.x % 32 + 32 * i;
        bool there = pair < HEAD_DIM / 2;
        first[i] = there ? head[pair] : 0.0f;
        second[i] = there ? head[pair + HEAD_DIM / 2] : 0.0f;
        squares += first[i] * first[i] + second[i] * second[i];
    }
    float scale = QK_NORM ? 1.0f / sqrtf(warp_sum(squares) / HEAD_DIM + EPSILON) : 1.0f;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int pair = threadIdx.x % 32 + 32 * i;
        if (pair >= HEAD_DIM / 2) break;
        float x = first[i] * scale * (QK_NORM ? norm[pair] : 1.0f);
        float y = second[i] * scale * (QK_NORM ? norm[pair + HEAD_DIM / 2] : 1.0f);
        put(pair, x * angles.cosine[i] - y * angles.sine[i]);
        put(pair + HEAD_DIM / 2, y * angles.cosine[i] + x * angles.sine[i]);
    }
}

// Elements lie in a page in the order in which attention's lanes take them, 8 at a time, so that a warp reads 512 bytes
// in a row. A lane 4g + t of a tile product wants of keys 8 columns of position g or g + 8, of values the column g of
// two neighbouring tiles at positions 2t, 2t + 1, 2t + 8, 2t + 9.
__device__ __forceinline__ int key_place(int position, int element) {
    int vector = (position / 8 * (HEAD_DIM / 32) + element / 32) * 32 + position % 8 * 4 + element % 32 / 8;
    return vector * 8 + element % 8;
}

__device__ __forceinline__ int value_place(int position, int element) {
    int vector = element / 16 * 32 + element % 8 * 4 + position % 8 / 2;
    return PAGE * HEAD_DIM + vector * 8 + element / 8 % 2 * 4 + position % 2 + position / 8 * 2;
}

// The page of one key head in one layer; `cache` is [pages, LAYERS, KV_HEADS, PAGE_HEAD].
template <class T> __device__ __forceinline__ T* page_head(T* cache, u32 page, int layer, int kv_head) {
    return cache + (((size_t)page * LAYERS + layer) * KV_HEADS + kv_head) * PAGE_HEAD;
}

// One row's key and value of a head to the cache, by one warp.
__device__ __forceinline__ void store_head(
    const float* row, const float* key_norm, const Angles& angles, bf16* page, int position, int kv_head
) {
    const float* key = row + QUERY_WIDTH + kv_head * HEAD_DIM;
    const float* value = key + KV_WIDTH;
    int within = position % PAGE;
    rotate_head(key, key_norm, angles, [&](int element, float x) { page[key_place(within, element)] = to_bf16(x); });
    for (int element = threadIdx.x % 32; element < HEAD_DIM; element += 32)
        page[value_place(within, element)] = to_bf16(value[element]);
}

// Rows of a pass: which table of pages each has, and its position: positions[row] + step.
struct Rows {
    // The sequences' pages, one for each PAGE positions, and where those of each begin, [sequences].
    const u32* tables;
    const int* table_starts;
    // Positions of each sequence that were in the cache before this launch, [sequences].
    const int* held;
    // [rows]; the row's own number if null.
    const int* sequences;
    const int* positions;
    int step;

    __device__ int sequence(int row) const { return sequences ? sequences[row] : row; }
    __device__ int position(int row) const { return positions[row] + step; }
    __device__ const u32* table(int row) const { return tables + table_starts[sequence(row)]; }
};

// Keys and values of many rows to the cache, a block of one warp for each row and head, [rows, KV_HEADS] blocks.
KERNEL(32)
store_heads(const float* qkv, const float* key_norm, const float* frequencies, bf16* cache, int layer, Rows rows) {
    let_next_start();
    int row = blockIdx.x, kv_head = blockIdx.y, position = rows.position(row);
    Angles angles(frequencies, position);
    bf16* page = page_head(cache, rows.table(row)[position / PAGE], layer, kv_head);
    inputs_ready();
    store_head(qkv + (size_t)row * QKV_WIDTH, key_norm, angles, page, position, kv_head);
}
