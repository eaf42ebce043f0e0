/* Counters of copies: copies.c adds to them with the lock held. */
#ifndef COUNTERS_H
#define COUNTERS_H

enum { TO_DEVICE, TO_HOST, ON_DEVICE, ON_HOST, DIRECTIONS };

struct direction {
    long copies, bytes;
    long pageable; /* copies whose host memory isn't pinned: the host waits for these */
};
extern struct direction pretended_directions[DIRECTIONS];

#endif
