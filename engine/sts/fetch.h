/* Fetches policies of MTA-STS over HTTPS (RFC 8461 3.3), and posts reports of TLS likewise (RFC
 * 8460 5.4): the only code that knows libcurl. One thread has all transfers, STS_FETCHES_MAX at
 * once; it starts with the first. Who submits has looked up the addresses: nothing else is
 * connected to, no redirect is followed, no proxy is asked, and the server's certificate must bear
 * the host's name.
 *
 * Threads: any may submit; on_done() runs in the fetcher's. */
#ifndef HAYAUMA_STS_FETCH_H
#define HAYAUMA_STS_FETCH_H

#include <netinet/in.h>

#include "base/list.h"
#include "sts/sts_policy.h"

#define STS_FETCHES_MAX     16
#define STS_FETCHES_WAITING 4096 /* further ones are refused */
#define STS_FETCH_MS        30000
#define STS_WHY_BYTES       160
#define STS_HOST_PREFIX     "mta-sts."

struct sts_fetcher;

/* What became of a fetch, in RFC 8460's kinds (4.3.2.2). */
enum sts_fault { STS_FAULT_NONE, STS_FAULT_FETCH, STS_FAULT_POLICY, STS_FAULT_CERTIFICATE };

struct sts_fetch {
    /* Set by the caller; what they point to lives until on_done(). */
    const char *host;      /* "mta-sts.example.com" */
    const char *addresses; /* "192.0.2.1,[2001:db8::1]" */
    const char *id;        /* of the TXT record */
    const char *ca_file;   /* NULL: the system's authorities */
    uint16_t port;
    /* A report instead: it is posted to path, and the server's certificate is taken whatever it is,
     * since a report may be about just that (RFC 8460 3). ptr NULL: a policy is fetched. */
    struct str post;
    const char *path;
    void (*on_done)(struct sts_fetch *fetch);
    /* Result: one reference, or NULL and why; of a report why, empty: it was taken (2xx). */
    struct sts_policy *policy;
    enum sts_fault fault;
    char why[STS_WHY_BYTES];
    struct list_node node; /* private */
};

/* 0 or -ENOMEM. */
int sts_fetcher_open(struct sts_fetcher **out) MUST_USE;
/* 0; -EAGAIN: too many wait; -errno: there can be no thread. */
int sts_fetcher_submit(struct sts_fetcher *f, struct sts_fetch *fetch) MUST_USE;
/* Ends the thread. What is not done is the callers' again, without on_done(). NULL is accepted. */
void sts_fetcher_stop(struct sts_fetcher *f);
void sts_fetcher_close(struct sts_fetcher *f);

/* Whether address is one that anybody on the internet could have: no loopback, private or
 * link-local one. A policy's server is named by strangers, and must not be of our own network. */
bool sts_address_is_public(const struct sockaddr *address);

#endif
