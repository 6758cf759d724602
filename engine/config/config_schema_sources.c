/* The schema of `sources` and `pools`: the addresses that mail is sent from. */
#include "config/config_schema_row.h"

#define AT_SOURCE(member) .offset = offsetof(struct config_source, member)
#define AT_POOL(member)   .offset = offsetof(struct config_pool, member)

static const struct config_field proxy_fields[] = {
    {"socks5", CONFIG_ADDRESS, AT_SOURCE(proxy.socks5), .def_text = "none",
     .example = "\"10.0.0.5:1080\"",
     .doc = "A SOCKS 5 proxy (RFC 1928) that connects for the source. From which address it does "
            "is its own setting, perhaps by user."},
    {"haproxy", CONFIG_ADDRESS, AT_SOURCE(proxy.haproxy), .def_text = "none",
     .example = "\"10.0.0.5:2525\"",
     .doc = "A server that reads the PROXY protocol's version 2 and connects from the source's "
            "address to the one that it is told: an HAProxy with `accept-proxy`, `source 0.0.0.0 "
            "usesrc clientip` and `server out 0.0.0.0` (docs/examples/haproxy-egress.cfg)."},
    {"user", CONFIG_TEXT, AT_SOURCE(proxy.user), .def_text = "none: no login",
     .doc = "For `socks5` (RFC 1929). Goes to the proxy unencrypted, with the password."},
    {"password_file", CONFIG_PATH, AT_SOURCE(proxy.password_file), .def_text = "none",
     .doc = "Its first line is the user's password. Only its owner may read it (mode 600)."},
};
static const struct config_section proxy_schema = {
    .doc = "Who connects for the source, instead of this machine; `ipv4` and `ipv6` are then "
           "addresses of the proxy's. One that is down takes the source out of its pools' turns "
           "until it is back. Mail to Unix sockets goes without it. One of `socks5` and `haproxy`, "
           "for example `proxy: {haproxy: \"10.0.0.5:2525\"}`.",
    .fields = proxy_fields,
    .len = ARRAY_LEN(proxy_fields)};

