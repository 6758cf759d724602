#include "config/config_schema.h"

#include "base/assert.h"
#include "config/config_private.h"

#define AT(member)          .offset = offsetof(struct config, member)
#define AT_LISTENER(member) .offset = offsetof(struct config_listener, member)
#define AT_CLIENT(member)   .offset = offsetof(struct config_client, member)
#define AT_SOURCE(member)   .offset = offsetof(struct config_source, member)
#define AT_POOL(member)     .offset = offsetof(struct config_pool, member)
#define AT_DEST(member)     .offset = offsetof(struct config_destination, member)
#define LEN_AT(member)      .offset2 = offsetof(struct config, member)
#define RANGE(lo, hi)       .min = (lo), .max = (hi)

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

#define SECOND_MS 1000
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)
#define MINUTE_S  60
#define HOUR_S    (60 * MINUTE_S)
#define DAY_S     (24 * HOUR_S)

static const struct config_field queue_fields[] = {
    {"path", CONFIG_PATH, .restart = true, AT(queue.path), .def = "/var/lib/hayauma/queue",
     .doc = "Directory of the queue. One engine at a time may open it. Put it on a disk that "
            "survives power loss honestly: every accepted message is synced here first."},
    {"shards", CONFIG_COUNT, .restart = true, .needs = "a new queue", AT(queue.shards), .def = "0",
     RANGE(0, 256), .zero = "auto",
     .doc =
         "LMDB environments, each with its committer thread; destinations are spread over them. "
         "'auto' makes one per worker. Counts only when the queue is made: an existing queue keeps "
         "its own number."},
    {"map_size", CONFIG_BYTES, .restart = true, AT(queue.map_bytes), .def = "64GiB",
     RANGE(16 * MIB, 16 * TIB),
     .doc = "The most that one shard can hold. Address space, not disk: the file grows as needed. "
            "Intake is refused (452) while less than a tenth of it is free."},
    {"memory_max", CONFIG_BYTES, AT(queue.memory_bytes_max), .def = "256MiB",
     RANGE(16 * MIB, 1 * TIB),
     .doc = "Messages and recipients kept in memory in all. What does not fit waits in the store "
            "and is read back when its turn comes, so the backlog may be any size."},
    {"window", CONFIG_COUNT, AT(queue.window_recipients), .def = "2000", RANGE(10, 1000000),
     .doc = "Recipients of one campaign for one domain kept in memory; the rest stay in the "
            "store."},
    {"intake_memory_max", CONFIG_BYTES, AT(queue.intake_bytes_max), .def = "128MiB",
     RANGE(1 * MIB, 1 * TIB),
     .doc = "Content under way from clients to the store. At this much new messages get 452 4.3.1 "
            "until commits catch up."},
};

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

static const struct config_field dns_fields[] = {
    {"servers", CONFIG_SERVER_LIST, .restart = true, AT(dns.servers), LEN_AT(dns.servers_len),
     .def_text = "`[]`: those of /etc/resolv.conf", .example = "[127.0.0.1, \"[::1]:5353\"]",
     .doc =
         "Name servers. A caching, validating resolver on the same machine is worth having: a bulk "
         "sender asks for every domain of its lists, and whoever forges an answer gets the mail. "
         "Towards a server beyond loopback each question draws one of many source ports "
         "(RFC 5452), which makes forging hard; someone on the way there can still do it."},
    {"timeout", CONFIG_MS, .restart = true, AT(dns.timeout_ms), .def = "5s",
     RANGE(100, 60 * SECOND_MS), .doc = "Wait for one answer before the next try."},
    {"tries", CONFIG_COUNT, .restart = true, AT(dns.tries), .def = "3", RANGE(1, 10),
     .doc = "Tries per question, over all servers. After that mail waits; it does not bounce."},
    {"cache_entries_max", CONFIG_COUNT, .restart = true, AT(dns.cache_entries_max), .def = "100k",
     RANGE(1000, 10000000),
     .doc =
         "Domains and exchangers kept, per worker: so many, and so many KiB, since a hostile zone "
         "may make each of them large."},
    {"negative_ttl_max", CONFIG_SECONDS, .restart = true, AT(dns.negative_ttl_max_s), .def = "5m",
     RANGE(0, DAY_S),
     .doc = "The longest that 'no such domain' is believed. Short, so that a repaired zone is "
            "seen; 0: "
            "never kept."},
    {"in_flight_max", CONFIG_COUNT, .restart = true, AT(dns.in_flight_max), .def = "200",
     RANGE(1, 60000),
     .doc =
         "Questions under way at a time, per worker. More at once overflow the socket buffers of "
         "common resolvers."},
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
     .doc =
         "Reports in each `period` to one mail domain or web host, counted over all domains that "
         "name it. A domain says itself where its report goes: without a bound, whoever owns many "
         "domains could have somebody else's mailbox filled. The count begins anew with a "
         "restart."},
    {"delay", CONFIG_SECONDS, AT(tls_reports.delay_s), .def = "4h", RANGE(0, 12 * 3600),
     .doc = "Reports of a day go out within that time behind its end, each domain's at another "
            "moment."},
};

static const struct config_field mta_sts_fields[] = {
    {"port", CONFIG_PORT, AT(mta_sts.port), .def = "443", RANGE(1, 65535),
     .doc = "Where policies are fetched. Anything but 443 is for tests."},
    {"private_addresses", CONFIG_BOOL, AT(mta_sts.private_addresses), .def = "no",
     .doc = "Fetch policies from private addresses too, as loopback or 10.0.0.0/8. Strangers name "
            "the host that is asked, so this is for tests and closed networks."},
};

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

static const struct config_field suppression_fields[] = {
    {"hard_bounces", CONFIG_BOOL, AT(suppression.hard_bounces), .def = "no",
     .doc = "'yes': an address of which the peer's final answer says that nobody has it (5.1.1, "
            "5.1.2, 5.1.10, or words for it) goes on the list of the mail's tenant, with the "
            "reason `bounce`. New installations want 'yes'. The manual says which answers count "
            "(Who gets no mail)."},
};

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

#define AT_KEY(member) .offset = offsetof(struct config_dkim_key, member)

