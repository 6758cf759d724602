/* Reports of TLS (RFC 8460), their texts: the TXT record that says who wants them, the report, and
 * the message that carries it. Bytes of strangers in, text out. Pure but for malloc. */
#ifndef HAYAUMA_ENGINE_TLS_REPORT_H
#define HAYAUMA_ENGINE_TLS_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/str.h"

/* RFC 8460 4.4. Stored: no number is used again for something else. */
enum tls_report_policy_type {
    TLS_REPORT_NO_POLICY,
    TLS_REPORT_STS,
    TLS_REPORT_TLSA,
    TLS_REPORT_POLICIES
};

/* RFC 8460 4.3. Stored likewise. */
enum tls_report_result {
    TLS_REPORT_SUCCESS,
    TLS_REPORT_STARTTLS_NOT_SUPPORTED,
    TLS_REPORT_HOST_MISMATCH,
    TLS_REPORT_EXPIRED,
    TLS_REPORT_NOT_TRUSTED,
    TLS_REPORT_VALIDATION_FAILURE,
    TLS_REPORT_TLSA_INVALID,
    TLS_REPORT_DNSSEC_INVALID,
    TLS_REPORT_DANE_REQUIRED,
    TLS_REPORT_STS_FETCH,
    TLS_REPORT_STS_INVALID,
    TLS_REPORT_STS_WEBPKI,
    TLS_REPORT_RESULTS
};

/* A kind of failure, and how often it was seen. */
struct tls_report_failure {
    struct list_node node;
    enum tls_report_result result;
    uint64_t count;
    char *mx, *reason;               /* may be empty */
    char *sending_ip, *receiving_ip; /* may be empty */
};

struct tls_report_policy {
    struct list_node node;
    enum tls_report_policy_type type;
    /* What the policy is, each with its NUL: its domain, its strings as the report has them. */
    struct str texts;
    uint64_t successes, failures_count;
    struct list failures;
    uint32_t failures_len;
};

struct tls_report {
    const char *organization, *contact, *host_name; /* of who sends it */
    const char *domain;                             /* whose it is */
    const char *id;                                 /* no two reports have one id */
    int64_t begin_s, end_s;                         /* seconds since 1970; end_s is the last */
    const struct list *policies;
};

/* "sts", "tlsa", "no-policy-found"; "certificate-expired" and so on. */
const char *tls_report_policy_name(enum tls_report_policy_type type);
const char *tls_report_result_name(enum tls_report_result result);

/* Where reports go, by the text of a TXT record _smtp._tls.DOMAIN. */
#define TLS_REPORT_TARGETS_MAX 8
struct tls_report_target {
    bool https;
    struct str address;    /* of mailto: decoded, in buf */
    struct str host, path; /* of https: path begins with "/" or "?", or is empty; a NUL follows */
    uint16_t port;
};
struct tls_report_targets {
    struct tls_report_target list[TLS_REPORT_TARGETS_MAX];
    size_t len;
    struct buf text; /* what list points to; the caller's */
};
/* 0; -ENOENT: the record is about something else; -EBADMSG: it is one of these and says nothing
 * that can be used. Targets beyond the first eight, and of other schemes, are left out. */
int tls_report_record_parse(struct str record, struct tls_report_targets *out) MUST_USE;

/* The report in JSON, RFC 8460 4.4. */
void tls_report_put_json(struct buf *out, const struct tls_report *r);
/* A report packed by gzip (RFC 1952). 0 or -ENOMEM. */
int tls_report_pack(struct buf *out, struct str json) MUST_USE;
/* "mta.example!domain.example!1470013207!1470186007!id.json.gz" (RFC 8460 5.1) */
void tls_report_put_file_name(struct buf *out, const struct tls_report *r);
/* The message with the packed report: RFC 8460 5.3, RFC 8689 5. from, to: mail addresses; seed:
 * letters and digits that nobody guesses. */
struct tls_report_mail {
    const char *from;
    struct str to;
    struct str packed, seed;
    const char *message_id; /* without host */
    int64_t now_ms;
};
void tls_report_put_mail(struct buf *out, const struct tls_report *r,
                         const struct tls_report_mail *mail);

#endif
