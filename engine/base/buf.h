/* A growable byte buffer. All bytes that the program composes go through one of these, so every
 * write is bounds-checked. Allocation failure is fatal inside buf_*: callers that must survive it
 * call buf_reserve() first. Owned by one thread. */
#ifndef HAYAUMA_BASE_BUF_H
#define HAYAUMA_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/str.h"

struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
};

/* An empty buffer needs no call; {0} is valid. */
void buf_done(struct buf *b);
/* Room for n more bytes; 0 or -ENOMEM, contents unchanged. */
int buf_reserve(struct buf *b, size_t n) MUST_USE;

/* The same where the memory must be had: without it the program ends. */
static inline void buf_room(struct buf *b, size_t n)
{
    int err = n > b->cap - b->len ? buf_reserve(b, n) : 0;

    ASSERT(err == 0);
}

/* Inline, so that text known at compile time becomes a few stores: records and replies are made of
 * it (a record 450 -> 300 ns). */
static inline void buf_put(struct buf *b, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    buf_room(b, n);
    memcpy(b->data + b->len, bytes, n);
    b->len += n;
}

static inline void buf_putc(struct buf *b, char c)
{
    buf_put(b, &c, 1);
}

static inline void buf_puts(struct buf *b, const char *cstr)
{
    buf_put(b, cstr, strlen(cstr));
}

static inline void buf_put_str(struct buf *b, struct str s)
{
    buf_put(b, s.ptr, s.len);
}

void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_i64(struct buf *b, int64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first n bytes. */
void buf_consume(struct buf *b, size_t n);

/* For bytes in which a password may be: the same as buf_done() and buf_put(), and no copy stays in
 * memory that was freed. */
void buf_wipe(struct buf *b);
void buf_put_secret(struct buf *b, const void *bytes, size_t n);

static inline void buf_clear(struct buf *b)
{
    b->len = 0;
}

static inline struct str buf_str(const struct buf *b)
{
    return (struct str){(const char *)b->data, b->len};
}

/* Appends s as a JSON string with its quotes. Invalid UTF-8 becomes U+FFFD, so that no input can
 * break the line (RFC 8259 section 7); what a terminal would obey is escaped. */
void buf_put_json(struct buf *b, struct str s);

#endif
