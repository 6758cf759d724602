#include "config/config_schema_row.h"

#define AT(member)     .offset = offsetof(struct config, member)
#define LEN_AT(member) .offset2 = offsetof(struct config, member)

static const struct config_field queue_fields[] = {
    {"path", CONFIG_PATH, .restart = true, AT(queue.path), .def = "/var/lib/hayauma/queue",
     .doc = "Directory of the queue. One engine at a time may open it. Put it on a disk that "
            "survives power loss honestly: every accepted message is synced here first."},
    {"shards", CONFIG_COUNT, .restart = true, .needs = "a new queue", AT(queue.shards), .def = "0",
     RANGE(0, 256), .zero = "auto",
     .doc = "LMDB environments, each with its committer thread; destinations are spread over them. "
            "'auto' makes one per worker. Counts only when the queue is made: an existing queue "
            "keeps its own number."},
    {"map_size", CONFIG_BYTES, .restart = true, AT(queue.map_bytes), .def = "64GiB",
     RANGE(16 * MIB, 16 * TIB),
     .doc = "The most that one shard can hold. Address space, not disk: the file grows as needed. "
            "Intake is refused (452) while less than a tenth of it is free."},
    {"memory_max", CONFIG_BYTES, AT(queue.memory_bytes_max), .def = "256MiB",
     RANGE(16 * MIB, 1 * TIB),
     .doc = "Messages and recipients kept in memory in all. What does not fit waits in the store "
            "and is read back when its turn comes, so the backlog may be any size."},
    {"window", CONFIG_COUNT, AT(queue.window_recipients), .def = "2000", RANGE(10, 1000000),
     .doc =
         "Recipients of one campaign for one domain kept in memory; the rest stay in the store."},
    {"intake_memory_max", CONFIG_BYTES, AT(queue.intake_bytes_max), .def = "128MiB",
     RANGE(1 * MIB, 1 * TIB),
     .doc = "Content under way from clients to the store. At this much new messages get 452 4.3.1 "
            "until commits catch up."},
};
static const struct config_section queue_schema = {
    .doc = "Where accepted mail is kept.", .fields = queue_fields, .len = ARRAY_LEN(queue_fields)};

static const struct config_field records_fields[] = {
    {"path", CONFIG_PATH, .restart = true, AT(records.path), .def = "/var/log/hayauma",
     .zero = "none",
     .doc = "Directory of the record segments: a JSON line per event. 'none' writes no records."},
    {"segment_size", CONFIG_BYTES, .restart = true, AT(records.segment_bytes_max), .def = "256MiB",
     RANGE(64 * KIB, 1 * TIB), .doc = "A segment is closed at this size."},
    {"segment_age", CONFIG_SECONDS, .restart = true, AT(records.segment_age_s_max), .def = "1h",
     RANGE(1, 30 * DAY_S),
     .doc = "A segment is closed at this age, so that consumers of closed segments lag no more."},
    {"zstd", CONFIG_BOOL, .restart = true, AT(records.zstd), .def = "no",
     .doc = "Compress closed segments. Off by default, so that grep and tail work on all of them; "
            "records shrink about tenfold."},
    {"retention", CONFIG_SECONDS, .restart = true, AT(records.retention_s), .def = "30d",
     RANGE(0, 3650 * (uint64_t)DAY_S), .zero = "none",
     .doc = "Closed segments older than this are deleted; 'none' keeps them."},
    {"retention_size", CONFIG_BYTES, .restart = true, AT(records.retention_bytes), .def = "0",
     RANGE(0, 1024 * TIB), .zero = "none",
     .doc = "The oldest closed segments are deleted while all of them are larger than this."},
    {"headers", CONFIG_TEXT_LIST, AT(records.headers), LEN_AT(records.headers_len),
     .def_text = "`[]`", .example = "[Subject, X-Campaign]",
     .doc = "Message headers to copy into records. None by default: headers are personal data."},
};
static const struct config_section records_schema = {
    .doc = "What happened to every message, as JSON lines (see records.md).",
    .fields = records_fields,
    .len = ARRAY_LEN(records_fields)};