static const struct config_field dkim_key_fields[] = {
    {"domain", CONFIG_NAME, .required = true, AT_KEY(domain), .example = "example.com",
     .doc = "Mail whose From field names this domain is signed (d=). A name that is not ASCII may "
            "be written as it is, or in A-labels. Required."},
    {"selector", CONFIG_NAME, .required = true, AT_KEY(selector), .example = "s1-rsa",
     .doc = "Name of the key: its public half stands in DNS at `SELECTOR._domainkey.DOMAIN`. "
            "Required."},
    {"file", CONFIG_PATH, .required = true, AT_KEY(file),
     .example = "/etc/hayauma/dkim/example.com.s1-rsa.pem",
     .doc = "The private key, RSA or Ed25519, in PEM; `hayauma dkim keygen` makes one. Others must "
            "not be able to read it (mode 0600, or root's with 0640), and `user` must, or a reload "
            "would fail. Required."},
    {"subdomains", CONFIG_BOOL, AT_KEY(subdomains), .def = "no",
     .doc =
         "Also sign mail of the domains below, where none nearer has a key. DMARC takes that for "
         "theirs unless the domain's record says `adkim=s`."},
};
static const struct config_section dkim_key_schema = {
    .doc = "The keys. All keys of the nearest domain sign: an RSA and an Ed25519 key make two "
           "signatures, the RSA one first.",
    .fields = dkim_key_fields,
    .len = ARRAY_LEN(dkim_key_fields)};
static const struct config_items dkim_key_items = {
    .bytes = sizeof(struct config_dkim_key),
    .write = "\"- {domain: example.com, selector: s1-rsa, file: /etc/hayauma/dkim/...pem}\""};

static const struct config_field dkim_fields[] = {
    {"keys", CONFIG_ITEMS, AT(dkim.keys), LEN_AT(dkim.keys_len), .section = &dkim_key_schema,
     .items = &dkim_key_items},
    {"default", CONFIG_NAME, AT(dkim.fallback), .def_text = "none", .zero = "none",
     .example = "mail.example.net",
     .doc = "Domain of `keys` that signs mail of From domains without a key. Without it such mail "
            "goes out unsigned."},
    {"platform", CONFIG_NAME, AT(dkim.platform), .def_text = "none", .zero = "none",
     .example = "mail.example.net",
     .doc = "Domain of `keys` that adds a second signature to all mail: the sending service's "
            "own, which its feedback loops are registered with."},
    {"canonicalization", CONFIG_CHOICE, AT(dkim.canonicalization), .def = "relaxed/relaxed",
     .choices = "relaxed/relaxed, relaxed/simple, simple/relaxed, simple/simple",
     .doc = "Of header and body. 'relaxed' outlives changes of white space on the way."},
    {"headers", CONFIG_TEXT_LIST, AT(dkim.headers), LEN_AT(dkim.headers_len), .def_text = "`[]`",
     .example = "[X-Campaign]",
     .doc =
         "Header fields to sign, where a message has them, beside the usual ones (From, Subject, "
         "Date, To, List-*, Feedback-ID and others: see the manual)."},
    {"expires", CONFIG_SECONDS, AT(dkim.expires_s), .def = "0", RANGE(0, 365 * DAY_S),
     .zero = "none",
     .doc = "How long a signature is valid (x=). Few verifiers look at it; it must outlast delays "
            "on the way."},
};

#define NEWLINES "refuse, repair"

static const struct config_field client_fields[] = {
    {"bare_newlines", CONFIG_CHOICE, AT_CLIENT(bare_newlines), .def_text = "the listener's",
     .choices = NEWLINES, .doc = "As the listener's, for these clients."},
    {"pool", CONFIG_TEXT, AT_CLIENT(pool), .def_text = "the listener's",
     .doc = "The pool that sends mail of these clients."},
    {"senders", CONFIG_SENDER_LIST, AT_CLIENT(senders.envelope),
     .offset2 = offsetof(struct config_client, senders.envelope_len), .def_text = "the listener's",
     .example = "[shop.example]", .doc = "As the listener's, for these clients."},
    {"from", CONFIG_SENDER_LIST, AT_CLIENT(senders.from),
     .offset2 = offsetof(struct config_client, senders.from_len), .def_text = "as `senders`",
     .example = "[shop.example]", .doc = "As the listener's, for these clients."},
};
static const struct config_items client_items = {
    .bytes = sizeof(struct config_client),
    .key = CONFIG_KEY_NETWORK,
    .key_offset = offsetof(struct config_client, network),
    .key_word = "NETWORK",
    .write = "\"10.0.0.0/8: {bare_newlines: repair}\""};
static const struct config_section client_schema = {
    .doc =
        "What holds for clients of a network: each key is a network or an address. The narrowest "
        "that has the client applies; what it leaves out comes from the listener. For example "
        "`clients: {10.1.0.0/16: {bare_newlines: repair}}`.",
    .fields = client_fields,
    .len = ARRAY_LEN(client_fields)};

