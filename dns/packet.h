/* Reads one DNS response (RFC 1035 4.1, RFC 2308): untrusted bytes in, a dns_answer out. Pure: no
 * socket, no clock. Used by the implementations of dns_upstream.h. */
#ifndef HAYAUMA_DNS_PACKET_H
#define HAYAUMA_DNS_PACKET_H

#include <stddef.h>
#include <stdint.h>

#include "dns/dns_upstream.h"

#define DNS_CNAMES_MAX 12 /* resolvers themselves give up at 11 to 17 */

struct dns_packet {
    struct dns_answer answer;
    unsigned cnames; /* followed in this response */
    /* NO_DATA only: the name at which CNAMEs ended, of whose data the response says nothing. Ask
     * for it: a server of the first name's zone need not know the second one's. NULL: none is left.
     */
    const char *alias;
    void *memory; /* of answer.records or alias */
};

/* Never fails: what cannot be understood is DNS_ANSWER_FAILED with a reason. CNAMEs in the answer
 * are followed from the packet's own question, whatever the order of records. */
void dns_packet_parse(struct dns_packet *packet, const uint8_t *bytes, size_t len,
                      enum dns_type type);
void dns_packet_done(struct dns_packet *packet);

#endif
