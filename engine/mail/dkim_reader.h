/* Reads a DKIM-Signature field of ours back and verifies it, for the test and the fuzz target: what
 * an independent verifier does is in tests/dkim. */
#ifndef HAYAUMA_MAIL_DKIM_READER_H
#define HAYAUMA_MAIL_DKIM_READER_H

#include <string.h>

#include "base/base64.h"
#include "mail/dkim.h"

#define READER_NAMES_MAX 4096

/* The value of a tag, with its folds; empty when the field has none. */
static inline struct str reader_tag(struct str field, const char *tag)
{
    size_t len = strlen(tag);

    for (size_t i = 1; i + len < field.len; i++) {
        const char *end;

        if (field.ptr[i - 1] != ' ' || memcmp(field.ptr + i, tag, len) != 0 ||
            field.ptr[i + len] != '=')
            continue;
        i += len + 1;
        end = memchr(field.ptr + i, ';', field.len - i);
        return (struct str){field.ptr + i,
                            end == NULL ? field.len - i : (size_t)(end - field.ptr) - i};
    }
    return STR("");
}

/* s without white space, in room. */
static inline struct str reader_squeeze(struct str s, char *room, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len; i++)
        if (strchr(" \t\r\n", s.ptr[i]) == NULL && n < size)
            room[n++] = s.ptr[i];
    return (struct str){room, n};
}

/* Splits h= at its colons; how many names. */
static inline size_t reader_names(struct str list, struct str names[READER_NAMES_MAX])
{
    size_t n = 0;

    while (list.len > 0 && n < READER_NAMES_MAX) {
        ptrdiff_t colon = str_find(list, ':');
        size_t len = colon < 0 ? list.len : (size_t)colon;

        names[n++] = (struct str){list.ptr, len};
        len += len < list.len;
        list = (struct str){list.ptr + len, list.len - len};
    }
    return n;
}

/* Whether field, whole with its line end, signs content by key. */
static inline bool reader_verifies(struct str field, const uint8_t *content, size_t len,
                                   size_t body, const struct dkim_key *key)
{
    static struct str names[READER_NAMES_MAX];
    static char list[1 << 18], text[DKIM_SIGNATURE_BYTES * 2];
    struct str c = reader_tag(field, "c"), b = reader_tag(field, "b"), squeezed, signature;
    bool header_relaxed = c.len > 0 && c.ptr[0] == 'r';
    bool body_relaxed = c.len > 7 && memcmp(c.ptr + c.len - 7, "relaxed", 7) == 0;
    uint8_t hash[DKIM_HASH_BYTES], made[DKIM_SIGNATURE_BYTES];
    size_t made_len;
    struct buf hash_text = {0}, want = {0};
    struct dkim_body digest;
    bool ok;

    ASSERT(dkim_body_begin(&digest, body_relaxed) == 0);
    dkim_body_add(&digest, content + body, len - body);
    ASSERT(dkim_body_end(&digest, hash) == 0);
    base64_put(&hash_text, (struct str){(const char *)hash, sizeof(hash)});
    ok = str_eq(buf_str(&hash_text), reader_tag(field, "bh"));
    buf_done(&hash_text);

    squeezed = reader_squeeze(reader_tag(field, "h"), list, sizeof(list));
    ASSERT(dkim_header_hash(content, len, header_relaxed, names, reader_names(squeezed, names),
                            (struct str){field.ptr, (size_t)(b.ptr - field.ptr)}, hash) == 0);
    signature = reader_squeeze(b, text, sizeof(text));
    /* Ed25519 and PKCS #1 have no chance in them: the same hash gives the same signature. */
    ASSERT(dkim_key_sign(key, hash, made, &made_len) == 0);
    base64_put(&want, (struct str){(const char *)made, made_len});
    ok = ok && str_eq(buf_str(&want), signature);
    buf_done(&want);
    return ok;
}

#endif
