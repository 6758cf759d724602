/* Builds route objects and the rules of RFC 5321 5.1 that need no waiting: which exchangers count,
 * in which order, which addresses are tried. Pure but for malloc; chance comes from the caller's
 * rng. */
#ifndef HAYAUMA_DNS_ROUTE_H
#define HAYAUMA_DNS_ROUTE_H

#include "base/rng.h"
#include "dns/dns.h"
#include "dns/dns_upstream.h"
#include "dns/name.h"

#define DNS_SITE_NAME_MAX 255
#define DNS_ERROR_MAX     255
/* Addresses kept of one host, per family. */
#define DNS_HOST_ADDRESSES_MAX 16

/* What a route is made from; lives on a stack. Texts are borrowed until route_build() returns. */
struct route_draft {
    enum dns_status status;
    bool implicit_mx, secure;
    uint64_t expires_ms, mx_expires_ms;
    const char *error, *site_name;
    struct {
        const char *name;
        uint16_t preference;
        struct dns_tlsa *tlsa; /* the draft's maker keeps its reference */
    } hosts[DNS_HOSTS_MAX];
    size_t hosts_len;
    struct dns_address addresses[DNS_ADDRESSES_MAX];
    size_t addresses_len;
};

/* One block of memory with one reference, or NULL. */
struct dns_route *route_build(const struct route_draft *draft);

/* The records that were found for base. NULL without memory. */
struct dns_tlsa *tlsa_new(const char *base, const struct dns_record *records, size_t len);
/* There was no answer: "TLSA lookup for NAME: why". */
struct dns_tlsa *tlsa_failed(const char *name, const char *why);

/* The exchangers of a domain, chosen from its MX records. */
struct mx_list {
    enum dns_status status; /* OK, NULL_MX, or NO_HOST: nothing usable, error says why */
    const char *error;
    char site_name[DNS_SITE_NAME_MAX + 1];
    struct {
        const char *name; /* into the records */
        uint16_t preference;
    } hosts[DNS_HOSTS_MAX]; /* in the order to try */
    size_t hosts_len;
};

/* records: of type MX. own_name (may be NULL): with it in the list, exchangers of its preference
 * and worse ones are cut (RFC 5321 5.1). Targets that are no host names are skipped, doubles
 * counted once. The site name covers all that remain, so that it does not depend on chance or on
 * reachability. */
void mx_choose(struct mx_list *out, const struct dns_record *records, size_t len,
               const char *own_name, struct rng *rng);

/* "(mx1|mx2).example.com": names with their common last labels taken out, in the given order, at
 * most about 200 bytes: with more, the first ones, the number of the rest and a hash over all. */
void site_name_make(char out[DNS_SITE_NAME_MAX + 1], const char *const *names, size_t len);

#endif
