/*
 * Memory of the device and pinned memory of the host.
 *
 * Device memory is memory of this process that is reserved and hardly ever touched, so 140 GB fit into a small machine.
 * An allocation beyond the device's capacity fails as on a card.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <driver_types.h>

#include "pretended.h"

#define MAX_RANGES 65536
#define PAGE 4096

static struct {
    char *start;
    size_t size;
    int where;
} ranges[MAX_RANGES];
static int range_count;
static size_t used; /* of the device's memory */

/* ---- the table of ranges: call all of these with the lock held -------------------------------------------------- */

static int add_range(void *start, size_t size, int where)
{
    int i = 0;
    while (i < range_count && ranges[i].start)
        i++;
    if (i == MAX_RANGES)
        return 0;
    if (i == range_count)
        range_count++;
    ranges[i].start = start;
    ranges[i].size = size;
    ranges[i].where = where;
    return 1;
}

/* Returns the size of the range; 0 when none starts there. */
static size_t remove_range(void *start)
{
    for (int i = 0; i < range_count; i++)
        if (ranges[i].start == start) {
            ranges[i].start = NULL;
            return ranges[i].size;
        }
    return 0;
}

int pretended_where(const void *address)
{
    const char *it = address;
    for (int i = 0; i < range_count; i++)
        if (ranges[i].start && it >= ranges[i].start && it < ranges[i].start + ranges[i].size)
            return ranges[i].where;
    return NOWHERE;
}

/* Shared pages: Linux counts them in RssShmem, apart from the host's own memory in RssAnon, which tests measure. */
static void *reserve(size_t size)
{
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    if (!add_range(start, size, DEVICE)) {
        munmap(start, size);
        return NULL;
    }
    return start;
}

/* ---- the runtime's memory ------------------------------------------------------------------------------------- */

int cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *total = pretended_capacity();
    *free_bytes = *total - used;
    return 0;
}

int cudaMalloc(void **address, size_t size)
{
    pretended_count("cudaMalloc");
    pthread_mutex_lock(&pretended_lock);
    *address = used + size > pretended_capacity() ? NULL : reserve(size);
    if (*address)
        used += size;
    else
        pretended_last_error = OUT_OF_MEMORY;
    pthread_mutex_unlock(&pretended_lock);
    return *address ? 0 : OUT_OF_MEMORY;
}

int cudaFree(void *address)
{
    pretended_count("cudaFree");
    if (!address)
        return 0;
    pthread_mutex_lock(&pretended_lock);
    size_t size = remove_range(address);
    if (size) {
        munmap(address, size);
        used -= size;
    }
    pthread_mutex_unlock(&pretended_lock);
    return 0;
}

int cudaHostAlloc(void **address, size_t size, unsigned flags)
{
    pretended_count("cudaHostAlloc");
    *address = aligned_alloc(PAGE, (size + PAGE - 1) / PAGE * PAGE);
    pthread_mutex_lock(&pretended_lock);
    int added = *address && add_range(*address, size, PINNED);
    pthread_mutex_unlock(&pretended_lock);
    return added ? 0 : OUT_OF_MEMORY;
}

int cudaFreeHost(void *address)
{
    pretended_count("cudaFreeHost");
    pthread_mutex_lock(&pretended_lock);
    remove_range(address);
    pthread_mutex_unlock(&pretended_lock);
    free(address);
    return 0;
}

int cudaHostRegister(void *address, size_t size, unsigned flags)
{
    pretended_count("cudaHostRegister");
    pthread_mutex_lock(&pretended_lock);
    int added = add_range(address, size, PINNED);
    pthread_mutex_unlock(&pretended_lock);
    return added ? 0 : OUT_OF_MEMORY;
}

int cudaHostUnregister(void *address)
{
    pretended_count("cudaHostUnregister");
    pthread_mutex_lock(&pretended_lock);
    remove_range(address);
    pthread_mutex_unlock(&pretended_lock);
    return 0;
}

int cudaPointerGetAttributes(struct cudaPointerAttributes *it, const void *address)
{
    pthread_mutex_lock(&pretended_lock);
    int where = pretended_where(address);
    pthread_mutex_unlock(&pretended_lock);
    memset(it, 0, sizeof *it);
    it->type = where == DEVICE ? cudaMemoryTypeDevice : where == PINNED ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    it->devicePointer = where == DEVICE ? (void *)address : NULL;
    it->hostPointer = where == PINNED ? (void *)address : NULL;
    return 0;
}

/* ---- the driver's virtual memory, for the allocator's expandable segments: used from cuMemCreate to cuMemRelease -- */

int cuMemGetAllocationGranularity(size_t *bytes, const void *properties, int option)
{
    *bytes = 2 << 20;
    return 0;
}

int cuMemCreate(unsigned long long *handle, size_t size, const void *properties, unsigned long long flags)
{
    pretended_count("cuMemCreate");
    pthread_mutex_lock(&pretended_lock);
    int fits = used + size <= pretended_capacity();
    if (fits)
        used += size;
    pthread_mutex_unlock(&pretended_lock);
    *handle = size; /* cuMemRelease needs nothing else */
    return fits ? 0 : OUT_OF_MEMORY;
}

int cuMemRelease(unsigned long long handle)
{
    pretended_count("cuMemRelease");
    pthread_mutex_lock(&pretended_lock);
    used -= handle;
    pthread_mutex_unlock(&pretended_lock);
    return 0;
}

int cuMemAddressReserve(unsigned long long *address, size_t size, size_t alignment, unsigned long long wish,
                        unsigned long long flags)
{
    pthread_mutex_lock(&pretended_lock);
    void *start = reserve(size);
    pthread_mutex_unlock(&pretended_lock);
    *address = (unsigned long long)(uintptr_t)start;
    return start ? 0 : OUT_OF_MEMORY;
}

int cuMemAddressFree(unsigned long long address, size_t size)
{
    void *start = (void *)(uintptr_t)address;
    pthread_mutex_lock(&pretended_lock);
    if (remove_range(start))
        munmap(start, size);
    pthread_mutex_unlock(&pretended_lock);
    return 0;
}

int cuMemMap(unsigned long long address, size_t size, size_t offset, unsigned long long handle, unsigned long long flags)
{
    pretended_count("cuMemMap");
    return 0;
}

int cuMemUnmap(unsigned long long address, size_t size)
{
    pretended_count("cuMemUnmap");
    madvise((void *)(uintptr_t)address, size, MADV_DONTNEED);
    return 0;
}
