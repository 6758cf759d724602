#include "base/str.h"

#include <errno.h>

bool str_starts_nocase(struct str s, struct str prefix)
{
    if (s.len < prefix.len)
        return false;
    for (size_t i = 0; i < prefix.len; i++)
        if (ascii_lower(s.ptr[i]) != ascii_lower(prefix.ptr[i]))
            return false;
    return true;
}

bool str_eq_nocase(struct str a, struct str b)
{
    return a.len == b.len && str_starts_nocase(a, b);
}

bool str_is_ascii(struct str s)
{
    uint64_t seen = 0, word;
    size_t i = 0;

    for (; i + sizeof(word) <= s.len; i += sizeof(word)) {
        memcpy(&word, s.ptr + i, sizeof(word));
        seen |= word;
    }
    for (; i < s.len; i++)
        seen |= (uint8_t)s.ptr[i];
    return (seen & UINT64_C(0x8080808080808080)) == 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim(struct str s)
{
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

ptrdiff_t str_find(struct str s, char c)
{
    const char *at = s.len == 0 ? NULL : memchr(s.ptr, c, s.len);

    return at == NULL ? -1 : at - s.ptr;
}

ptrdiff_t str_rfind(struct str s, char c)
{
    const char *at = s.len == 0 ? NULL : memrchr(s.ptr, c, s.len);

    return at == NULL ? -1 : at - s.ptr;
}

struct str str_take(struct str *rest, char end)
{
    ptrdiff_t at = str_find(*rest, end);
    struct str part = {rest->ptr, at < 0 ? rest->len : (size_t)at};
    size_t used = part.len + (at >= 0);

    *rest = (struct str){rest->ptr + used, rest->len - used};
    return part;
}

struct str str_of_u64(uint64_t v, char digits[STR_U64_BYTES])
{
    size_t at = STR_U64_BYTES;

    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    return (struct str){digits + at, STR_U64_BYTES - at};
}

int str_to_u64(struct str s, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    bool too_large = false;

    if (s.len == 0)
        return -EINVAL;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return -EINVAL;
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.ptr[i] - '0'), &value))
            too_large = true;
    }
    if (too_large || value > max)
        return -ERANGE;
    *out = value;
    return 0;
}