static const struct config_field dns_fields[] = {
    {"servers", CONFIG_SERVER_LIST, .restart = true, AT(dns.servers), LEN_AT(dns.servers_len),
     .def_text = "`[]`: those of /etc/resolv.conf", .example = "[127.0.0.1, \"[::1]:5353\"]",
     .doc = "Name servers. A caching, validating resolver on the same machine is worth having: a "
            "bulk sender asks for every domain of its lists, and whoever forges an answer gets the "
            "mail. Towards a server beyond loopback each question draws one of many source ports "
            "(RFC 5452), which makes forging hard; someone on the way there can still do it."},
    {"timeout", CONFIG_MS, .restart = true, AT(dns.timeout_ms), .def = "5s",
     RANGE(100, 60 * SECOND_MS), .doc = "Wait for one answer before the next try."},
    {"tries", CONFIG_COUNT, .restart = true, AT(dns.tries), .def = "3", RANGE(1, 10),
     .doc = "Tries per question, over all servers. After that mail waits; it does not bounce."},
    {"cache_entries_max", CONFIG_COUNT, .restart = true, AT(dns.cache_entries_max), .def = "100k",
     RANGE(1000, 10000000),
     .doc = "Domains and exchangers kept, per worker: so many, and so many KiB, since a hostile "
            "zone may make each of them large."},
    {"negative_ttl_max", CONFIG_SECONDS, .restart = true, AT(dns.negative_ttl_max_s), .def = "5m",
     RANGE(0, DAY_S),
     .doc = "The longest that 'no such domain' is believed. Short, so that a repaired zone is "
            "seen; 0: never kept."},
    {"in_flight_max", CONFIG_COUNT, .restart = true, AT(dns.in_flight_max), .def = "200",
     RANGE(1, 60000),
     .doc = "Questions under way at a time, per worker. More at once overflow the socket buffers "
            "of common resolvers."},
    {"ipv4", CONFIG_BOOL, .restart = true, AT(dns.ipv4), .def = "yes",
     .doc = "Deliver over IPv4: look for A records."},
    {"ipv6", CONFIG_BOOL, .restart = true, AT(dns.ipv6), .def = "yes",
     .doc = "Deliver over IPv6: look for AAAA records."},
    {"port", CONFIG_PORT, .restart = true, AT(dns.port), .def = "25", RANGE(1, 65535),
     .doc = "Where mail goes at the addresses found. Anything but 25 is for tests."},
    {"validating", CONFIG_BOOL, .restart = true, AT(dns.validating), .def = "no",
     .doc = "The servers validate DNSSEC, and nobody can change what they say on its way: usually "
            "Unbound on this machine. Then answers that they have validated (the AD bit) are "
            "believed to be, which `tls: dane` needs. Of a server that does not validate, or whose "
            "answers cross a network, whoever forges them says whose certificate is right."},
};
static const struct config_section dns_schema = {
    .doc = "How exchangers are found.", .fields = dns_fields, .len = ARRAY_LEN(dns_fields)};

static const struct config_field tls_reports_fields[] = {
    {"from", CONFIG_MAILBOX, AT(tls_reports.from), .def_text = "none: no reports",
     .example = "tls-reports@mta.example.com",
     .doc = "Who sends them. Receivers want such mail signed: have a key in `dkim.keys` for the "
            "domain."},
    {"contact", CONFIG_TEXT, AT(tls_reports.contact), .def_text = "`from`",
     .example = "postmaster@example.com",
     .doc = "Whom to ask about a report: `contact-info` in it."},
    {"organization", CONFIG_TEXT, AT(tls_reports.organization), .def_text = "`host_name`",
     .example = "Example Mail", .doc = "`organization-name` in a report."},
    {"period", CONFIG_SECONDS, AT(tls_reports.period_s), .def = "1d", RANGE(1, DAY_S),
     .doc = "The time of which a report tells. A day, counted in UTC, is what RFC 8460 says; less "
            "is for trials."},
    {"target_max", CONFIG_COUNT, AT(tls_reports.target_max), .def = "1000", RANGE(1, 1000000),
     .doc = "Reports in each `period` to one mail domain or web host, counted over all domains "
            "that name it. A domain says itself where its report goes: without a bound, whoever "
            "owns many domains could have somebody else's mailbox filled. The count begins anew "
            "with a restart."},
    {"delay", CONFIG_SECONDS, AT(tls_reports.delay_s), .def = "4h", RANGE(0, 12 * 3600),
     .doc = "Reports of a day go out within that time behind its end, each domain's at another "
            "moment."},
};
static const struct config_section tls_reports_schema = {
    .doc =
        "Reports of TLS (RFC 8460): domains that ask for them (`_smtp._tls.DOMAIN`) hear once a "
        "day how many sessions with their exchangers were encrypted as they wish, and what failed.",
    .example =
        "tls_reports: {from: tls-reports@mta.example.com, contact: postmaster@example.com}\n",
    .fields = tls_reports_fields,
    .len = ARRAY_LEN(tls_reports_fields)};