static const struct config_field listener_fields[] = {
    {"listen", CONFIG_ADDRESS, .restart = true, .required = true, AT_LISTENER(address),
     .example = "\"0.0.0.0:25\"",
     .doc = "Address and port: `192.0.2.1:25`, `[::]:25` (IPv6 alone: add `0.0.0.0:25` for both), "
            "`unix:/run/hayauma/smtp.sock`. Required."},
    {"mode", CONFIG_MODE, .restart = true, AT_LISTENER(mode), .def = "0660", RANGE(0, 0777),
     .doc = "Of a Unix socket, which belongs to `user` and `group`. Who may write to it may send "
            "mail anywhere; by default these are the members of `group`."},
    {"name", CONFIG_TEXT, AT_LISTENER(name), .def_text = "the address",
     .doc = "What logs call it."},
    {"host_name", CONFIG_NAME, AT_LISTENER(host_name), .def_text = "the global `host_name`",
     .doc = "Name in the banner."},
    {"relay_networks", CONFIG_NETWORK_LIST, AT_LISTENER(relay_networks),
     .offset2 = offsetof(struct config_listener, relay_networks_len), .def = "127.0.0.0/8, ::1",
     .example = "[127.0.0.0/8, \"::1\", 10.0.0.0/8]",
     .doc =
         "Clients that may send mail anywhere without AUTH. Everyone else gets 550 5.7.1: Hayauma "
         "takes mail for no domain of its own, and must never be an open relay."},
    {"proxy_from", CONFIG_NETWORK_LIST, AT_LISTENER(proxy_from),
     .offset2 = offsetof(struct config_listener, proxy_from_len), .def_text = "`[]`: no balancer",
     .example = "[10.0.0.2, 10.0.0.3]",
     .doc =
         "Balancers in front of this listener. Each of their connections must begin with a header "
         "of the PROXY protocol (version 1 or 2), and its client is whom that names: for limits, "
         "`relay_networks`, records and Received. Others hear 421 4.7.0: who could connect past "
         "the balancers could claim to be anybody. A Unix socket takes all that may open it for "
         "balancers."},
    {"xclient_from", CONFIG_NETWORK_LIST, AT_LISTENER(xclient_from),
     .offset2 = offsetof(struct config_listener, xclient_from_len), .def_text = "`[]`: nobody",
     .example = "[10.0.0.9]",
     .doc = "SMTP proxies, such as nginx's, that may say by XCLIENT whose commands follow. The "
            "session then begins anew as that client's: for limits, `relay_networks`, records and "
            "Received. "
            "Others have no such command."},
    {"auth", CONFIG_CHOICE, AT_LISTENER(auth), .def = "none", .choices = "none, offered, required",
     .doc = "Whether clients may log in (AUTH PLAIN, LOGIN and, where each user has keys for it, "
            "SCRAM-SHA-256), and then send mail anywhere. "
            "'required' takes mail of nobody else, and `relay_networks` counts for nothing there: "
            "for port 587. Needs `auth.users_file`, and TLS unless `auth_without_tls`."},
    {"auth_without_tls", CONFIG_BOOL, AT_LISTENER(auth_without_tls), .def = "no",
     .doc = "Take passwords over connections that are not encrypted: whoever sees the packets has "
            "them. For a listener that only a network of one's own or a program on this machine "
            "reaches. Loopback is no exception: the setting says it there too."},
    {"bare_newlines", CONFIG_CHOICE, AT_LISTENER(bare_newlines), .def = "refuse",
     .choices = NEWLINES,
     .doc =
         "Content with a LF without CR or a CR without LF: 'refuse' answers 554 5.6.0 and ends "
         "the session, since such line ends are what smuggles mail through servers that read "
         "them otherwise. 'repair' makes such a LF a CRLF and such a CR a space, for "
         "applications that send them (Python's `sendmail(message.as_bytes())`), and a LF ends a "
         "command; only CRLF.CRLF ends the content still."},
    {"clients", CONFIG_MAP, AT_LISTENER(clients),
     .offset2 = offsetof(struct config_listener, clients_len), .section = &client_schema,
     .items = &client_items},
    {"tls", CONFIG_CHOICE, AT_LISTENER(tls), .choices = "none, starttls, implicit",
     .def_text = "with `certificates`: `implicit` on port 465, `starttls` elsewhere; without them, "
                 "and on Unix sockets: `none`",
     .doc =
         "Encryption (TLS 1.2 and 1.3): 'starttls' offers STARTTLS (RFC 3207), 'implicit' begins "
         "with TLS (RFC 8314)."},
    {"tls_required", CONFIG_BOOL, AT_LISTENER(tls_required), .def = "no",
     .doc = "Take mail in encrypted sessions only: before STARTTLS commands get 530 5.7.0. Not for "
            "a host that the world's MX point to (RFC 3207 4)."},
    {"tls_version_min", CONFIG_CHOICE, AT_LISTENER(tls_version_min), .def = "1.2",
     .choices = "1.2, 1.3", .doc = "The oldest version of TLS that is taken."},
    {"tls_handshake_timeout", CONFIG_MS, AT_LISTENER(tls_timeout_ms), .def = "30s",
     RANGE(1 * SECOND_MS, 10 * MINUTE_MS), .doc = "All of a handshake; then the session is cut."},
    {"client_certificates", CONFIG_CHOICE, AT_LISTENER(client_certificates), .def = "off",
     .choices = "off, ask, require",
     .doc = "Whether clients are asked for a certificate in the handshake. 'ask': it is good for "
            "`relay_certificates`, and for AUTH EXTERNAL of users with `certificate=`; who shows "
            "none, or one that nobody knows, is served as others are. 'require': for known clients "
            "alone, with TLS before there is mail; others hear 554 5.7.1 behind the handshake. "
            "Known is what `client_ca_file` vouches for, and what `relay_certificates` or the file "
            "of users have. Such a listener gives no tickets: each handshake shows the "
            "certificate."},
    {"client_ca_file", CONFIG_PATH, AT_LISTENER(client_ca_file), .def_text = "none",
     .example = "/etc/hayauma/tls/clients.pem",
     .doc = "Authorities that vouch for clients (PEM). Without it a certificate is known by its "
            "fingerprint alone. Read at the start and with each reload."},
    {"client_crl_file", CONFIG_PATH, AT_LISTENER(client_crl_file), .def_text = "none",
     .example = "/etc/hayauma/tls/clients.crl",
     .doc = "Certificates that these authorities have taken back (lists of RFC 5280, in PEM): one "
            "list of each authority, and of each between it and a client. A certificate that is in "
            "one is good for nothing, by its fingerprint neither. Where a list lacks, or is older "
            "than it says to be good, the authorities vouch for nobody. Read as `client_ca_file`."},
    {"relay_certificates", CONFIG_TEXT_LIST, AT_LISTENER(relay_certificates),
     .offset2 = offsetof(struct config_listener, relay_certificates_len), .def_text = "`[]`",
     .example = "[\"9F:86:D0:81:…\", app.shop.example]",
     .doc = "Certificates whose clients may send mail anywhere without AUTH, from wherever they "
            "come: fingerprints (SHA-256 of the certificate or of its public key, `openssl x509 "
            "-noout -fingerprint -sha256`), names that a certificate bears for which "
            "`client_ca_file` vouches (DNS name, mail address, else the common name), or `\"*\"`: "
            "each of those. With `auth: required` it counts for nothing, as `relay_networks`."},
    {"tls_handshakes_max", CONFIG_COUNT, AT_LISTENER(tls_handshakes_max), .def = "2000",
     RANGE(1, 1000000),
     .doc = "Handshakes of this listener at a time, each of which may hold some 30 KiB; beyond it "
            "STARTTLS gets 454 4.7.0, and with 'implicit' the connection is closed. Clients "
            "outside of relay_networks get them as long as less than half are taken, one address "
            "at most a sixteenth of them; with `auth: required` one address gets at most half."},
    {"pool", CONFIG_TEXT, AT_LISTENER(pool), .def_text = "`default_pool`",
     .doc = "The pool that sends mail of this listener, where none of the message's own rules says "
            "otherwise (see pools)."},
    {"senders", CONFIG_SENDER_LIST, AT_LISTENER(senders.envelope),
     .offset2 = offsetof(struct config_listener, senders.envelope_len), .def_text = "`[]`: any",
     .example = "[shop.example, \"*.shop.example\", news@other.example, \"<>\"]",
     .doc =
         "Envelope senders that clients may use; others get 553 5.7.1. `<>` is the null sender. A "
         "user's own (`senders=` in `auth.users_file`), then those of the client's network come "
         "before the listener's: one list decides."},
    {"from", CONFIG_SENDER_LIST, AT_LISTENER(senders.from),
     .offset2 = offsetof(struct config_listener, senders.from_len), .def_text = "as `senders`",
     .example = "[shop.example]",
     .doc =
         "Addresses that the From field may have, all of them; others, and a From field without "
         "an address, get 550 5.7.1. So a client has nobody else's DKIM signature. `\"*\"`: any."},
    {"headers", CONFIG_TEXT_LIST, AT_LISTENER(headers),
     .offset2 = offsetof(struct config_listener, headers_len),
     .def = "pool, campaign, tenant, priority, not-before, engaged",
     .choices = "pool, campaign, tenant, priority, not-before, engaged",
     .example = "[campaign, priority]",
     .doc =
         "What clients may choose in the header of a message: `X-Hayauma-Pool` and so on. Fields "
         "of all these names are taken off; those that are not listed here mean nothing."},
    {"idempotency_header", CONFIG_TEXT, AT_LISTENER(idempotency_header), .def_text = "none",
     .example = "X-Idempotency-Key",
     .doc =
         "Header field with a key of 1 to 256 characters, by which a client may send a message "
         "again: the same message, with the same key within 24 hours, is accepted once and "
         "answered as the first time. The field is taken off. The manual has more (Submission)."},
    {"suppression", CONFIG_BOOL, AT_LISTENER(suppression), .def = "no",
     .doc = "'yes': recipients on the suppression list get 550 5.7.1: those who are there for all "
            "tenants, and for the tenant of the user who has logged in (`tenant=`), with a reason "
            "that holds all mail. New installations want 'yes'."},
    {"message_size_max", CONFIG_BYTES, AT_LISTENER(message_bytes_max), .def = "50MiB",
     RANGE(64 * KIB, 2 * GIB),
     .doc =
         "Largest message, said in EHLO (SIZE); 552 5.3.4 beyond. What the large mailbox providers "
         "take is 25 to 50 MB."},
    {"recipients_max", CONFIG_COUNT, AT_LISTENER(recipients_max), .def = "1000", RANGE(1, 100000),
     .doc =
         "Recipients of one message; 452 4.5.3 beyond, which makes a client send the rest again. "
         "RFC 5321 4.5.3.1.8 wants at least 100."},
    {"command_line_max", CONFIG_BYTES32, AT_LISTENER(command_line_bytes_max), .def = "4KiB",
     RANGE(512, 64 * KIB),
     .doc = "Longest command line with CRLF; 500 5.5.2 beyond. RFC 5321 wants 512, its extensions "
            "(DSN, SMTPUTF8) more than 2 KiB in all."},
    {"body_line_max", CONFIG_BYTES32, AT_LISTENER(body_line_bytes_max), .def = "1000",
     RANGE(0, 1 * GIB), .zero = "none",
     .doc =
         "Longest line of content with CRLF; 554 5.6.0 beyond. By the book (RFC 5321 4.5.3.1.6): "
         "hosts that keep to it bounce such mail, and it is better to hear it from us at once."},
    {"errors_max", CONFIG_COUNT, AT_LISTENER(errors_max), .def = "20", RANGE(1, 100000),
     .doc = "Refused commands before a session is ended with 421 4.7.0. Of clients in "
            "`relay_networks` a refused recipient does not count, since it is a line of a list "
            "that the client could not check; other refused mail counts to `commands_max`."},
    {"commands_max", CONFIG_COUNT, AT_LISTENER(commands_max), .def = "200", RANGE(10, 1000000),
     .doc = "Commands that carry no mail (NOOP, RSET, VRFY, ...) since the last message taken, "
            "before a session is ended with 421 4.7.0."},
    {"messages_max", CONFIG_COUNT, AT_LISTENER(messages_max), .def = "0", RANGE(0, 100000000),
     .zero = "none",
     .doc = "Messages of one session, said in EHLO (LIMITS MAILMAX). Set it where a balancer "
            "should spread long sessions."},
    {"sessions_max", CONFIG_COUNT, AT_LISTENER(sessions_max), .def = "5000", RANGE(1, 1000000),
     .doc = "Sessions of this listener at a time; 421 4.3.2 beyond. Clients outside of "
            "relay_networks get "
            "them as long as less than half are taken."},
    {"sessions_per_client_max", CONFIG_COUNT, AT_LISTENER(sessions_per_client_max), .def = "1000",
     RANGE(1, 1000000),
     .doc = "Sessions of one client address at a time at this listener; "
            "421 4.7.0 beyond."},
    {"received_max", CONFIG_COUNT, AT_LISTENER(received_max), .def = "100", RANGE(10, 1000),
     .doc = "Received headers at which a message is taken for looping; 554 5.4.6 beyond. "
            "RFC 5321 6.3 wants at least 100."},
    {"idle_timeout", CONFIG_MS, AT_LISTENER(idle_timeout_ms), .def = "5m",
     RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Wait for a command or for content (RFC 5321 4.5.3.2.7: at least 5 minutes)."},
    {"session_timeout", CONFIG_MS, AT_LISTENER(session_timeout_ms), .def = "12h",
     RANGE(10 * SECOND_MS, 30 * (uint64_t)DAY_MS),
     .doc =
         "Total time of a session; a transaction under way is ended too. It bounds what a client "
         "that trickles bytes can hold."},
};

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
     .doc = "Connections at a time; further ones wait to be accepted, or are closed."},
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
     .doc = "Wait after the first attempt, the second, ...; the last one repeats. "
            "`retry: [5m, 10m, 30m]` is short for this."},
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
     .doc = "Sessions at a time from one source to the site (all domains that share its "
            "exchangers), for the whole process. Most hosts take 20 from a sender they do not "
            "know."},
    {"session_messages_max", CONFIG_COUNT, AT_DEST(session_messages_max), .def = "1000",
     RANGE(0, 100000000), .zero = "none",
     .doc = "Messages of one session, then it is closed and another opened, perhaps to another "
            "exchanger of equal preference."},
    {"addresses_max", CONFIG_COUNT, AT_DEST(addresses_max), .def = "5", RANGE(0, 1000),
     .zero = "none",
     .doc =
         "Addresses, over all exchangers and spread over IPv4 and IPv6, that are tried before an "
         "attempt has failed; the next attempt goes on with the others. Those that this host has "
         "no route to do not count. A destination with many dead exchangers would hold "
         "its mail in memory for as long as all their timeouts take."},
    {"urgent_sessions", CONFIG_COUNT, AT_DEST(urgent_sessions), .def = "0", RANGE(0, 100000),
     .zero = "none",
     .doc =
         "Of `sessions_max` so many are kept for mail of priorities 0 to 4, which else waits for "
         "a session that is busy with other mail. One is always left for that."},
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
     .doc = "Sessions begun per time to the site from one source, for the whole process. Where an "
            "address gives no session the attempts at the next ones count too, and are made up "
            "for."},
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
     .doc =
         "Keep a session without work this long. Short, as it takes a slot at the peer. One whose "
         "next message waits only for a rate stays up to 30 s longer, or it would be opened anew "
         "for each."},
    {"chunking", CONFIG_NOT, AT_DEST(no_chunking), .def = "yes",
     .doc = "Use CHUNKING (BDAT) where offered. 'no' is for peers that get it wrong."},
    {"pipelining", CONFIG_NOT, AT_DEST(no_pipelining), .def = "yes",
     .doc = "Use PIPELINING where offered."},
    {"tls", CONFIG_CHOICE, AT_DEST(tls), .def = "may",
     .choices = "none, may, encrypt, verify, dane, mta-sts, dane+mta-sts",
     .doc = "Encryption of sessions. 'may': where the exchanger offers STARTTLS, whatever its "
            "certificate; where that fails mail goes in plaintext for an hour, and records say so. "
            "'encrypt': always, with any certificate; else mail waits. 'verify': always, with a "
            "certificate of an authority in `tls_ca_file` that bears the exchanger's host name. "
            "'dane' (RFC 7672; needs `dns.validating`): always, with a certificate as the "
            "exchanger's TLSA records have it, where there are such; to others as 'may'. "
            "'mta-sts' (RFC 8461): as 'verify' with the exchangers that the domain's policy names, "
            "where it has published one that is in force; to others as 'may'. Policies are fetched "
            "by HTTPS and kept in the queue. 'dane+mta-sts': as 'dane' for exchangers with TLSA "
            "records, else as 'mta-sts'. "
            "Connections to port 465 begin with TLS. Protocols: TLS 1.2 and 1.3."},
    {"tls_certificate", CONFIG_PATH, AT_DEST(tls_certificate), .def_text = "none",
     .example = "/etc/hayauma/tls/client.pem",
     .doc = "What is shown to servers that ask for a certificate: its chain and its key, in one "
            "PEM file; without it, what the source shows (`sources.NAME.tls_certificate`). Records "
            "have its names (`tls_own_certificate`). Read at the start and with each reload; of a "
            "file that is broken the certificate loaded before stays, and without one none is "
            "shown."},
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

