/* MTA-STS (RFC 8461), its texts: the TXT record that says whether a domain has a policy, the policy
 * itself, and the record of one that is stored. Bytes of strangers in, values out. Pure but for
 * malloc; a policy is immutable and counted by reference: any thread. */
#ifndef HAYAUMA_STS_STS_POLICY_H
#define HAYAUMA_STS_STS_POLICY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/str.h"

#define STS_ID_MAX    32
#define STS_BODY_MAX  65536    /* bytes of a policy: RFC 8461 3.3 */
#define STS_MX_MAX    256      /* patterns; no honest policy has more */
#define STS_AGE_MAX_S 31557600 /* a year: RFC 8461 3.2 */

/* Stored: no number is used again for something else. */
enum sts_mode { STS_NONE, STS_TESTING, STS_ENFORCE, STS_MODES };

struct sts_policy {
    _Atomic uint32_t refs;
    enum sts_mode mode;
    char id[STS_ID_MAX + 1]; /* of the TXT record that it was fetched for */
    int64_t fetched_ms;      /* wall clock */
    uint32_t max_age_s;
    uint32_t mx_bytes;
    char mx[]; /* patterns in lower case, each with its NUL */
};

/* The id of a TXT record: 0; -ENOENT: the record is about something else; -EBADMSG: it is one of
 * MTA-STS and says nothing. */
int sts_record_parse(struct str text, char id[STS_ID_MAX + 1]) MUST_USE;

/* A policy as a domain publishes it. 0 with one reference, -EBADMSG with *why, a constant text, or
 * -ENOMEM. id, and fetched_ms by the wall clock, are kept with it. */
int sts_policy_parse(struct str body, const char *id, int64_t fetched_ms, struct sts_policy **out,
                     const char **why) MUST_USE;
/* NULL is accepted, and returned. */
struct sts_policy *sts_policy_ref(struct sts_policy *policy);
void sts_policy_unref(struct sts_policy *policy);

const char *sts_mode_name(enum sts_mode mode);
/* When it is no longer valid, by the wall clock. */
static inline int64_t sts_policy_expires_ms(const struct sts_policy *policy)
{
    return policy->fetched_ms + (int64_t)policy->max_age_s * 1000;
}
/* Whether a pattern of the policy matches an exchanger's name. "*.example.com" stands for exactly
 * one label in front of example.com (RFC 8461 4.1). */
bool sts_policy_matches(const struct sts_policy *policy, const char *host);
/* Whether the two ask for the same; either may be NULL. */
bool sts_policy_same(const struct sts_policy *a, const struct sts_policy *b);

/* As it is stored. Decoding: 0, -EBADMSG, -ENOMEM; -EPROTO: of a newer version. */
void sts_policy_encode(struct buf *out, const struct sts_policy *policy);
int sts_policy_decode(struct str value, struct sts_policy **out) MUST_USE;

#endif
