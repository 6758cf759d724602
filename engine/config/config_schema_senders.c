/* The schema of `senders` and `dkim`: what mail gets by the domain that it is from. */
#include "config/config_schema_row.h"

#define AT(member)          .offset = offsetof(struct config_sender, member)
#define AT_KEY(member)      .offset = offsetof(struct config_dkim_key, member)
#define AT_DKIM(member)     .offset = offsetof(struct config, dkim.member)
#define LEN_AT_DKIM(member) .offset2 = offsetof(struct config, dkim.member)

static const struct config_field sender_fields[] = {
    {"pool", CONFIG_TEXT, AT(pool), .def_text = "as other rules say", .example = "bulk",
     .doc = "The pool that sends such mail."},
    {"return_path", CONFIG_TEXT, AT(return_path), .def_text = "none: `envelope_sender` as it is",
     .example = "\"bounce+\"",
     .doc = "Each letter of a campaign gets a return path of its own (VERP), which says whose "
            "bounce comes back, and which others cannot make up: this text, 45 letters and digits, "
            "and the domain of `envelope_sender`. So the server of that domain takes all that "
            "begins with it: `bounce+` is what Postfix delivers to `bounce`. At most 19 "
            "characters. Needs `letter_keys`; `hayauma letters verify` reads such an address."},
    {"unsubscribe", CONFIG_TEXT, AT(unsubscribe), .def_text = "none",
     .example = "\"https://example.com/u/\"",
     .doc = "Each letter of a campaign gets List-Unsubscribe, and List-Unsubscribe-Post for one "
            "click (RFC 8058): this URL, at its end a token that names campaign, recipient and "
            "address, and that others cannot make up. Your server there takes the POST; the manual "
            "says how it reads the token. Templates know the whole URL as `unsubscribe_url`. A "
            "letter with a List-Unsubscribe of its own keeps that. Needs `letter_keys`."},
    {"unsubscribe_mailto", CONFIG_MAILBOX, AT(unsubscribe_mailto), .def_text = "none",
     .example = "unsubscribe@example.com",
     .doc = "An address for List-Unsubscribe besides: mail to it has the token in its subject."},
    {"feedback_id", CONFIG_TEXT, AT(feedback_id), .def_text = "none", .example = "examplenews",
     .doc = "Each letter of a campaign gets Feedback-ID, by which Google tells complaints apart: "
            "the campaign's name, its tenant, and this name of the sender, which is 5 to 15 "
            "letters and digits, and never changes."},
};
const struct config_items config_sender_items = {.bytes = sizeof(struct config_sender),
                                                 .key = CONFIG_KEY_PATTERN,
                                                 .key_offset =
                                                     offsetof(struct config_sender, pattern),
                                                 .key_word = "PATTERN",
                                                 .write = "\"example.com: {pool: bulk}\""};
const struct config_section config_sender_schema = {
    .doc =
        "Rules by the domain of the envelope sender. Each key is a pattern: `example.com`, "
        "`*.example.com` (every domain below it), or `\"*\"`; the first of the file that matches "
        "applies, `\"*\"` comes last. What campaigns get from here is kept with the campaign when "
        "it is made, so that all its letters are of a kind, and each attempt sends the same bytes.",
    .example = "sources: {a1: {ipv4: 192.0.2.11}, a2: {ipv4: 192.0.2.12}}\npools: {bulk: {sources: "
               "{a1: {}}}, codes: {sources: {a2: {}}}}\ndefault_pool: codes\nletter_keys: "
               "/etc/hayauma/letter.keys\nsenders:\n  news.example.com:\n    pool: bulk\n    "
               "return_path: \"bounce+\"\n    unsubscribe: \"https://news.example.com/u/\"\n    "
               "feedback_id: examplenews\n",
    .fields = sender_fields,
    .len = ARRAY_LEN(sender_fields)};

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
     .doc = "Also sign mail of the domains below, where none nearer has a key. DMARC takes that "
            "for theirs unless the domain's record says `adkim=s`."},
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
    {"keys", CONFIG_ITEMS, AT_DKIM(keys), LEN_AT_DKIM(keys_len), .section = &dkim_key_schema,
     .items = &dkim_key_items},
    {"default", CONFIG_NAME, AT_DKIM(fallback), .def_text = "none", .zero = "none",
     .example = "mail.example.net",
     .doc = "Domain of `keys` that signs mail of From domains without a key. Without it such mail "
            "goes out unsigned."},
    {"platform", CONFIG_NAME, AT_DKIM(platform), .def_text = "none", .zero = "none",
     .example = "mail.example.net",
     .doc = "Domain of `keys` that adds a second signature to all mail: the sending service's own, "
            "which its feedback loops are registered with."},
    {"canonicalization", CONFIG_CHOICE, AT_DKIM(canonicalization), .def = "relaxed/relaxed",
     .choices = "relaxed/relaxed, relaxed/simple, simple/relaxed, simple/simple",
     .doc = "Of header and body. 'relaxed' outlives changes of white space on the way."},
    {"headers", CONFIG_TEXT_LIST, AT_DKIM(headers), LEN_AT_DKIM(headers_len), .def_text = "`[]`",
     .example = "[X-Campaign]",
     .doc = "Header fields to sign, where a message has them, beside the usual ones (From, "
            "Subject, Date, To, List-*, Feedback-ID and others: see the manual)."},
    {"expires", CONFIG_SECONDS, AT_DKIM(expires_s), .def = "0", RANGE(0, 365 * DAY_S),
     .zero = "none",
     .doc = "How long a signature is valid (x=). Few verifiers look at it; it must outlast delays "
            "on the way."},
};
const struct config_section config_dkim_schema = {
    .doc = "Signatures (DKIM, RFC 6376 and 8463) of the mail that goes out. Without `keys` nothing "
           "is signed; the manual says how to begin. Key files are read at the start and with each "
           "reload.",
    .example = "dkim:\n  keys:\n    - {domain: example.com, selector: s1-rsa, file: "
               "/etc/hayauma/dkim/example.com.s1-rsa.pem}\n    - {domain: example.com, selector: "
               "s1-ed25519, file: /etc/hayauma/dkim/example.com.s1-ed25519.pem}\n",
    .fields = dkim_fields,
    .len = ARRAY_LEN(dkim_fields)};