static const struct config_field mta_sts_fields[] = {
    {"port", CONFIG_PORT, AT(mta_sts.port), .def = "443", RANGE(1, 65535),
     .doc = "Where policies are fetched. Anything but 443 is for tests."},
    {"private_addresses", CONFIG_BOOL, AT(mta_sts.private_addresses), .def = "no",
     .doc = "Fetch policies from private addresses too, as loopback or 10.0.0.0/8. Strangers name "
            "the host that is asked, so this is for tests and closed networks."},
};
static const struct config_section mta_sts_schema = {
    .doc = "How policies are fetched where `tls` of a destination is `mta-sts`.",
    .fields = mta_sts_fields,
    .len = ARRAY_LEN(mta_sts_fields)};

static const struct config_field bounce_fields[] = {
    {"postmaster", CONFIG_MAILBOX, AT(bounce.postmaster),
     .def_text = "MAILER-DAEMON at `host_name`", .example = "bounces@example.com",
     .doc = "From address of notices."},
    {"from_name", CONFIG_TEXT, AT(bounce.from_name), .def = "Mail Delivery System",
     .doc = "From display name of notices."},
    {"return_headers_only", CONFIG_BOOL, AT(bounce.return_headers_only), .def = "yes",
     .doc = "Return the headers of the message rather than all of it, where the sender did not ask "
            "(RET=, RFC 3461 4.3). Bounces of bulk mail are read by programs."},
    {"return_size_max", CONFIG_BYTES, AT(bounce.return_bytes_max), .def = "64KiB",
     RANGE(0, 1 * GIB),
     .doc = "A larger message is returned as headers even when all was asked for."},
};
static const struct config_section bounce_schema = {.doc = "Notices to senders (RFC 3461 to 3464).",
                                                    .fields = bounce_fields,
                                                    .len = ARRAY_LEN(bounce_fields)};

static const struct config_field suppression_fields[] = {
    {"hard_bounces", CONFIG_BOOL, AT(suppression.hard_bounces), .def = "no",
     .doc = "'yes': an address of which the peer's final answer says that nobody has it (5.1.1, "
            "5.1.2, 5.1.10, or words for it) goes on the list of the mail's tenant, with the "
            "reason `bounce`. New installations want 'yes'. The manual says which answers count "
            "(Who gets no mail)."},
};
static const struct config_section suppression_schema = {
    .doc = "The suppression list: what the engine does with it by itself.",
    .fields = suppression_fields,
    .len = ARRAY_LEN(suppression_fields)};

