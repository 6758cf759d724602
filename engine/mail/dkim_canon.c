#include "mail/dkim_canon.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

/* --- the body --- */

int dkim_body_begin(struct dkim_body *b, bool relaxed)
{
    b->hash = dkim_hash_new();
    b->relaxed = relaxed;
    b->cr = b->space = b->any = false;
    b->empty_lines = 0;
    b->room_len = 0;
    return b->hash == NULL ? -ENOMEM : 0;
}

static void flush(struct dkim_body *b)
{
    dkim_hash_add(b->hash, b->room, b->room_len);
    b->room_len = 0;
}

static void byte_put(struct dkim_body *b, uint8_t byte)
{
    if (b->room_len == sizeof(b->room))
        flush(b);
    b->room[b->room_len++] = byte;
}

/* What was held back counts: something follows. */
static void put_held(struct dkim_body *b)
{
    ASSERT(b->relaxed || !b->space);
    for (; b->empty_lines > 0; b->empty_lines--) {
        byte_put(b, '\r');
        byte_put(b, '\n');
    }
    if (b->space)
        byte_put(b, ' ');
    if (b->cr)
        byte_put(b, '\r');
    b->space = b->cr = false;
    b->any = true;
}

static void add_byte(struct dkim_body *b, uint8_t byte)
{
    if (b->cr && byte == '\n') {
        b->cr = b->space = false;
        b->empty_lines++;
        return;
    }
    if (b->cr)
        put_held(b);
    if (byte == '\r') {
        b->cr = true;
    } else if (b->relaxed && (byte == ' ' || byte == '\t')) {
        b->space = true;
    } else {
        if (b->empty_lines > 0 || b->space)
            put_held(b);
        byte_put(b, byte);
        b->any = true;
    }
}

static const bool is_special[256] = {[' '] = true, ['\t'] = true, ['\r'] = true};

/* How many bytes are hashed as they are, where nothing is held back: a simple body changes in its
 * last line ends only. */
static size_t simple_run(const uint8_t *bytes, size_t len)
{
    size_t n = 0;

    for (;;) {
        const uint8_t *cr = memchr(bytes + n, '\r', len - n);

        if (cr == NULL)
            return len;
        n = (size_t)(cr - bytes);
        if (n + 2 >= len || cr[1] != '\n' || cr[2] == '\r')
            return n;
        n += 2;
    }
}

/* The compiler makes of these what the machine has for them. */
#define LANES 16
_Static_assert(LANES == 2 * sizeof(uint64_t), "two halves");
typedef uint8_t lanes __attribute__((vector_size(LANES)));

/* Whether LANES bytes are hashed as they are, whatever stands behind the byte that follows them:
 * there is no tab, nothing special behind a space or a line end, and no CR alone. */
static bool lanes_plain(const uint8_t *bytes)
{
    uint64_t halves[LANES / sizeof(uint64_t)];
    lanes a, b;

    memcpy(&a, bytes, LANES);
    memcpy(&b, bytes + 1, LANES);
    a = (lanes)(a == '\t') | ((lanes)(a == '\r') & (lanes)(b != '\n')) |
        (((lanes)(a == ' ') | (lanes)(a == '\n')) &
         ((lanes)(b == ' ') | (lanes)(b == '\t') | (lanes)(b == '\r')));
    memcpy(halves, &a, LANES);
    return (halves[0] | halves[1]) == 0;
}

/* The same of a relaxed one: up to white space that may end a line or is more than one space, and
 * up to a line end that an empty line may follow. */
static size_t relaxed_run(const uint8_t *bytes, size_t len)
{
    size_t n = 0;

    for (;;) {
        while (len - n > LANES && lanes_plain(bytes + n))
            n += bytes[n + LANES - 1] == '\r' ? LANES - 1 : LANES; /* its LF is looked at with it */
        while (n < len && !is_special[bytes[n]])
            n++;
        if (n + 1 < len && bytes[n] == ' ' && !is_special[bytes[n + 1]])
            n += 2;
        else if (n + 2 < len && bytes[n] == '\r' && bytes[n + 1] == '\n' &&
                 !is_special[bytes[n + 2]])
            n += 3;
        else
            return n;
    }
}