static const struct config_section queue_schema = {
    .doc = "Where accepted mail is kept.", .fields = queue_fields, .len = ARRAY_LEN(queue_fields)};
static const struct config_section records_schema = {
    .doc = "What happened to every message, as JSON lines (see records.md).",
    .fields = records_fields,
    .len = ARRAY_LEN(records_fields)};
static const struct config_section dns_schema = {
    .doc = "How exchangers are found.", .fields = dns_fields, .len = ARRAY_LEN(dns_fields)};
static const struct config_section tls_reports_schema = {
    .doc = "Reports of TLS (RFC 8460): domains that ask for them (`_smtp._tls.DOMAIN`) hear once a "
           "day how many sessions with their exchangers were encrypted as they wish, and what "
           "failed.",
    .example = "tls_reports: {from: tls-reports@mta.example.com, contact: "
               "postmaster@example.com}\n",
    .fields = tls_reports_fields,
    .len = ARRAY_LEN(tls_reports_fields)};
static const struct config_section mta_sts_schema = {
    .doc = "How policies are fetched where `tls` of a destination is `mta-sts`.",
    .fields = mta_sts_fields,
    .len = ARRAY_LEN(mta_sts_fields)};
static const struct config_section bounce_schema = {.doc = "Notices to senders (RFC 3461 to 3464).",
                                                    .fields = bounce_fields,
                                                    .len = ARRAY_LEN(bounce_fields)};
