#include "outcome/classify.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "config/config.h"

/* A reply's text in lower case, NUL-terminated, for the key words. */
struct words {
    char text[SMTP_REPLY_TEXT_MAX + 1];
};

static void words_init(struct words *w, const struct smtp_reply *reply)
{
    size_t len = reply->text_len < SMTP_REPLY_TEXT_MAX ? reply->text_len : SMTP_REPLY_TEXT_MAX;

    for (size_t i = 0; i < len; i++)
        w->text[i] = reply->text[i] == '\0' ? '?' : ascii_lower(reply->text[i]);
    w->text[len] = '\0';
}

static bool words_have(const struct words *w, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strstr(w->text, *list) != NULL)
            return true;
    return false;
}

/* --- bounce_classification --- */

enum strength {
    WEAK,   /* key words say more */
    STRONG, /* the enhanced code says it all */
};

struct enhanced_name {
    uint16_t subject, detail;
    enum strength strength;
    const char *name;
};

/* IANA's registry of enhanced codes, by what a sender would do about them. */
static const struct enhanced_name enhanced_names[] = {
    {1, 0, WEAK, "InvalidRecipient"},
    {1, 1, STRONG, "InvalidRecipient"},
    {1, 2, STRONG, "BadDomain"},
    {1, 3, STRONG, "InvalidRecipient"},
    {1, 4, STRONG, "InvalidRecipient"},
    {1, 6, STRONG, "InactiveMailbox"},
    {1, 7, STRONG, "InvalidSender"},
    {1, 8, STRONG, "InvalidSender"},
    {1, 10, WEAK, "BadDomain"}, /* Exchange Online says it of users whom it does not know */
    {2, 0, WEAK, "InactiveMailbox"},
    {2, 1, WEAK, "InactiveMailbox"},
    {2, 2, STRONG, "QuotaIssues"},
    {2, 3, STRONG, "ContentRelated"},
    {2, 4, STRONG, "RoutingErrors"},
    {3, 1, STRONG, "QuotaIssues"},
    {3, 2, WEAK, "TransientFailure"},
    {3, 3, STRONG, "BadConfiguration"},
    {3, 4, STRONG, "ContentRelated"},
    {3, 5, STRONG, "BadConfiguration"},
    {4, 0, WEAK, "BadConnection"},
    {4, 1, STRONG, "NoAnswerFromHost"},
    {4, 2, STRONG, "BadConnection"},
    {4, 3, STRONG, "DNSFailure"},
    {4, 4, STRONG, "RoutingErrors"},
    {4, 5, STRONG, "TransientFailure"},
    {4, 6, STRONG, "RoutingErrors"},
    {4, 7, STRONG, "MessageExpired"},
    {5, 0, WEAK, "ProtocolErrors"},
    {5, 1, WEAK, "ProtocolErrors"},
    {5, 2, WEAK, "ProtocolErrors"},
    {5, 3, STRONG, "TooManyRecipients"},
    {5, 4, WEAK, "ProtocolErrors"},
    {5, 5, WEAK, "ProtocolErrors"},
    {6, 0, WEAK, "ContentRelated"},
    {6, 1, STRONG, "ContentRelated"},
    {6, 2, STRONG, "ContentRelated"},
    {6, 3, STRONG, "ContentRelated"},
    {6, 4, STRONG, "ContentRelated"},
    {6, 5, STRONG, "ContentRelated"},
    {6, 6, STRONG, "ContentRelated"},
    {6, 7, STRONG, "ContentRelated"}, /* what the peer's software lacks says nothing of mailboxes */
    {6, 8, STRONG, "ContentRelated"},
    {6, 9, STRONG, "ContentRelated"},
    {6, 10, STRONG, "ContentRelated"},
    {7, 0, WEAK, "PolicyRelated"},
    {7, 1, WEAK, "PolicyRelated"},
    {7, 2, STRONG, "PolicyRelated"},
    {7, 4, STRONG, "ProtocolErrors"}, /* TLS was required and not offered */
    {7, 5, STRONG, "ProtocolErrors"}, /* TLS failed */
    {7, 7, WEAK, "SpamContent"},
    {7, 13, STRONG, "InactiveMailbox"},
    {7, 15, STRONG, "TransientFailure"},
    {7, 17, STRONG, "InvalidRecipient"},
    {7, 18, STRONG, "BadDomain"},
    {7, 19, STRONG, "BadDomain"},
    {7, 20, STRONG, "AuthenticationFailed"},
    {7, 21, STRONG, "AuthenticationFailed"},
    {7, 22, STRONG, "AuthenticationFailed"},
    {7, 23, STRONG, "AuthenticationFailed"},
    {7, 24, STRONG, "AuthenticationFailed"},
    {7, 25, STRONG, "AuthenticationFailed"},
    {7, 26, STRONG, "AuthenticationFailed"},
    {7, 27, STRONG, "InvalidSender"},
    {7, 28, STRONG, "PolicyRelated"},
    {7, 29, STRONG, "AuthenticationFailed"},
};