/* Short runs are gathered first. */
static void add_run(struct dkim_body *b, const uint8_t *bytes, size_t n)
{
    ASSERT(!b->cr && !b->space && b->empty_lines == 0); /* nothing is held back */
    if (n > sizeof(b->room) - b->room_len)
        flush(b);
    if (n > sizeof(b->room)) {
        dkim_hash_add(b->hash, bytes, n);
    } else {
        memcpy(b->room + b->room_len, bytes, n);
        b->room_len += n;
    }
    b->any = true;
}

void dkim_body_add(struct dkim_body *b, const uint8_t *bytes, size_t len)
{
    ASSERT(b->hash != NULL);
    while (len > 0) {
        size_t n = 0;

        if (!b->cr && !b->space && b->empty_lines == 0)
            n = b->relaxed ? relaxed_run(bytes, len) : simple_run(bytes, len);
        ASSERT(n <= len);
        if (n > 0) {
            add_run(b, bytes, n);
        } else {
            add_byte(b, *bytes);
            n = 1;
        }
        bytes += n;
        len -= n;
    }
}

/* RFC 6376 3.4.3 and 3.4.4: empty lines at the end count for nothing, and a last line end is added
 * where it lacks; a body without anything is one empty line, when relaxed nothing. */
int dkim_body_end(struct dkim_body *b, uint8_t out[DKIM_HASH_BYTES])
{
    struct dkim_hash *hash = b->hash;

    ASSERT(hash != NULL);
    if (b->cr)
        put_held(b);
    if (b->any || !b->relaxed) {
        byte_put(b, '\r');
        byte_put(b, '\n');
    }
    flush(b);
    b->hash = NULL;
    return dkim_hash_end(hash, out);
}

/* --- header fields --- */

struct line {
    struct dkim_hash *hash;
    size_t len;
    char bytes[512];
};

static void line_put(struct line *l, char c)
{
    if (l->len == sizeof(l->bytes)) {
        dkim_hash_add(l->hash, l->bytes, l->len);
        l->len = 0;
    }
    l->bytes[l->len++] = c;
}

static void line_put_run(struct line *l, const char *bytes, size_t len)
{
    ASSERT(l->len <= sizeof(l->bytes));
    if (len <= sizeof(l->bytes) - l->len) {
        memcpy(l->bytes + l->len, bytes, len);
        l->len += len;
    } else {
        for (size_t i = 0; i < len; i++)
            line_put(l, bytes[i]);
    }
}

static const bool is_blank[256] = {[' '] = true, ['\t'] = true, ['\r'] = true, ['\n'] = true};

/* RFC 6376 3.4.2: the name in lower case, no white space around the colon, the value on one line,
 * white space in it one space each and none at its end. */
static void relaxed_field(struct line *l, struct str name, struct str bytes)
{
    size_t at = name.len;
    bool space = false, any = false;

    for (size_t i = 0; i < name.len; i++)
        line_put(l, ascii_lower(name.ptr[i]));
    while (at < bytes.len && bytes.ptr[at] != ':')
        at++;
    ASSERT(at < bytes.len);
    line_put(l, ':');
    for (at++; at < bytes.len;) {
        size_t n = 0;

        while (at + n < bytes.len && !is_blank[(uint8_t)bytes.ptr[at + n]])
            n++;
        if (n == 0) {
            space = space || bytes.ptr[at] == ' ' || bytes.ptr[at] == '\t';
            at++;
            continue;
        }
        if (space && any)
            line_put(l, ' ');
        line_put_run(l, bytes.ptr + at, n);
        space = false;
        any = true;
        at += n;
    }
}

void dkim_canon_field(struct dkim_hash *h, bool relaxed, struct str name, struct str bytes)
{
    struct line l = {.hash = h};

    if (!relaxed) {
        dkim_hash_add(h, bytes.ptr, bytes.len);
        return;
    }
    relaxed_field(&l, name, bytes);
    line_put(&l, '\r');
    line_put(&l, '\n');
    dkim_hash_add(h, l.bytes, l.len);
}

void dkim_canon_signature(struct dkim_hash *h, bool relaxed, struct str bytes)
{
    struct line l = {.hash = h};

    if (!relaxed) {
        dkim_hash_add(h, bytes.ptr, bytes.len);
        return;
    }
    relaxed_field(&l, STR("dkim-signature"), bytes);
    dkim_hash_add(h, l.bytes, l.len);
}
