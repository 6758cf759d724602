/* From a domain to the addresses that take its mail (RFC 5321 section 5, RFC 7505, RFC 3596).
 *
 * Owns: the resolver channel (c-ares, its sockets driven by io), a bounded cache with TTLs and
 * negative entries, single flight per name. Thread: the worker whose io it was opened on.
 * Failure: every lookup ends with exactly one callback, never from inside dns_route(). */
#ifndef HAYAUMA_DNS_DNS_H
#define HAYAUMA_DNS_DNS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/rng.h"
#include "base/str.h"
#include "dns/dns_upstream.h"

struct io;
struct dns;

enum dns_status {
    DNS_OK,        /* hosts with at least one address among them, or still to be tried */
    DNS_NULL_MX,   /* RFC 7505: the domain takes no mail: permanent (556 5.1.10) */
    DNS_NO_DOMAIN, /* NXDOMAIN: permanent (5.1.2) */
    DNS_NO_HOST,   /* the domain exists but has neither MX nor address, or no exchanger that has one
                      (its MX names this host or nothing usable): permanent (5.4.4) */
    DNS_BAD_NAME,  /* not a domain name (IDNA failure, label too long): permanent (5.1.2) */
    DNS_TEMPORARY, /* SERVFAIL, REFUSED, timeout, or no address of any MX could be had yet: 4.4.3 */
};

struct dns_address {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
    uint16_t host; /* index into hosts */
};

/* What DNS says, validated, of a host's certificates (RFC 6698, RFC 7672 2.2). Immutable, counted
 * by reference. At most DNS_TLSA_MAX records of DNS_TLSA_BYTES_MAX bytes in all; what is beyond is
 * not seen, and a certificate that only this would have matched counts as a wrong one. */
#define DNS_TLSA_MAX       32
#define DNS_TLSA_BYTES_MAX 16384
struct dns_tlsa {
    uint32_t refs;
    uint32_t bytes; /* private: what the block takes */
    /* The answer is bogus, or there was none: why. RFC 7672 2.1.2: such a host gets no mail from
     * who goes by these records. NULL: there are records. */
    char *error;
    char *base; /* the name whose records they are: the host's, or that where its CNAMEs end */
    uint16_t records_len;
    struct str records[]; /* as they are: any bytes */
};

struct dns_host {
    char *name; /* lower case, no trailing dot */
    uint16_t preference;
    struct dns_tlsa *tlsa; /* NULL: it has none, or DNS does not vouch for its addresses */
};

/* Immutable, reference-counted, shared by all that asked. addresses are in the order to try them:
 * by preference, hosts of equal preference shuffled (RFC 5321 5.1), a host's IPv6 and IPv4
 * addresses interleaved. Ports are 25 in network order; the caller may copy and change. At most
 * DNS_ADDRESSES_MAX addresses of at most DNS_HOSTS_MAX hosts, every host with its share. Hosts
 * whose addresses could not be looked up for now are listed without any. Unless DNS_OK: no hosts.
 */
#define DNS_HOSTS_MAX     32
#define DNS_ADDRESSES_MAX 64
#define DNS_ENTRY_BYTES   1024
struct dns_route {
    uint32_t refs;
    enum dns_status status;
    bool implicit_mx; /* no MX record: the domain's own address (RFC 5321 5.1) */
    /* That these are the hosts is validated (DNSSEC); of a lookup without MX: true. */
    bool secure;
    uint16_t hosts_len, addresses_len;
    uint32_t bytes; /* private: what it takes, with the TLSA records that it shares with others */
    /* On io_now_ms()'s clock; a holder may use it past that, but should ask again. Moves forward
     * when the resolver fails and this route has to serve on (RFC 8767: up to an hour). */
    uint64_t expires_ms;
    uint64_t stale_until_ms; /* private: it moves as long as now is before this */
    uint64_t mx_expires_ms;  /* private: until then the hosts are what MX says */
    uint64_t asked_ms;       /* private: when the answer came */
    char *error;             /* what the resolver said, for the record; NULL when DNS_OK */
    /* Names all exchangers by preference, then name, "(mx1|mx2).example.com"-like, at most 255
     * bytes: equal for domains served by the same exchangers, whatever their addresses do at the
     * moment. Lanes that share it share sessions and limits. A single host: its name; unless
     * DNS_OK: the domain. */
    char *site_name;
    struct dns_host *hosts;
    struct dns_address *addresses;
};