struct word_names {
    const char *name;
    const char *const *list;
};

static const char *const words_greylist[] = {
    "greylist", "graylist", "grey-list", "gray-list", "deferred for scanning", NULL};
static const char *const words_relay[] = {"relay", NULL};
static const char *const words_auth[] = {"dmarc",
                                         "spf ",
                                         "spf:",
                                         " spf",
                                         "dkim",
                                         "reverse dns",
                                         "ptr ",
                                         "rdns",
                                         "unauthenticated",
                                         "authentication required",
                                         NULL};
static const char *const words_virus[] = {"virus", "malware", "infected", "trojan", NULL};
static const char *const words_block[] = {"blocked using",
                                          "blacklist",
                                          "blocklist",
                                          "block list",
                                          "black list",
                                          "spamhaus",
                                          "spamcop",
                                          "barracuda",
                                          "rbl",
                                          "dnsbl",
                                          "listed at",
                                          "listed in",
                                          "poor reputation",
                                          "ip reputation",
                                          "blocked your ip",
                                          "your ip",
                                          "client host",

                                          NULL};
static const char *const words_spam[] = {"spam", "junk", "unsolicited", "bulk mail", NULL};
static const char *const words_quota[] = {
    "quota",   "mailbox full",       "mailbox is full", "over quota",
    "storage", "insufficient space", "inbox is full",   NULL};
static const char *const words_inactive[] = {"disabled",        "inactive",           "suspended",
                                             "deactivated",     "no longer",          "not active",
                                             "expired account", "archived recipient", NULL};
static const char *const words_unknown[] = {"user unknown",
                                            "unknown user",
                                            "no such user",
                                            "unknown recipient",
                                            "recipient unknown",
                                            "does not exist",
                                            "doesn't exist",
                                            "not found",
                                            "no mailbox",
                                            "no such recipient",
                                            "invalid recipient",
                                            "invalid mailbox",
                                            "unknown address",
                                            "mailbox unavailable",
                                            "no such mailbox",
                                            "unknown or illegal",
                                            NULL};
static const char *const words_sender[] = {"sender address",   "sender rejected", "sender domain",
                                           "domain of sender", "invalid sender",  NULL};
static const char *const words_domain[] = {"domain not found", "unknown domain", "bad domain",
                                           "no such domain", NULL};
static const char *const words_content[] = {"attachment", "message too large", "message size",
                                            "too big",    "content",           NULL};
static const char *const words_policy[] = {"policy", "denied", "not allowed", "prohibited", NULL};

/* In the order of what tells most: a text that names a block list also has "denied" in it. */
static const struct word_names word_names[] = {
    {"TransientFailure", words_greylist}, {"VirusRelated", words_virus},
    {"RelayDenied", words_relay},         {"AuthenticationFailed", words_auth},
    {"SpamBlock", words_block},           {"SpamContent", words_spam},
    {"BadDomain", words_domain},          {"InvalidSender", words_sender},
    {"QuotaIssues", words_quota},         {"InactiveMailbox", words_inactive},
    {"InvalidRecipient", words_unknown},  {"ContentRelated", words_content},
    {"PolicyRelated", words_policy},
};

static const struct enhanced_name *name_of(uint16_t subject, uint16_t detail)
{
    for (size_t i = 0; i < ARRAY_LEN(enhanced_names); i++)
        if (enhanced_names[i].subject == subject && enhanced_names[i].detail == detail)
            return &enhanced_names[i];
    return NULL;
}

/* Details that are not registered (5.7.750) say as much as their subject (RFC 3463 3). */
static const struct enhanced_name *enhanced_name(const struct smtp_enhanced *e)
{
    const struct enhanced_name *known = NULL;

    if (e->class != 0)
        known = name_of(e->subject, e->detail);
    return e->class == 0 || known != NULL ? known : name_of(e->subject, 0);
}

