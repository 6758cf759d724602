/* The schema of `destinations` and `providers`: how fast and how mail goes to a place. Both have
 * the same keys. */
#include "config/config_schema_row.h"

#include "config/config_private.h"

#define AT_DEST(member) .offset = offsetof(struct config_destination, member)

static const struct config_field timeouts_fields[] = {
    {"connect", CONFIG_MS, AT_DEST(connect_timeout_ms), .def = "30s",
     RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "TCP connection. Shorter than what follows: there are other addresses to try."},
    {"banner", CONFIG_MS, AT_DEST(banner_timeout_ms), .def = "5m",
     RANGE(1 * SECOND_MS, 1 * HOUR_MS), .doc = "The 220 greeting (RFC 5321 4.5.3.2.1)."},
    {"ehlo", CONFIG_MS, AT_DEST(ehlo_timeout_ms), .def = "5m", RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Reply to EHLO, HELO or LHLO."},
    {"tls", CONFIG_MS, AT_DEST(tls_timeout_ms), .def = "1m", RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Reply to STARTTLS, and then the handshake."},
    {"mail", CONFIG_MS, AT_DEST(mail_timeout_ms), .def = "5m", RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Reply to MAIL (4.5.3.2.2)."},
    {"rcpt", CONFIG_MS, AT_DEST(rcpt_timeout_ms), .def = "5m", RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Reply to RCPT (4.5.3.2.3)."},
    {"data", CONFIG_MS, AT_DEST(data_timeout_ms), .def = "2m", RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "The 354 (4.5.3.2.4)."},
    {"body", CONFIG_MS, AT_DEST(body_timeout_ms), .def = "3m", RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Progress of content: the peer must take 64 KiB of it, or the rest, in this time "
            "(4.5.3.2.5)."},
    {"dot", CONFIG_MS, AT_DEST(dot_timeout_ms), .def = "10m", RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Reply to the end of the message, when the peer has it (4.5.3.2.6). Long on purpose: "
            "giving up here is what makes duplicates."},
    {"quit", CONFIG_MS, AT_DEST(quit_timeout_ms), .def = "5s", RANGE(0, 1 * HOUR_MS),
     .doc = "Reply to QUIT; nothing depends on it."},
};
static const struct config_section timeouts_schema = {
    .doc = "How long to wait at each stage; the defaults are those of RFC 5321 4.5.3.2.",
    .fields = timeouts_fields,
    .len = ARRAY_LEN(timeouts_fields)};

static const struct config_field retry_fields[] = {
    {"steps", CONFIG_SECONDS_LIST, AT_DEST(retry_list_s),
     .offset2 = offsetof(struct config_destination, retry_list_len), RANGE(1, 30 * DAY_S),
     .def_text = "`[]`: doubling", .example = "[5m, 10m, 30m, 1h]",
     .doc = "Wait after the first attempt, the second, ...; the last one repeats. `retry: [5m, "
            "10m, 30m]` is short for this."},
    {"first", CONFIG_SECONDS, AT_DEST(retry_first_s), .def = "5m", RANGE(1, 30 * DAY_S),
     .doc = "Without steps: wait after the first attempt, doubled after each further one. Five "
            "minutes is when most greylisting ends."},
    {"max", CONFIG_SECONDS, AT_DEST(retry_max_s), .def = "4h", RANGE(1, 30 * DAY_S),
     .doc = "The longest wait."},
    {"jitter", CONFIG_PERCENT, AT_DEST(retry_jitter_percent), .def = "10%", RANGE(0, 100),
     .doc = "Each wait is changed by up to this much either way, so that what failed together is "
            "not tried together."},
};
static const struct config_section retry_schema = {
    .doc = "When to try again: a list of waits, or a wait that doubles.",
    .fields = retry_fields,
    .len = ARRAY_LEN(retry_fields)};

static const struct config_field destination_fields[] = {
    {"sessions_max", CONFIG_COUNT, AT_DEST(sessions_max), .def = "20", RANGE(1, 100000),
     .doc =
         "Sessions at a time from one source to the site (all domains that share its exchangers), "
         "for the whole process. Most hosts take 20 from a sender they do not know."},
    {"session_messages_max", CONFIG_COUNT, AT_DEST(session_messages_max), .def = "1000",
     RANGE(0, 100000000), .zero = "none",
     .doc = "Messages of one session, then it is closed and another opened, perhaps to another "
            "exchanger of equal preference."},
    {"addresses_max", CONFIG_COUNT, AT_DEST(addresses_max), .def = "5", RANGE(0, 1000),
     .zero = "none",
     .doc = "Addresses, over all exchangers and spread over IPv4 and IPv6, that are tried before "
            "an attempt has failed; the next attempt goes on with the others. Those that this host "
            "has no route to do not count. A destination with many dead exchangers would hold its "
            "mail in memory for as long as all their timeouts take."},
    {"urgent_sessions", CONFIG_COUNT, AT_DEST(urgent_sessions), .def = "0", RANGE(0, 100000),
     .zero = "none",
     .doc = "Of `sessions_max` so many are kept for mail of priorities 0 to 4, which else waits "
            "for a session that is busy with other mail. One is always left for that."},
    {"recipients_max", CONFIG_COUNT, AT_DEST(recipients_max), .def = "100", RANGE(1, 10000),
     .doc = "Recipients of one transaction. RFC 5321 4.5.3.1.8: every host must take 100."},
    {"rate", CONFIG_RATE, AT_DEST(rate_messages),
     .offset2 = offsetof(struct config_destination, rate_period_ms), .def = "none", .zero = "none",
     .example = "100/min",
     .doc = "Messages per time to the site from one source, for the whole process. They go evenly: "
            "60/min is one a second."},
    {"rate_burst", CONFIG_COUNT, AT_DEST(rate_burst), .def = "0", RANGE(0, 100000), .zero = "none",
     .doc = "So many messages more may go at once where fewer than the rate lets through went "
            "before: in no time more than this and the rate together."},
    {"recipient_rate", CONFIG_RATE, AT_DEST(recipient_rate.count),
     .offset2 = offsetof(struct config_destination, recipient_rate.period_ms), .def = "none",
     .zero = "none", .example = "500/h",
     .doc = "Recipients per time to the site from one source. A transaction takes so many of a "
            "message as may go at once: one, and those that the burst lets through."},
    {"recipient_burst", CONFIG_COUNT, AT_DEST(recipient_rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none",
     .doc = "Of `recipient_rate`, as `rate_burst` of `rate`. A message to many is sent in one "
            "transaction as far as this lets it."},
    {"byte_rate", CONFIG_BYTE_RATE, AT_DEST(byte_rate.count),
     .offset2 = offsetof(struct config_destination, byte_rate.period_ms), .def = "none",
     .zero = "none", .example = "2MiB/s",
     .doc = "Bytes of messages per time to the site from one source: behind each message the next "
            "one waits as long as its bytes take."},
    {"byte_burst", CONFIG_BYTES32, AT_DEST(byte_rate.burst), .def = "0", RANGE(0, 1 << 30),
     .zero = "none", .doc = "Of `byte_rate`, as `rate_burst` of `rate`."},
    {"host_sessions_max", CONFIG_COUNT, AT_DEST(host_sessions_max), .def = "0", RANGE(0, 1000000),
     .zero = "none",
     .doc = "Sessions at a time to one exchanger (host name) of the site over all sources, for the "
            "whole process. While one has as many, others of its domains' exchangers are taken, "
            "also those of a worse preference."},
    {"host_rate", CONFIG_RATE, AT_DEST(host_rate.count),
     .offset2 = offsetof(struct config_destination, host_rate.period_ms), .def = "none",
     .zero = "none", .example = "600/min",
     .doc = "Messages per time to one exchanger (host name) of the site over all sources, for the "
            "whole process. While one may have no more, others of its domains' exchangers are "
            "taken, also those of a worse preference."},
    {"host_rate_burst", CONFIG_COUNT, AT_DEST(host_rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `host_rate`, as `rate_burst` of `rate`."},
    {"host_recipient_rate", CONFIG_RATE, AT_DEST(host_recipient_rate.count),
     .offset2 = offsetof(struct config_destination, host_recipient_rate.period_ms), .def = "none",
     .zero = "none", .example = "500/h",
     .doc = "Recipients per time to one exchanger over all sources, as `host_rate`."},
    {"host_recipient_burst", CONFIG_COUNT, AT_DEST(host_recipient_rate.burst), .def = "0",
     RANGE(0, 100000), .zero = "none",
     .doc = "Of `host_recipient_rate`, as `recipient_burst` of `recipient_rate`."},
    {"host_byte_rate", CONFIG_BYTE_RATE, AT_DEST(host_byte_rate.count),
     .offset2 = offsetof(struct config_destination, host_byte_rate.period_ms), .def = "none",
     .zero = "none", .example = "2MiB/s",
     .doc = "Bytes of messages per time to one exchanger over all sources, as `host_rate`."},
    {"host_byte_burst", CONFIG_BYTES32, AT_DEST(host_byte_rate.burst), .def = "0",
     RANGE(0, 1 << 30), .zero = "none", .doc = "Of `host_byte_rate`, as `rate_burst` of `rate`."},
    {"host_connect_rate", CONFIG_RATE, AT_DEST(host_connect_rate.count),
     .offset2 = offsetof(struct config_destination, host_connect_rate.period_ms), .def = "none",
     .zero = "none", .example = "60/min",
     .doc = "Connections per time to one exchanger over all sources, as `host_rate`. One that "
            "fails counts too."},
    {"host_connect_burst", CONFIG_COUNT, AT_DEST(host_connect_rate.burst), .def = "0",
     RANGE(0, 100000), .zero = "none", .doc = "Of `host_connect_rate`, as `rate_burst` of `rate`."},
    {"total_sessions_max", CONFIG_COUNT, AT_DEST(total_sessions_max), .def = "0", RANGE(0, 1000000),
     .zero = "none", .doc = "Sessions at a time to the site over all sources."},
    {"total_rate", CONFIG_RATE, AT_DEST(total_rate_messages),
     .offset2 = offsetof(struct config_destination, total_rate_period_ms), .def = "none",
     .zero = "none", .example = "1000/min",
     .doc = "Messages per time to the site over all sources."},
    {"total_rate_burst", CONFIG_COUNT, AT_DEST(total_rate_burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `total_rate`, as `rate_burst` of `rate`."},
    {"total_recipient_rate", CONFIG_RATE, AT_DEST(total_recipient_rate.count),
     .offset2 = offsetof(struct config_destination, total_recipient_rate.period_ms), .def = "none",
     .zero = "none", .example = "500/h",
     .doc = "Recipients per time to the site over all sources. A transaction takes so many of a "
            "message as may go at once: one, and those that the burst lets through."},
    {"total_recipient_burst", CONFIG_COUNT, AT_DEST(total_recipient_rate.burst), .def = "0",
     RANGE(0, 100000), .zero = "none",
     .doc = "Of `total_recipient_rate`, as `rate_burst` of `rate`. A message to many is sent in "
            "one transaction as far as this lets it."},
    {"total_byte_rate", CONFIG_BYTE_RATE, AT_DEST(total_byte_rate.count),
     .offset2 = offsetof(struct config_destination, total_byte_rate.period_ms), .def = "none",
     .zero = "none", .example = "2MiB/s",
     .doc = "Bytes of messages per time to the site over all sources: behind each message the next "
            "one waits as long as its bytes take."},
    {"total_byte_burst", CONFIG_BYTES32, AT_DEST(total_byte_rate.burst), .def = "0",
     RANGE(0, 1 << 30), .zero = "none", .doc = "Of `total_byte_rate`, as `rate_burst` of `rate`."},
    {"connect_rate", CONFIG_RATE, AT_DEST(connect_rate.count),
     .offset2 = offsetof(struct config_destination, connect_rate.period_ms), .def = "none",
     .zero = "none", .example = "60/min",
     .doc =
         "Sessions begun per time to the site from one source, for the whole process. Where an "
         "address gives no session the attempts at the next ones count too, and are made up for."},
    {"connect_burst", CONFIG_COUNT, AT_DEST(connect_rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `connect_rate`, as `rate_burst` of `rate`."},
    {"total_connect_rate", CONFIG_RATE, AT_DEST(total_connect_rate.count),
     .offset2 = offsetof(struct config_destination, total_connect_rate.period_ms), .def = "none",
     .zero = "none", .example = "600/min",
     .doc =
         "Sessions begun per time to the site over all sources, counted as `connect_rate` does."},
    {"total_connect_burst", CONFIG_COUNT, AT_DEST(total_connect_rate.burst), .def = "0",
     RANGE(0, 100000), .zero = "none",
     .doc = "Of `total_connect_rate`, as `rate_burst` of `rate`."},
    {"quiet_hours", CONFIG_HOURS, AT_DEST(quiet_hours), .def = "none", RANGE(0, 0xFFFFFF),
     .zero = "none", .example = "22-7",
     .doc = "Hours in which nothing is sent to the site. What is under way when they begin is "
            "finished; lifetimes go on."},
    {"time_zone", CONFIG_ZONE, AT_DEST(time_zone), .def = "UTC", .example = "Asia/Tokyo",
     .doc = "Where `quiet_hours` are told."},
    {"pipeline_max", CONFIG_COUNT, AT_DEST(pipeline_max), .def = "4", RANGE(1, 100),
     .doc = "Transactions in flight on one session with a peer that offers CHUNKING. A lost "
            "connection can duplicate this many messages."},
    {"idle", CONFIG_MS, AT_DEST(idle_ms), .def = "5s", RANGE(0, 1 * HOUR_MS),
     .doc = "Keep a session without work this long. Short, as it takes a slot at the peer. One "
            "whose next message waits only for a rate stays up to 30 s longer, or it would be "
            "opened anew for each."},
    {"chunking", CONFIG_NOT, AT_DEST(no_chunking), .def = "yes",
     .doc = "Use CHUNKING (BDAT) where offered. 'no' is for peers that get it wrong."},
    {"pipelining", CONFIG_NOT, AT_DEST(no_pipelining), .def = "yes",
     .doc = "Use PIPELINING where offered."},
    {"tls", CONFIG_CHOICE, AT_DEST(tls), .def = "may",
     .choices = "none, may, encrypt, verify, dane, mta-sts, dane+mta-sts",
     .doc =
         "Encryption of sessions. 'may': where the exchanger offers STARTTLS, whatever its "
         "certificate; where that fails mail goes in plaintext for an hour, and records say so. "
         "'encrypt': always, with any certificate; else mail waits. 'verify': always, with a "
         "certificate of an authority in `tls_ca_file` that bears the exchanger's host name. "
         "'dane' (RFC 7672; needs `dns.validating`): always, with a certificate as the exchanger's "
         "TLSA records have it, where there are such; to others as 'may'. 'mta-sts' (RFC 8461): as "
         "'verify' with the exchangers that the domain's policy names, where it has published one "
         "that is in force; to others as 'may'. Policies are fetched by HTTPS and kept in the "
         "queue. 'dane+mta-sts': as 'dane' for exchangers with TLSA records, else as 'mta-sts'. "
         "Connections to port 465 begin with TLS. Protocols: TLS 1.2 and 1.3."},
    {"tls_certificate", CONFIG_PATH, AT_DEST(tls_certificate), .def_text = "none",
     .example = "/etc/hayauma/tls/client.pem",
     .doc =
         "What is shown to servers that ask for a certificate: its chain and its key, in one PEM "
         "file; without it, what the source shows (`sources.NAME.tls_certificate`). Records have "
         "its names (`tls_own_certificate`). Read at the start and with each reload; of a file "
         "that is broken the certificate loaded before stays, and without one none is shown."},
    {"auth_without_tls", CONFIG_BOOL, AT_DEST(auth_without_tls), .def = "no",
     .doc = "Send a password of `credentials_file` to a next hop that was not verified (`tls: "
            "verify`), or in the clear. For a next hop in a network of one's own."},
    {"lifetime", CONFIG_SECONDS, AT_DEST(lifetime_s), .def = "3d", RANGE(0, 60 * DAY_S),
     .doc = "Mail not delivered in this time is returned. RFC 5321 4.5.4.1 says four to five days; "
            "bulk mail is stale sooner. 0 tries once. Not for `site:` patterns: mail gets its "
            "lifetimes when it is accepted, before its site is known."},
    {"notice_lifetime", CONFIG_SECONDS, AT_DEST(notice_lifetime_s), .def = "1d",
     RANGE(0, 60 * DAY_S),
     .doc = "The same for our own delivery status notices, which nobody returns."},
    {"warn_after", CONFIG_SECONDS, AT_DEST(warn_after_s), .def = "4h", RANGE(0, 60 * DAY_S),
     .zero = "none", .doc = "Send a delay notice once after this time."},
    {"retry", CONFIG_RETRY, .section = &retry_schema},
    {"timeouts", CONFIG_SECTION, .section = &timeouts_schema},
    /* Of a provider alone. */
    {"mx", CONFIG_TEXT_LIST, .offset = offsetof(struct config_provider, mx),
     .offset2 = offsetof(struct config_provider, mx_len), .def_text = "those shipped",
     .example = "[mx.example.net]",
     .doc = "How names of its exchangers end: whole labels, in any case. Of several that fit the "
            "longest decides. A provider that is not shipped needs it."},
};
#define PROVIDER_FIELDS 1 /* the last of destination_fields */
const struct config_section config_destination_schema = {
    .doc =
        "Limits and timing by destination. Each key is a pattern: `example.com`, `*.example.com` "
        "(every domain below it), `site:` and the name of a site as `hayauma status` shows it (`*` "
        "stands for anything), or `\"*\"`. The first pattern of the file that matches applies; "
        "`\"*\"` always comes last, and what a pattern leaves out comes from there.",
    .example = "destinations:\n  example.com: {sessions_max: 5, rate: 100/min}\n  "
               "\"site:*.mail.example.net\":\n    sessions_max: 50\n    retry: [5m, 10m, 30m, "
               "1h]\n  \"*\":\n    lifetime: 2d\n    retry: {first: 10m, max: 2h, jitter: 20%}\n",
    .fields = destination_fields,
    .len = ARRAY_LEN(destination_fields) - PROVIDER_FIELDS};

const struct config_section config_provider_schema = {
    .doc = "Mailbox providers: all domains whose exchangers are a provider's make one site, named "
           "after it, and share its limits. Those below are shipped; each key of `destinations` "
           "but the lifetimes may be given for them, and for providers of your own. What neither "
           "the file nor the shipped profile says of a provider comes from `\"*\"` in "
           "`destinations`. A pattern of `destinations` that fits a domain, or the exchangers, "
           "holds there besides: it can be stricter than the provider's limits, not looser.",
    .example = "providers:\n  google: {sessions_max: 10, rate: 1000/min}\n  partner: {mx: "
               "[mx.partner.example], sessions_max: 2}\n",
    .fields = destination_fields,
    .len = ARRAY_LEN(destination_fields),
    .shared = ARRAY_LEN(destination_fields) - PROVIDER_FIELDS};
const struct config_items config_provider_items = {.bytes = sizeof(struct config_provider),
                                                   .room = CONFIG_PROVIDERS_SHIPPED_MAX,
                                                   .key = CONFIG_KEY_NAME,
                                                   .key_offset =
                                                       offsetof(struct config_provider, name),
                                                   .key_word = "NAME",
                                                   .write = "\"google: {sessions_max: 10}\""};
