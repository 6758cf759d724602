/* Any bytes as a response, and what is made of its records. The first byte chooses the type. */
#include <stdlib.h>

#include "dns/packet.h"
#include "dns/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_mx(const struct dns_answer *answer)
{
    struct rng rng;
    struct mx_list list;

    rng_seed(&rng, 1);
    mx_choose(&list, answer->records, answer->records_len, "our.test", &rng);
    ASSERT((list.status == DNS_OK) == (list.hosts_len > 0));
    ASSERT(strlen(list.site_name) <= DNS_SITE_NAME_MAX);
    for (size_t i = 0; i < list.hosts_len; i++) {
        ASSERT(dns_name_valid(str_of(list.hosts[i].name)));
        ASSERT(i == 0 || list.hosts[i - 1].preference <= list.hosts[i].preference);
    }
}

static void check_tlsa(const struct dns_answer *answer)
{
    struct dns_tlsa *tlsa = tlsa_new("a.test", answer->records, answer->records_len);

    ASSERT(tlsa != NULL && tlsa->records_len <= DNS_TLSA_MAX);
    for (uint16_t i = 0; i < tlsa->records_len; i++)
        ASSERT(str_eq(tlsa->records[i], answer->records[i].tlsa));
    dns_tlsa_unref(tlsa);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const enum dns_type types[] = {DNS_TYPE_MX,   DNS_TYPE_A,     DNS_TYPE_AAAA,
                                          DNS_TYPE_TLSA, DNS_TYPE_CNAME, DNS_TYPE_TXT};
    struct dns_packet packet;
    enum dns_type type;
    struct dns_name name;

    if (len == 0)
        return 0;
    type = types[bytes[0] % ARRAY_LEN(types)];
    dns_packet_parse(&packet, bytes + 1, len - 1, type);
    ASSERT((packet.answer.status == DNS_ANSWER_RECORDS) == (packet.answer.records_len > 0));
    ASSERT((packet.answer.status == DNS_ANSWER_FAILED) == (packet.answer.error != NULL));
    if (packet.answer.records_len > 0 && type == DNS_TYPE_MX)
        check_mx(&packet.answer);
    if (packet.answer.records_len > 0 && type == DNS_TYPE_TLSA)
        check_tlsa(&packet.answer);
    dns_packet_done(&packet);
    /* The same bytes as a name somebody writes mail to. */
    if (dns_name_parse(&name, (struct str){(const char *)bytes, len}) == 0)
        ASSERT(dns_name_valid((struct str){name.text, name.len}));
    return 0;
}
