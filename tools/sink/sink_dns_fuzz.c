/* sink_dns_answer() over any bytes: an answer keeps the id, is a reply, and fits. */
#include <stdlib.h>
#include <string.h>

#include "tools/sink/sink_dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sink_zone *zone(void)
{
    static const char *const suffixes[] = {"example"};
    static struct endpoint address;
    static struct sink_zone z;
    const struct smtp_server_options options = {0};
    struct buf errors = {0};

    if (z.behaviour != NULL)
        return &z;
    ASSERT(sink_behaviour_load(NULL, &options, &z.behaviour, &errors) == 0);
    z.behaviour->classes[0].exchangers = 200; /* so that some answers are truncated */
    z.behaviour->classes[0].dead_exchanger = true;
    ASSERT(endpoint_parse("127.0.0.1", 1, &address) == 0);
    z.suffixes = suffixes;
    z.suffixes_len = ARRAY_LEN(suffixes);
    z.addresses = &address;
    z.addresses_len = 1;
    return &z;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t out[SINK_DNS_MESSAGE_MAX];
    size_t len;

    if (size > SINK_DNS_MESSAGE_MAX)
        return 0;
    for (int udp = 0; udp < 2; udp++) {
        len = sink_dns_answer(zone(), data, size, udp, out);
        if (len == 0)
            continue;
        ASSERT(len >= 12 && len <= (udp ? 4096 : SINK_DNS_MESSAGE_MAX));
        ASSERT(memcmp(out, data, 2) == 0 && (out[2] & 0x80) != 0);
    }
    return 0;
}
