/* The rules that come with the engine. Facts of public pages: beside each rule who published the
 * wording that it looks for, and of when. How long mail waits is the provider's own word where it
 * gives one (Google: ten minutes), else ours. Each wording has a real reply in
 * outcome/rules_test.c.
 *
 * What providers say in code and enhanced code is looked for there; texts only where these say too
 * little, for providers reword. */
#include "config/config_private.h"

#define LIST_LEN(...)  (sizeof((char *[]){__VA_ARGS__}) / sizeof(char *))
#define PROVIDERS(...) .providers = (char *[]){__VA_ARGS__}, .providers_len = LIST_LEN(__VA_ARGS__)
#define TEXTS(...)     .texts = (char *[]){__VA_ARGS__}, .texts_len = LIST_LEN(__VA_ARGS__)
#define RULE(...)                                                                                  \
    {                                                                                              \
        .within_s = HOURS(1), __VA_ARGS__                                                          \
    }
#define MINUTES(n) ((n)*60)
#define HOURS(n)   ((n)*3600)
#define DEFERRED   .outcome_word = "deferred"
#define FAILED     .outcome_word = "failed"
/* It is about us, the message or a list, and not about the address. */
#define NOT_THE_ADDRESS .no_suppression = true
/* The address of a source is refused: other sources of the pool may get the mail through. */
#define BLOCKED(time)                                                                              \
    .suspend_s = (time), .alarm = true, DEFERRED, NOT_THE_ADDRESS, .classification = "SpamBlock"
#define SIGNER_WAITS    .suspend_s = MINUTES(10), .scope_word = "signing_domain"
#define UNAUTHENTICATED .alarm = true, NOT_THE_ADDRESS, .classification = "AuthenticationFailed"

#define GOOGLE    PROVIDERS("google"), .from = "support.google.com/a/answer/3726730, 2026-02-15"
#define YAHOO     PROVIDERS("yahoo")
#define MICROSOFT PROVIDERS("microsoft")
#define APPLE     PROVIDERS("apple")
#define SFM       "smtpfieldmanual.com, 2025-02-10"
#define SISIMAI   "libsisimai.org, 2025-02-23"
#define KUMO      "KumoMTA community shaping, 2026-08-04"
#define OUTLOOK   "postmaster of Outlook.com, 2026-06-15"

