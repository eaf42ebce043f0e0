/*
 * Copies between host and device.
 *
 * torch's allocator hands the device's memory out again and again without a call that is seen here, and kernels that
 * don't run don't overwrite it. So a read from the device returns zeros, unless exactly that range was copied there
 * last, and is small: indices, timesteps and settings come back as they were. Larger copies are only counted.
 */
#include <stdint.h>
#include <string.h>

#include "counters.h"
#include "pretended.h"

#define SMALL (1 << 24)
#define UPLOADS 65536

/* The latest copies to the device by address: a table in which a later one may replace an earlier one. */
static struct {
    const void *start;
    size_t size; /* 0: unknown content */
} uploads[UPLOADS];

static size_t slot(const void *address) { return ((uintptr_t)address >> 8 ^ (uintptr_t)address >> 24) % UPLOADS; }

static int copy(void *to, const void *from, size_t size)
{
    pthread_mutex_lock(&pretended_lock);
    int target = pretended_where(to), source = pretended_where(from);
    int way = source == DEVICE ? (target == DEVICE ? ON_DEVICE : TO_HOST) : (target == DEVICE ? TO_DEVICE : ON_HOST);
    struct direction *counted = &pretended_directions[way];
    counted->copies++;
    counted->bytes += size;
    counted->pageable += target == NOWHERE || source == NOWHERE;
    int known = source != DEVICE || (uploads[slot(from)].start == from && uploads[slot(from)].size == size);
    if (target == DEVICE) {
        uploads[slot(to)].start = to;
        uploads[slot(to)].size = known && size <= SMALL ? size : 0;
    }
    pthread_mutex_unlock(&pretended_lock);
    if (known && (size <= SMALL || way == ON_HOST))
        memmove(to, from, size);
    else if (target != DEVICE && size <= SMALL)
        memset(to, 0, size);
    return 0;
}

int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream)
{
    pretended_count("cudaMemcpyAsync");
    return copy(to, from, size);
}

int cudaMemcpy(void *to, const void *from, size_t size, int kind)
{
    pretended_count("cudaMemcpy");
    return copy(to, from, size);
}