static const struct config_section suppression_schema = {
    .doc = "The suppression list: what the engine does with it by itself.",
    .fields = suppression_fields,
    .len = ARRAY_LEN(suppression_fields)};
static const struct config_section auth_schema = {
    .doc = "Clients that log in to submit (SMTP AUTH; see the manual).",
    .fields = auth_fields,
    .len = ARRAY_LEN(auth_fields)};
static const struct config_section http_schema = {
    .doc = "The HTTP API, metrics and health checks (http.md).",
    .example = "http:\n"
               "  listen: \"127.0.0.1:8000\"\n"
               "  trusted_networks: [127.0.0.0/8]  # else: hayauma token add NAME\n",
    .fields = http_fields,
    .len = ARRAY_LEN(http_fields)};

static const struct config_field proxy_fields[] = {
    {"socks5", CONFIG_ADDRESS, AT_SOURCE(proxy.socks5), .def_text = "none",
     .example = "\"10.0.0.5:1080\"",
     .doc =
         "A SOCKS 5 proxy (RFC 1928) that connects for the source. From which address it does is "
         "its own setting, perhaps by user."},
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
static const struct config_items source_items = {.bytes = sizeof(struct config_source),
                                                 .max = CONFIG_SOURCES_MAX,
                                                 .key = CONFIG_KEY_NAME,
                                                 .key_offset = offsetof(struct config_source, name),
                                                 .key_word = "NAME",
                                                 .write = "\"a1: {ipv4: 192.0.2.10}\""};
static const struct config_section source_schema = {
    .doc = "Where deliveries come from: addresses of this machine by name (`egress_source` in "
           "records). Without an entry there is one source, `default`, whose address the kernel "
           "chooses. An address that the machine does not hold is noticed, reported and left out "
           "until it is there.",
    .example = "sources:\n"
               "  a1: {ipv4: 192.0.2.11, ehlo_name: a1.example.com}\n"
               "  a2: {ipv4: 192.0.2.12, ipv6: \"2001:db8::12\", ehlo_name: a2.example.com}\n"
               "  b1: {ipv4: 198.51.100.1, ehlo_name: b1.example.com,\n"
               "       proxy: {haproxy: \"10.0.0.5:2525\"}}\n",
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
            "campaign, comes from one source; weights say how many domains or campaigns each "
            "has. While that source is suspended or away the next one takes its place."},
    {"overflow", CONFIG_TEXT, AT_POOL(overflow_name), .def_text = "none",
     .doc = "The pool that sends what no source of this one may send now: all are suspended, away, "
            "stopped by the destination or at a limit. Its own overflow is not asked."},
    {"engaged", CONFIG_TEXT, AT_POOL(engaged_name), .def_text = "the same", .example = "fresh",
     .doc = "The pool that sends mail marked `X-Hayauma-Engaged: yes` instead of this one: that of "
            "addresses that are new, which only mail for people who want it should take."},
    {"attempts_max", CONFIG_COUNT, AT_POOL(attempts_max), .def = "0", RANGE(0, 1000),
     .zero = "any number",
     .doc =
         "So many attempts of a recipient are made in this pool; if the last one was deferred it "
         "goes on by `overflow`. One, for addresses that are new."},
};
static const struct config_items pool_items = {.bytes = sizeof(struct config_pool),
                                               .max = CONFIG_SOURCES_MAX,
                                               .key = CONFIG_KEY_NAME,
                                               .key_offset = offsetof(struct config_pool, name),
                                               .key_word = "NAME",
                                               .write = "\"bulk: {sources: {a1: {weight: 1}}}\""};