static const struct config_field auth_fields[] = {
    {"users_file", CONFIG_PATH, AT(auth.users_file), .def_text = "none",
     .example = "/etc/hayauma/users",
     .doc = "Who may log in: a line each, with the hash of a password, written by `hayauma user`. "
            "Only its owner, the engine's user, may read it (mode 0600). It is read again with "
            "each reload."},
    {"failures_max", CONFIG_COUNT, AT(auth.failures_max), .def = "10", RANGE(1, 1000),
     .doc = "Failed logins of a client address (IPv6: a /64), and for a user name, in "
            "`failures_period`. Beyond it AUTH gets 454 4.7.0 whatever the password, and one more "
            "try is let through each time that this part of the period is over. An address from "
            "which a user has logged in before is not kept out by others who try that name."},
    {"failures_period", CONFIG_MS, AT(auth.failures_period_ms), .def = "10m",
     RANGE(1 * SECOND_MS, 1 * DAY_MS), .doc = "The time that `failures_max` is for."},
};
static const struct config_section auth_schema = {
    .doc = "Clients that log in to submit (SMTP AUTH; see the manual).",
    .fields = auth_fields,
    .len = ARRAY_LEN(auth_fields)};

static const struct config_field http_fields[] = {
    {"listen", CONFIG_ADDRESS, .restart = true, AT(http.listen),
     .def_text = "none: there is no HTTP", .example = "\"127.0.0.1:8000\"",
     .doc = "Address and port. There is no TLS here: beyond loopback a proxy in front (HAProxy, "
            "nginx) has it, or `insecure` says that the network is safe."},
    {"insecure", CONFIG_BOOL, .restart = true, AT(http.insecure), .def = "no",
     .doc = "Allows an address beyond loopback, where tokens and mail go unencrypted."},
    {"tokens", CONFIG_PATH, AT(http.tokens), .def = "/var/lib/hayauma/tokens",
     .doc = "File of the tokens that `hayauma token` writes; a change of it is in force at once."},
    {"trusted_networks", CONFIG_NETWORK_LIST, AT(http.trusted_networks),
     LEN_AT(http.trusted_networks_len), .def_text = "`[]`: everybody needs a token",
     .example = "[127.0.0.0/8, \"::1\"]",
     .doc = "Clients that need no token and may do everything. With a proxy in front all of its "
            "clients have its address: it is no network to trust then."},
    {"unsubscribe", CONFIG_BOOL, AT(http.unsubscribe), .def = "no",
     .doc = "Serves `/u/TOKEN`, where whoever got a letter with a token of `letter_keys` "
            "unsubscribes: by a page with a button, and by one click in the mail program (RFC "
            "8058). It needs no other token: let the proxy in front pass this path alone. "
            "`senders` puts its URL into letters."},
    {"body_max", CONFIG_BYTES, AT(http.body_bytes_max), .def = "32MiB", RANGE(64 * KIB, 1 * GIB),
     .doc = "Largest body of a request; 413 beyond."},
    {"message_size_max", CONFIG_BYTES, AT(http.message_bytes_max), .def = "50MiB",
     RANGE(64 * KIB, 1 * GIB),
     .doc = "Largest text that templates may make of one letter, and of its parts on the way."},
    {"connections_max", CONFIG_COUNT, .restart = true, AT(http.connections_max), .def = "1000",
     RANGE(1, 100000),
     .doc =
         "Connections at a time; further ones wait to be accepted, or are closed. Where some wait, "
         "those make room that have brought no request, or less than 1,000 bytes a second of "
         "one, for three seconds."},
    {"connections_per_client_max", CONFIG_COUNT, .restart = true,
     AT(http.connections_per_client_max), .def = "200", RANGE(1, 100000),
     .doc = "The same of one client address. With a proxy in front set it as `connections_max`."},
    {"idle_timeout", CONFIG_MS, .restart = true, AT(http.idle_timeout_ms), .def = "30s",
     RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "A connection on which nothing goes in either direction for so long is closed."},
    {"request_timeout", CONFIG_MS, AT(http.request_timeout_ms), .def = "2m",
     RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Time for a request to arrive whole, since the connection began or its last request "
            "was answered. It bounds what a client that trickles bytes can hold."},
    {"threads", CONFIG_COUNT, .restart = true, AT(http.threads), .def = "2", RANGE(1, 64),
     .doc = "Threads that read requests and render letters."},
};
static const struct config_section http_schema = {
    .doc = "The HTTP API, metrics and health checks (http.md).",
    .example = "http:\n  listen: \"127.0.0.1:8000\"\n  trusted_networks: [127.0.0.0/8]  # else: "
               "hayauma token add NAME\n",
    .fields = http_fields,
    .len = ARRAY_LEN(http_fields)};

