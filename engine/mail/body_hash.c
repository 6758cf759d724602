#include "mail/body_hash.h"

#include <string.h>

#include "base/packed.h"

bool body_hash_look(struct body_hash *h, const uint8_t *bytes, size_t from, size_t len)
{
    static const char border[] = "\r\n\r\n";
    const size_t border_len = sizeof(border) - 1;
    const uint8_t *found;
    size_t at = h->at < from + border_len ? from : h->at - border_len + 1;

    ASSERT(h->start == 0 && from <= len);
    found = len < at ? NULL : memmem(bytes + at, len - at, border, border_len);
    h->at = len;
    if (found != NULL)
        h->at = h->start = (size_t)(found - bytes) + border_len;
    return found != NULL;
}

int body_hash_begin(struct body_hash *h, bool relaxed)
{
    int err;

    ASSERT(h->start > 0 && h->at == h->start && h->body.hash == NULL);
    err = dkim_body_begin(&h->body, relaxed);
    if (err < 0)
        *h = (struct body_hash){.at = 0};
    return err;
}

bool body_hash_add(struct body_hash *h, const uint8_t *bytes, size_t len)
{
    ASSERT(h->start > 0 && h->at <= len);
    dkim_body_add(&h->body, bytes + h->at, len - h->at);
    h->at = len;
    return h->body.empty_lines <= BODY_HASH_HELD_MAX;
}

int body_hash_end(struct body_hash *h, const uint8_t *bytes, size_t len,
                  uint8_t out[BODY_HASH_BYTES])
{
    int err;

    (void)body_hash_add(h, bytes, len);
    out[0] = h->body.relaxed;
    packed_set(out + 1, len - h->start, 8);
    err = dkim_body_end(&h->body, out + 9);
    *h = (struct body_hash){.at = 0};
    return err;
}

void body_hash_drop(struct body_hash *h)
{
    dkim_hash_free(h->body.hash);
    *h = (struct body_hash){.at = 0};
}

bool body_hash_kept(struct str kept, bool relaxed, uint64_t len, uint8_t out[DKIM_HASH_BYTES])
{
    const uint8_t *bytes = (const uint8_t *)kept.ptr;

    if (kept.len != BODY_HASH_BYTES || bytes[0] != relaxed || packed_at(bytes + 1, 8) != len)
        return false;
    memcpy(out, bytes + 9, DKIM_HASH_BYTES);
    return true;
}
