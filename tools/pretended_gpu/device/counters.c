/*
 * Counters of calls by name, and of copies by direction. ../python/__init__.py reads and resets them.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "pretended.h"

#define MAX_COUNTERS 2048
#define LONGEST_LINE 512

pthread_mutex_t pretended_lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    const char *name;
    long calls;
    int printed; /* whether stderr has had its line */
} counters[MAX_COUNTERS];
static int counter_count;

struct direction pretended_directions[DIRECTIONS];
static const char *const direction_names[DIRECTIONS] = {"h2d", "d2h", "d2d", "h2h"};

/* Call with the lock held. -1: the table is full. */
static int counter_of(const char *name)
{
    for (int i = 0; i < counter_count; i++)
        if (counters[i].name == name || !strcmp(counters[i].name, name))
            return i;
    if (counter_count == MAX_COUNTERS)
        return -1;
    counters[counter_count].name = name;
    return counter_count++;
}

void pretended_count(const char *name)
{
    pthread_mutex_lock(&pretended_lock);
    int i = counter_of(name);
    if (i >= 0)
        counters[i].calls++;
    pthread_mutex_unlock(&pretended_lock);
}

void pretended_count_aloud(const char *name)
{
    pthread_mutex_lock(&pretended_lock);
    int i = counter_of(name), first = i >= 0 && !counters[i].printed;
    if (i >= 0) {
        counters[i].calls++;
        counters[i].printed = 1;
    }
    pthread_mutex_unlock(&pretended_lock);
    if (first && getenv("PRETENDED_QUIET") == NULL)
        fprintf(stderr, "pretended GPU: %s did nothing; its results are garbage\n", name);
}

void pretended_reset(void)
{
    pthread_mutex_lock(&pretended_lock);
    for (int i = 0; i < counter_count; i++)
        counters[i].calls = 0;
    memset(pretended_directions, 0, sizeof pretended_directions);
    pthread_mutex_unlock(&pretended_lock);
}

/* Writes lines "name calls", and for copies "h2d copies bytes pageable", into `text`. */
void pretended_counts(char *text, int size)
{
    int at = 0;
    text[0] = 0;
    pthread_mutex_lock(&pretended_lock);
    for (int i = 0; i < counter_count && at < size - LONGEST_LINE; i++)
        if (counters[i].calls)
            at += snprintf(text + at, size - at, "%s %ld\n", counters[i].name, counters[i].calls);
    for (int way = 0; way < DIRECTIONS; way++)
        at += snprintf(text + at, size - at, "%s %ld %ld %ld\n", direction_names[way], pretended_directions[way].copies,
                       pretended_directions[way].bytes, pretended_directions[way].pageable);
    pthread_mutex_unlock(&pretended_lock);
}

void *pretended_handle(void)
{
    static long last = 4096;
    return (void *)__sync_add_and_fetch(&last, 64);
}
