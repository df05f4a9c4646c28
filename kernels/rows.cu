// Where rows come from.

static constexpr int ROW_THREADS = 256;

__device__ __forceinline__ void embed_row(const bf16* embedding, u32 token, float* x) {
    const uint4* source = (const uint4*)(embedding + (size_t)token * HIDDEN);
    for (int index = threadIdx.x; index < HIDDEN / 8; index += ROW_THREADS) {
        uint4 v = source[index];
        float4* place = (float4*)x + 2 * index;
        place[0] = make_float4(
            from_bits(v.x << 16), from_bits(v.x & 0xffff0000u), from_bits(v.y << 16), from_bits(v.y & 0xffff0000u)
        );
        place[1] = make_float4(
            from_bits(v.z << 16), from_bits(v.z & 0xffff0000u), from_bits(v.w << 16), from_bits(v.w & 0xffff0000u)
        );
    }
}

// x [rows, HIDDEN] = the tokens' rows of the embedding. A block for each.
KERNEL(ROW_THREADS) embed(const bf16* embedding, const u32* tokens, float* x) {
    let_next_start();
    inputs_ready();
    embed_row(embedding, tokens[blockIdx.x], x + (size_t)blockIdx.x * HIDDEN);
}
