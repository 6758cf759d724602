/* The schema of `listeners`: whom mail is taken from by SMTP, and of the certificates that are
 * shown to them. */
#include "config/config_schema_row.h"

#define AT_LISTENER(member)    .offset = offsetof(struct config_listener, member)
#define AT_CLIENT(member)      .offset = offsetof(struct config_client, member)
#define AT_CERTIFICATE(member) .offset = offsetof(struct config_certificate, member)

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
    .doc = "What holds for clients of a network: each key is a network or an address. The "
           "narrowest that has the client applies; what it leaves out comes from the listener. For "
           "example `clients: {10.1.0.0/16: {bare_newlines: repair}}`.",
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
     .doc = "Clients that may send mail anywhere without AUTH. Everyone else gets 550 5.7.1: "
            "Hayauma takes mail for no domain of its own, and must never be an open relay."},
    {"proxy_from", CONFIG_NETWORK_LIST, AT_LISTENER(proxy_from),
     .offset2 = offsetof(struct config_listener, proxy_from_len), .def_text = "`[]`: no balancer",
     .example = "[10.0.0.2, 10.0.0.3]",
     .doc = "Balancers in front of this listener. Each of their connections must begin with a "
            "header of the PROXY protocol (version 1 or 2), and its client is whom that names: for "
            "limits, `relay_networks`, records and Received. Others hear 421 4.7.0: who could "
            "connect past the balancers could claim to be anybody. A Unix socket takes all that "
            "may open it for balancers."},
    {"xclient_from", CONFIG_NETWORK_LIST, AT_LISTENER(xclient_from),
     .offset2 = offsetof(struct config_listener, xclient_from_len), .def_text = "`[]`: nobody",
     .example = "[10.0.0.9]",
     .doc = "SMTP proxies, such as nginx's, that may say by XCLIENT whose commands follow. The "
            "session then begins anew as that client's: for limits, `relay_networks`, records and "
            "Received. Others have no such command."},
    {"auth", CONFIG_CHOICE, AT_LISTENER(auth), .def = "none", .choices = "none, offered, required",
     .doc = "Whether clients may log in (AUTH PLAIN, LOGIN and, where each user has keys for it, "
            "SCRAM-SHA-256), and then send mail anywhere. 'required' takes mail of nobody else, "
            "and `relay_networks` counts for nothing there: for port 587. Needs `auth.users_file`, "
            "and TLS unless `auth_without_tls`."},
    {"auth_without_tls", CONFIG_BOOL, AT_LISTENER(auth_without_tls), .def = "no",
     .doc = "Take passwords over connections that are not encrypted: whoever sees the packets has "
            "them. For a listener that only a network of one's own or a program on this machine "
            "reaches. Loopback is no exception: the setting says it there too."},
    {"bare_newlines", CONFIG_CHOICE, AT_LISTENER(bare_newlines), .def = "refuse",
     .choices = NEWLINES,
     .doc = "Content with a LF without CR or a CR without LF: 'refuse' answers 554 5.6.0 and ends "
            "the session, since such line ends are what smuggles mail through servers that read "
            "them otherwise. 'repair' makes such a LF a CRLF and such a CR a space, for "
            "applications that send them (Python's `sendmail(message.as_bytes())`), and a LF ends "
            "a command; only CRLF.CRLF ends the content still."},
    {"clients", CONFIG_MAP, AT_LISTENER(clients),
     .offset2 = offsetof(struct config_listener, clients_len), .section = &client_schema,
     .items = &client_items},
    {"tls", CONFIG_CHOICE, AT_LISTENER(tls), .choices = "none, starttls, implicit",
     .def_text = "with `certificates`: `implicit` on port 465, `starttls` elsewhere; without them, "
                 "and on Unix sockets: `none`",
     .doc = "Encryption (TLS 1.2 and 1.3): 'starttls' offers STARTTLS (RFC 3207), 'implicit' "
            "begins with TLS (RFC 8314)."},
    {"tls_required", CONFIG_BOOL, AT_LISTENER(tls_required), .def = "no",
     .doc = "Take mail in encrypted sessions only: before STARTTLS commands get 530 5.7.0. Not for "
            "a host that the world's MX point to (RFC 3207 4)."},
    {"tls_version_min", CONFIG_CHOICE, AT_LISTENER(tls_version_min), .def = "1.2",
     .choices = "1.2, 1.3", .doc = "The oldest version of TLS that is taken."},
    {"tls_handshake_timeout", CONFIG_MS, AT_LISTENER(tls_timeout_ms), .def = "30s",
     RANGE(1 * SECOND_MS, 10 * MINUTE_MS), .doc = "All of a handshake; then the session is cut."},
    {"client_certificates", CONFIG_CHOICE, AT_LISTENER(client_certificates), .def = "off",
     .choices = "off, ask, require",
     .doc =
         "Whether clients are asked for a certificate in the handshake. 'ask': it is good for "
         "`relay_certificates`, and for AUTH EXTERNAL of users with `certificate=`; who shows "
         "none, or one that nobody knows, is served as others are. 'require': for known clients "
         "alone, with TLS before there is mail; others hear 554 5.7.1 behind the handshake. Known "
         "is what `client_ca_file` vouches for, and what `relay_certificates` or the file of users "
         "have. Such a listener gives no tickets: each handshake shows the certificate."},
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
     .doc = "Envelope senders that clients may use; others get 553 5.7.1. `<>` is the null sender. "
            "A user's own (`senders=` in `auth.users_file`), then those of the client's network "
            "come before the listener's: one list decides."},
    {"from", CONFIG_SENDER_LIST, AT_LISTENER(senders.from),
     .offset2 = offsetof(struct config_listener, senders.from_len), .def_text = "as `senders`",
     .example = "[shop.example]",
     .doc =
         "Addresses that the From field may have, all of them; others, and a From field without an "
         "address, get 550 5.7.1. So a client has nobody else's DKIM signature. `\"*\"`: any."},
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
     .doc = "Largest message, said in EHLO (SIZE); 552 5.3.4 beyond. What the large mailbox "
            "providers take is 25 to 50 MB."},
    {"recipients_max", CONFIG_COUNT, AT_LISTENER(recipients_max), .def = "1000", RANGE(1, 100000),
     .doc = "Recipients of one message; 452 4.5.3 beyond, which makes a client send the rest "
            "again. RFC 5321 4.5.3.1.8 wants at least 100."},
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
            "relay_networks get them as long as less than half are taken."},
    {"sessions_per_client_max", CONFIG_COUNT, AT_LISTENER(sessions_per_client_max), .def = "1000",
     RANGE(1, 1000000),
     .doc = "Sessions of one client address at a time at this listener; 421 4.7.0 beyond."},
    {"received_max", CONFIG_COUNT, AT_LISTENER(received_max), .def = "100", RANGE(10, 1000),
     .doc = "Received headers at which a message is taken for looping; 554 5.4.6 beyond. RFC 5321 "
            "6.3 wants at least 100."},
    {"idle_timeout", CONFIG_MS, AT_LISTENER(idle_timeout_ms), .def = "5m",
     RANGE(1 * SECOND_MS, 1 * HOUR_MS),
     .doc = "Wait for a command or for content (RFC 5321 4.5.3.2.7: at least 5 minutes)."},
    {"session_timeout", CONFIG_MS, AT_LISTENER(session_timeout_ms), .def = "12h",
     RANGE(10 * SECOND_MS, 30 * (uint64_t)DAY_MS),
     .doc = "Total time of a session; a transaction under way is ended too. It bounds what a "
            "client that trickles bytes can hold."},
};

