// A CUDA driver that computes nothing: it keeps memory, notes what it is asked for, and refuses what a real one refuses
// while a stream is recorded. For tests of what the host side asks for, and when.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <sstream>
#include <string>

typedef unsigned int u32;
enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_PERMITTED = 800, CAPTURE_UNSUPPORTED = 900 };

static std::ostringstream noted;
static std::string recorded_kernels;
static int recorded, chained;
static bool recording, released;
static std::set<void*> memory;

struct Graph { int kernels, chained; };
struct Config { u32 grid[3], block[3], shared; void* stream; const u32* attributes; u32 attribute_count; };

static void note(const std::string& what) { noted << what << '\n'; }
static int outside_recording(const char* what) {
    note(what);
    return recording || released ? CAPTURE_UNSUPPORTED : SUCCESS;
}

// From libraries that take part.
extern "C" void fake_note(const char* what) { note(what); }

// What was noted since the last time: returns its length, and clears it.
extern "C" size_t fake_noted(char* text, size_t size) {
    std::string all = noted.str();
    noted.str("");
    size_t length = all.size() < size ? all.size() : size;
    memcpy(text, all.data(), length);
    return length;
}

// What it pretends: bytes that are free, those of them that others have taken once something was allocated, the compute
// capability, and whether graphs fail.
static size_t free_bytes = (size_t)1 << 28, taken_later, major_version = 9, failing;
extern "C" void fake_free(size_t bytes) { free_bytes = bytes; }
extern "C" void fake_taken(size_t bytes) { taken_later = bytes; }
extern "C" void fake_major(size_t major) { major_version = major; }
extern "C" void fake_fail(size_t fail) { failing = fail; }

extern "C" int cuGetErrorName(int, const char** text) { *text = "FAKE"; return SUCCESS; }
extern "C" int cuGetErrorString(int, const char** text) { *text = "as asked"; return SUCCESS; }
extern "C" int cuInit(u32) { return SUCCESS; }
extern "C" int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal == 0 ? SUCCESS : 101; }
extern "C" int cuDeviceGetName(char* name, int size, int) {
    strncpy(name, "a driver that computes nothing", size);
    return SUCCESS;
}
extern "C" int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 16 ? 132 : attribute == 75 ? (int)major_version : attribute == 76 ? 0 : attribute == 97 ? 227 << 10 : -1;
    return SUCCESS;
}
extern "C" int cuDevicePrimaryCtxRetain(void** context, int) { *context = &noted; released = false; return SUCCESS; }
extern "C" int cuDevicePrimaryCtxRelease_v2(int) {
    note(memory.empty() ? "release" : "release with memory left");
    released = true;
    return SUCCESS;
}
extern "C" int cuCtxSetCurrent(void* context) { return context == &noted ? SUCCESS : INVALID_VALUE; }
extern "C" int cuStreamCreate(void** stream, u32) { *stream = &recorded; return SUCCESS; }
extern "C" int cuStreamDestroy_v2(void*) { return outside_recording("destroy stream"); }
extern "C" int cuStreamSynchronize(void*) { return outside_recording("synchronize"); }
extern "C" int cuEventCreate(void** event, u32) { *event = &chained; return SUCCESS; }
extern "C" int cuEventDestroy_v2(void*) { return outside_recording("destroy event"); }
extern "C" int cuEventRecord(void*, void*) { return recording ? CAPTURE_UNSUPPORTED : SUCCESS; }
extern "C" int cuEventSynchronize(void*) { return recording ? CAPTURE_UNSUPPORTED : SUCCESS; }
extern "C" int cuEventElapsedTime_v2(float* milliseconds, void*, void*) { *milliseconds = 1.0f; return SUCCESS; }

static int keep(void** place, size_t bytes) {
    *place = calloc(bytes, 1);
    memory.insert(*place);
    return *place ? SUCCESS : 2;
}
static int forget(void* place) {
    if (!memory.erase(place)) return INVALID_VALUE;
    free(place);
    return SUCCESS;
}
extern "C" int cuMemHostAlloc(void** place, size_t bytes, u32) {
    outside_recording("allocate");
    return keep(place, bytes);
}
extern "C" int cuMemFreeHost(void* place) { return forget(place); }
extern "C" int cuMemAlloc_v2(void** place, size_t bytes) {
    int status = outside_recording("allocate");
    return status ? status : keep(place, bytes);
}
extern "C" int cuMemFree_v2(void* place) { return forget(place); }
extern "C" int cuMemsetD8Async(void* place, unsigned char value, size_t bytes, void*) {
    memset(place, value, bytes);
    return SUCCESS;
}
extern "C" int cuMemGetInfo_v2(size_t* free, size_t* total) {
    *total = free_bytes;
    // More than the host's staging memory was allocated.
    *free = free_bytes - (memory.size() > 1 ? taken_later : 0);
    return SUCCESS;
}
extern "C" int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
    memcpy(to, from, bytes);
    return outside_recording("upload");
}
extern "C" int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void*) {
    memcpy(to, from, bytes);
    return outside_recording("download");
}
extern "C" int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
    memmove(to, from, bytes);
    return outside_recording("copy");
}

extern "C" int cuModuleLoadData(void** module, const void* image) {
    *module = (void*)image;
    // A binary, as NVRTC makes it.
    if (memcmp(image, "\177ELF", 4)) return 200;
    return outside_recording("load module");
}
extern "C" int cuModuleUnload(void*) { return SUCCESS; }
extern "C" int cuModuleGetFunction(void** function, void*, const char* name) {
    *function = strdup(name);
    return outside_recording("get function");
}
extern "C" int cuFuncSetAttribute(void*, int attribute, int value) {
    return (attribute == 8 && value <= 227 << 10) || (attribute == 9 && value == 100) ? SUCCESS : INVALID_VALUE;
}
extern "C" int cuLaunchKernelEx(const Config* config, void* function, void** arguments, void**) {
    size_t blocks = (size_t)config->grid[0] * config->grid[1] * config->grid[2];
    if (!blocks || config->block[0] % 32 || config->block[0] > 1024 || config->shared > 227 << 10
        || !arguments[0])
        return INVALID_VALUE;
    bool early = config->attribute_count == 1 && config->attributes[0] == 6 && config->attributes[2] == 1;
    if (recording) recorded++, chained += early;
    else note(std::string(early ? "chained launch of " : "launch of ") + (const char*)function);
    return SUCCESS;
}

extern "C" int cuStreamBeginCapture_v2(void*, int) {
    if (recording) return NOT_PERMITTED;
    recording = true;
    recorded = chained = 0;
    return SUCCESS;
}
extern "C" int cuStreamEndCapture(void*, void** graph) {
    if (!recording) return NOT_PERMITTED;
    recording = false;
    *graph = new Graph{recorded, chained};
    return SUCCESS;
}
extern "C" int cuGraphInstantiateWithFlags(void** instance, void* graph, unsigned long long) {
    *instance = new Graph(*(Graph*)graph);
    return outside_recording("instantiate graph");
}
extern "C" int cuGraphDestroy(void* graph) { delete (Graph*)graph; return SUCCESS; }
extern "C" int cuGraphExecDestroy(void* graph) {
    delete (Graph*)graph;
    return outside_recording(released ? "destroy graph too late" : "destroy graph");
}
extern "C" int cuGraphLaunch(void* instance, void*) {
    Graph* graph = (Graph*)instance;
    if (failing) return 719;
    note("graph of " + std::to_string(graph->kernels) + ", " + std::to_string(graph->chained) + " chained");
    return SUCCESS;
}
