/*
 * cuBLAS, cuBLASLt and cuDNN: the few functions that must answer. The others do nothing (functions.py lists them).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pretended.h"

#define DESCRIPTION 512 /* bytes; larger than each of cuBLASLt's opaque structures */
#define HEURISTIC_RESULT 96

int cublasCreate_v2(void **handle) { *handle = pretended_handle(); return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }

size_t cublasLtGetVersion(void) { return 130100; }
int cublasLtMatmulDescCreate(void **it, int compute, int scale) { *it = calloc(1, DESCRIPTION); return 0; }
int cublasLtMatmulDescDestroy(void *it) { free(it); return 0; }
int cublasLtMatmulPreferenceCreate(void **it) { *it = calloc(1, DESCRIPTION); return 0; }
int cublasLtMatmulPreferenceDestroy(void *it) { free(it); return 0; }
int cublasLtMatrixLayoutCreate(void **it, int type, uint64_t rows, uint64_t columns, int64_t stride)
{
    *it = calloc(1, DESCRIPTION);
    return 0;
}
int cublasLtMatrixLayoutDestroy(void *it) { free(it); return 0; }

/* One algorithm is found, and it needs no workspace. */
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, void *results, int *found)
{
    memset(results, 0, HEURISTIC_RESULT);
    *found = 1;
    return 0;
}

/* torch refuses a cuDNN that isn't the one of its build; ../python/operators.py sets that version. */
static size_t cudnn_version;
void pretended_set_cudnn_version(size_t version) { cudnn_version = version; }
size_t cudnnGetVersion(void) { return cudnn_version; }
int cudnnGetProperty(int part, int *value)
{
    const int parts[] = {cudnn_version / 10000, cudnn_version / 100 % 100, cudnn_version % 100};
    *value = parts[part];
    return 0;
}
int cudnnCreate(void **handle) { *handle = pretended_handle(); return 0; }
const char *cudnnGetErrorString(int status) { return "pretended error"; }
