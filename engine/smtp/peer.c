#include "smtp/peer.h"

#include "base/assert.h"
#include "smtp/client.h"

static const struct {
    struct str keyword;
    uint32_t capability;
} keywords[] = {
    {{"PIPELINING", 10}, SMTP_CAP_PIPELINING},
    {{"CHUNKING", 8}, SMTP_CAP_CHUNKING},
    {{"8BITMIME", 8}, SMTP_CAP_8BITMIME},
    {{"SMTPUTF8", 8}, SMTP_CAP_SMTPUTF8},
    {{"SIZE", 4}, SMTP_CAP_SIZE},
    {{"DSN", 3}, SMTP_CAP_DSN},
    {{"STARTTLS", 8}, SMTP_CAP_STARTTLS},
    {{"ENHANCEDSTATUSCODES", 19}, SMTP_CAP_ENHANCED},
    {{"LIMITS", 6}, SMTP_CAP_LIMITS},
    {{"BINARYMIME", 10}, SMTP_CAP_BINARYMIME},
    {{"AUTH", 4}, SMTP_CAP_AUTH},
};

/* Takes the next word off *rest; empty at the end. */
static struct str next_word(struct str *rest)
{
    struct str s = str_trim(*rest);
    size_t n = 0;

    while (n < s.len && s.ptr[n] != ' ' && s.ptr[n] != '\t')
        n++;
    *rest = (struct str){s.ptr + n, s.len - n};
    return (struct str){s.ptr, n};
}

static void take_mechanism(struct smtp_peer *peer, struct str word)
{
    static const struct {
        struct str name;
        uint32_t bit;
    } known[] = {
        {{"PLAIN", 5}, SMTP_AUTH_PLAIN},
        {{"LOGIN", 5}, SMTP_AUTH_LOGIN},
        {{"SCRAM-SHA-256", 13}, SMTP_AUTH_SCRAM},
        {{"SCRAM-SHA-256-PLUS", 18}, SMTP_AUTH_SCRAM_PLUS},
        {{"CRAM-MD5", 8}, SMTP_AUTH_CRAM_MD5},
    };

    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (str_eq_nocase(word, known[i].name))
            peer->auth |= known[i].bit;
}

static void take_limit(struct smtp_peer *peer, struct str word)
{
    const struct {
        struct str name;
        uint32_t *limit;
    } limits[] = {
        {STR("MAILMAX="), &peer->mail_max},
        {STR("RCPTMAX="), &peer->rcpt_max},
        {STR("RCPTDOMAINMAX="), &peer->rcpt_domain_max},
    };

    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct str name = limits[i].name;
        uint64_t value;

        if (!str_starts_nocase(word, name))
            continue;
        /* RFC 9422 3: 1 to 999999; anything else is no limit at all. */
        if (str_to_u64((struct str){word.ptr + name.len, word.len - name.len}, 999999, &value) == 0)
            *limits[i].limit = (uint32_t)value;
    }
}

void smtp_peer_line(struct smtp_peer *peer, struct str line)
{
    struct str rest = line, keyword = next_word(&rest), word;
    uint32_t capability = 0;

    for (size_t i = 0; i < ARRAY_LEN(keywords); i++) {
        if (str_eq_nocase(keyword, keywords[i].keyword))
            capability = keywords[i].capability;
    }
    peer->capabilities |= capability;
    if (capability == SMTP_CAP_SIZE &&
        str_to_u64(next_word(&rest), UINT64_MAX, &peer->size_max) != 0)
        peer->size_max = 0;
    /* "AUTH=PLAIN" is how it was written before it was a standard, and some still write both. */
    if (str_starts_nocase(keyword, STR("AUTH="))) {
        take_mechanism(peer, (struct str){keyword.ptr + 5, keyword.len - 5});
        capability = SMTP_CAP_AUTH;
    }
    while (capability == SMTP_CAP_AUTH && (word = next_word(&rest)).len != 0)
        take_mechanism(peer, word);
    while (capability == SMTP_CAP_LIMITS && (word = next_word(&rest)).len != 0)
        take_limit(peer, word);
}
