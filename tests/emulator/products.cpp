// A cuBLASLt for matrices in the host's memory: it does the products that are described to it, as NVIDIA documents the
// descriptions, and refuses what those would not allow. For tests of the descriptions, and of what is between products
// where there is no GPU.

#include <cstdint>
#include <cstring>
#include <string>

typedef unsigned int u32;
enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { FLOAT = 0, BF16 = 14, SUMS_IN_FLOAT = 68, BIAS = 4 };

struct Layout { int type; uint64_t rows, columns; int64_t pitch; };
struct Operation { int transposed[2]; u32 epilogue; const float* bias; };
struct Preference { uint64_t workspace; };
// What an algorithm was chosen for.
struct Algorithm { Operation operation; uint64_t sizes[3], workspace; };
struct Choice { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };

static int live;
static bool refuses;

extern "C" void fake_note(const char*) __attribute__((weak));
// Whether no product is taken from now on.
extern "C" void fake_products_refuse(int whether) { refuses = whether; }
// Handles and descriptions that were created and not destroyed.
extern "C" int fake_products_live() { return live; }

template <class T> static int create(void** place, T value) {
    *place = new T(value);
    live++;
    return SUCCESS;
}

template <class T> static int destroy(void* place) {
    if (!place) return INVALID_VALUE;
    delete (T*)place;
    live--;
    return SUCCESS;
}

extern "C" int cublasLtCreate(void** handle) { return create(handle, 0); }
extern "C" int cublasLtDestroy(void* handle) { return destroy<int>(handle); }
extern "C" int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t pitch) {
    return create(layout, Layout{type, rows, columns, pitch});
}
extern "C" int cublasLtMatrixLayoutDestroy(void* layout) { return destroy<Layout>(layout); }
extern "C" int cublasLtMatmulDescCreate(void** operation, int sums, int scale) {
    return sums == SUMS_IN_FLOAT && scale == FLOAT ? create(operation, Operation{{0, 0}, 1, nullptr}) : NOT_SUPPORTED;
}
extern "C" int cublasLtMatmulDescDestroy(void* operation) { return destroy<Operation>(operation); }
extern "C" int cublasLtMatmulDescSetAttribute(void* handle, int attribute, const void* value, size_t size) {
    Operation& operation = *(Operation*)handle;
    void* place = attribute == 3 || attribute == 4 ? (void*)&operation.transposed[attribute - 3]
        : attribute == 7                           ? (void*)&operation.epilogue
        : attribute == 8                           ? (void*)&operation.bias
                                                   : nullptr;
    if (!place || size != (attribute == 8 ? 8 : 4)) return INVALID_VALUE;
    memcpy(place, value, size);
    return SUCCESS;
}
extern "C" int cublasLtMatmulPreferenceCreate(void** preference) { return create(preference, Preference{0}); }
extern "C" int cublasLtMatmulPreferenceDestroy(void* preference) { return destroy<Preference>(preference); }
extern "C" int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t size) {
    if (attribute != 1 || size != 8) return INVALID_VALUE;
    memcpy(preference, value, size);
    return SUCCESS;
}

// Rows and columns of the result, and the terms of its sums; false if the matrices do not fit each other.
static bool fit(
    const Operation& operation, const Layout& a, const Layout& b, const Layout& c, const Layout& d,
    uint64_t (&sizes)[3]
) {
    auto turned = [](const Layout& layout, int turn, int index) {
        return index == turn ? layout.rows : layout.columns;
    };
    sizes[0] = turned(a, operation.transposed[0], 0);
    sizes[1] = turned(b, operation.transposed[1], 1);
    sizes[2] = turned(a, operation.transposed[0], 1);
    for (const Layout* layout : {&a, &b, &c, &d})
        // Rows of a multiple of 16 bytes are what tensor cores take.
        if (layout->pitch < (int64_t)layout->rows || layout->pitch * (layout->type == BF16 ? 2 : 4) % 16) return false;
    return a.type == BF16 && b.type == BF16 && c.type == FLOAT && d.type == FLOAT
        && (operation.epilogue == 1 || (operation.epilogue == BIAS && operation.bias))
        && turned(b, operation.transposed[1], 0) == sizes[2] && !memcmp(&c, &d, sizeof c)
        && d.rows == sizes[0] && d.columns == sizes[1];
}

extern "C" int cublasLtMatmulAlgoGetHeuristic(
    void*, const Operation* operation, const Layout* a, const Layout* b, const Layout* c, const Layout* d,
    const Preference* preference, int wanted, Choice* choices, int* found
) {
    Algorithm algorithm = {*operation, {}, preference->workspace};
    static_assert(sizeof algorithm <= sizeof choices->algorithm, "");
    *found = !refuses && wanted > 0 && fit(*operation, *a, *b, *c, *d, algorithm.sizes);
    if (!*found) return NOT_SUPPORTED;
    *choices = {{}, preference->workspace, SUCCESS, 1.0f, {}};
    memcpy(choices->algorithm, &algorithm, sizeof algorithm);
    return SUCCESS;
}

static float widen(unsigned short half) {
    u32 bits = (u32)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static bool aligned(const void* place) { return place && (uintptr_t)place % 16 == 0; }

extern "C" int cublasLtMatmul(
    void*, const Operation* operation, const float* alpha, const unsigned short* a, const Layout* la,
    const unsigned short* b, const Layout* lb, const float* beta, const float* c, const Layout* lc, float* d,
    const Layout* ld, const Algorithm* algorithm, void* workspace, size_t workspace_size, void*
) {
    uint64_t sizes[3];
    const Operation& chosen = algorithm->operation;
    if (!fit(*operation, *la, *lb, *lc, *ld, sizes) || memcmp(sizes, algorithm->sizes, sizeof sizes)
        || memcmp(operation->transposed, chosen.transposed, sizeof chosen.transposed)
        || operation->epilogue != chosen.epilogue || workspace_size < algorithm->workspace || !aligned(workspace)
        || !aligned(a) || !aligned(b) || !aligned(c) || !aligned(d))
        return INVALID_VALUE;
    auto at = [](const unsigned short* matrix, const Layout& layout, int turn, uint64_t row, uint64_t column) {
        return widen(matrix[turn ? row * layout.pitch + column : column * layout.pitch + row]);
    };
    for (uint64_t column = 0; column < sizes[1]; column++) {
        for (uint64_t row = 0; row < sizes[0]; row++) {
            float sum = 0.0f;
            for (uint64_t k = 0; k < sizes[2]; k++)
                sum += at(a, *la, operation->transposed[0], row, k) * at(b, *lb, operation->transposed[1], k, column);
            // What a factor of 0 takes away may be no number.
            float before = *beta == 0.0f ? 0.0f : *beta * c[column * lc->pitch + row];
            float bias = operation->epilogue == BIAS ? operation->bias[row] : 0.0f;
            d[column * ld->pitch + row] = *alpha * sum + before + bias;
        }
    }
    if (fake_note) fake_note(("product of " + std::to_string(sizes[1]) + " rows").c_str());
    return SUCCESS;
}
