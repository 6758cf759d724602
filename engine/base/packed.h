/* Numbers and short texts as stored records have them, the same on every machine. Numbers are
 * little-endian in values, and big-endian in keys, where they must sort. What is read may be
 * damaged. Pure. */
#ifndef HAYAUMA_BASE_PACKED_H
#define HAYAUMA_BASE_PACKED_H

#include <endian.h>

#include "base/buf.h"

static inline bool packed_fits(uint64_t v, size_t bytes)
{
    return bytes >= 1 && (bytes == sizeof(v) || (bytes < sizeof(v) && v >> 8 * bytes == 0));
}

/* v in so many bytes, 1 to 8, little-endian: to where there is room, or appended. */
static inline void packed_set(uint8_t *out, uint64_t v, size_t bytes)
{
    ASSERT(packed_fits(v, bytes));
    v = htole64(v);
    memcpy(out, &v, bytes);
}

static inline void packed_put(struct buf *out, uint64_t v, size_t bytes)
{
    uint8_t number[sizeof(v)];

    packed_set(number, v, bytes);
    buf_put(out, number, bytes);
}

/* What these made of v; all its bytes must be there. */
static inline uint64_t packed_at(const void *at, size_t bytes)
{
    uint64_t v = 0;

    ASSERT(bytes >= 1 && bytes <= sizeof(v));
    memcpy(&v, at, bytes);
    return le64toh(v);
}

/* The same off the front of in. False: in is too short, and unchanged. */
static inline bool packed_take(struct str *in, size_t bytes, uint64_t *out)
{
    if (in->len < bytes)
        return false;
    *out = packed_at(in->ptr, bytes);
    *in = (struct str){in->ptr + bytes, in->len - bytes};
    return true;
}

/* The same big-endian, for keys. */
static inline void packed_set_key(uint8_t *out, uint64_t v, size_t bytes)
{
    ASSERT(packed_fits(v, bytes));
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
}

static inline uint64_t packed_key_at(const void *at, size_t bytes)
{
    const uint8_t *p = (const uint8_t *)at;
    uint64_t v = 0;

    ASSERT(bytes >= 1 && bytes <= sizeof(v));
    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

/* A text of up to 255 bytes behind its length. */
static inline void packed_put_text(struct buf *out, const char *text)
{
    size_t len = strlen(text);

    packed_put(out, len, 1);
    buf_put(out, text, len);
}

/* The same off the front of in, into out of max + 1 bytes. False: it is cut off, longer than max,
 * or has a NUL within; in is then of no use. */
static inline bool packed_take_text(struct str *in, char *out, size_t max)
{
    uint64_t len;

    if (!packed_take(in, 1, &len) || len > max || len > in->len)
        return false;
    memcpy(out, in->ptr, len);
    out[len] = '\0';
    *in = (struct str){in->ptr + len, in->len - len};
    return strlen(out) == len;
}

#endif