static const char *name_from_words(const struct words *w)
{
    for (size_t i = 0; i < ARRAY_LEN(word_names); i++)
        if (words_have(w, word_names[i].list))
            return word_names[i].name;
    return NULL;
}

static const char *name_from_code(enum smtp_stage stage, uint16_t code)
{
    if (code >= 400 && code < 500)
        return "TransientFailure";
    if (code >= 500 && code <= 504)
        return "ProtocolErrors";
    if (code == 521 || code == 556)
        return "BadDomain";
    if (code == 552)
        return stage == SMTP_STAGE_RCPT ? "QuotaIssues" : "ContentRelated";
    if (stage == SMTP_STAGE_RCPT && (code == 550 || code == 551 || code == 553))
        return "InvalidRecipient";
    return "Uncategorized";
}

static const char *name_from_reply(enum smtp_stage stage, bool local,
                                   const struct smtp_reply *reply)
{
    const struct enhanced_name *known = enhanced_name(&reply->enhanced);
    const char *name;
    struct words w;

    /* Our own words quote what the peer said. */
    if (known != NULL && (known->strength == STRONG || local))
        return known->name;
    words_init(&w, reply);
    name = name_from_words(&w);
    if (name != NULL)
        return name;
    return known != NULL ? known->name : name_from_code(stage, reply->code);
}

const char *classify_bounce(const struct outcome *outcome)
{
    switch (outcome->class) {
    case OUTCOME_DELIVERED:
        return "Uncategorized";
    case OUTCOME_EXPIRED:
        return "MessageExpired";
    case OUTCOME_LOST:
    case OUTCOME_DEFERRED:
    case OUTCOME_FAILED:
        break;
    }
    if (outcome->suppressed)
        return "Suppressed";
    if (outcome->stage == SMTP_STAGE_AUTH)
        return "BadConfiguration";
    if (outcome->reply.code != 0)
        return name_from_reply(outcome->stage, outcome->local, &outcome->reply);
    return outcome->stage == SMTP_STAGE_CONNECT ? "NoAnswerFromHost" : "BadConnection";
}

/* --- nobody there --- */

/* Words of which each says that the address is nobody's. Those of words_unknown that may be about
 * our own domain, or stand in RFC 5321 beside "rejected for policy reasons", are not here. */
static const char *const words_nobody[] = {"user unknown",
                                           "unknown user",
                                           "no such user",
                                           "user not found",
                                           "user does not exist",
                                           "user doesn't exist",
                                           "unknown recipient",
                                           "recipient unknown",
                                           "no such recipient",
                                           "recipient not found",
                                           "recipient does not exist",
                                           "no such mailbox",
                                           "no mailbox",
                                           "mailbox not found",
                                           "mailbox does not exist",
                                           "account does not exist",
                                           "unknown address",
                                           "unknown or illegal",
                                           NULL};

/* Of 5.1.1 and the like, whose words then say that it is about us: what the client may not, and at
 * RCPT also that the sender is unknown there, which some hosts ask ours about (Exim's callouts). */
static const char *const words_about_us[] = {
    "relaying", "relay access", "to relay", "sender verif", "verification failed for", NULL};

static bool codes_say_nobody(const struct smtp_enhanced *e)
{
    return e->subject == 1 && (e->detail == 1 || e->detail == 2 || e->detail == 10);
}

/* What leaves it to the words: no enhanced code, or one that says "other". */
static bool codes_say_nothing(const struct smtp_enhanced *e)
{
    return e->class == 0 || (e->detail == 0 && (e->subject <= 1 || e->subject == 5));
}

bool classify_is_unknown(const struct outcome *o)
{
    const struct config_rule *rule = o->rule;
    struct words w;

    if (o->class != OUTCOME_FAILED || o->local || o->suppressed ||
        (o->stage != SMTP_STAGE_RCPT && o->stage != SMTP_STAGE_DATA && o->stage != SMTP_STAGE_BODY))
        return false;
    if (rule != NULL && rule->no_suppression)
        return false;
    if (rule != NULL && rule->classification != NULL)
        return strcmp(rule->classification, "InvalidRecipient") == 0;
    words_init(&w, &o->reply);
    if (o->reply.code < 500 || words_have(&w, words_block) || words_have(&w, words_spam) ||
        words_have(&w, words_sender) || words_have(&w, words_about_us))
        return false;
    return codes_say_nobody(&o->reply.enhanced) ||
           (codes_say_nothing(&o->reply.enhanced) && words_have(&w, words_nobody));
}