static const struct config_section pool_schema = {
    .doc =
        "Sets of sources by name. The first of these that names a pool decides when a message is "
        "accepted: `X-Hayauma-Pool` in its header (where the listener's `headers` has it), its "
        "campaign, its tenant, its sender's domain (`senders`), the client's network and the "
        "listener, at last `default_pool`. Without an entry there is one pool, `default`, of all "
        "sources.",
    .example = "sources: {a1: {ipv4: 192.0.2.11}, a2: {ipv4: 192.0.2.12}, a3: {ipv4: 192.0.2.13}}\n"
               "pools:\n"
               "  bulk:\n"
               "    sources: {a1: {weight: 3}, a2: {weight: 1}}\n"
               "    overflow: spare\n"
               "  spare: {sources: {a3: {weight: 1}}}\n"
               "default_pool: bulk\n",
    .fields = pool_fields,
    .len = ARRAY_LEN(pool_fields)};

static const struct config_field sender_fields[] = {
    {"pool", CONFIG_TEXT, .offset = offsetof(struct config_sender, pool),
     .def_text = "as other rules say", .example = "bulk", .doc = "The pool that sends such mail."},
    {"return_path", CONFIG_TEXT, .offset = offsetof(struct config_sender, return_path),
     .def_text = "none: `envelope_sender` as it is", .example = "\"bounce+\"",
     .doc = "Each letter of a campaign gets a return path of its own (VERP), which says whose "
            "bounce comes back, and which others cannot make up: this text, 45 letters and digits, "
            "and the domain of `envelope_sender`. So the server of that domain takes all that "
            "begins with it: `bounce+` is what Postfix delivers to `bounce`. At most 19 "
            "characters. Needs `letter_keys`; `hayauma letters verify` reads such an address."},
    {"unsubscribe", CONFIG_TEXT, .offset = offsetof(struct config_sender, unsubscribe),
     .def_text = "none", .example = "\"https://example.com/u/\"",
     .doc = "Each letter of a campaign gets List-Unsubscribe, and List-Unsubscribe-Post for one "
            "click (RFC 8058): this URL, at its end a token that names campaign, recipient and "
            "address, and that others cannot make up. Your server there takes the POST; the manual "
            "says how it reads the token. Templates know the whole URL as `unsubscribe_url`. A "
            "letter with a List-Unsubscribe of its own keeps that. Needs `letter_keys`."},
    {"unsubscribe_mailto", CONFIG_MAILBOX,
     .offset = offsetof(struct config_sender, unsubscribe_mailto), .def_text = "none",
     .example = "unsubscribe@example.com",
     .doc = "An address for List-Unsubscribe besides: mail to it has the token in its subject."},
    {"feedback_id", CONFIG_TEXT, .offset = offsetof(struct config_sender, feedback_id),
     .def_text = "none", .example = "examplenews",
     .doc = "Each letter of a campaign gets Feedback-ID, by which Google tells complaints apart: "
            "the campaign's name, its tenant, and this name of the sender, which is 5 to 15 "
            "letters and digits, and never changes."},
};
static const struct config_items sender_items = {.bytes = sizeof(struct config_sender),
                                                 .key = CONFIG_KEY_PATTERN,
                                                 .key_offset =
                                                     offsetof(struct config_sender, pattern),
                                                 .key_word = "PATTERN",
                                                 .write = "\"example.com: {pool: bulk}\""};
static const struct config_section sender_schema = {
    .doc =
        "Rules by the domain of the envelope sender. Each key is a pattern: `example.com`, "
        "`*.example.com` (every domain below it), or `\"*\"`; the first of the file that matches "
        "applies, `\"*\"` comes last. What campaigns get from here is kept with the campaign when "
        "it is made, so that all its letters are of a kind, and each attempt sends the same bytes.",
    .example = "sources: {a1: {ipv4: 192.0.2.11}, a2: {ipv4: 192.0.2.12}}\n"
               "pools: {bulk: {sources: {a1: {}}}, codes: {sources: {a2: {}}}}\n"
               "default_pool: codes\n"
               "letter_keys: /etc/hayauma/letter.keys\n"
               "senders:\n"
               "  news.example.com:\n"
               "    pool: bulk\n"
               "    return_path: \"bounce+\"\n"
               "    unsubscribe: \"https://news.example.com/u/\"\n"
               "    feedback_id: examplenews\n",
    .fields = sender_fields,
    .len = ARRAY_LEN(sender_fields)};

static const struct config_section dkim_schema = {
    .doc =
        "Signatures (DKIM, RFC 6376 and 8463) of the mail that goes out. Without `keys` nothing is "
        "signed; the manual says how to begin. Key files are read at the start and with each "
        "reload.",
    .example = "dkim:\n"
               "  keys:\n"
               "    - {domain: example.com, selector: s1-rsa, file: "
               "/etc/hayauma/dkim/example.com.s1-rsa.pem}\n"
               "    - {domain: example.com, selector: s1-ed25519, file: "
               "/etc/hayauma/dkim/example.com.s1-ed25519.pem}\n",
    .fields = dkim_fields,
    .len = ARRAY_LEN(dkim_fields)};

#define AT_CERTIFICATE(member) .offset = offsetof(struct config_certificate, member)

static const struct config_field certificate_fields[] = {
    {"chain", CONFIG_PATH, .required = true, AT_CERTIFICATE(chain_file),
     .example = "/etc/hayauma/tls/fullchain.pem",
     .doc = "The certificate, then those that signed it but for the last, in PEM. Required."},
    {"key", CONFIG_PATH, .required = true, AT_CERTIFICATE(key_file),
     .example = "/etc/hayauma/tls/privkey.pem",
     .doc = "Its private key, in PEM, without a pass phrase. Required."},
};
static const struct config_items certificate_items = {
    .bytes = sizeof(struct config_certificate),
    .max = CONFIG_CERTIFICATES_MAX,
    .unique = "chain",
    .write = "\"- {chain: /etc/hayauma/tls/fullchain.pem, key: /etc/hayauma/tls/privkey.pem}\""};
static const struct config_section certificate_schema = {
    .doc =
        "What the engine shows to clients that want encryption: a list. A client that asks for a "
        "name (SNI) gets the first certificate of each type of key, ECDSA and RSA, that bears the "
        "name. One that asks for none, or for one that no certificate bears, gets the first of the "
        "list, or the first of the other type that bears the same name. One that can verify none "
        "of these gets the first of a type that it can. A reload reads the files again; of a file "
        "that is broken the certificate loaded before stays, and the log says so. The engine must "
        "be able to read them after it has become `user`.",
    .example = "certificates:\n"
               "  - {chain: /etc/hayauma/tls/mx.ecdsa.pem, key: /etc/hayauma/tls/mx.ecdsa.key}\n"
               "  - {chain: /etc/hayauma/tls/mx.rsa.pem, key: /etc/hayauma/tls/mx.rsa.key}\n",
    .fields = certificate_fields,
    .len = ARRAY_LEN(certificate_fields)};

