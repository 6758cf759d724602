/* A borrowed slice of bytes, and the few ASCII operations that mail protocols need.
 * Slices own nothing and are not NUL-terminated. Case rules are ASCII only (RFC 5321 2.4). */
#ifndef HAYAUMA_BASE_STR_H
#define HAYAUMA_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *ptr;
    size_t len;
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
/* For printf's "%.*s". */
#define STR_FMT(s) (int)(s).len, (s).ptr

static inline struct str str_of(const char *cstr)
{
    return (struct str){cstr, cstr == NULL ? 0 : strlen(cstr)};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* The order of bytes, as the store has keys: a beginning comes before what it begins. Below 0, 0 or
 * above. */
static inline int str_compare(struct str a, struct str b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common == 0 ? 0 : memcmp(a.ptr, b.ptr, common);

    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* 0 to 15, or -1: no hexadecimal digit. */
static inline int ascii_hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* CTL of RFC 5234. */
static inline bool ascii_is_control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}

bool str_eq_nocase(struct str a, struct str b);
bool str_starts_nocase(struct str s, struct str prefix);
/* Whether no byte is above 127. */
bool str_is_ascii(struct str s);
/* Strips SP and HT at both ends. */
struct str str_trim(struct str s);
/* Offset of the first/last byte c, or -1. */
ptrdiff_t str_find(struct str s, char c);
ptrdiff_t str_rfind(struct str s, char c);
/* Takes what is before the first end off *rest, and the end itself; all of it where there is none.
 */
struct str str_take(struct str *rest, char end);
/* v in decimal, at the end of digits. */
#define STR_U64_BYTES 20
struct str str_of_u64(uint64_t v, char digits[STR_U64_BYTES]);
/* Decimal digits only, the whole slice; 0, -EINVAL (empty, other bytes) or -ERANGE (> max). */
int str_to_u64(struct str s, uint64_t max, uint64_t *out);

#endif