struct dns_options {
    const char *const *servers; /* "1.2.3.4", "1.2.3.4:5353", "[::1]:53"; NULL = resolv.conf */
    size_t servers_len;
    uint32_t timeout_ms; /* per try; 0 = 5000 */
    uint32_t tries;      /* 0 = 3 */
    /* 0 = 100,000 domains. Of DNS_ENTRY_BYTES each in the mean: with larger ones, as of a zone that
     * names as many long names as it can, there are fewer. */
    uint32_t cache_entries_max;
    uint32_t negative_ttl_max_s;   /* 0: none is cached (RFC 2308) */
    uint32_t ttl_min_s, ttl_max_s; /* 0 = 30 and 86400 */
    /* Upstream queries younger than a second; more wait. 0 = 200: of that many sent at once none
     * got lost in a resolver's default socket buffer, of 300 some did. */
    uint32_t in_flight_max;
    bool no_ipv6, no_ipv4;
    /* The servers validate, and nobody forges what they say on its way: their AD bit is believed,
     * and hosts are asked for TLSA records, those of tlsa_port (0 = 25). Else nothing is secure. */
    bool validating;
    uint16_t tlsa_port;
    /* This host as other servers know it, or NULL: where it is among a domain's exchangers, they
     * count only up to there (RFC 5321 5.1: no loop). A literal is in no such list. */
    const char *own_name;
    /* No server answered a question in all tries, and the last one, whose error it is, nothing else
     * meanwhile. May be NULL; must not call back. */
    void (*on_silence)(void *arg, const char *error);
    void *on_silence_arg;
    uint64_t seed; /* for shuffling and hashing: not guessable from outside */
};

struct dns_query {
    /* Set by the caller. route is never NULL; take a reference with dns_route_ref() to keep it. The
     * handler may look up and cancel, not close. */
    void (*on_route)(struct dns_query *query, struct dns_route *route);
    struct list_node node;   /* private, zero before the first lookup */
    struct dns_route *route; /* private */
};

/* options and what they point to are needed only during the call. 0 or -errno: -EINVAL for a server
 * or own_name that cannot be parsed, or both families off; -ENOENT for no server at all. */
int dns_open(struct dns **out, struct io *io, const struct dns_options *options) MUST_USE;
/* Pending queries get no callback; routes held live on. NULL is accepted. The resolver's sockets
 * end in the next turns of io: one at least before io_close(). */
void dns_close(struct dns *dns);

/* Looks up where mail for domain goes. domain: a name (A-label or UTF-8), or a bare host when
 * host_only (A/AAAA of that name, no MX: static routes and smarthosts; there also an address
 * without brackets). An address literal "[1.2.3.4]" or "[IPv6:::1]" needs no resolver. query must
 * live until the callback or dns_cancel(), which does nothing when the query is not pending. */
void dns_lookup(struct dns *dns, struct dns_query *query, struct str domain, bool host_only);
void dns_cancel(struct dns *dns, struct dns_query *query);
/* A valid cached answer right now, with a reference for the caller; or NULL (literals too: they are
 * not cached). */
struct dns_route *dns_cached(struct dns *dns, struct str domain, bool host_only);
struct dns_route *dns_route_ref(struct dns_route *route);
void dns_route_unref(struct dns_route *route);
struct dns_tlsa *dns_tlsa_ref(struct dns_tlsa *tlsa); /* NULL is accepted */
void dns_tlsa_unref(struct dns_tlsa *tlsa);           /* NULL is accepted */
/* Whether any of its records is usable for mail (RFC 7672 3.1): of usage 2 or 3, with a selector, a
 * matching type and a length that are known. */
bool dns_tlsa_usable(const struct dns_tlsa *tlsa);

/* One question for records as they are. Nothing is cached; it counts against in_flight_max as
 * lookups do. Lives until its answer, which never comes from inside dns_ask(), or dns_close(). */
struct dns_question {
    /* Set by the caller. answer, and all that it points to, lives until the handler returns. */
    void (*on_answer)(struct dns_question *question, const struct dns_answer *answer);
    /* Private. */
    struct dns *dns;
    const char *name;
    enum dns_type type;
    uint64_t sent_ms;
    struct list_node node;
    struct dns_upstream_query up;
};
/* name: as dns_name_parse() makes it; lives as long as question. */
void dns_ask(struct dns *dns, struct dns_question *question, const char *name, enum dns_type type);

struct dns_counters {
    uint64_t lookups;  /* asked for by the engine, dns_cached() only when it hit */
    uint64_t hits;     /* of these answered from the cache */
    uint64_t upstream; /* queries to the resolver */
    uint64_t failures; /* of these without a usable answer */
    uint64_t stale;    /* expired routes that had to serve on */
    uint64_t secure;   /* answers that the resolver has validated */
    uint64_t evictions;
    uint64_t bytes;              /* of the cache */
    uint32_t entries, in_flight; /* in flight: upstream queries */
};
void dns_counters(const struct dns *dns, struct dns_counters *out);
/* The answers that are known for domain, and for its exchangers, are to be asked for anew; while
 * the resolver is of no help they serve on, as expired ones do. Those of the last second are left.
 */
void dns_forget(struct dns *dns, struct str domain, bool host_only);
/* Drops the whole cache. A reload does not: it would ask anew for every name in the queue. */
void dns_flush(struct dns *dns);

#endif
