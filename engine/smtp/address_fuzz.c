/* Addresses: what is accepted is one path without controls, and can be parsed again. */
#include <stdlib.h>

#include "base/assert.h"
#include "smtp/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct smtp_address *a, bool utf8_ok)
{
    struct smtp_address again;
    struct buf outward = {0}, twice = {0};

    ASSERT(a->text.len + 2 <= SMTP_PATH_MAX);
    ASSERT(a->domain.len <= SMTP_DOMAIN_MAX && (utf8_ok || !a->utf8));
    for (size_t i = 0; i < a->text.len; i++)
        ASSERT((uint8_t)a->text.ptr[i] >= ' ' && a->text.ptr[i] != 0x7f);
    ASSERT(smtp_utf8_valid(a->text));
    if (a->domain.len == 0)
        return;
    ASSERT(smtp_domain_valid(a->domain, utf8_ok));
    ASSERT(smtp_address_parse(a->text, utf8_ok, &again) == 0 && str_eq(again.text, a->text));
    ASSERT(a->local_part.len + 1 + a->domain.len == a->text.len);
    smtp_address_put(&outward, a->text);
    ASSERT(smtp_address_parse(buf_str(&outward), utf8_ok, &again) == 0);
    ASSERT(str_eq(again.text, buf_str(&outward)) && str_eq(again.domain, a->domain));
    smtp_address_put(&twice, buf_str(&outward));
    ASSERT(str_eq(buf_str(&twice), buf_str(&outward)));
    buf_done(&twice);
    buf_done(&outward);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = {(const char *)data + 1, size - 1};
    struct smtp_address a;
    char out[64];
    size_t used;
    bool utf8_ok, null_ok;

    if (size == 0)
        return 0;
    utf8_ok = (data[0] & 1) != 0;
    null_ok = (data[0] & 2) != 0;
    if (smtp_path_parse(in, null_ok, utf8_ok, &a, &used) == 0) {
        ASSERT(used <= in.len && in.ptr[used - 1] == '>');
        check(&a, utf8_ok);
    }
    if (smtp_address_parse(in, utf8_ok, &a) == 0)
        check(&a, utf8_ok);
    if (smtp_bare_path_parse(in, utf8_ok, &a, &used) == 0)
        check(&a, utf8_ok);
    ASSERT(smtp_xtext_decode(in, out, sizeof(out)) <= (ptrdiff_t)sizeof(out));
    return 0;
}
