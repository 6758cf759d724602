/* Makes the k-th call of a kind fail, in the program it is linked into and its libraries. */
#ifndef HAYAUMA_TESTS_QUEUE_FAULTS_FAULTIO_H
#define HAYAUMA_TESTS_QUEUE_FAULTS_FAULTIO_H

#include <stdbool.h>

enum fault_call {
    FAULT_NONE,
    FAULT_WRITE, /* pwrite, write, writev on regular files: errno */
    FAULT_SHORT, /* the same, half of it written, as on a full disk */
    FAULT_SYNC,  /* fdatasync, fsync: as a failed write-back, which every descriptor hears of */
    FAULT_SYNC_FLUSH, /* fdatasync, fsync: as a failed flush, which only the caller hears of */
    FAULT_OPEN,       /* open, openat with O_CREAT */
    FAULT_MALLOC,     /* malloc, calloc, realloc; not under sanitizers */
};

/* The k-th such call from now on (1: the next) fails with err; repeat: all later ones too. */
void fault_arm(enum fault_call call, unsigned k, int err, bool repeat);
/* Returns whether the fault was reached. */
bool fault_disarm(void);

#endif
