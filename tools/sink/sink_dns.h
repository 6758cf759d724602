/* The sink's name server: answers MX, A, AAAA, NS and SOA for its domains from the behaviour's
 * classes. sink_dns_answer() is pure; the server around it runs on worker 0's io, over UDP and TCP.
 */
#ifndef HAYAUMA_TOOLS_SINK_DNS_H
#define HAYAUMA_TOOLS_SINK_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/io.h"
#include "tools/commands/endpoint.h"
#include "tools/sink/sink_behaviour.h"

#define SINK_DNS_MESSAGE_MAX 65535

struct sink_zone {
    struct sink_behaviour *behaviour;
    const char *const *suffixes; /* names under these exist, beside the domains of the classes */
    size_t suffixes_len;
    const struct endpoint *addresses; /* of exchangers whose class names none */
    size_t addresses_len;
};

/* Answers query (without TCP's length prefix) into out, at most out_max bytes or what the query's
 * EDNS allows when udp. Returns the length, 0 for no answer at all. */
size_t sink_dns_answer(const struct sink_zone *zone, const uint8_t *query, size_t query_len,
                       bool udp, uint8_t out[SINK_DNS_MESSAGE_MAX]);

struct sink_dns_server;

/* 0 or -errno. queries: a counter of answered queries. */
int sink_dns_open(struct sink_dns_server **out, struct io *io, const struct endpoint *listen,
                  const struct sink_zone *zone, _Atomic uint64_t *queries) MUST_USE;
/* Begins to end; turn the io until sink_dns_busy() is false, then sink_dns_close(). */
void sink_dns_stop(struct sink_dns_server *d);
bool sink_dns_busy(const struct sink_dns_server *d);
void sink_dns_close(struct sink_dns_server *d);

#endif
