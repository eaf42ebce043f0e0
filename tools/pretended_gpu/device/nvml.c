/*
 * NVIDIA's management library, which torch's allocator asks whether the card belongs to a fabric of several machines.
 */
#include <string.h>

#include "pretended.h"

struct fabric { /* the beginning of nvmlGpuFabricInfo_v2_t and _v3_t */
    unsigned version;
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state; /* 0: not supported */
};

int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) { *device = pretended_handle(); return 0; }
int nvmlDeviceGetGpuFabricInfoV(void *device, void *info)
{
    struct fabric *it = info;
    memset(it->cluster, 0, sizeof it->cluster);
    it->status = 0;
    it->clique = 0;
    it->state = 0;
    return 0;
}
