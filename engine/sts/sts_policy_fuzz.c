/* Any bytes as a TXT record, as a policy, and as a stored one. What is taken can be stored and
 * comes back the same, and its patterns match names only. */
#include <stdlib.h>

#include "dns/name.h"
#include "sts/sts_policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check(const struct sts_policy *policy)
{
    struct buf stored = {0};
    struct sts_policy *back;

    ASSERT(policy->mode < STS_MODES && policy->max_age_s <= STS_AGE_MAX_S);
    ASSERT(policy->mx_bytes == 0 || policy->mx[policy->mx_bytes - 1] == '\0');
    ASSERT(!sts_policy_matches(policy, "") && !sts_policy_matches(policy, "."));
    for (size_t at = 0; at < policy->mx_bytes; at += strlen(policy->mx + at) + 1) {
        const char *mx = policy->mx + at;

        ASSERT(dns_name_valid(str_of(mx[0] == '*' ? mx + 2 : mx)));
        ASSERT(mx[0] == '*' || sts_policy_matches(policy, mx));
    }
    sts_policy_encode(&stored, policy);
    ASSERT(stored.len <= 4 * STS_BODY_MAX);
    ASSERT(sts_policy_decode(buf_str(&stored), &back) == 0);
    ASSERT(sts_policy_same(policy, back) && strcmp(policy->id, back->id) == 0);
    sts_policy_unref(back);
    buf_done(&stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct str text = {(const char *)bytes, len};
    char id[STS_ID_MAX + 1] = "1";
    struct sts_policy *policy;
    const char *why;

    if (sts_record_parse(text, id) == 0)
        ASSERT(strlen(id) > 0 && strlen(id) <= STS_ID_MAX);
    if (sts_policy_parse(text, id, 0, &policy, &why) == 0) {
        check(policy);
        sts_policy_unref(policy);
    }
    if (sts_policy_decode(text, &policy) == 0) {
        check(policy);
        sts_policy_unref(policy);
    }
    return 0;
}