static const struct config_section routes_schema = {
    .doc =
        "Static routes by recipient domain. Each key is a pattern: `example.com`, `*.example.com` "
        "(every domain below it), or `\"*\"`: the smarthost of everything else. The first pattern "
        "of the file that matches applies; `\"*\"` always comes last. Without a match the domain's "
        "own exchangers are looked up. Values:\n\n- `host` or `host:port`: the exchangers (MX) of "
        "that name\n- `[host]`, `[host]:port`: the addresses of that name, no MX\n- "
        "`[192.0.2.1]:port`, `[2001:db8::1]:port`: that address\n- `lmtp:unix:/path`, "
        "`lmtp:192.0.2.1:24`: LMTP (RFC 2033)\n- `mx`: as if there were no route, to except a "
        "domain from a later pattern\n- `reject`: refuse such recipients (550 5.7.1)\n\nA port "
        "left out is `dns.port`, for LMTP 24. Names are looked up in DNS; /etc/hosts is not read.",
    .example = "routes:\n  lists.example.com: \"[10.0.0.7]:2525\"\n  \"*.internal.example\": "
               "lmtp:unix:/run/dovecot/lmtp\n  partner.example: mx\n  \"*\": "
               "\"[smarthost.example.net]:587\"  # its user and password: credentials_file\n"};