const struct config_section config_listener_schema = {
    .doc = "Where mail comes in: a list, each with its own limits. Without this key there is one "
           "listener at `127.0.0.1:25`; `[]` is none.",
    .example = "listeners:\n"
               "  - listen: \"127.0.0.1:25\"\n"
               "  - listen: \"10.0.0.5:2525\"\n"
               "    name: applications\n"
               "    relay_networks: [10.0.0.0/8]\n"
               "    message_size_max: 20MiB\n",
    .fields = listener_fields,
    .len = ARRAY_LEN(listener_fields)};

static const struct config_items listener_items = {.bytes = sizeof(struct config_listener),
                                                   .max = CONFIG_LISTENERS_MAX,
                                                   .unique = "listen",
                                                   .write = "\"- listen: 127.0.0.1:25\""};

#define AT_SHARE_SITE(member) .offset = offsetof(struct config_share_site, member)

static const struct config_field share_site_fields[] = {
    {"sessions_max", CONFIG_COUNT, AT_SHARE_SITE(sessions_max), .def = "0", RANGE(0, 1000000),
     .zero = "none",
     .doc = "Sessions at a time that have its mail under way, over all sources. Others' mail goes "
            "by the other sessions, and by these sessions when they have none of its mail."},
    {"rate", CONFIG_RATE, AT_SHARE_SITE(rate.count),
     .offset2 = offsetof(struct config_share_site, rate.period_ms), .def = "none", .zero = "none",
     .example = "100/min", .doc = "Messages per time, over all sources."},
    {"rate_burst", CONFIG_COUNT, AT_SHARE_SITE(rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `rate`, as a destination's."},
    {"recipient_rate", CONFIG_RATE, AT_SHARE_SITE(recipient_rate.count),
     .offset2 = offsetof(struct config_share_site, recipient_rate.period_ms), .def = "none",
     .zero = "none", .example = "500/h",
     .doc = "Recipients per time over all sources. A transaction takes so many of a message as may "
            "go at once: one, and those that the burst lets through."},
    {"recipient_burst", CONFIG_COUNT, AT_SHARE_SITE(recipient_rate.burst), .def = "0",
     RANGE(0, 100000), .zero = "none",
     .doc = "Of `recipient_rate`, as `rate_burst` of `rate`. A message to many is sent in one "
            "transaction as far as this lets it."},
    {"byte_rate", CONFIG_BYTE_RATE, AT_SHARE_SITE(byte_rate.count),
     .offset2 = offsetof(struct config_share_site, byte_rate.period_ms), .def = "none",
     .zero = "none", .example = "2MiB/s",
     .doc = "Bytes of messages per time over all sources: behind each message the next one waits "
            "as long as its bytes take."},
    {"byte_burst", CONFIG_BYTES32, AT_SHARE_SITE(byte_rate.burst), .def = "0", RANGE(0, 1 << 30),
     .zero = "none", .doc = "Of `byte_rate`, as `rate_burst` of `rate`."},
    {"connect_rate", CONFIG_RATE, AT_SHARE_SITE(connect_rate.count),
     .offset2 = offsetof(struct config_share_site, connect_rate.period_ms), .def = "none",
     .zero = "none", .example = "60/min",
     .doc = "Sessions per time that begin to have its mail, over all sources: each session counts "
            "with the first of its mail. Others' mail goes by the other sessions."},
    {"connect_burst", CONFIG_COUNT, AT_SHARE_SITE(connect_rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `connect_rate`, as `rate_burst` of `rate`."},
};
static const struct config_items share_site_items = {.bytes = sizeof(struct config_share_site),
                                                     .key = CONFIG_KEY_SITE,
                                                     .key_offset =
                                                         offsetof(struct config_share_site, site),
                                                     .key_word = "SITE",
                                                     .write = "\"google: {rate: 100/min}\""};
static const struct config_section share_site_schema = {
    .doc = "What it may send to sites, beside the limits of `destinations`, `providers` and "
           "`sources`. Each key is the name of a site as `hayauma site list` shows it, of a "
           "provider for example; "
           "`*` in it stands for anything. The first that matches applies, to each site by itself. "
           "Mail that waits for such a limit holds up nobody else's.",
    .fields = share_site_fields,
    .len = ARRAY_LEN(share_site_fields)};

static const struct config_field share_fields[] = {
    {"weight", CONFIG_COUNT, .offset = offsetof(struct config_share, weight), .def = "1",
     RANGE(1, 1000), .doc = "Its part, against the others' that have mail for the same site."},
    {"pool", CONFIG_TEXT, .offset = offsetof(struct config_share, pool),
     .def_text = "as other rules say", .doc = "The pool that sends its mail."},
    {"sites", CONFIG_MAP, .offset = offsetof(struct config_share, sites),
     .offset2 = offsetof(struct config_share, sites_len), .section = &share_site_schema,
     .items = &share_site_items, .example = "{google: {rate: 100/min}}"},
    {"senders", CONFIG_SENDER_LIST, .offset = offsetof(struct config_share, senders.envelope),
     .offset2 = offsetof(struct config_share, senders.envelope_len), .def_text = "`[]`: any",
     .example = "[acme.example]",
     .doc = "As a listener's `senders`, for users (`tenant=`) and HTTP tokens of this tenant; a "
            "user's own come before."},
    {"from", CONFIG_SENDER_LIST, .offset = offsetof(struct config_share, senders.from),
     .offset2 = offsetof(struct config_share, senders.from_len), .def_text = "as `senders`",
     .example = "[acme.example]", .doc = "As a listener's `from`."},
};
#define CAMPAIGN_FIELDS_LEN 3 /* a campaign has the first of these */
static const struct config_items share_items = {.bytes = sizeof(struct config_share),
                                                .key = CONFIG_KEY_NAME,
                                                .key_offset = offsetof(struct config_share, name),
                                                .key_word = "NAME",
                                                .write = "\"acme: {weight: 3}\""};
static const struct config_items tenant_items = {.bytes = sizeof(struct config_share),
                                                 .key = CONFIG_KEY_NAME_OR_ALL,
                                                 .key_offset = offsetof(struct config_share, name),
                                                 .key_word = "NAME",
                                                 .write = "\"acme: {weight: 3}\""};
static const struct config_section tenant_schema = {
    .doc = "Tenants (`X-Hayauma-Tenant`) by name. At each site those that have mail of the same "
           "priority share what the limits allow by weight, whatever their numbers of messages and "
           "domains. What `\"*\"` says holds for each tenant that has no entry, by itself; without "
           "it such a tenant has the weight 1 and no limits.",
    .example = "tenants:\n"
               "  acme: {weight: 3}\n"
               "  small-shop: {weight: 1}\n"
               "  \"*\": {sites: {\"*\": {rate: 1000/h}}}\n",
    .fields = share_fields,
    .len = ARRAY_LEN(share_fields)};
static const struct config_section campaign_schema = {
    .doc = "Campaigns (`X-Hayauma-Campaign`) by name: those of one tenant share the tenant's part "
           "by weight.",
    .fields = share_fields,
    .len = CAMPAIGN_FIELDS_LEN};

const struct config_section config_destination_schema = {
    .doc = "Limits and timing by destination. Each key is a pattern: `example.com`, "
           "`*.example.com` (every domain below it), `site:` and the name of a site as `hayauma "
           "status` "
           "shows it (`*` stands for anything), or `\"*\"`. The first pattern of the file that "
           "matches "
           "applies; `\"*\"` always comes last, and what a pattern leaves out comes from there.",
    .example = "destinations:\n"
               "  example.com: {sessions_max: 5, rate: 100/min}\n"
               "  \"site:*.mail.example.net\":\n"
               "    sessions_max: 50\n"
               "    retry: [5m, 10m, 30m, 1h]\n"
               "  \"*\":\n"
               "    lifetime: 2d\n"
               "    retry: {first: 10m, max: 2h, jitter: 20%}\n",
    .fields = destination_fields,
    .len = ARRAY_LEN(destination_fields) - PROVIDER_FIELDS};

const struct config_section config_provider_schema = {
    .doc = "Mailbox providers: all domains whose exchangers are a provider's make one site, named "
           "after it, and share its limits. Those below are shipped; each key of `destinations` "
           "but the lifetimes may be given for them, and for providers of your own. What neither "
           "the file nor the shipped profile says of a provider comes from `\"*\"` in "
           "`destinations`. A pattern of `destinations` that fits a domain, or the exchangers, "
           "holds there besides: it can be stricter than the provider's limits, not looser.",
    .example = "providers:\n"
               "  google: {sessions_max: 10, rate: 1000/min}\n"
               "  partner: {mx: [mx.partner.example], sessions_max: 2}\n",
    .fields = destination_fields,
    .len = ARRAY_LEN(destination_fields),
    .shared = ARRAY_LEN(destination_fields) - PROVIDER_FIELDS};

static const struct config_items provider_items = {.bytes = sizeof(struct config_provider),
                                                   .room = CONFIG_PROVIDERS_SHIPPED_MAX,
                                                   .key = CONFIG_KEY_NAME,
                                                   .key_offset =
                                                       offsetof(struct config_provider, name),
                                                   .key_word = "NAME",
                                                   .write = "\"google: {sessions_max: 10}\""};

static const struct config_section routes_schema = {
    .doc = "Static routes by recipient domain. Each key is a pattern: `example.com`, "
           "`*.example.com` (every domain below it), or `\"*\"`: the smarthost of everything else. "
           "The "
           "first pattern of the file that matches applies; `\"*\"` always comes last. Without a "
           "match "
           "the domain's own exchangers are looked up. Values:\n\n"
           "- `host` or `host:port`: the exchangers (MX) of that name\n"
           "- `[host]`, `[host]:port`: the addresses of that name, no MX\n"
           "- `[192.0.2.1]:port`, `[2001:db8::1]:port`: that address\n"
           "- `lmtp:unix:/path`, `lmtp:192.0.2.1:24`: LMTP (RFC 2033)\n"
           "- `mx`: as if there were no route, to except a domain from a later pattern\n"
           "- `reject`: refuse such recipients (550 5.7.1)\n\n"
           "A port left out is `dns.port`, for LMTP 24. Names are looked up in DNS; "
           "/etc/hosts is not read.",
    .example =
        "routes:\n"
        "  lists.example.com: \"[10.0.0.7]:2525\"\n"
        "  \"*.internal.example\": lmtp:unix:/run/dovecot/lmtp\n"
        "  partner.example: mx\n"
        "  \"*\": \"[smarthost.example.net]:587\"  # its user and password: credentials_file\n"};

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
     .doc =
         "Certificates of the authorities (PEM) that sessions out with `tls: verify` trust. Read "
         "at the start and with each reload."},
    {"letter_keys", CONFIG_PATH, AT(letter_keys_file), .def_text = "none",
     .example = "/etc/hayauma/letter.keys",
     .doc = "The keys of return paths and unsubscribe tokens (`senders`), made by `hayauma letters "
            "keygen`. Only its owner, the engine's user, may read it (mode 0600). It is read again "
            "with each reload. All nodes that send a domain's campaigns want the same file."},
    {"drain_timeout", CONFIG_MS, AT(drain_timeout_ms), .def = "30s",
     RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc =
         "On SIGTERM, wait this long for sessions past the end of a message to be answered. Mail "
         "is safe either way; exiting earlier risks duplicates."},
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
    {"dkim", CONFIG_SECTION, .section = &dkim_schema},
    {"certificates", CONFIG_ITEMS, AT(certificates), LEN_AT(certificates_len),
     .section = &certificate_schema, .items = &certificate_items},
    {"sources", CONFIG_MAP, AT(sources), LEN_AT(sources_len), .section = &source_schema,
     .items = &source_items},
    {"pools", CONFIG_MAP, AT(pools), LEN_AT(pools_len), .section = &pool_schema,
     .items = &pool_items},
    {"senders", CONFIG_MAP, AT(senders), LEN_AT(senders_len), .section = &sender_schema,
     .items = &sender_items},
    {"warmup", CONFIG_SECTION, .section = &config_warmup_schema},
    {"listeners", CONFIG_ITEMS, .restart = true, AT(listeners), LEN_AT(listeners_len),
     .section = &config_listener_schema, .items = &listener_items},
    {"tenants", CONFIG_MAP, AT(tenants), LEN_AT(tenants_len), .section = &tenant_schema,
     .items = &tenant_items},
    {"campaigns", CONFIG_MAP, AT(campaigns), LEN_AT(campaigns_len), .section = &campaign_schema,
     .items = &share_items},
    {"routes", CONFIG_ROUTES, AT(routes), LEN_AT(routes_len), .section = &routes_schema},
    {"destinations", CONFIG_DESTINATIONS, AT(destinations), LEN_AT(destinations_len),
     .section = &config_destination_schema},
    {"providers", CONFIG_MAP, AT(providers), LEN_AT(providers_len),
     .section = &config_provider_schema, .items = &provider_items},
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
