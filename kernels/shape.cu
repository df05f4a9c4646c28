// The model's shape, which the host defines, and what follows from it; conversions.
//
// HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCABULARY, LAYERS, EPSILON; QKV_BIAS and QK_NORM (0 or 1).

static constexpr int QUERY_WIDTH = HEADS * HEAD_DIM;
static constexpr int KV_WIDTH = KV_HEADS * HEAD_DIM;
static constexpr int QKV_WIDTH = QUERY_WIDTH + 2 * KV_WIDTH;
// Query heads that share a key head.
static constexpr int GROUP = HEADS / KV_HEADS;
// Positions in a page of the KV cache.
static constexpr int PAGE = 16;
// Elements of one key head's page in one layer: keys, then values.
static constexpr int PAGE_HEAD = 2 * PAGE * HEAD_DIM;

static_assert(HIDDEN % 32 == 0 && INTERMEDIATE % 32 == 0, "rows are read 32 columns at a time");
static_assert(HEAD_DIM % 32 == 0 && HEAD_DIM <= 256, "a head is read 32 columns at a time");
static_assert(HEADS % KV_HEADS == 0 && GROUP <= 8, "a group's heads share one tile");

__device__ __forceinline__ float from_bits(u32 bits) { return __uint_as_float(bits); }

#define MINUS_INFINITY from_bits(0xff800000u)

__device__ __forceinline__ float to_float(bf16 value) { return from_bits((u32)value << 16); }

// To nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ bf16 to_bf16(float value) {
    u32 bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bf16)((bits >> 16) | 0x40u);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// A value as the sum of two bf16, which keeps 16 bits of it. A value beyond bf16's range has no rest.
__device__ __forceinline__ void halve(float value, bf16& high, bf16& low) {
    high = to_bf16(value);
    float rest = value - to_float(high);
    low = (__float_as_uint(rest) & 0x7f800000u) == 0x7f800000u ? (bf16)0 : to_bf16(rest);
}

__device__ __forceinline__ u32 pack(bf16 first, bf16 second) { return (u32)first | ((u32)second << 16); }

__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(FULL_WARP, value, distance);
    return value;
}

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }

__device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }

__device__ __forceinline__ int divide_up(int a, int b) { return (a + b - 1) / b; }