/* --- verdicts --- */

static const char *const words_throttle[] = {
    "too many",   "too much",          "too fast",     "too quickly",
    "too often",  "throttl",           "rate limit",   "rate-limit",
    "ratelimit",  "exceeded the rate", "limit exceed", "exceeded",
    "concurrent", "connection limit",  "slow down",    "unusual rate",
    "at a rate",  "unexpected volume", "sending rate", "maximum number",
    NULL};

/* The end of one session, after which the next is welcome: no complaint about our rate. */
static const char *const words_session_limit[] = {"messages in one session",
                                                  "messages for this session",
                                                  "messages in this session",
                                                  "messages per session",
                                                  "messages this session",
                                                  "message per session",
                                                  "messages on this connection",
                                                  "messages for this connection",
                                                  "messages in this connection",
                                                  "messages per connection",
                                                  "message per connection",
                                                  "message limit per session",
                                                  "message limit per connection",
                                                  "mails per session",
                                                  "mails per connection",
                                                  "allowable connection time", /* Cisco's */
                                                  NULL};

/* Whether a refusal asks for less from us. About the recipient's own mailbox (4.1.x, 4.2.x) it
 * never is: "receiving mail too quickly" is that user's business, and grey-listing is none of ours.
 */
static bool asks_for_less(const struct smtp_reply *reply, const struct words *w)
{
    const struct smtp_enhanced *e = &reply->enhanced;

    if (e->class != 0 && (e->subject == 1 || e->subject == 2 || e->subject == 6))
        return false;
    if (words_have(w, words_greylist) || words_have(w, words_quota) ||
        words_have(w, words_session_limit))
        return false;
    if (e->class != 0 &&
        ((e->subject == 4 && e->detail == 5) || (e->subject == 7 && e->detail == 28) ||
         (e->subject == 7 && e->detail == 650)))
        return true;
    return words_have(w, words_throttle);
}

static bool is_before_mail(enum smtp_stage stage)
{
    return stage <= SMTP_STAGE_READY;
}

/* A refusal of the session before anything was sent (RFC 5321 3.1, 4.3.2; 521: RFC 7504). Nobody's
 * mail was refused, and a 5xx greeting is more often about our address than about theirs: only 521,
 * "this host takes no mail, ever", is final when no other host is left. */
static struct verdict refused_session(const struct smtp_reply *reply, const struct words *w)
{
    struct verdict v = {.class = reply->code == 521 ? OUTCOME_FAILED : OUTCOME_DEFERRED,
                        .scope = FAULT_HOST,
                        .next_host = true,
                        .close = true};

    if (reply->code < 500 && asks_for_less(reply, w)) {
        /* The other exchangers belong to the same house: going there would be cheating. */
        v.scope = FAULT_SITE;
        v.next_host = false;
        v.slow_down = true;
    }
    return v;
}

/* Our credentials are wrong, or their service does not work: no mail was refused, and mail waits
 * for somebody to mend it. Other addresses ask the same service, which may lock out who tries on.
 */
static struct verdict refused_login(const struct smtp_reply *reply)
{
    return (struct verdict){.class = OUTCOME_DEFERRED,
                            .scope = FAULT_SITE,
                            .next_host = reply->code < 500,
                            .close = true};
}

/* X.5.3 with any code, or words to that effect from a peer without enhanced codes. */
static bool is_too_many(const struct smtp_reply *reply, const struct words *w)
{
    static const char *const list[] = {"too many", "recipients", NULL};

    if (reply->enhanced.class != 0)
        return reply->enhanced.subject == 5 && reply->enhanced.detail == 3;
    return (reply->code == 452 || reply->code == 552) && words_have(w, list);
}

/* The host lacks disk, or its operator has to mend something. */
static bool is_host_trouble(enum smtp_stage stage, const struct smtp_reply *reply,
                            const struct words *w)
{
    const struct smtp_enhanced *e = &reply->enhanced;

    if (e->class != 0)
        return e->subject == 3 && (e->detail <= 2 || e->detail == 5);
    return reply->code == 452 &&
           (stage != SMTP_STAGE_RCPT || strstr(w->text, "system storage") != NULL);
}

