// Takes the place of kernels/intrinsics.cu where there is no GPU: one block at a time, each thread a fiber.
//
// It is stricter than a device. Asynchronous copies arrive when they are waited for and no sooner, and read then or, in
// reverse order, when they are asked for; shared memory begins as NaN, what earlier kernels of a chain wrote is NaN
// until inputs_ready(), a collective that some lanes miss or that they enter from different places is an error, and
// fibers run in a given order, which a missing barrier shows.

#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>
#include <ucontext.h>

typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define FULL_WARP 0xffffffffu
#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define KERNEL(threads) static void
#define LAUNCH_SHARED(name) uint4* name = emulator::block.shared

struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { u32 x, y, z; };
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float __uint_as_float(u32 bits) { float value; memcpy(&value, &bits, 4); return value; }
static inline u32 __float_as_uint(float value) { u32 bits; memcpy(&bits, &value, 4); return bits; }

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

struct Copy { uint4* shared; const void* global; uint4 early; };

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    bool started, done;
    std::unique_ptr<char[]> stack;
    std::vector<std::vector<Copy>> copies;
};

struct Warp {
    alignas(16) unsigned char slots[2][32][64];
    int operation, arrived;
    u32 turn;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    uint4* shared;
    u32 waiting, turn, current;
    bool progress;
    std::function<void()> body;
    std::string fault;
    jmp_buf scheduler;
};

static Block block;

// Whether asynchronous copies read when they are asked for, rather than when they are waited for: a device may do
// either.
static bool copies_read_early;

// Memory that an earlier kernel of the chain wrote, and what it wrote.
struct Pending { unsigned char* place; std::vector<unsigned char> written; };
static std::vector<Pending> pending;
static bool ready;

[[noreturn]] static void leave() { _longjmp(block.scheduler, 1); }

static void yield() {
    Fiber& fiber = block.fibers[block.current];
    if (_setjmp(fiber.place) == 0) leave();
}

[[noreturn]] static void fail(const std::string& what) {
    if (block.fault.empty()) block.fault = what + " (thread " + std::to_string(block.current) + ")";
    leave();
}

static void enter() {
    block.body();
    block.fibers[block.current].done = true;
    block.progress = true;
    leave();
}

static const unsigned char (*exchange(int operation, const void* data, size_t bytes))[64] {
    Warp& warp = block.warps[threadIdx.x / 32];
    u32 turn = warp.turn;
    if (warp.arrived == 0) warp.operation = operation;
    if (warp.operation != operation) fail("lanes of a warp met in different collectives");
    memcpy(warp.slots[turn % 2][threadIdx.x % 32], data, bytes);
    block.progress = true;
    if (++warp.arrived == 32) {
        warp.arrived = 0;
        warp.turn++;
    } else {
        while (warp.turn == turn) yield();
    }
    return warp.slots[turn % 2];
}

// The threads of one block, in order or in reverse; false with a fault.
static bool run_block(u32 threads, bool reverse) {
    block.waiting = block.turn = 0;
    for (Warp& warp : block.warps) warp.arrived = warp.turn = 0;
    for (Fiber& fiber : block.fibers) {
        fiber.started = fiber.done = false;
        fiber.copies.assign(1, {});
    }
    for (u32 alive = threads; alive > 0;) {
        block.progress = false;
        alive = 0;
        for (u32 i = 0; i < threads; i++) {
            u32 index = reverse ? threads - 1 - i : i;
            Fiber& fiber = block.fibers[index];
            if (fiber.done) continue;
            alive++;
            block.current = index;
            threadIdx = {index, 0, 0};
            if (_setjmp(block.scheduler) == 0) {
                if (fiber.started) _longjmp(fiber.place, 1);
                fiber.started = true;
                setcontext(&fiber.context);
            }
            if (!block.fault.empty()) return false;
        }
        if (alive > 0 && !block.progress) {
            block.fault = "threads wait for others that never come";
            return false;
        }
    }
    return true;
}

static void show(bool written) {
    for (Pending& part : pending) {
        if (written) memcpy(part.place, part.written.data(), part.written.size());
        else memset(part.place, 0xff, part.written.size());
    }
    ready = written;
}

static void set_up(u32 threads) {
    block.fibers.resize(threads);
    block.warps.resize(threads / 32);
    static const size_t STACK = 128 << 10;
    for (Fiber& fiber : block.fibers) {
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
}

struct Launch {
    u32 grid[3], threads, shared_bytes, reverse;
    void** arguments;
    char* error;
    size_t error_size;
};

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_reference_t<A>*)arguments[I]...);
}