const struct config_section config_listener_schema = {
    .doc = "Where mail comes in: a list, each with its own limits. Without this key there is one "
           "listener at `127.0.0.1:25`; `[]` is none.",
    .example = "listeners:\n  - listen: \"127.0.0.1:25\"\n  - listen: \"10.0.0.5:2525\"\n    name: "
               "applications\n    relay_networks: [10.0.0.0/8]\n    message_size_max: 20MiB\n",
    .fields = listener_fields,
    .len = ARRAY_LEN(listener_fields)};
const struct config_items config_listener_items = {.bytes = sizeof(struct config_listener),
                                                   .max = CONFIG_LISTENERS_MAX,
                                                   .unique = "listen",
                                                   .write = "\"- listen: 127.0.0.1:25\""};

static const struct config_field certificate_fields[] = {
    {"chain", CONFIG_PATH, .required = true, AT_CERTIFICATE(chain_file),
     .example = "/etc/hayauma/tls/fullchain.pem",
     .doc = "The certificate, then those that signed it but for the last, in PEM. Required."},
    {"key", CONFIG_PATH, .required = true, AT_CERTIFICATE(key_file),
     .example = "/etc/hayauma/tls/privkey.pem",
     .doc = "Its private key, in PEM, without a pass phrase. Required."},
};
const struct config_items config_certificate_items = {
    .bytes = sizeof(struct config_certificate),
    .max = CONFIG_CERTIFICATES_MAX,
    .unique = "chain",
    .write = "\"- {chain: /etc/hayauma/tls/fullchain.pem, key: /etc/hayauma/tls/privkey.pem}\""};
const struct config_section config_certificate_schema = {
    .doc = "What the engine shows to clients that want encryption: a list. A client that asks for "
           "a name (SNI) gets the first certificate of each type of key, ECDSA and RSA, that bears "
           "the name. One that asks for none, or for one that no certificate bears, gets the first "
           "of the list, or the first of the other type that bears the same name. One that can "
           "verify none of these gets the first of a type that it can. A reload reads the files "
           "again; of a file that is broken the certificate loaded before stays, and the log says "
           "so. The engine must be able to read them after it has become `user`.",
    .example = "certificates:\n  - {chain: /etc/hayauma/tls/mx.ecdsa.pem, key: "
               "/etc/hayauma/tls/mx.ecdsa.key}\n  - {chain: /etc/hayauma/tls/mx.rsa.pem, key: "
               "/etc/hayauma/tls/mx.rsa.key}\n",
    .fields = certificate_fields,
    .len = ARRAY_LEN(certificate_fields)};
