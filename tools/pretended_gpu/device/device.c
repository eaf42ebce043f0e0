/*
 * The device: its properties, those of a data-centre card, and CUDA's errors.
 *
 * Environment: PRETENDED_GB, memory in 10^9 bytes (150.7); PRETENDED_SM, compute capability times ten (90).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <driver_types.h>

#include "pretended.h"

#define PROCESSORS 132
#define WARP 32
#define THREADS_PER_BLOCK 1024
#define SHARED_PER_BLOCK 49152
#define SHARED_PER_BLOCK_OPTIN 232448
#define SHARED_PER_PROCESSOR 233472

int pretended_last_error;

static int capability(void)
{
    const char *value = getenv("PRETENDED_SM");
    return value ? atoi(value) : 90;
}

size_t pretended_capacity(void)
{
    const char *value = getenv("PRETENDED_GB");
    return (size_t)((value ? atof(value) : 150.7) * 1e9);
}

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return device == 0 ? 0 : (pretended_last_error = cudaErrorInvalidDevice); }
int cudaDriverGetVersion(int *version) { *version = PRETENDED_CUDA; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = PRETENDED_CUDA; return 0; }

int cudaDeviceGetPCIBusId(char *text, int size, int device)
{
    snprintf(text, size, "0000:00:00.0");
    return 0;
}

int cudaGetDeviceProperties(struct cudaDeviceProp *it, int device)
{
    memset(it, 0, sizeof *it);
    strcpy(it->name, "Pretended GPU");
    it->totalGlobalMem = pretended_capacity();
    it->major = capability() / 10;
    it->minor = capability() % 10;
    it->multiProcessorCount = PROCESSORS;
    it->warpSize = WARP;
    it->maxThreadsPerBlock = THREADS_PER_BLOCK;
    it->maxThreadsPerMultiProcessor = 2048;
    it->maxBlocksPerMultiProcessor = 32;
    it->maxThreadsDim[0] = 1024;
    it->maxThreadsDim[1] = 1024;
    it->maxThreadsDim[2] = 64;
    it->maxGridSize[0] = 2147483647;
    it->maxGridSize[1] = 65535;
    it->maxGridSize[2] = 65535;
    it->regsPerBlock = 65536;
    it->regsPerMultiprocessor = 65536;
    it->sharedMemPerBlock = SHARED_PER_BLOCK;
    it->sharedMemPerBlockOptin = SHARED_PER_BLOCK_OPTIN;
    it->sharedMemPerMultiprocessor = SHARED_PER_PROCESSOR;
    it->totalConstMem = 65536;
    it->textureAlignment = 512;
    it->l2CacheSize = 62914560;
    it->memoryBusWidth = 6144;
    it->concurrentKernels = 1;
    it->asyncEngineCount = 3;
    it->unifiedAddressing = 1;
    return 0;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device)
{
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = PROCESSORS; break;
    case cudaDevAttrWarpSize: *value = WARP; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = THREADS_PER_BLOCK; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHARED_PER_BLOCK; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = SHARED_PER_BLOCK_OPTIN; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = SHARED_PER_PROCESSOR; break;
    case cudaDevAttrComputeCapabilityMajor: *value = capability() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = capability() % 10; break;
    default: *value = 1;
    }
    return 0;
}

int cudaFuncGetAttributes(struct cudaFuncAttributes *it, const void *function)
{
    memset(it, 0, sizeof *it);
    it->maxThreadsPerBlock = THREADS_PER_BLOCK;
    it->numRegs = 32;
    it->binaryVersion = capability();
    it->ptxVersion = capability();
    return 0;
}

/* ---- errors --------------------------------------------------------------------------------------------------- */

const char *cudaGetErrorString(int error) { return error == OUT_OF_MEMORY ? "out of memory" : "pretended error"; }
const char *cudaGetErrorName(int error)
{
    return error == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "cudaErrorPretended";
}
int cudaPeekAtLastError(void) { return pretended_last_error; }
int cudaGetLastError(void)
{
    int error = pretended_last_error;
    pretended_last_error = 0;
    return error;
}
int cuGetErrorString(int error, const char **text) { *text = cudaGetErrorString(error); return 0; }
int cuGetErrorName(int error, const char **text) { *text = cudaGetErrorName(error); return 0; }
