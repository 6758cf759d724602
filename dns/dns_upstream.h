/* The seam between our resolver and the network: one question, one answer. Everything above it
 * (cache, single flight, exchanger rules) is dns/dns.c and runs the same over every implementation.
 *
 * Implementations, chosen at link time: dns/ares/dns_upstream.c (production; CMake target dns_ares)
 * and the simulation's. The library dns links neither.
 *
 * Thread: the worker whose io it was opened on. */
#ifndef HAYAUMA_DNS_DNS_UPSTREAM_H
#define HAYAUMA_DNS_DNS_UPSTREAM_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/str.h"

struct io;
struct dns_options;
struct dns_upstream;

/* Numbers of RFC 1035 3.2.2, RFC 3596 2.1 and RFC 6698 7.1. */
enum dns_type {
    DNS_TYPE_A = 1,
    DNS_TYPE_CNAME = 5,
    DNS_TYPE_MX = 15,
    DNS_TYPE_TXT = 16,
    DNS_TYPE_AAAA = 28,
    DNS_TYPE_TLSA = 52
};

enum dns_answer_status {
    DNS_ANSWER_RECORDS,   /* at least one record of the type, CNAMEs followed; of type CNAME only
                             that there is one */
    DNS_ANSWER_NO_DATA,   /* the name exists, the type does not */
    DNS_ANSWER_NO_DOMAIN, /* NXDOMAIN */
    DNS_ANSWER_FAILED, /* anything that may be better later: SERVFAIL, REFUSED, timeout, garbage */
};

struct dns_record {
    union {
        struct in_addr a;
        struct in6_addr aaaa;
        struct {
            /* Lower case, no trailing dot; "" is the root (null MX). It comes from the network and
             * may hold any printable bytes: a reader must check it. */
            const char *exchanger;
            uint16_t preference;
        } mx;
        struct str tlsa; /* the record as it is: any bytes */
        struct str txt;  /* the strings of the record, joined: any bytes */
    };
};

#define DNS_RECORDS_MAX 1024 /* what an answer has beyond that is not seen */
#define DNS_NAME_MAX    253  /* bytes of a name as text, without trailing dot and NUL */

struct dns_answer {
    enum dns_answer_status status;
    /* Smallest TTL on the way, CNAMEs included; for NO_DATA and NO_DOMAIN that of RFC 2308 5 (0
     * when the answer had no SOA). As received: clamping is the reader's. */
    uint32_t ttl_s;
    /* The resolver has validated the whole answer, also that there is none (the AD bit, RFC 4035
     * 3.2.3). False of FAILED, and where options did not say that the resolver validates. */
    bool secure;
    /* RECORDS: the name at which CNAMEs ended; NULL: the name asked for is none. */
    const char *canonical;
    const char *error; /* FAILED: why, in a few words without line ends; else NULL */
    const struct dns_record *records;
    size_t records_len;
};

struct dns_upstream_query {
    /* Set by the caller. answer and all it points to live until the handler returns. The handler
     * may start new queries, but must not close the upstream. */
    void (*on_answer)(struct dns_upstream_query *query, const struct dns_answer *answer);
    /* The implementation's own state, so that a query cannot fail for lack of memory. */
    _Alignas(8) unsigned char priv[160];
};

/* options: servers, timeout_ms, tries, validating are for the upstream, with dns.h's defaults where
 * 0. 0 or -errno: -EINVAL for a server that cannot be parsed, -ENOENT when there is none. */
int dns_upstream_open(struct dns_upstream **out, struct io *io,
                      const struct dns_options *options) MUST_USE;
/* Open queries get no callback; their memory is the caller's again. NULL is accepted. What it has
 * in flight in io ends by itself in the next turns of io. */
void dns_upstream_close(struct dns_upstream *upstream);

/* Asks for name (a host or domain name in A-label form, no trailing dot; must live until the
 * answer). Exactly one on_answer, never from inside this call. There is no cancel: a query ends by
 * itself after tries x timeout per server, not counting what it waits for a descriptor. */
void dns_upstream_query(struct dns_upstream *upstream, struct dns_upstream_query *query,
                        const char *name, enum dns_type type);

#endif