static struct verdict transient(enum smtp_stage stage, const struct smtp_reply *reply,
                                const struct words *w)
{
    struct verdict v = {.class = OUTCOME_DEFERRED,
                        .scope = stage == SMTP_STAGE_RCPT ? FAULT_RECIPIENT : FAULT_MESSAGE};

    if (stage == SMTP_STAGE_RCPT && is_too_many(reply, w)) {
        v.too_many = true;
        return v;
    }
    if (reply->code == 421) { /* RFC 5321 3.8: the server closes */
        v.scope = FAULT_SESSION;
        v.close = v.goodbye = true;
        v.next_host = true;
    }
    if (asks_for_less(reply, w)) {
        v.scope = FAULT_SITE;
        v.slow_down = true;
        v.next_host = false;
    } else if (is_host_trouble(stage, reply, w)) {
        v.scope = FAULT_HOST;
        v.next_host = true;
    }
    return v;
}

static struct verdict permanent(enum smtp_stage stage, const struct smtp_reply *reply,
                                const struct words *w)
{
    struct verdict v = {.class = OUTCOME_FAILED,
                        .scope = stage == SMTP_STAGE_RCPT ? FAULT_RECIPIENT : FAULT_MESSAGE};
    const struct smtp_enhanced *e = &reply->enhanced;

    /* RFC 5321 4.5.3.1.10: 552 was once the code for too many recipients. */
    if (reply->code == 552 && stage == SMTP_STAGE_RCPT &&
        (e->class == 0 ? !words_have(w, words_quota) && !words_have(w, words_content)
                       : is_too_many(reply, w)))
        return transient(stage, reply, w);
    /* RFC 3463 3.6: the others get a message of their own; alone it is refused for good. */
    v.too_many = stage == SMTP_STAGE_RCPT && is_too_many(reply, w);
    /* The two sides disagree about where they are in the dialogue: nothing about the mail. */
    if (reply->code == 503) {
        v.class = OUTCOME_DEFERRED;
        v.scope = FAULT_SESSION;
        v.close = true;
        return v;
    }
    /* A 521 that comes late is followed by the connection's end (RFC 7504 3). */
    if (reply->code == 521)
        v.close = true;
    /* Our address is on a list: the next message will hear the same. */
    if ((e->class == 0 || e->subject == 7) && words_have(w, words_block)) {
        v.scope = FAULT_SITE;
        v.slow_down = true;
    }
    return v;
}

static struct verdict broken(enum smtp_stage stage, enum smtp_fate fate)
{
    struct verdict v = {.class = OUTCOME_DEFERRED,
                        .scope = is_before_mail(stage) && stage != SMTP_STAGE_READY ? FAULT_HOST
                                                                                    : FAULT_SESSION,
                        .next_host = true,
                        .close = true};

    if (fate == SMTP_FATE_LOST) {
        v.class = OUTCOME_LOST;
        v.next_host = false;
    }
    return v;
}

struct verdict classify(enum smtp_stage stage, enum smtp_fate fate, enum smtp_unable unable,
                        const struct smtp_reply *reply)
{
    struct verdict v;
    struct words w;

    if (fate == SMTP_FATE_UNABLE) {
        ASSERT(unable != SMTP_UNABLE_NONE);
        return (struct verdict){.class = OUTCOME_FAILED, .scope = FAULT_MESSAGE};
    }
    if (fate != SMTP_FATE_REPLY || reply == NULL || reply->code == 0)
        return broken(stage, fate);
    if (reply->code / 100 == 2)
        return (struct verdict){.class = OUTCOME_DELIVERED, .scope = FAULT_NONE};
    if (reply->code / 100 == 3) /* out of place */
        return broken(stage, fate);
    words_init(&w, reply);
    if (stage == SMTP_STAGE_READY || stage == SMTP_STAGE_QUIT || stage == SMTP_STAGE_RSET)
        return (struct verdict){.class = OUTCOME_DEFERRED, .scope = FAULT_SESSION, .close = true};
    if (stage == SMTP_STAGE_AUTH)
        return refused_login(reply);
    if (is_before_mail(stage))
        return refused_session(reply, &w);
    v = reply->code < 500 ? transient(stage, reply, &w) : permanent(stage, reply, &w);
    /* Not all say 421 when a session has brought as many messages as it may. */
    if (stage == SMTP_STAGE_MAIL && words_have(&w, words_session_limit))
        v.close = v.goodbye = true;
    return v;
}

