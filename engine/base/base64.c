#include "base/base64.h"

#include <errno.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Of the last one or two bytes. */
static void put_last(uint8_t *out, const uint8_t *p, size_t len)
{
    uint32_t v = (uint32_t)p[0] << 16 | (len > 1 ? (uint32_t)p[1] << 8 : 0);

    out[0] = (uint8_t)letters[v >> 18];
    out[1] = (uint8_t)letters[v >> 12 & 63];
    out[2] = len > 1 ? (uint8_t)letters[v >> 6 & 63] : '=';
    out[3] = '=';
}

void base64_put(struct buf *out, struct str bytes)
{
    const uint8_t *p = (const uint8_t *)bytes.ptr;
    size_t need = (bytes.len + 2) / 3 * 4;
    size_t whole = bytes.len / 3 * 3;
    uint8_t *at;

    if (bytes.len == 0)
        return;
    buf_room(out, need);
    at = out->data + out->len;
    for (size_t i = 0; i < whole; i += 3, at += 4) {
        uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];

        at[0] = (uint8_t)letters[v >> 18];
        at[1] = (uint8_t)letters[v >> 12 & 63];
        at[2] = (uint8_t)letters[v >> 6 & 63];
        at[3] = (uint8_t)letters[v & 63];
    }
    ASSERT(at == out->data + out->len + whole / 3 * 4);
    if (whole < bytes.len)
        put_last(at, p + whole, bytes.len - whole);
    out->len += need;
}

/* 0 to 63, or -1. */
static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(struct buf *out, struct str text)
{
    size_t before = out->len, padding = 0;

    if (text.len % 4 != 0)
        return -EINVAL;
    while (padding < 2 && padding < text.len && text.ptr[text.len - 1 - padding] == '=')
        padding++;
    for (size_t at = 0; at < text.len; at += 4) {
        size_t skip = at + 4 == text.len ? padding : 0;
        uint32_t v = 0;

        for (size_t i = 0; i < 4; i++) {
            int digit = i < 4 - skip ? value_of(text.ptr[at + i]) : 0;

            if (digit < 0)
                goto wrong;
            v = v << 6 | (uint32_t)digit;
        }
        /* Bits that stand for nothing must be 0. */
        if ((skip == 1 && (v & 0xff) != 0) || (skip == 2 && (v & 0xffff) != 0))
            goto wrong;
        buf_put(out, (uint8_t[]){(uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v}, 3 - skip);
    }
    ASSERT(out->len - before == text.len / 4 * 3 - padding);
    return 0;
wrong:
    out->len = before;
    return -EINVAL;
}