static const struct config_field source_fields[] = {
    {"ipv4", CONFIG_IPV4, AT_SOURCE(ipv4), .def_text = "none", .example = "192.0.2.10",
     .doc = "Address to send from to IPv4 hosts."},
    {"ipv6", CONFIG_IPV6, AT_SOURCE(ipv6), .def_text = "none", .example = "\"2001:db8::10\"",
     .doc = "Address to send from to IPv6 hosts. A source that has one address sends over its "
            "family alone; for one without any the kernel chooses the address."},
    {"ehlo_name", CONFIG_NAME, AT_SOURCE(ehlo_name), .def_text = "`host_name`",
     .doc = "Name given in EHLO. Should resolve to the source's address, and back."},
    {"sessions_max", CONFIG_COUNT, AT_SOURCE(sessions_max), .def = "0", RANGE(0, 1000000),
     .zero = "none",
     .doc = "Sessions at a time from the source to all sites together, for the whole process; "
            "beside what `destinations` say of each."},
    {"rate", CONFIG_RATE, AT_SOURCE(rate_messages),
     .offset2 = offsetof(struct config_source, rate_period_ms), .def = "none", .zero = "none",
     .example = "10k/h", .doc = "Messages per time from the source to all sites together."},
    {"rate_burst", CONFIG_COUNT, AT_SOURCE(rate_burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `rate`, as a destination's."},
    {"recipient_rate", CONFIG_RATE, AT_SOURCE(recipient_rate.count),
     .offset2 = offsetof(struct config_source, recipient_rate.period_ms), .def = "none",
     .zero = "none", .example = "500/h",
     .doc = "Recipients per time from the source to all sites together. A transaction takes so "
            "many of a message as may go at once: one, and those that the burst lets through."},
    {"recipient_burst", CONFIG_COUNT, AT_SOURCE(recipient_rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none",
     .doc = "Of `recipient_rate`, as `rate_burst` of `rate`. A message to many is sent in one "
            "transaction as far as this lets it."},
    {"byte_rate", CONFIG_BYTE_RATE, AT_SOURCE(byte_rate.count),
     .offset2 = offsetof(struct config_source, byte_rate.period_ms), .def = "none", .zero = "none",
     .example = "2MiB/s",
     .doc = "Bytes of messages per time from the source to all sites together: behind each message "
            "the next one waits as long as its bytes take."},
    {"byte_burst", CONFIG_BYTES32, AT_SOURCE(byte_rate.burst), .def = "0", RANGE(0, 1 << 30),
     .zero = "none", .doc = "Of `byte_rate`, as `rate_burst` of `rate`."},
    {"connect_rate", CONFIG_RATE, AT_SOURCE(connect_rate.count),
     .offset2 = offsetof(struct config_source, connect_rate.period_ms), .def = "none",
     .zero = "none", .example = "600/min",
     .doc = "Sessions begun per time from the source to all sites together, counted as a "
            "destination's."},
    {"connect_burst", CONFIG_COUNT, AT_SOURCE(connect_rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `connect_rate`, as `rate_burst` of `rate`."},
    {"tls_certificate", CONFIG_PATH, AT_SOURCE(tls_certificate), .def_text = "none",
     .example = "/etc/hayauma/tls/a1.pem",
     .doc = "What the source shows to servers that ask for a certificate, where the destination "
            "has no `tls_certificate`; a file as that one's."},
    {"proxy", CONFIG_SECTION, .section = &proxy_schema},
};
const struct config_items config_source_items = {.bytes = sizeof(struct config_source),
                                                 .max = CONFIG_SOURCES_MAX,
                                                 .key = CONFIG_KEY_NAME,
                                                 .key_offset = offsetof(struct config_source, name),
                                                 .key_word = "NAME",
                                                 .write = "\"a1: {ipv4: 192.0.2.10}\""};
const struct config_section config_source_schema = {
    .doc = "Where deliveries come from: addresses of this machine by name (`egress_source` in "
           "records). Without an entry there is one source, `default`, whose address the kernel "
           "chooses. An address that the machine does not hold is noticed, reported and left out "
           "until it is there.",
    .example =
        "sources:\n  a1: {ipv4: 192.0.2.11, ehlo_name: a1.example.com}\n  a2: {ipv4: 192.0.2.12, "
        "ipv6: \"2001:db8::12\", ehlo_name: a2.example.com}\n  b1: {ipv4: 198.51.100.1, ehlo_name: "
        "b1.example.com,\n       proxy: {haproxy: \"10.0.0.5:2525\"}}\n",
    .fields = source_fields,
    .len = ARRAY_LEN(source_fields)};

static const struct config_field pool_source_fields[] = {
    {"weight", CONFIG_COUNT, .offset = offsetof(struct config_pool_source, weight), .def = "1",
     RANGE(1, 1000), .doc = "Its part of the pool's messages, against the others'."},
};
static const struct config_items pool_source_items = {.bytes = sizeof(struct config_pool_source),
                                                      .max = CONFIG_SOURCES_MAX,
                                                      .key = CONFIG_KEY_NAME,
                                                      .key_offset =
                                                          offsetof(struct config_pool_source, name),
                                                      .key_word = "SOURCE",
                                                      .write = "\"a1: {weight: 2}\""};
static const struct config_section pool_source_schema = {
    .doc = "The pool's sources with their weights, for example `sources: {a1: {weight: 3}, a2: "
           "{weight: 1}}`. Required.",
    .fields = pool_source_fields,
    .len = ARRAY_LEN(pool_source_fields)};

static const struct config_field pool_fields[] = {
    {"sources", CONFIG_MAP, .required = true, AT_POOL(sources),
     .offset2 = offsetof(struct config_pool, sources_len), .section = &pool_source_schema,
     .items = &pool_source_items, .example = "{a1: {weight: 1}}"},
    {"selection", CONFIG_CHOICE, AT_POOL(selection_word), .def = "weighted",
     .choices = "weighted, domain, campaign",
     .doc = "Which source sends a message. 'weighted': they take turns at each site, each as often "
            "as its weight says. 'domain' and 'campaign': mail for one recipient domain, or of one "
            "campaign, comes from one source; weights say how many domains or campaigns each has. "
            "While that source is suspended or away the next one takes its place."},
    {"overflow", CONFIG_TEXT, AT_POOL(overflow_name), .def_text = "none",
     .doc = "The pool that sends what no source of this one may send now: all are suspended, away, "
            "stopped by the destination or at a limit. Its own overflow is not asked."},
    {"engaged", CONFIG_TEXT, AT_POOL(engaged_name), .def_text = "the same", .example = "fresh",
     .doc = "The pool that sends mail marked `X-Hayauma-Engaged: yes` instead of this one: that of "
            "addresses that are new, which only mail for people who want it should take."},
    {"attempts_max", CONFIG_COUNT, AT_POOL(attempts_max), .def = "0", RANGE(0, 1000),
     .zero = "any number",
     .doc = "So many attempts of a recipient are made in this pool; if the last one was deferred "
            "it goes on by `overflow`. One, for addresses that are new."},
};
const struct config_items config_pool_items = {.bytes = sizeof(struct config_pool),
                                               .max = CONFIG_SOURCES_MAX,
                                               .key = CONFIG_KEY_NAME,
                                               .key_offset = offsetof(struct config_pool, name),
                                               .key_word = "NAME",
                                               .write = "\"bulk: {sources: {a1: {weight: 1}}}\""};
const struct config_section config_pool_schema = {
    .doc = "Sets of sources by name. The first of these that names a pool decides when a message "
           "is accepted: `X-Hayauma-Pool` in its header (where the listener's `headers` has it), "
           "its campaign, its tenant, its sender's domain (`senders`), the client's network and "
           "the listener, at last `default_pool`. Without an entry there is one pool, `default`, "
           "of all sources.",
    .example = "sources: {a1: {ipv4: 192.0.2.11}, a2: {ipv4: 192.0.2.12}, a3: {ipv4: "
               "192.0.2.13}}\npools:\n  bulk:\n    sources: {a1: {weight: 3}, a2: {weight: 1}}\n   "
               " overflow: spare\n  spare: {sources: {a3: {weight: 1}}}\ndefault_pool: bulk\n",
    .fields = pool_fields,
    .len = ARRAY_LEN(pool_fields)};
