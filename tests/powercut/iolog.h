/* Records what a process does to the files below one directory, as a disk would see it.
 *
 * The recording functions replace libc's (open, write, fdatasync...) in the program they are linked
 * into, for its libraries too, so that the code under test runs unchanged, LMDB included. One
 * thread at a time does I/O while recording. */
#ifndef HAYAUMA_TESTS_POWERCUT_IOLOG_H
#define HAYAUMA_TESTS_POWERCUT_IOLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum io_kind {
    IO_WRITE,    /* bytes at offset of file; durable on return when dsync */
    IO_TRUNCATE, /* file gets length offset */
    IO_SYNC,     /* all of file is durable on return */
    IO_CREATE,   /* path appears as file (or directory when file < 0) */
    IO_RENAME,   /* path becomes other */
    IO_UNLINK,   /* path goes */
    IO_SYNC_DIR, /* names in directory path are durable on return */
    IO_MARK,     /* the test's own: value */
};

struct io_op {
    enum io_kind kind;
    int file;
    bool dsync;
    uint64_t offset;
    uint8_t *bytes;
    size_t len;
    char *path, *other; /* relative to the root, "" = the root */
    uint64_t mark;
};

struct io_log {
    struct io_op *ops;
    size_t len, cap;
    int files;
};

/* Records until iolog_stop(). */
void iolog_start(struct io_log *log, const char *root);
void iolog_stop(void);
void iolog_mark(uint64_t value);
void iolog_free(struct io_log *log);

#endif
