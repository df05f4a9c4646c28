// What C++ has no words for: PTX for sm_80 and later. The only file that tests on the host replace, and the only one
// that looks at the architecture. No kernel includes a header, since machines that serve have NVRTC and no toolkit.

typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define FULL_WARP 0xffffffffu
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// Shared memory of the size that the launch says.
#define LAUNCH_SHARED(name) extern __shared__ uint4 name[]

// d += a · b for one 16x8 tile, 16 deep. Lane 4g + t holds rows g and g + 8 of a (k slots 2t, 2t+1 in a[0] and a[1],
// 2t+8, 2t+9 in a[2] and a[3]), column g of b (the same slots), and of d columns 2t, 2t+1 of row g in d[0], d[1], of g
// + 8 after.
__device__ __forceinline__ void multiply_tile(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Starts to copy 16 bytes to shared memory past L1; nothing may look at them before copies_done().
__device__ __forceinline__ void copy_async(uint4* shared, const void* global) {
    u32 address = (u32)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

// Ends a group of copies, which may be empty.
__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's youngest groups are under way; the thread sees its own copies then.
template <int PENDING> __device__ __forceinline__ void copies_done() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Brings a line of 128 bytes to L2.
__device__ __forceinline__ void prefetch(const void* global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

// Lets the next kernel of the stream start: what it does before inputs_ready() overlaps this one.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits for all kernels before this one. Before it, only what no kernel of the launch writes may be read, and nothing
// written.
__device__ __forceinline__ void inputs_ready() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