/* clang-format off */
const struct config_rule config_rules_shipped[] = {
    /* Google limits by address, netblock, signing domain, envelope domain and links. Its published
     * recovery (support.google.com/a/answer/81126, 2026-03-21): nothing for ten minutes, then one
     * connection, one more with each that works, ten more minutes after a failure. */
    RULE(.name = "google-message-id", GOOGLE, .code_word = "421", .enhanced_word = "4.7.28",
         TEXTS("same message-id"), .suspend_s = MINUTES(10), .scope_word = "campaign", .alarm = true),
    RULE(.name = "google-links", GOOGLE, .code_word = "421", .enhanced_word = "4.7.28",
         TEXTS("your url domains"), .suspend_s = MINUTES(10), .scope_word = "campaign"),
    RULE(.name = "google-dkim-domain", GOOGLE, .code_word = "421", .enhanced_word = "4.7.28",
         TEXTS("your dkim domain"), .suspend_s = MINUTES(10), .scope_word = "signing_domain"),
    RULE(.name = "google-spf-domain", GOOGLE, .code_word = "421", .enhanced_word = "4.7.28",
         TEXTS("your spf domain"), .suspend_s = MINUTES(10), .scope_word = "envelope_domain"),
    RULE(.name = "google-netblock", GOOGLE, .code_word = "421", .enhanced_word = "4.7.28",
         TEXTS("your ip netblock"), .suspend_s = MINUTES(10), .scope_word = "netblock"),
    RULE(.name = "google-source", GOOGLE, .code_word = "421", .enhanced_word = "4.7.28",
         TEXTS("your ip address"), .suspend_s = MINUTES(10)),
    /* Where the answer names nothing, it may mean each of the three (81126). */
    RULE(.name = "google-rate", GOOGLE, .code_word = "421", .enhanced_word = "4.7.28",
         .suspend_s = MINUTES(10), .scope_word = "source_and_domains"),
    RULE(.name = "google-source-refused", GOOGLE, .code_word = "550", .enhanced_word = "5.7.28",
         BLOCKED(MINUTES(10))),
    RULE(.name = "google-reputation-source", GOOGLE, .code_word = "421", .enhanced_word = "4.7.0",
         TEXTS("reputation of the sending ip"), .suspend_s = MINUTES(10)),
    RULE(.name = "google-reputation-domain", GOOGLE, .code_word = "421", .enhanced_word = "4.7.0",
         TEXTS("reputation of the sending domain"), .suspend_s = MINUTES(10),
         .scope_word = "signing_domain"),
    RULE(.name = "google-content", GOOGLE, .code_word = "421", .enhanced_word = "4.7.0",
         TEXTS("nature of the content"), .suspend_s = MINUTES(10), .scope_word = "campaign"),
    RULE(.name = "google-busy", GOOGLE, .code_word = "421", .enhanced_word = "4.7.0",
         TEXTS("^try again later, closing connection"), .slow_down = true),
    RULE(.name = "google-ptr", GOOGLE, .code_word = "451", .enhanced_word = "4.7.23",
         .suspend_s = HOURS(1), .alarm = true, .classification = "AuthenticationFailed"),
    RULE(.name = "google-ptr-421", GOOGLE, .code_word = "421", .enhanced_word = "4.7.0",
         TEXTS("ptr record"), .suspend_s = HOURS(1), .alarm = true,
         .classification = "AuthenticationFailed"),
    RULE(.name = "google-ptr-refused", GOOGLE, .code_word = "550", .enhanced_word = "5.7.25",
         .suspend_s = HOURS(1), DEFERRED, UNAUTHENTICATED),
    RULE(.name = "google-spf", GOOGLE, .code_word = "4xx", .enhanced_word = "4.7.24",
         .retry_s = HOURS(2), UNAUTHENTICATED),
    /* What such a domain sends is refused alike, whichever source sends it. */
    RULE(.name = "google-authentication", GOOGLE, .code_word = "4xx", .enhanced_word = "4.7.26",
         .retry_s = HOURS(2), SIGNER_WAITS, UNAUTHENTICATED),
    RULE(.name = "google-spf-failed", GOOGLE, .code_word = "4xx", .enhanced_word = "4.7.27",
         .retry_s = HOURS(2), .suspend_s = MINUTES(10), .scope_word = "envelope_domain",
         UNAUTHENTICATED),
    RULE(.name = "google-dkim", GOOGLE, .code_word = "4xx", .enhanced_word = "4.7.30",
         .retry_s = HOURS(2), SIGNER_WAITS, UNAUTHENTICATED),
    RULE(.name = "google-alignment", GOOGLE, .code_word = "4xx", .enhanced_word = "4.7.32",
         .retry_s = HOURS(2), SIGNER_WAITS, UNAUTHENTICATED),
    /* A 4xx with the status of a 5xx: the parser leaves such a status in the text. */
    RULE(.name = "google-alignment-421", GOOGLE, .code_word = "421", TEXTS("^5.7.32"),
         .retry_s = HOURS(2), SIGNER_WAITS, UNAUTHENTICATED),
    RULE(.name = "google-dmarc", GOOGLE, .code_word = "4xx", .enhanced_word = "4.7.40",
         .retry_s = HOURS(2), SIGNER_WAITS, UNAUTHENTICATED),
    RULE(.name = "google-unauthenticated", GOOGLE, .code_word = "550", .enhanced_word = "5.7.26-27",
         UNAUTHENTICATED),
    RULE(.name = "google-spf-refused", GOOGLE, .code_word = "550", .enhanced_word = "5.7.24",
         UNAUTHENTICATED),
    RULE(.name = "google-dkim-refused", GOOGLE, .code_word = "550", .enhanced_word = "5.7.30",
         UNAUTHENTICATED),
    RULE(.name = "google-dmarc-refused", GOOGLE, .code_word = "550", .enhanced_word = "5.7.40",
         UNAUTHENTICATED),
    RULE(.name = "google-tls", GOOGLE, .code_word = "421", .enhanced_word = "4.7.29", .alarm = true),
    RULE(.name = "google-tls-refused", GOOGLE, .code_word = "550", .enhanced_word = "5.7.29",
         .alarm = true, NOT_THE_ADDRESS),
    RULE(.name = "google-tls-domain", GOOGLE, .code_word = "421", .enhanced_word = "4.7.0",
         TEXTS("tls required"), .alarm = true),
    RULE(.name = "google-mailbox-rate", GOOGLE, .code_word = "550", .enhanced_word = "5.2.1",
         TEXTS("at a rate that"), DEFERRED, .retry_s = HOURS(1), NOT_THE_ADDRESS),
    RULE(.name = "google-mailbox-later", GOOGLE, .code_word = "450", .enhanced_word = "4.2.1",
         .retry_s = HOURS(1), NOT_THE_ADDRESS),
    RULE(.name = "google-mailbox-full", GOOGLE, .code_word = "452", .enhanced_word = "4.2.2",
         NOT_THE_ADDRESS, .classification = "QuotaIssues"),
    /* The rest of the envelope goes in the next transaction, at once: the code says so. */
    RULE(.name = "google-split", GOOGLE, .code_word = "452", .enhanced_word = "4.5.3",
         NOT_THE_ADDRESS),
    RULE(.name = "google-rate-refused", GOOGLE, .code_word = "550", .enhanced_word = "5.7.1",
         TEXTS("this email has been rate limited"), DEFERRED, .suspend_s = MINUTES(10),
         NOT_THE_ADDRESS),
    RULE(.name = "google-unwanted", GOOGLE, .code_word = "550", .enhanced_word = "5.7.1",
         TEXTS("very low reputation", "likely unsolicited"), .alarm = true, .after = 10,
         NOT_THE_ADDRESS, .classification = "SpamBlock"),

    RULE(.name = "yahoo-volume", PROVIDERS("yahoo", "yahoo_japan"), .code_word = "421",
         TEXTS("[tss04]", "[tss05]", "[ipts04]", "[ipts05]"), .suspend_s = MINUTES(30),
         .from = SFM "; " KUMO),
    RULE(.name = "yahoo-complaints", YAHOO, .code_word = "421", TEXTS("[ts01]", "[ts02]"),
         .suspend_s = HOURS(1), .from = KUMO "; smtp-error-codes.info, 2013"),
    RULE(.name = "yahoo-stopped", YAHOO, .code_word = "421", TEXTS("[ts03]", "retrying will not"),
         .suspend_s = HOURS(6), .alarm = true, .from = KUMO),
    RULE(.name = "yahoo-stopped-refused", YAHOO, .code_word = "553", .enhanced_word = "5.7.2",
         BLOCKED(HOURS(6)), .from = SISIMAI),
    RULE(.name = "yahoo-listed", YAHOO, .code_word = "553", TEXTS("[bl21]", "[bl23]", "[tss07]"),
         BLOCKED(HOURS(2)), .from = SFM "; zone-mta, 2026-07-20"),
    RULE(.name = "yahoo-mailbox-rate", YAHOO, .code_word = "450",
         TEXTS("receiving mail too quickly"), .retry_s = HOURS(1), .from = SFM),
    RULE(.name = "yahoo-policy", PROVIDERS("yahoo", "yahoo_japan"), .code_word = "554",
         TEXTS("accepted for policy reasons", "message not allowed - headers",
               "message not allowed - [299]"),
         NOT_THE_ADDRESS, .classification = "PolicyRelated", .from = SFM "; " SISIMAI),
    RULE(.name = "yahoo-unauthenticated", YAHOO, .code_word = "550", .enhanced_word = "5.7.9",
         UNAUTHENTICATED, .from = SISIMAI),
    RULE(.name = "yahoo-sender-domain", YAHOO, .code_word = "451", TEXTS("unresolvable rfc.5321"),
         .alarm = true, .classification = "InvalidSender", .from = SISIMAI),
    RULE(.name = "yahoo-japan-deferred", PROVIDERS("yahoo_japan"), .code_word = "553",
         TEXTS("vs98-ip0 deferred"), DEFERRED, .suspend_s = HOURS(1), NOT_THE_ADDRESS, .from = KUMO),

    RULE(.name = "microsoft-rate", MICROSOFT, .code_word = "421", TEXTS("rp-001", "rp-002"),
         .suspend_s = MINUTES(10), .from = OUTLOOK),
    RULE(.name = "microsoft-connections", MICROSOFT, .code_word = "421", TEXTS("rp-003"),
         .slow_down = true, .from = OUTLOOK),
    RULE(.name = "microsoft-connections-451", MICROSOFT, .code_word = "451",
         .enhanced_word = "4.7.652", .slow_down = true, .from = "logs of senders, 2024-08-01"),
    RULE(.name = "microsoft-reputation", MICROSOFT, .code_word = "451",
         .enhanced_word = "4.7.650-651", .suspend_s = MINUTES(30), .from = SFM "; " SISIMAI),
    RULE(.name = "microsoft-busy", MICROSOFT, .code_word = "451", .enhanced_word = "4.7.500",
         .suspend_s = MINUTES(10), .from = SFM),
    RULE(.name = "microsoft-suspicious", MICROSOFT, .code_word = "4xx",
         .enhanced_word = "4.7.850-899", .suspend_s = MINUTES(30), .from = SISIMAI),
    RULE(.name = "microsoft-block-list", MICROSOFT, .code_word = "550", .enhanced_word = "5.7.1",
         TEXTS("(s3140)", "(s3150)"), BLOCKED(HOURS(2)), .from = SFM "; zone-mta, 2026-07-20"),
    RULE(.name = "microsoft-banned", MICROSOFT, .code_word = "550", .enhanced_word = "5.7.606-649",
         BLOCKED(HOURS(2)), .from = SFM),
    RULE(.name = "microsoft-banned-sender", MICROSOFT, .code_word = "550",
         .enhanced_word = "5.7.511", BLOCKED(HOURS(2)), .from = "zone-mta, 2026-07-20"),
    RULE(.name = "microsoft-probing", MICROSOFT, .code_word = "550", TEXTS("sc-002"),
         BLOCKED(HOURS(12)), .from = OUTLOOK),
    RULE(.name = "microsoft-policy", MICROSOFT, .code_word = "550",
         TEXTS("sc-001", "sc-003", "sc-004", "dy-001", "dy-002", "ou-001", "ou-002"),
         BLOCKED(HOURS(2)), .from = OUTLOOK),
    RULE(.name = "microsoft-unauthenticated", MICROSOFT, .code_word = "550",
         .enhanced_word = "5.7.515", UNAUTHENTICATED, .from = OUTLOOK),
    RULE(.name = "microsoft-dmarc", MICROSOFT, .code_word = "550", .enhanced_word = "5.7.509",
         UNAUTHENTICATED, .from = SISIMAI),
    RULE(.name = "microsoft-unknown", MICROSOFT, .code_word = "550", .enhanced_word = "5.4.1",
         TEXTS("recipient address*rejected"), .classification = "InvalidRecipient",
         .from = SFM "; " SISIMAI),
    RULE(.name = "microsoft-mailbox-rate", MICROSOFT, .code_word = "554",
         .enhanced_word = "5.2.121-122", DEFERRED, .retry_s = HOURS(1), NOT_THE_ADDRESS,
         .from = SFM),

    RULE(.name = "apple-busy", APPLE, .code_word = "451", TEXTS("^service unavailable", "[bs02]"),
         .slow_down = true, .retry_s = MINUTES(10), .from = SFM "; " KUMO),
    RULE(.name = "apple-deferred", APPLE, .code_word = "421", TEXTS("[hcm1]"),
         .suspend_s = MINUTES(15), .from = KUMO),
    RULE(.name = "apple-mailbox-rate", APPLE, .code_word = "421", .enhanced_word = "4.7.1",
         TEXTS("due to excessive volume"), .retry_s = HOURS(1), .from = SFM),
    RULE(.name = "apple-policy", APPLE, .code_word = "550-554", .enhanced_word = "5.7.1",
         TEXTS("rejected due to local policy"), NOT_THE_ADDRESS, .classification = "PolicyRelated",
         .alarm = true, .after = 10, .from = SFM "; logs of senders, 2026"),
    RULE(.name = "apple-unauthenticated", APPLE, .code_word = "550-554", .enhanced_word = "5.7.1",
         TEXTS("s dmarc policy", "[hme1]"), UNAUTHENTICATED, .from = SFM "; " SISIMAI),
    RULE(.name = "apple-listed", APPLE, .code_word = "550", .enhanced_word = "5.7.1",
         TEXTS("due to listing in spamhaus"), BLOCKED(HOURS(2)), .from = SISIMAI),

    RULE(.name = "comcast-rate", PROVIDERS("comcast"), .code_word = "4xx",
         TEXTS("throttled - "), .suspend_s = MINUTES(5), .from = "logs of senders; " KUMO),
    RULE(.name = "comcast-blocked", PROVIDERS("comcast"), .code_word = "554",
         TEXTS("#bl0000", "must have a ptr record"), BLOCKED(HOURS(2)),
         .from = SFM "; zone-mta, 2026-07-20"),
    RULE(.name = "gmx-source", PROVIDERS("gmx"), .code_word = "550-554",
         TEXTS("bad dns ptr", "policy restrictions (ip based)", "ip address is block listed"),
         BLOCKED(HOURS(1)), .from = SFM "; " SISIMAI),
    RULE(.name = "gmx-policy", PROVIDERS("gmx"), .code_word = "550-554",
         TEXTS("policy restrictions (header", "policy restrictions (domain",
               "reject due to policy restrictions."),
         NOT_THE_ADDRESS, .classification = "PolicyRelated", .alarm = true, .after = 10,
         .from = SFM),
    RULE(.name = "orange-connections", PROVIDERS("orange"), .code_word = "421",
         TEXTS("trop de connexions"), .slow_down = true, .from = "zone-mta, 2026-07-20"),
    RULE(.name = "orange-later", PROVIDERS("orange"), .code_word = "421", TEXTS("service refuse"),
         .suspend_s = MINUTES(30), .from = SISIMAI),
    RULE(.name = "orange-blocked", PROVIDERS("orange"), .code_word = "550",
         TEXTS("bloquee pour incident de spam"), BLOCKED(HOURS(2)), .from = SFM "; " SISIMAI),
    RULE(.name = "qq-rate", PROVIDERS("qq"), .code_word = "550", TEXTS("frequency limited"),
         DEFERRED, .suspend_s = HOURS(1), NOT_THE_ADDRESS, .from = SFM "; " SISIMAI "; " KUMO),
    RULE(.name = "qq-content", PROVIDERS("qq"), .code_word = "550", TEXTS("mail content denied"),
         DEFERRED, .retry_s = HOURS(1), NOT_THE_ADDRESS, .classification = "ContentRelated",
         .from = SFM "; " KUMO),
    RULE(.name = "qq-dmarc", PROVIDERS("qq"), .code_word = "550", TEXTS("dmarc check failed"),
         UNAUTHENTICATED, .from = SFM),

    RULE(.name = "mimecast-later", PROVIDERS("mimecast"), .code_word = "451",
         TEXTS("temporarily unavailable"), .retry_s = MINUTES(6), .from = SFM "; " SISIMAI),
    RULE(.name = "mimecast-source", PROVIDERS("mimecast"), .code_word = "451",
         TEXTS("ip temporarily blacklisted"), .suspend_s = HOURS(1), .alarm = true,
         .from = SISIMAI),
    RULE(.name = "mimecast-reputation", PROVIDERS("mimecast"), .code_word = "550",
         TEXTS("poor reputation sender", "ip reputation - (reject)"), BLOCKED(HOURS(1)),
         .from = "zone-mta, 2026-07-20; " SISIMAI),
    RULE(.name = "mimecast-policy", PROVIDERS("mimecast"), .code_word = "550-554",
         TEXTS("rejected by header based", "envelope blocked", "due to security policies"),
         NOT_THE_ADDRESS, .classification = "PolicyRelated", .from = SFM "; " SISIMAI),
    RULE(.name = "mimecast-unauthenticated", PROVIDERS("mimecast"), .code_word = "550",
         TEXTS("sender invalid - envelope rejected"), UNAUTHENTICATED, .from = SFM "; " SISIMAI),
    /* Whoever has such a filter in front: it is not the exchanger's name that tells. */
    RULE(.name = "proofpoint-deferred", .code_word = "4xx", TEXTS("ipcheck.proofpoint.com"),
         .suspend_s = MINUTES(15), .from = "suped.com, 2026-06-04"),
    RULE(.name = "proofpoint-blocked", .code_word = "5xx",
         TEXTS("ipcheck.proofpoint.com", "prs.proofpoint.com", "support.proofpoint.com/dnsbl"),
         BLOCKED(HOURS(2)), .from = SFM "; zone-mta, 2026-07-20; " SISIMAI),
    RULE(.name = "greylisting", .code_word = "4xx",
         TEXTS("greylist", "grey-list"),
         .retry_s = MINUTES(6), .retry_at_most = true, .from = SFM "; postgrey; rumble, 2019"),
    RULE(.name = "too-many-connections", .code_word = "4xx",
         TEXTS("^too many connections", "maximum number of concurrent connections"),
         .slow_down = true, NOT_THE_ADDRESS, .from = KUMO "; " SFM),
    /* The next session goes on at once, and where two sessions end at one number that is kept to. */
    RULE(.name = "session-messages", .code_word = "4xx",
         TEXTS("message per connection", "messages for this session"), NOT_THE_ADDRESS,
         .from = SFM "; note.com/sendmagic, 2022"),

    /* Behind RCPT nobody has that address; behind the content the subscriber's filter took it. */
    RULE(.name = "docomo-unknown", PROVIDERS("docomo"), .stage_word = "rcpt", .code_word = "550",
         TEXTS("unknown user"), .classification = "InvalidRecipient", .from = SISIMAI),
    RULE(.name = "docomo-filter", PROVIDERS("docomo"), .stage_word = "message", .code_word = "550",
         TEXTS("unknown user"), NOT_THE_ADDRESS, .classification = "PolicyRelated",
         .from = SISIMAI),
    RULE(.name = "docomo-full", PROVIDERS("docomo"), .code_word = "552",
         TEXTS("too much mail data"), FAILED, NOT_THE_ADDRESS, .classification = "QuotaIssues",
         .from = "note.com/sendmagic, 2022; " SISIMAI),
    RULE(.name = "docomo-recipients", PROVIDERS("docomo"), .stage_word = "rcpt",
         .code_word = "552", TEXTS("too many recipients"), NOT_THE_ADDRESS,
         .from = "note.com/sendmagic, 2022; " SISIMAI),
    RULE(.name = "docomo-size", PROVIDERS("docomo"), .code_word = "552",
         TEXTS("message size exceeds"), FAILED, NOT_THE_ADDRESS, .classification = "ContentRelated",
         .from = SISIMAI),
    RULE(.name = "docomo-line", PROVIDERS("docomo"), .code_word = "500", TEXTS("line too long"),
         .alarm = true, NOT_THE_ADDRESS, .classification = "ContentRelated",
         .from = "note.com/sendmagic, 2022"),
    RULE(.name = "au-unknown", PROVIDERS("au"), .code_word = "550", TEXTS("^<*>: user unknown"),
         .classification = "InvalidRecipient", .from = SISIMAI),
    RULE(.name = "au-filter", PROVIDERS("au"), .code_word = "550", TEXTS("^: user unknown"),
         NOT_THE_ADDRESS, .classification = "PolicyRelated", .from = SISIMAI),
    RULE(.name = "au-relay", PROVIDERS("au"), .code_word = "554", TEXTS("relay access denied"),
         .classification = "InvalidRecipient", .from = "note.com/sendmagic, 2022"),
    RULE(.name = "softbank-sender-domain", PROVIDERS("softbank", "jcom"), .code_word = "553",
         TEXTS("domain does not exist"), DEFERRED, .alarm = true, NOT_THE_ADDRESS,
         .classification = "InvalidSender", .from = "note.com/sendmagic, 2022"),
    RULE(.name = "softbank-size", PROVIDERS("softbank"), .code_word = "552",
         TEXTS("message size exceeds"), FAILED, NOT_THE_ADDRESS, .classification = "ContentRelated",
         .from = SISIMAI),
    RULE(.name = "infosphere-unknown", .mx = (char *[]){"sphere.ne.jp"}, .mx_len = 1,
         .code_word = "550", TEXTS("can't accept user"), .classification = "InvalidRecipient",
         .from = "sphere.ne.jp, 2006-07"),
};
/* clang-format on */
const size_t config_rules_shipped_len = ARRAY_LEN(config_rules_shipped);
