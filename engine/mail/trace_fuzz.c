/* trace_scan, trace_strip, trace_prepend and trace_date_parse over any bytes: no crash, and what
 * comes out is a message whose header has our stamp first and no private field. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "mail/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_stamped(const uint8_t *start, size_t len, const struct trace_facts *before,
                          size_t body_len)
{
    struct trace_facts after;

    trace_scan(start, len, NULL, 0, &after);
    ASSERT(after.received == before->received + 1);
    ASSERT(after.has_message_id && after.has_date);
    ASSERT(!after.wants_strip);
    ASSERT(after.eight_bit == before->eight_bit);
    ASSERT(len - after.body_offset == body_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct msgid id = {{1, 2, 3}};
    const struct str names[] = {STR("Subject"), STR("List-Id"), STR("x-y")};
    const struct str text = {(const char *)data, size};
    struct trace_stamp stamp = {.helo = text,
                                .recipient = text,
                                .author = text,
                                .host_name = "mx.example.com",
                                .peer_addr = "192.0.2.1",
                                .id = &id};
    uint8_t *room = malloc(TRACE_STAMP_BYTES_MAX + size), *content = room + TRACE_STAMP_BYTES_MAX;
    struct trace_facts facts;
    struct buf json = {0};
    size_t lead, body_len;
    ptrdiff_t removed; /* below zero: a border was put in */
    int64_t ms;

    if (room == NULL)
        return 0;
    if (size > 0)
        memcpy(content, data, size);
    lead = trace_lead(content, size);
    content += lead;
    size -= lead;
    trace_scan(content, size, names, ARRAY_LEN(names), &facts);
    ASSERT(lead == 0 || facts.header_len > 0);
    body_len = size - facts.body_offset;
    trace_wanted_json(&facts, names, ARRAY_LEN(names), &json);
    removed = (ptrdiff_t)trace_strip(content, &facts);
    removed -= (ptrdiff_t)trace_border(content + removed, size - (size_t)removed, &facts);
    facts.eight_bit = false;
    for (size_t i = 0; i < facts.header_len; i++)
        facts.eight_bit |= content[removed + (ptrdiff_t)i] > 127;
    uint8_t *start = trace_prepend(content + removed, &stamp, &facts);
    check_stamped(start, (size_t)(content + size - start), &facts, body_len);
    (void)trace_date_parse(text, &ms);
    buf_done(&json);
    free(room);
    return 0;
}
