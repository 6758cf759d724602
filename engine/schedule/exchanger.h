/* The exchangers of a site: the addresses that take its mail, in the order to try them, and when
 * each last failed. Thread: the site's worker. */
#ifndef HAYAUMA_ENGINE_EXCHANGER_H
#define HAYAUMA_ENGINE_EXCHANGER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "worker/families.h"

struct config_address;
struct dns_route;
struct dns_tlsa;
struct governor_entry;
struct sts_policy;

#define EXCHANGER_BAD_MS 60000 /* an address that gave no session is tried last for so long */

struct exchanger {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } addr;
    socklen_t len;
    uint16_t preference;
    const char *host;              /* points into the route, or to the static route's text */
    struct dns_tlsa *tlsa;         /* of the host: the route's, or NULL */
    uint64_t failed_ms;            /* monotonic: when it gave no session; 0: never */
    struct governor_entry *limits; /* of the host, over all sources; the site's, or NULL */
};

struct exchangers {
    struct exchanger *list;
    uint16_t len;
    struct dns_route *route; /* a reference; NULL: a socket */
    /* Addresses of a family that this host has no route to come last for EXCHANGER_BAD_MS. NULL:
     * all are taken to have one. */
    const struct families *families;
};

/* What decides which address is next. */
struct exchanger_turn {
    uint64_t now_ms;
    uint16_t offset;  /* rotates the addresses of the best preference, so that equal ones share the
                         load */
    uint8_t families; /* that may be connected to, as source_families() has them; 0: all */
    bool down; /* no address worked lately: then a failure of any age counts, so that an attempt
                  goes on where the one before it ended */
    /* The family that did not work just now: among equal addresses the other one is next, so that
     * addresses_max is spread over both. 0: none. */
    sa_family_t avoid;
    bool avoid_most; /* the last try, and all before it were of family avoid: another family then
                        goes before preference */
};

/* Replaces the addresses by those of route; of its hosts only those that an enforced policy sts
 * (NULL: none) names, or, where these count (dane), that have TLSA records. One that is in both
 * keeps the time of its failure. */
void exchangers_of_route(struct exchangers *x, struct dns_route *route, uint16_t port,
                         const struct sts_policy *sts, bool dane);
/* Whether that leaves any address. */
bool exchangers_any(const struct dns_route *route, const struct sts_policy *sts, bool dane);
/* A static route's one address; socket must live as long as x. */
void exchangers_of_socket(struct exchangers *x, const struct config_address *socket);
void exchangers_done(struct exchangers *x);
/* How many of the addresses are of these families; a Unix socket is of all. */
uint16_t exchangers_usable(const struct exchangers *x, uint8_t families);
/* The index of the address to try next; -1: there is none of turn's families. Those that failed
 * lately come last, the oldest failure first: what a session has tried itself does not come again
 * before every other one did. Those whose host takes no further session now, by its limits, do not
 * come; while one of them works nor do those that failed lately, since it is worth waiting for. */
int exchangers_next(const struct exchangers *x, const struct exchanger_turn *turn);
/* Where exchangers_next() finds none since limits of hosts let no further session begin: an
 * exchanger whose limits do so, first of all one that has as many sessions as it may. Else NULL. */
const struct exchanger *exchangers_full(const struct exchangers *x, uint8_t families,
                                        uint64_t now_ms);
/* When the rates of the exchangers' hosts are no reason to wait with a session, and when one of
 * them lets the next message go: monotonic ns; 0 or in the past: now. *by, which may be NULL: the
 * exchanger that says so first. */
uint64_t exchangers_open_at(const struct exchangers *x, uint8_t families, uint64_t now_ns,
                            const struct exchanger **by);
uint64_t exchangers_message_at(const struct exchangers *x, uint64_t now_ns,
                               const struct exchanger **by);
/* The hosts of these families are full, and the worker lacks a session there: sessions of other
 * workers hear of it (governor_contended()). And: the worker lacks none any more. */
void exchangers_lack(const struct exchangers *x, uint8_t families, uint32_t worker,
                     uint64_t now_ns);
void exchangers_lack_none(const struct exchangers *x, uint32_t worker);
/* Whether a and b are the same address. */
bool exchanger_same(const struct exchanger *a, const struct exchanger *b);
/* Whether another address than e has not failed lately. */
bool exchangers_other(const struct exchangers *x, const struct exchanger *e, uint64_t now_ms);
/* e, which may be a copy, gave no session, or none that is of use. */
void exchangers_failed(struct exchangers *x, const struct exchanger *e, uint64_t now_ms);

#endif