struct verdict classify_dns(enum dns_status status)
{
    ASSERT(status != DNS_OK);
    return (struct verdict){.class = status == DNS_TEMPORARY ? OUTCOME_DEFERRED : OUTCOME_FAILED,
                            .scope = FAULT_SITE};
}

/* --- our own words --- */

static void reply_add(struct smtp_reply *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len && out->text_len < SMTP_REPLY_TEXT_MAX; i++)
        out->text[out->text_len++] = ascii_is_control(text[i]) ? '?' : text[i];
}

static void reply_set(struct smtp_reply *out, uint16_t code, struct smtp_enhanced enhanced,
                      const char *text)
{
    out->code = code;
    out->enhanced = enhanced;
    out->text_len = 0;
    reply_add(out, text, strlen(text));
}

static void reply_add_detail(struct smtp_reply *out, struct str detail)
{
    if (detail.len == 0)
        return;
    reply_add(out, ": ", 2);
    reply_add(out, detail.ptr, detail.len);
}

void classify_io_reply(enum smtp_stage stage, int error, struct str detail, struct smtp_reply *out)
{
    const char *what = error == 0 || error == -EPIPE ? "the peer closed the connection"
                       : error == -ETIMEDOUT         ? "timed out"
                       : error == -EPROTO            ? "the peer does not speak SMTP"
                       : error == -EBADMSG           ? "TLS failed"
                                                     : strerrordesc_np(-error);
    const char *command = classify_command(stage);
    bool connecting = stage == SMTP_STAGE_CONNECT;

    reply_set(out, 451,
              error == -EPROTO ? (struct smtp_enhanced){4, 5, 0}
                               : (struct smtp_enhanced){4, 4, connecting ? 1 : 2},
              connecting                   ? "while connecting"
              : stage == SMTP_STAGE_BANNER ? "while waiting for the greeting"
              : stage == SMTP_STAGE_READY  ? "while idle"
              : stage == SMTP_STAGE_BODY   ? "while sending the message"
                                           : "while waiting for the reply to ");
    if (command != NULL && stage != SMTP_STAGE_BODY)
        reply_add(out, command, strlen(command));
    reply_add_detail(out, str_of(what == NULL ? "unknown error" : what));
    reply_add_detail(out, detail);
}

void classify_dns_reply(enum dns_status status, struct str detail, struct smtp_reply *out)
{
    ASSERT(status != DNS_OK);
    switch (status) {
    case DNS_OK:
        break;
    case DNS_NULL_MX:
        reply_set(out, 556, (struct smtp_enhanced){5, 1, 10}, "the domain takes no mail (null MX)");
        break;
    case DNS_NO_DOMAIN:
        reply_set(out, 550, (struct smtp_enhanced){5, 1, 2}, "the domain does not exist");
        break;
    case DNS_NO_HOST:
        reply_set(out, 550, (struct smtp_enhanced){5, 4, 4},
                  "the domain has no host to which its mail could go");
        break;
    case DNS_BAD_NAME:
        reply_set(out, 550, (struct smtp_enhanced){5, 1, 2}, "not a domain name");
        break;
    case DNS_TEMPORARY:
        reply_set(out, 451, (struct smtp_enhanced){4, 4, 3}, "name server failure");
        break;
    }
    reply_add_detail(out, detail);
}

void classify_tls_reply(struct str why, struct smtp_reply *out)
{
    reply_set(out, 451, (struct smtp_enhanced){4, 7, 5}, "TLS failed");
    reply_add_detail(out, why);
}

void classify_proxy_reply(struct str why, struct smtp_reply *out)
{
    reply_set(out, 451, (struct smtp_enhanced){4, 4, 1}, "no connection");
    reply_add_detail(out, why);
}

void classify_own_reply(struct smtp_reply *out)
{
    reply_set(out, 521, (struct smtp_enhanced){5, 4, 6},
              "this is our own address: mail would loop");
}

void classify_rejected_reply(struct smtp_reply *out)
{
    reply_set(out, 550, (struct smtp_enhanced){5, 7, 1},
              "not sent: our configuration rejects mail for this domain (route: reject)");
}

void classify_unsigned_reply(int error, struct smtp_reply *out)
{
    reply_set(out, 451, (struct smtp_enhanced){4, 7, 5}, "not sent: it cannot be signed (DKIM)");
    reply_add_detail(out, str_of(strerror(-error)));
}

