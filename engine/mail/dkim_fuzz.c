/* Any bytes as a message: the signature is well-formed and verifies, whatever the form. */
#include <stdint.h>

#include "mail/dkim_reader.h"
#include "mail/dkim_vectors.h"
#include "mail/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct dkim_key *key(void)
{
    static struct dkim_key *once;
    const char *why;

    if (once == NULL)
        ASSERT(dkim_key_parse(&once, RFC8463_ED25519_KEY, sizeof(RFC8463_ED25519_KEY) - 1, &why) ==
               0);
    return once;
}

static size_t body_of(const uint8_t *data, size_t size)
{
    struct header_field f;
    size_t at = 0;

    for (; at < size && header_field_next(data, size, at, &f); at = f.end)
        ;
    return size - at >= 2 && data[at] == '\r' && data[at + 1] == '\n' ? at + 2 : at;
}

/* What intake would keep of the body, which comes in two pieces. */
static struct str kept(uint8_t out[BODY_HASH_BYTES], const uint8_t *data, size_t size,
                       const struct dkim_options *o)
{
    struct body_hash h = {.at = 0};
    size_t half = size / 2;

    if (body_hash_look(&h, data, 0, half) && body_hash_begin(&h, o->body_relaxed) == 0)
        (void)body_hash_add(&h, data, half);
    if (h.start == 0 &&
        !(body_hash_look(&h, data, 0, size) && body_hash_begin(&h, o->body_relaxed) == 0))
        return STR("");
    ASSERT(body_hash_end(&h, data, size, out) == 0);
    return (struct str){(const char *)out, BODY_HASH_BYTES};
}

/* Each line of the field but the first begins with a space and has something behind it. */
static void check_lines(const struct buf *out)
{
    ASSERT(out->len > 2 && out->data[out->len - 1] == '\n');
    for (size_t i = 0; i < out->len; i++) {
        ASSERT(out->data[i] < 0x7f);
        if (out->data[i] != '\n')
            continue;
        ASSERT(i > 1 && out->data[i - 1] == '\r' && out->data[i - 2] > ' ');
        ASSERT(i + 1 == out->len || out->data[i + 1] == ' ');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dkim_signer signer = {"example.com", "s", key()};
    struct dkim_options o = {0};
    uint8_t hash[BODY_HASH_BYTES];
    struct buf out = {0};

    if (size == 0)
        return 0;
    o.header_relaxed = (data[0] & 1) != 0;
    o.body_relaxed = (data[0] & 2) != 0;
    data++;
    size--;
    ASSERT(dkim_sign(data, size, kept(hash, data, size, &o), &o, &signer, 1, 1, &out) == 0);
    check_lines(&out);
    ASSERT(reader_verifies(buf_str(&out), data, size, body_of(data, size), key()));
    buf_done(&out);
    return 0;
}
