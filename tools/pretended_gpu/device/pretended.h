/*
 * What the files of the pretended device share. ../README.md describes the whole.
 *
 * Functions that CUDA declares return 0, its "success", where nothing else is written; their names and parameters are
 * those of NVIDIA's documentation.
 */
#ifndef PRETENDED_H
#define PRETENDED_H

#include <pthread.h>
#include <stddef.h>

#define OUT_OF_MEMORY 2 /* cudaErrorMemoryAllocation and CUDA_ERROR_OUT_OF_MEMORY */

/* One lock for all tables of the device: torch calls from the main thread and from autograd's. */
extern pthread_mutex_t pretended_lock;

/* Adds one to the counter of `name`, which must live as long as the process. */
void pretended_count(const char *name);

/* The same, and a line on stderr the first time: nothing was computed, and the caller may read garbage. */
void pretended_count_aloud(const char *name);

/* A new handle: never NULL, never followed. */
void *pretended_handle(void);

/* Memory of the device in bytes (PRETENDED_GB), and the error that the next cudaGetLastError returns. */
size_t pretended_capacity(void);
extern int pretended_last_error;

/* Where an address lies. Call with the lock held. */
enum { NOWHERE, DEVICE, PINNED };
int pretended_where(const void *address);

/* Functions that do nothing and return success. `functions.py` writes a file of them. */
#define QUIET(name) int name() { pretended_count(#name); return 0; }
#define ALOUD(name) int name() { pretended_count_aloud(#name); return 0; }

#endif