template <class... A> static int launch(const Launch& launch, void (*kernel)(A...)) {
    set_up(launch.threads);
    std::vector<uint4> shared(launch.shared_bytes / 16 + 1);
    block.shared = shared.data();
    block.fault.clear();
    block.body = [&] { call(kernel, launch.arguments, std::index_sequence_for<A...>()); };
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.threads, 1, 1};
    copies_read_early = launch.reverse;
    u32 blocks = gridDim.x * gridDim.y * gridDim.z;
    bool fine = true;
    for (u32 i = 0; fine && i < blocks; i++) {
        u32 index = launch.reverse ? blocks - 1 - i : i;
        blockIdx = {index % gridDim.x, index / gridDim.x % gridDim.y, index / gridDim.x / gridDim.y};
        memset(shared.data(), 0xff, shared.size() * 16);
        // What a finished block wrote to pending memory is part of it.
        if (ready) for (Pending& part : pending) memcpy(part.written.data(), part.place, part.written.size());
        show(false);
        fine = run_block(launch.threads, launch.reverse);
        if (!ready) show(true);
    }
    if (!fine) snprintf(launch.error, launch.error_size, "%s", block.fault.c_str());
    return fine ? 0 : 1;
}

enum { SHUFFLE = 1, TILE, MEET };

} // namespace emulator

template <class T> static T __shfl_sync(u32, T value, int lane) {
    auto slots = emulator::exchange(emulator::SHUFFLE, &value, sizeof value);
    memcpy(&value, slots[lane % 32], sizeof value);
    return value;
}

template <class T> static T __shfl_xor_sync(u32 mask, T value, int distance) {
    return __shfl_sync(mask, value, (threadIdx.x % 32) ^ distance);
}

static void __syncwarp() { emulator::exchange(emulator::MEET, "", 1); }

static void __syncthreads() {
    emulator::Block& block = emulator::block;
    u32 turn = block.turn;
    block.progress = true;
    if (++block.waiting == blockDim.x) {
        block.waiting = 0;
        block.turn++;
    } else {
        while (block.turn == turn) emulator::yield();
    }
}

static void __threadfence() {}

static u32 atomicAdd(u32* place, u32 value) {
    u32 before = *place;
    *place += value;
    return before;
}

static inline float widen(u32 half) { return __uint_as_float(half << 16); }

// As the instruction lays its operands out: see intrinsics.cu.
static void multiply_tile(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    u32 mine[6] = {a0, a1, a2, a3, b0, b1};
    auto slots = emulator::exchange(emulator::TILE, mine, sizeof mine);
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; i++) {
        int row = g + i / 2 * 8, column = 2 * t + i % 2;
        for (int k = 0; k < 16; k++) {
            const u32* left = (const u32*)slots[row % 8 * 4 + k % 8 / 2];
            const u32* right = (const u32*)slots[column * 4 + k % 8 / 2];
            u32 a = left[row / 8 + k / 8 * 2], b = right[4 + k / 8];
            int shift = k % 2 * 16;
            d[i] += widen(a >> shift & 0xffff) * widen(b >> shift & 0xffff);
        }
    }
}

static void copy_async(uint4* shared, const void* global) {
    if ((uintptr_t)global % 16) emulator::fail("an asynchronous copy from an address that is no multiple of 16");
    emulator::block.fibers[emulator::block.current].copies.back().push_back({shared, global, *(const uint4*)global});
}

static void copies_end() { emulator::block.fibers[emulator::block.current].copies.emplace_back(); }

template <int PENDING> static void copies_done() {
    auto& copies = emulator::block.fibers[emulator::block.current].copies;
    while (copies.size() > PENDING + 1) {
        for (auto& copy : copies.front())
            *copy.shared = emulator::copies_read_early ? copy.early : *(const uint4*)copy.global;
        copies.erase(copies.begin());
    }
}

static void prefetch(const void*) {}
static void let_next_start() {}

static void inputs_ready() {
    if (!emulator::ready) emulator::show(true);
}

// From the host: memory that the next kernel may not look at before inputs_ready(); none ends it.
extern "C" void emulator_pending(unsigned char* place, size_t bytes) {
    if (!place) emulator::pending.clear();
    else emulator::pending.push_back({place, std::vector<unsigned char>(place, place + bytes)});
    emulator::ready = true;
}

#define EXPORT(name) \
    extern "C" int emulate_##name(const emulator::Launch* launch) { return emulator::launch(*launch, name); }