static const struct config_field fields[] = {
    {"host_name", CONFIG_NAME, .restart = true, AT(host_name),
     .def_text = "the machine's host name", .example = "mx1.example.com",
     .doc = "Our name in Received, EHLO, Message-ID and notices. Should be fully qualified and "
            "resolve to this machine."},
    {"node_id", CONFIG_TEXT, .restart = true, AT(node_id), .def_text = "`host_name`",
     .doc = "Name of this node in records."},
    {"workers", CONFIG_COUNT, .restart = true, AT(workers), .def = "0", RANGE(0, 64),
     .zero = "auto", .doc = "Worker threads; 'auto' is one per core."},
    {"pin_cpus", CONFIG_BOOL, .restart = true, AT(pin_cpus), .def = "no",
     .doc = "Bind each worker to a core. Helps on a machine that does nothing else."},
    {"user", CONFIG_USER, .restart = true, AT(user), .def_text = "stay as started",
     .example = "hayauma",
     .doc = "User to become after the listeners are bound, when started by root."},
    {"group", CONFIG_GROUP, .restart = true, AT(group), .def_text = "the user's",
     .doc = "Group to become, with `user`."},
    {"control_socket", CONFIG_PATH, .restart = true, AT(control_socket),
     .def = "/run/hayauma/control.sock",
     .doc =
         "Unix socket of `hayauma queue`, `status`, `reload`; only its owner and root may use it."},
    {"log_level", CONFIG_CHOICE, AT(log_level), .def = "info",
     .choices = "error, warn, info, debug", .doc = "How much is logged to stderr or the journal."},
    {"credentials_file", CONFIG_PATH, AT(credentials_file), .def_text = "none",
     .example = "/etc/hayauma/credentials",
     .doc = "How to log in (AUTH) at next hops of `routes`: a line each, `NEXTHOP USER PASSWORD`, "
            "the next hop as in the route, such as `[smtp.example.net]:587`. Only its owner, the "
            "engine's user, may read it (mode 0600). Passwords go to next hops that were verified, "
            "hence `destinations` with `tls: verify`, or to all with `auth_without_tls`. It is "
            "read again with each reload."},
    {"tls_ca_file", CONFIG_PATH, AT(tls_ca_file), .def_text = "those of the system",
     .example = "/etc/hayauma/authorities.pem",
     .doc = "Certificates of the authorities (PEM) that sessions out with `tls: verify` trust. "
            "Read at the start and with each reload."},
    {"letter_keys", CONFIG_PATH, AT(letter_keys_file), .def_text = "none",
     .example = "/etc/hayauma/letter.keys",
     .doc = "The keys of return paths and unsubscribe tokens (`senders`), made by `hayauma letters "
            "keygen`. Only its owner, the engine's user, may read it (mode 0600). It is read again "
            "with each reload. All nodes that send a domain's campaigns want the same file."},
    {"drain_timeout", CONFIG_MS, AT(drain_timeout_ms), .def = "30s",
     RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "On SIGTERM, wait this long for sessions past the end of a message to be answered. "
            "Mail is safe either way; exiting earlier risks duplicates."},
    {"file_limit", CONFIG_COUNT, .restart = true, AT(file_limit), .def = "0", RANGE(0, 10000000),
     .zero = "auto", .doc = "Open files wanted (RLIMIT_NOFILE); 'auto' is the hard limit."},
    {"default_pool", CONFIG_TEXT, AT(default_pool_name), .def_text = "the only one",
     .doc = "The pool of mail that no rule sends elsewhere; required where there are several."},
    {"queue", CONFIG_SECTION, .section = &queue_schema},
    {"records", CONFIG_SECTION, .section = &records_schema},
    {"dns", CONFIG_SECTION, .section = &dns_schema},
    {"mta_sts", CONFIG_SECTION, .section = &mta_sts_schema},
    {"tls_reports", CONFIG_SECTION, .section = &tls_reports_schema},
    {"bounce", CONFIG_SECTION, .section = &bounce_schema},
    {"suppression", CONFIG_SECTION, .section = &suppression_schema},
    {"auth", CONFIG_SECTION, .section = &auth_schema},
    {"http", CONFIG_SECTION, .section = &http_schema},
    {"dkim", CONFIG_SECTION, .section = &config_dkim_schema},
    {"certificates", CONFIG_ITEMS, AT(certificates), LEN_AT(certificates_len),
     .section = &config_certificate_schema, .items = &config_certificate_items},
    {"sources", CONFIG_MAP, AT(sources), LEN_AT(sources_len), .section = &config_source_schema,
     .items = &config_source_items},
    {"pools", CONFIG_MAP, AT(pools), LEN_AT(pools_len), .section = &config_pool_schema,
     .items = &config_pool_items},
    {"senders", CONFIG_MAP, AT(senders), LEN_AT(senders_len), .section = &config_sender_schema,
     .items = &config_sender_items},
    {"warmup", CONFIG_SECTION, .section = &config_warmup_schema},
    {"listeners", CONFIG_ITEMS, .restart = true, AT(listeners), LEN_AT(listeners_len),
     .section = &config_listener_schema, .items = &config_listener_items},
    {"tenants", CONFIG_MAP, AT(tenants), LEN_AT(tenants_len), .section = &config_tenant_schema,
     .items = &config_tenant_items},
    {"campaigns", CONFIG_MAP, AT(campaigns), LEN_AT(campaigns_len),
     .section = &config_campaign_schema, .items = &config_campaign_items},
    {"routes", CONFIG_ROUTES, AT(routes), LEN_AT(routes_len), .section = &routes_schema},
    {"destinations", CONFIG_DESTINATIONS, AT(destinations), LEN_AT(destinations_len),
     .section = &config_destination_schema},
    {"providers", CONFIG_MAP, AT(providers), LEN_AT(providers_len),
     .section = &config_provider_schema, .items = &config_provider_items},
    {"rules", CONFIG_MAP, AT(rules), LEN_AT(rules_len), .section = &config_rule_schema,
     .items = &config_rule_items},
};

const struct config_section config_schema = {
    .doc = "One YAML file; every key is optional.", .fields = fields, .len = ARRAY_LEN(fields)};
const struct config_field *config_field_find(const struct config_section *s, struct str name)
{
    for (size_t i = 0; i < s->len; i++)
        if (str_eq(name, str_of(s->fields[i].name)))
            return &s->fields[i];
    return NULL;
}

const struct config_field *config_key(const struct config_section *s, const char *name)
{
    const struct config_field *f = config_field_find(s, str_of(name));

    ASSERT(f != NULL);
    return f;
}

const struct config_field *config_key_in(const char *top, const char *name)
{
    return config_key(config_key(&config_schema, top)->section, name);
}
