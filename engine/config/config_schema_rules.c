/* The schema of `rules`. */
#include "config/config_schema_row.h"

#define AT(member)     .offset = offsetof(struct config_rule, member)
#define LEN_AT(member) .offset2 = offsetof(struct config_rule, member)

static const struct config_field fields[] = {
    {"provider", CONFIG_TEXT_LIST, AT(providers), LEN_AT(providers_len), .def_text = "any",
     .example = "[google, yahoo]",
     .doc = "Who runs the exchanger, by the names of `hayauma warmup providers`."},
    {"mx", CONFIG_TEXT_LIST, AT(mx), LEN_AT(mx_len), .def_text = "any",
     .example = "[mx.example.net]",
     .doc = "How the exchanger's name ends: whole labels, in any case."},
    {"stage", CONFIG_CHOICE, AT(stage_word), .def = "any",
     .choices = "any, greeting, mail, rcpt, data, message",
     .doc = "What was refused: the session up to EHLO, MAIL, RCPT, DATA, or the message behind its "
            "content."},
    {"code", CONFIG_TEXT, AT(code_word), .def_text = "any", .example = "421",
     .doc = "The reply's code: `421`, `550-554`, `4xx` or `5xx`."},
    {"enhanced", CONFIG_TEXT, AT(enhanced_word), .def_text = "any, or none", .example = "4.7.28",
     .doc =
         "The enhanced code (RFC 3463): `4.7.28`, or a range of its last number, `5.7.606-649`."},
    {"text", CONFIG_TEXT_LIST, AT(texts), LEN_AT(texts_len), .def_text = "any",
     .example = "[\"rate limited\", \"too * connections\"]",
     .doc = "Words of which one is in the reply, in any case; `*` stands for anything between "
            "them. Providers reword: code and enhanced code are the better sign."},
    {"outcome", CONFIG_CHOICE, AT(outcome_word), .def = "said", .choices = "said, deferred, failed",
     .doc = "What the recipients get: what the code says, another try (`deferred`), or the end "
            "(`failed`)."},
    {"suspend", CONFIG_SECONDS, AT(suspend_s), .def = "0", RANGE(0, 30 * DAY_S), .zero = "no",
     .example = "10m",
     .doc = "Mail of `scope` to this provider waits for so long, over restarts too. Of a source it "
            "goes by the others of the pool meanwhile; then the source has one connection, and one "
            "more with each that works; while none has worked, a failure begins it anew."},
    {"scope", CONFIG_CHOICE, AT(scope_word), .def = "source",
     .choices = "source, netblock, site, campaign, tenant, domain, signing_domain, "
                "envelope_domain, source_and_domains",
     .doc =
         "Whose mail `suspend` means, and whose limits are lowered: that of the source, of all "
         "sources with an address in the same /24 (IPv6: /64) as the one that was used, of the "
         "campaign, of the tenant, all to the site, all to the recipient's domain, all that the "
         "same domain signs, or all with the same domain in its return path; `source_and_domains`: "
         "of the source, and of both of these domains, for answers that do not say which they "
         "mean. Mail without a campaign counts by its tenant, without either by its source; mail "
         "that nobody signs by its envelope domain, and where that is empty nothing is suspended. "
         "Behind a pause mail of a domain comes back as that of a source does: one message at a "
         "time, and one more with each connection that gets one through."},
    {"slow_down", CONFIG_BOOL, AT(slow_down), .def = "no",
     .doc = "One connection less for the source there. It comes back with messages taken and with "
            "time."},
    {"rate", CONFIG_RATE, AT(rate_messages),
     .offset2 = offsetof(struct config_rule, rate_period_ms), .def = "none", .zero = "none",
     .example = "60/min",
     .doc = "The rate of what `scope` names at the site is lowered to this for `lowered_for`, over "
            "restarts too: that of the source (with `domain`, too), of each source of the "
            "netblock, or with `site` of each; that of the campaign, tenant, signing or envelope "
            "domain over all sources. Each further such reply begins that time anew. Behind it "
            "twice as much may go, and so on; behind six times `lowered_for` without such a reply "
            "all that is configured."},
    {"sessions_max", CONFIG_COUNT, AT(sessions_max), .def = "0", RANGE(0, 100000),
     .zero = "as configured",
     .doc = "The same of the source's sessions there; of a campaign, tenant, signing or envelope "
            "domain, how many of its messages may be under way at a time, each in a session."},
    {"session_messages_max", CONFIG_COUNT, AT(session_messages_max), .def = "0",
     RANGE(0, 100000000), .zero = "as configured",
     .doc = "The same of the messages of a session of these sources."},
    {"lowered_for", CONFIG_SECONDS, AT(lowered_s), .def = "10m", RANGE(1, 5 * DAY_S),
     .doc = "See `rate`."},
    {"retry", CONFIG_SECONDS, AT(retry_s), .def = "0", RANGE(0, 7 * DAY_S),
     .zero = "as the retry table says", .example = "10m",
     .doc = "When the recipients of the first three attempts are tried again."},
    {"pool", CONFIG_TEXT, AT(pool), .def_text = "the same", .example = "spare",
     .doc = "The recipients go on by this pool, if they are deferred; with `retry` soon."},
    {"classification", CONFIG_TEXT, AT(classification), .def_text = "by the reply",
     .example = "PolicyRelated", .doc = "`bounce_classification` in the records."},
    {"suppress", CONFIG_NOT, AT(no_suppression), .def = "yes",
     .doc = "'no': the refusal says nothing of the address; `suppress` is false in its record."},
    {"alarm", CONFIG_BOOL, AT(alarm), .def = "no",
     .doc = "`rule.alarm` in the log, at most every ten minutes, and a record."},
    {"after", CONFIG_COUNT, AT(after), .def = "1", RANGE(1, CONFIG_RULE_AFTER_MAX),
     .doc =
         "`suspend`, `alarm` and what is lowered wait for so many of these refusals `within` the "
         "time. They are counted by source and by what would be suspended; a restart begins anew."},
    {"within", CONFIG_SECONDS, AT(within_s), .def = "1h", RANGE(1, 7 * DAY_S),
     .doc = "See `after`."},
    {"enabled", CONFIG_NOT, AT(disabled), .def = "yes",
     .doc = "'no' takes out a rule that is shipped, by its name."},
};

const struct config_items config_rule_items = {
    .bytes = sizeof(struct config_rule),
    .max = 1000,
    .key = CONFIG_KEY_NAME,
    .key_offset = offsetof(struct config_rule, name),
    .key_word = "NAME",
    .write = "\"busy: {code: 421, text: [busy], suspend: 5m}\""};

const struct config_section config_rule_schema = {
    .doc = "How refusals are read that say more than their code (see Answers that teach in the "
           "manual). The first rule that matches counts: those of the file in their order, then "
           "those that come with Hayauma (`hayauma rules` lists them). A rule with the name of one "
           "of these takes its place.",
    .example = "rules:\n  example-busy:\n    mx: [mx.example.net]\n    code: 4xx\n    text: [\"too "
               "busy\", \"slow down\"]\n    suspend: 5m\n  yahoo-volume: {enabled: no}\n",
    .fields = fields,
    .len = ARRAY_LEN(fields)};
