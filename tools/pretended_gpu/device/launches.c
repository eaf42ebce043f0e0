/*
 * Streams, events and kernels, which are counted and not run; and the few functions of the driver that must answer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "pretended.h"

/* ---- streams and events --------------------------------------------------------------------------------------- */

int cudaStreamCreate(void **stream) { *stream = pretended_handle(); return 0; }
int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority)
{
    *stream = pretended_handle();
    return 0;
}
int cudaStreamGetPriority(void *stream, int *priority) { *priority = 0; return 0; }
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return 0;
}
int cudaStreamQuery(void *stream) { pretended_count("cudaStreamQuery"); return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id, void *graph, void *dependencies,
                             void *edges, size_t *count)
{
    if (status)
        *status = 0;
    if (id)
        *id = 0;
    if (count)
        *count = 0;
    return 0;
}
int cudaThreadExchangeStreamCaptureMode(int *mode) { return 0; }
int cudaEventCreate(void **event) { *event = pretended_handle(); return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = pretended_handle(); return 0; }
int cudaEventQuery(void *event) { return 0; }
int cudaEventElapsedTime(float *milliseconds, void *from, void *to) { *milliseconds = 1; return 0; }

/* ---- kernels -------------------------------------------------------------------------------------------------- */

typedef struct {
    unsigned x, y, z;
} Size3;

/* nvcc turns f<<<grid, block>>>() into a push, a pop and a launch. */
static __thread struct {
    Size3 grid, block;
    size_t shared;
    void *stream;
} configuration;
static char symbols[65536]; /* every __device__ variable lies here */

void **__cudaRegisterFatBinary(void *binary)
{
    static void *handle[4];
    return handle;
}
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) {}
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit, void *thread,
                            void *block, void *block_size, void *grid_size, int *warp)
{
}
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t size, int constant,
                       int global)
{
}
char __cudaInitModule(void **handle) { return 1; }

unsigned __cudaPushCallConfiguration(Size3 grid, Size3 block, size_t shared, void *stream)
{
    configuration.grid = grid;
    configuration.block = block;
    configuration.shared = shared;
    configuration.stream = stream;
    return 0;
}

int __cudaPopCallConfiguration(Size3 *grid, Size3 *block, size_t *shared, void *stream)
{
    *grid = configuration.grid;
    *block = configuration.block;
    *shared = configuration.shared;
    *(void **)stream = configuration.stream;
    return 0;
}

static int launched(void)
{
    pretended_count("launch");
    return 0;
}

int __cudaGetKernel(void **kernel, const void *function) { *kernel = (void *)function; return 0; }
int __cudaLaunchKernel(void *kernel, Size3 grid, Size3 block, void **arguments, size_t shared, void *stream)
{
    return launched();
}
int cudaLaunchKernel(const void *function, Size3 grid, Size3 block, void **arguments, size_t shared, void *stream)
{
    return launched();
}
int cudaLaunchCooperativeKernel(const void *function, Size3 grid, Size3 block, void **arguments, size_t shared, void *stream)
{
    return launched();
}
int cudaLaunchKernelExC(const void *configured, const void *function, void **arguments) { return launched(); }

int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int size, size_t shared)
{
    *blocks = 2;
    return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int size, size_t shared,
                                                           unsigned flags)
{
    *blocks = 2;
    return 0;
}

int cudaGetSymbolAddress(void **address, const void *symbol) { *address = symbols; return 0; }

/* ---- the driver ----------------------------------------------------------------------------------------------- */

int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 1; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active)
{
    if (flags)
        *flags = 0;
    *active = 1;
    return 0;
}

static int nothing(void) { pretended_count_aloud("a function of the driver that isn't pretended"); return 0; }

/* torch looks the driver's functions up by name: returns one defined here or by functions.py, else one that does
 * nothing. */
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                     int *status)
{
    char newer[256];
    snprintf(newer, sizeof newer, "%s_v2", name);
    *function = dlsym(RTLD_DEFAULT, name);
    if (!*function)
        *function = dlsym(RTLD_DEFAULT, newer);
    if (!*function)
        *function = (void *)nothing;
    if (status)
        *status = 0;
    return 0;
}