void classify_unrendered_reply(int error, struct str why, struct smtp_reply *out)
{
    bool final = error == -EINVAL || error == -E2BIG;

    reply_set(out, final ? 554 : 451, (struct smtp_enhanced){final ? 5 : 4, final ? 6 : 3, 0},
              "not sent: the letter cannot be made");
    reply_add_detail(out, why.len > 0 ? why : str_of(strerror(-error)));
}

void classify_suppressed_reply(struct str why, struct smtp_reply *out)
{
    reply_set(out, 550, (struct smtp_enhanced){5, 7, 1}, "not sent");
    reply_add_detail(out, why);
}

void classify_unable_reply(enum smtp_unable unable, struct smtp_reply *out)
{
    ASSERT(unable != SMTP_UNABLE_NONE);
    switch (unable) {
    case SMTP_UNABLE_NONE:
        break;
    case SMTP_UNABLE_8BIT:
        reply_set(
            out, 554, (struct smtp_enhanced){5, 6, 3},
            "the message has 8-bit text, the peer lacks 8BITMIME, and it cannot be converted");
        break;
    case SMTP_UNABLE_UTF8:
        reply_set(out, 553, (struct smtp_enhanced){5, 6, 7},
                  "an address is not ASCII, and the peer lacks SMTPUTF8");
        break;
    case SMTP_UNABLE_UTF8_HEADER:
        reply_set(out, 554, (struct smtp_enhanced){5, 6, 9},
                  "the header is not ASCII, the peer lacks SMTPUTF8, and the message cannot be "
                  "converted");
        break;
    case SMTP_UNABLE_SIZE:
        reply_set(out, 552, (struct smtp_enhanced){5, 3, 4},
                  "the message is larger than the peer takes");
        break;
    case SMTP_UNABLE_ADDRESS:
        reply_set(out, 553, (struct smtp_enhanced){5, 1, 3},
                  "not a valid sender or recipient address");
        break;
    }
}

void classify_expired_reply(bool at_set_time, struct str last_error, struct str waited_for,
                            struct smtp_reply *out)
{
    reply_set(out, 554, (struct smtp_enhanced){5, 4, 7},
              at_set_time ? "message expired at the time that was set for it" : "message expired");
    if (waited_for.len > 0) {
        static const char waited[] = "; it waited for ";

        reply_add(out, waited, sizeof(waited) - 1);
        reply_add(out, waited_for.ptr, waited_for.len);
    }
    if (last_error.len > 0) {
        static const char last[] = "; last error";

        reply_add(out, last, sizeof(last) - 1);
        reply_add_detail(out, last_error);
    }
}

/* Stored by place: names are only ever added, behind the last one. */
static const char *const reasons[] = {"Uncategorized",    "AuthenticationFailed",
                                      "BadConfiguration", "BadConnection",
                                      "BadDomain",        "ContentRelated",
                                      "DNSFailure",       "InactiveMailbox",
                                      "InvalidRecipient", "InvalidSender",
                                      "MessageExpired",   "NoAnswerFromHost",
                                      "PolicyRelated",    "ProtocolErrors",
                                      "QuotaIssues",      "RelayDenied",
                                      "RoutingErrors",    "SpamBlock",
                                      "SpamContent",      "TooManyRecipients",
                                      "TransientFailure", "VirusRelated",
                                      "Suppressed"};

uint8_t classify_reason(const char *classification)
{
    for (uint8_t i = 1; i < ARRAY_LEN(reasons); i++)
        if (strcmp(reasons[i], classification) == 0)
            return i;
    return 0;
}

const char *classify_reason_name(uint8_t reason)
{
    return reasons[reason < ARRAY_LEN(reasons) ? reason : 0];
}

const char *classify_command(enum smtp_stage stage)
{
    static const char *const commands[SMTP_STAGES] = {
        [SMTP_STAGE_EHLO] = "EHLO",         [SMTP_STAGE_HELO] = "HELO",
        [SMTP_STAGE_STARTTLS] = "STARTTLS", [SMTP_STAGE_AUTH] = "AUTH",
        [SMTP_STAGE_MAIL] = "MAIL FROM",    [SMTP_STAGE_RCPT] = "RCPT TO",
        [SMTP_STAGE_DATA] = "DATA",         [SMTP_STAGE_BODY] = ".",
        [SMTP_STAGE_RSET] = "RSET",         [SMTP_STAGE_QUIT] = "QUIT",
    };

    return (unsigned)stage < SMTP_STAGES ? commands[stage] : NULL;
}
