/* A notice about any message, with any texts from peer and client: the structure holds. The input
 * is the original; its first bytes also serve as the texts. */
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "outcome/notice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t count(const struct buf *b, const char *needle, size_t needle_len)
{
    size_t n = 0;
    const uint8_t *at = b->data, *end = b->data + b->len;

    while ((at = memmem(at, (size_t)(end - at), needle, needle_len)) != NULL) {
        n++;
        at++;
    }
    return n;
}

static void check(const struct buf *out)
{
    static const char parameter[] = "\r\n\tboundary=\"";
    const char *boundary = memmem(out->data, out->len, parameter, sizeof(parameter) - 1);
    char delimiter[100];
    int len;

    ASSERT(boundary != NULL);
    boundary += sizeof(parameter) - 1;
    len = snprintf(delimiter, sizeof(delimiter), "\r\n--%.*s", (int)strcspn(boundary, "\""),
                   boundary);
    ASSERT(len > 20 && len < 80);
    ASSERT(count(out, delimiter, (size_t)len) == 4); /* before three parts, and at the end */
    ASSERT(memcmp(out->data, "From: ", 6) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t text_len = size < 300 ? size : 300;
    struct str text = {(const char *)data, text_len};
    char *name = strndup((const char *)data, text_len);
    struct outcome o = {.class = OUTCOME_FAILED, .stage = SMTP_STAGE_RCPT};
    struct message m = {
        .sender = text, .envid = text, .content = (uint8_t *)(uintptr_t)data, .content_len = size};
    struct notice_recipient r = {
        .address = text, .orcpt = text, .outcome = &o, .peer_name = name, .last_attempt_ms = 1};
    struct notice n = {.host_name = "mx.example.com",
                       .original = &m,
                       .recipients = &r,
                       .recipients_len = 1,
                       .return_bytes_max = 1 << 20};
    bool eight_bit, smtputf8;

    o.reply.code = (uint16_t)(400 + (size > 0 ? data[0] : 0) % 200);
    o.reply.text_len = (uint16_t)text_len;
    if (size > 0)
        memcpy(o.reply.text, data, text_len);
    for (int kind = NOTICE_FAILED; kind <= NOTICE_EXPIRED; kind++) {
        struct buf out = {0};

        n.kind = (enum notice_kind)kind;
        o.local = kind & 1;
        notice_build(&n, &out, &eight_bit, &smtputf8);
        check(&out);
        buf_done(&out);
    }
    free(name);
    return 0;
}
