/* Any body: refused at a place, or letters that are messages: CRLF alone ends lines, lines are
 * short enough, the header is ASCII, and a second From or Bcc is in none. */
#include "http/injection.h"
#include "mail/header.h"
#include "mail/trace.h"
#include "smtp/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECIPIENTS 3

static void check_letter(const uint8_t *p, size_t len)
{
    struct trace_facts facts;
    size_t line = 0;

    for (size_t i = 0; i < len; i++) {
        ASSERT(p[i] != '\n' || (i > 0 && p[i - 1] == '\r'));
        ASSERT(p[i] != '\r' || (i + 1 < len && p[i + 1] == '\n'));
        line = p[i] == '\n' ? 0 : line + 1;
        ASSERT(line <= 999); /* with the CR */
    }
    trace_scan(p, len, NULL, 0, &facts);
    ASSERT(!facts.eight_bit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct msgid id = {{1, 2, 3}};
    struct json_mistake error = {0};
    struct injection *in;

    if (injection_parse((struct str){(const char *)data, size}, 1000000, &in, &error) < 0) {
        ASSERT(error.status >= 400 && error.status < 500 && error.text[0] != '\0');
        return 0;
    }
    for (size_t i = 0; i < injection_facts(in)->recipients && i < RECIPIENTS; i++) {
        struct template_budget budget = {100000, 100000};
        struct smtp_address address;
        struct buf out = {0};

        /* As its caller does: what is no address gets no letter. UTF-8 in one is rightly 8-bit. */
        if (smtp_address_parse(injection_email(in, i), false, &address) < 0)
            continue;
        if (injection_letter(in, i, &id, STR(""), budget, &out, &error) == 0)
            check_letter(out.data, out.len);
        buf_clear(&out);
        injection_put_metadata(in, i, &out);
        buf_done(&out);
    }
    injection_free(in);
    return 0;
}
