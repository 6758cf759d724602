#include "worker/authorship.h"

#include "mail/author.h"

static bool may_write(const void *arg, struct str local_part, struct str domain)
{
    return config_may_write(arg, local_part, domain);
}

bool authorship_check(const struct config_sender_rule *rule, const uint8_t *content, size_t len,
                      struct buf *refusal)
{
    static const char *const why[] = {
        [AUTHORS_NONE] = "From: has no address, and needs one that is",
        [AUTHORS_OTHERS] = "From: has an address that is not",
        [AUTHORS_UNCLEAR] = "From: can be read in several ways, and must have an address that is",
    };
    enum authors authors;

    if (rule->senders == NULL)
        return true;
    authors = authors_check(content, len, may_write, rule->senders);
    if (authors == AUTHORS_GOOD)
        return true;
    buf_printf(refusal, "550 5.7.1 %s in the list of ", why[authors]);
    config_put_sender_rule(rule, refusal);
    return false;
}
