/* Reads the sink's behaviour file: a table of keys, a reader per type of value. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands/quantity.h"
#include "tools/sink/sink_behaviour.h"
#include "tools/sink/sink_yaml.h"

static const char *const stage_names[SINK_STAGES] = {
    [SINK_BANNER] = "banner", [SINK_EHLO] = "ehlo", [SINK_MAIL] = "mail", [SINK_RCPT] = "rcpt",
    [SINK_DATA] = "data",     [SINK_BODY] = "body", [SINK_DOT] = "dot",   [SINK_KEPT] = "kept",
};

static const char *const dns_names[] = {
    [SINK_DNS_MX] = "mx",
    [SINK_DNS_IMPLICIT] = "implicit",
    [SINK_DNS_NULL_MX] = "nullmx",
    [SINK_DNS_NXDOMAIN] = "nxdomain",
    [SINK_DNS_SERVFAIL] = "servfail",
    [SINK_DNS_TIMEOUT] = "timeout",
    [SINK_DNS_NO_HOST] = "nohost",
};

/* "451 4.3.0 text": what goes on the wire, so nothing that breaks a line. */
static void read_reply(struct yaml_reader *r, struct fy_node *node, char **out)
{
    char text[YAML_VALUE_BYTES];

    if (!yaml_scalar(r, node, text))
        return;
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            return yaml_complain(r, "control character in a reply");
    if ((text[0] != '4' && text[0] != '5') || !isdigit((unsigned char)text[1]) ||
        !isdigit((unsigned char)text[2]) || text[3] != ' ')
        return yaml_complain(r, "'%s' is no reply: want \"4xx text\" or \"5xx text\"", text);
    free(*out);
    *out = yaml_copy(text);
}

/* Calls each() for a scalar or for every item of a sequence. */
static void read_list(struct yaml_reader *r, struct fy_node *node, struct sink_class *c,
                      void (*each)(struct yaml_reader *, struct fy_node *, struct sink_class *))
{
    void *at = NULL;

    if (!fy_node_is_sequence(node)) {
        each(r, node, c);
        return;
    }
    for (struct fy_node *item; (item = fy_node_sequence_iterate(node, &at)) != NULL;)
        each(r, item, c);
}

static void each_domain(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    char text[YAML_VALUE_BYTES];
    char **grown;

    if (!yaml_scalar(r, node, text))
        return;
    grown = realloc(c->domains, (c->domains_len + 1) * sizeof(*grown));
    ASSERT(grown != NULL);
    c->domains = grown;
    c->domains[c->domains_len++] = yaml_copy(text);
}

static void each_address(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    char text[YAML_VALUE_BYTES];

    if (!yaml_scalar(r, node, text))
        return;
    if (c->addresses_len == SINK_ADDRESSES_MAX)
        return yaml_complain(r, "more than %d addresses", SINK_ADDRESSES_MAX);
    if (endpoint_parse(text, 1, &c->addresses[c->addresses_len]) < 0 ||
        c->addresses[c->addresses_len].addr.ss_family == AF_UNIX)
        return yaml_complain(r, "'%s' is no IP address", text);
    c->addresses_len++;
}

static void each_without(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    static const char *const names[] = {"pipelining", "chunking", "8bitmime", "smtputf8", "dsn",
                                        "size",       "limits",   "enhanced", "ehlo"};
    struct smtp_server_options *o = &c->options;
    bool *const flags[] = {&o->no_pipelining, &o->no_chunking, &o->no_8bitmime,
                           &o->no_smtputf8,   &o->no_dsn,      &o->no_size,
                           &o->no_limits,     &o->no_enhanced, &c->no_ehlo};
    char text[YAML_VALUE_BYTES];
    int i;

    if (!yaml_scalar(r, node, text))
        return;
    i = yaml_choice(r, text, names, ARRAY_LEN(names));
    if (i >= 0)
        *flags[i] = true;
}

/* "20ms", "uniform 10ms 50ms", "exp 20ms". */
static void read_latency(struct yaml_reader *r, struct fy_node *node, struct sink_latency *out)
{
    char text[YAML_VALUE_BYTES], a[32] = "", b[32] = "", more[2];
    struct sink_latency latency = {.kind = SINK_LATENCY_FIXED};
    bool ok;

    if (!yaml_scalar(r, node, text))
        return;
    if (sscanf(text, "uniform %31s %31s %1s", a, b, more) == 2) {
        latency.kind = SINK_LATENCY_UNIFORM;
        ok = quantity_duration_ms(a, &latency.a_ms) == 0 &&
             quantity_duration_ms(b, &latency.b_ms) == 0 && latency.a_ms <= latency.b_ms;
    } else if (sscanf(text, "exp %31s %1s", a, more) == 1) {
        latency.kind = SINK_LATENCY_EXP;
        ok = quantity_duration_ms(a, &latency.a_ms) == 0;
    } else {
        ok = quantity_duration_ms(text, &latency.a_ms) == 0;
    }
    if (!ok)
        return yaml_complain(r, "'%s' is no latency: want 20ms, uniform 10ms 50ms or exp 20ms",
                             text);
    *out = latency;
}

static void read_latencies(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    char name[YAML_VALUE_BYTES];
    void *at = NULL;
    int stage;

    if (!fy_node_is_mapping(node))
        return yaml_complain(r, "latency: want {rcpt: 20ms, ...}");
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(node, &at)) != NULL;) {
        r->key = fy_node_pair_key(pair);
        if (!yaml_scalar(r, r->key, name))
            return;
        stage = yaml_choice(r, name, stage_names, SINK_STAGES);
        if (stage == SINK_BODY || stage == SINK_KEPT)
            yaml_complain(r, "no latency there; use dot");
        else if (stage >= 0)
            read_latency(r, fy_node_pair_value(pair), &c->latency[stage]);
    }
}

static void read_fault_key(struct yaml_reader *r, const char *key, struct fy_node *value,
                           struct sink_fault *fault)
{
    char text[YAML_VALUE_BYTES];
    bool drop = fault->kind == SINK_FIN || fault->kind == SINK_RST;
    int stage;

    if (strcmp(key, "rate") == 0) {
        yaml_share(r, value, &fault->rate);
    } else if (strcmp(key, "at") == 0) {
        stage = yaml_scalar(r, value, text) ? yaml_choice(r, text, stage_names, SINK_STAGES) : -1;
        if (stage >= 0)
            fault->stage = (enum sink_stage)stage;
        if (!drop && (stage == SINK_BODY || stage == SINK_KEPT))
            yaml_complain(r, "no reply can be given there");
    } else if (!drop && strcmp(key, "reply") == 0) {
        read_reply(r, value, &fault->reply);
    } else if (drop && strcmp(key, "how") == 0) {
        if (yaml_scalar(r, value, text) && strcmp(text, "rst") != 0 && strcmp(text, "fin") != 0)
            yaml_complain(r, "how: want rst or fin");
        fault->kind = strcmp(text, "fin") == 0 ? SINK_FIN : SINK_RST;
    } else {
        yaml_complain(r, "unknown key '%s': want rate, at, %s", key, drop ? "how" : "reply");
    }
}

static void read_fault(struct yaml_reader *r, struct fy_node *node, struct sink_class *c,
                       struct sink_fault fault)
{
    char key[YAML_VALUE_BYTES];
    struct sink_fault *grown;
    void *at = NULL;

    if (!fy_node_is_mapping(node)) { /* just the rate */
        yaml_share(r, node, &fault.rate);
    } else {
        for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(node, &at)) != NULL;) {
            r->key = fy_node_pair_key(pair);
            if (yaml_scalar(r, r->key, key))
                read_fault_key(r, key, fy_node_pair_value(pair), &fault);
        }
    }
    if (fault.reply == NULL && fault.kind == SINK_DEFER)
        fault.reply = yaml_copy("451 4.3.0 try again later");
    if (fault.reply == NULL && fault.kind == SINK_REFUSE)
        fault.reply = yaml_copy("550 5.7.1 refused by policy");
    grown = realloc(c->faults, (c->faults_len + 1) * sizeof(*grown));
    ASSERT(grown != NULL);
    c->faults = grown;
    c->faults[c->faults_len++] = fault;
}

static void each_defer(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    read_fault(r, node, c, (struct sink_fault){SINK_DEFER, SINK_RCPT, 1, NULL});
}

static void each_refuse(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    read_fault(r, node, c, (struct sink_fault){SINK_REFUSE, SINK_RCPT, 1, NULL});
}

static void each_drop(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    read_fault(r, node, c, (struct sink_fault){SINK_RST, SINK_DOT, 1, NULL});
}

static void read_dns(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    char text[YAML_VALUE_BYTES];
    int i = yaml_scalar(r, node, text) ? yaml_choice(r, text, dns_names, ARRAY_LEN(dns_names)) : -1;

    if (i >= 0)
        c->dns = (enum sink_dns)i;
}

static void read_over(struct yaml_reader *r, struct fy_node *node, struct sink_class *c)
{
    char text[YAML_VALUE_BYTES];

    if (yaml_scalar(r, node, text) && strcmp(text, "rst") == 0)
        c->connections_reset = true;
    else
        read_reply(r, node, &c->connections_reply);
}

/* What a key is. */
enum value {
    VALUE_DOMAINS,
    VALUE_ADDRESS,
    VALUE_DNS,
    VALUE_EXCHANGER,
    VALUE_EXCHANGERS,
    VALUE_DEAD,
    VALUE_TTL,
    VALUE_LATENCY,
    VALUE_DEFER,
    VALUE_REFUSE,
    VALUE_DROP,
    VALUE_UNKNOWN,
    VALUE_UNKNOWN_REPLY,
    VALUE_FULL,
    VALUE_FULL_REPLY,
    VALUE_GREYLIST,
    VALUE_GREYLIST_REPLY,
    VALUE_CONNECTIONS,
    VALUE_OVER,
    VALUE_MESSAGES,
    VALUE_CLOSE_AFTER,
    VALUE_RECIPIENTS,
    VALUE_THROUGHPUT,
    VALUE_WITHOUT,
    VALUE_SIZE,
    VALUE_NAME,
};

static const struct {
    const char *name;
    enum value value;
    bool session; /* applies before a recipient is known: the class needs an address of its own */
} class_keys[] = {
    {"name", VALUE_NAME, false},
    {"domains", VALUE_DOMAINS, false},
    {"address", VALUE_ADDRESS, false},
    {"dns", VALUE_DNS, false},
    {"exchanger", VALUE_EXCHANGER, false},
    {"exchangers", VALUE_EXCHANGERS, false},
    {"dead_exchanger", VALUE_DEAD, false},
    {"ttl", VALUE_TTL, false},
    {"latency", VALUE_LATENCY, false},
    {"defer", VALUE_DEFER, false},
    {"refuse", VALUE_REFUSE, false},
    {"drop", VALUE_DROP, false},
    {"unknown_users", VALUE_UNKNOWN, false},
    {"unknown_users_reply", VALUE_UNKNOWN_REPLY, false},
    {"mailbox_full", VALUE_FULL, false},
    {"mailbox_full_reply", VALUE_FULL_REPLY, false},
    {"greylist", VALUE_GREYLIST, false},
    {"greylist_reply", VALUE_GREYLIST_REPLY, false},
    {"connections_max", VALUE_CONNECTIONS, true},
    {"connections_over", VALUE_OVER, true},
    {"messages_per_session", VALUE_MESSAGES, true},
    {"close_after", VALUE_CLOSE_AFTER, true},
    {"recipients_per_message", VALUE_RECIPIENTS, true},
    {"bytes_per_second", VALUE_THROUGHPUT, true},
    {"without", VALUE_WITHOUT, true},
    {"size_max", VALUE_SIZE, true},
};

static void read_value(struct yaml_reader *r, enum value value, struct fy_node *node,
                       struct sink_class *c)
{
    uint64_t ms = (uint64_t)c->ttl_s * 1000;

    switch (value) {
    case VALUE_NAME:
        return yaml_text(r, node, &c->name);
    case VALUE_DOMAINS:
        return read_list(r, node, c, each_domain);
    case VALUE_ADDRESS:
        return read_list(r, node, c, each_address);
    case VALUE_DNS:
        return read_dns(r, node, c);
    case VALUE_EXCHANGER:
        return yaml_text(r, node, &c->exchanger);
    case VALUE_EXCHANGERS:
        return yaml_count(r, node, 999, &c->exchangers);
    case VALUE_DEAD:
        return yaml_bool(r, node, &c->dead_exchanger);
    case VALUE_TTL:
        yaml_duration_ms(r, node, &ms);
        c->ttl_s = (uint32_t)(ms / 1000);
        return;
    case VALUE_LATENCY:
        return read_latencies(r, node, c);
    case VALUE_DEFER:
        return read_list(r, node, c, each_defer);
    case VALUE_REFUSE:
        return read_list(r, node, c, each_refuse);
    case VALUE_DROP:
        return read_list(r, node, c, each_drop);
    case VALUE_UNKNOWN:
        return yaml_share(r, node, &c->unknown_users);
    case VALUE_UNKNOWN_REPLY:
        return read_reply(r, node, &c->unknown_reply);
    case VALUE_FULL:
        return yaml_share(r, node, &c->mailbox_full);
    case VALUE_FULL_REPLY:
        return read_reply(r, node, &c->full_reply);
    case VALUE_GREYLIST:
        return yaml_duration_ms(r, node, &c->greylist_ms);
    case VALUE_GREYLIST_REPLY:
        return read_reply(r, node, &c->greylist_reply);
    case VALUE_CONNECTIONS:
        return yaml_count(r, node, 1000000, &c->connections_max);
    case VALUE_OVER:
        return read_over(r, node, c);
    case VALUE_MESSAGES:
        return yaml_count(r, node, 1000000, &c->options.messages_max);
    case VALUE_CLOSE_AFTER:
        return yaml_count(r, node, 1000000, &c->close_after);
    case VALUE_RECIPIENTS:
        return yaml_count(r, node, 1000000, &c->options.recipients_max);
    case VALUE_THROUGHPUT:
        return yaml_bytes(r, node, &c->bytes_per_second);
    case VALUE_WITHOUT:
        return read_list(r, node, c, each_without);
    case VALUE_SIZE:
        return yaml_bytes(r, node, &c->options.message_bytes_max);
    }
}

/* Whether something is asked before the recipient's domain, hence its class, is known. */
static bool class_acts_early(const struct sink_class *c)
{
    for (size_t i = 0; i < c->faults_len; i++)
        if (c->faults[i].stage <= SINK_MAIL)
            return true;
    for (int stage = SINK_BANNER; stage <= SINK_MAIL; stage++)
        if (c->latency[stage].kind != SINK_LATENCY_NONE)
            return true;
    return false;
}

static bool class_is_quiet(const struct sink_class *c)
{
    for (int stage = SINK_BANNER; stage < SINK_STAGES; stage++)
        if (c->latency[stage].kind != SINK_LATENCY_NONE)
            return false;
    return c->faults_len == 0 && c->unknown_users <= 0 && c->mailbox_full <= 0 &&
           c->greylist_ms == 0;
}

static void class_init(struct sink_class *c, const struct smtp_server_options *options)
{
    *c = (struct sink_class){.options = *options, .exchangers = 1, .ttl_s = 300, .quiet = true};
    c->unknown_reply = yaml_copy("550 5.1.1 user unknown");
    c->full_reply = yaml_copy("552 5.2.2 mailbox full");
    c->greylist_reply = yaml_copy("450 4.7.1 greylisted, try again later");
    c->connections_reply = yaml_copy("421 4.7.0 too many connections");
}

static void read_class(struct yaml_reader *r, struct fy_node *node, struct sink_class *c,
                       bool is_default)
{
    char key[YAML_VALUE_BYTES];
    struct fy_node *session_key = NULL;
    void *at = NULL;

    if (!fy_node_is_mapping(node))
        return yaml_complain(r, "a class is a mapping: {name: ..., domains: [...], ...}");
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(node, &at)) != NULL;) {
        size_t i = 0;

        r->key = fy_node_pair_key(pair);
        if (!yaml_scalar(r, r->key, key))
            continue;
        while (i < ARRAY_LEN(class_keys) && strcmp(class_keys[i].name, key) != 0)
            i++;
        if (i == ARRAY_LEN(class_keys)) {
            yaml_complain(r, "unknown key '%s'", key);
            continue;
        }
        read_value(r, class_keys[i].value, fy_node_pair_value(pair), c);
        r->key = fy_node_pair_key(pair);
        if (class_keys[i].session || (session_key == NULL && class_acts_early(c)))
            session_key = r->key;
    }
    c->quiet = class_is_quiet(c);
    if (is_default)
        return;
    if (session_key != NULL && c->addresses_len == 0) {
        r->key = session_key;
        yaml_complain(r, "this applies before a recipient is known, so the class needs an address");
    }
    if (c->name == NULL || c->domains_len == 0)
        yaml_complain(r, "a class needs name and domains");
}

static void read_classes(struct yaml_reader *r, struct fy_node *node, struct sink_behaviour *b,
                         const struct smtp_server_options *options)
{
    struct sink_class last = b->classes[b->classes_len - 1];
    void *at = NULL;
    size_t i = 0;
    int len = fy_node_is_sequence(node) ? fy_node_sequence_item_count(node) : -1;

    if (len < 0)
        return yaml_complain(r, "classes: want a list");
    free(b->classes);
    b->classes = calloc((size_t)len + 1, sizeof(*b->classes));
    ASSERT(b->classes != NULL);
    b->classes_len = (size_t)len + 1;
    b->classes[len] = last;
    for (struct fy_node *item; (item = fy_node_sequence_iterate(node, &at)) != NULL; i++) {
        class_init(&b->classes[i], options);
        read_class(r, item, &b->classes[i], false);
    }
}

static void read_root(struct yaml_reader *r, struct fy_node *root, struct sink_behaviour *b,
                      const struct smtp_server_options *options)
{
    char key[YAML_VALUE_BYTES], text[YAML_VALUE_BYTES];
    void *at = NULL;

    if (root == NULL || !fy_node_is_mapping(root))
        return yaml_complain(r, "want a mapping with seed, default, classes");
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(root, &at)) != NULL;) {
        struct fy_node *value = fy_node_pair_value(pair);

        r->key = fy_node_pair_key(pair);
        if (!yaml_scalar(r, r->key, key))
            continue;
        if (strcmp(key, "classes") == 0) {
            read_classes(r, value, b, options);
        } else if (strcmp(key, "default") == 0) {
            read_class(r, value, &b->classes[b->classes_len - 1], true);
        } else if (strcmp(key, "seed") == 0) {
            if (yaml_scalar(r, value, text) && str_to_u64(str_of(text), UINT64_MAX, &b->seed) < 0)
                yaml_complain(r, "'%s' is no number", text);
        } else {
            yaml_complain(r, "unknown key '%s': want seed, default, classes", key);
        }
    }
}

static int load_file(struct yaml_reader *r, struct sink_behaviour *b,
                     const struct smtp_server_options *options)
{
    struct fy_diag_cfg diag_cfg;
    struct fy_diag *diag;
    struct fy_document *document;

    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag = fy_diag_create(&diag_cfg);
    ASSERT(diag != NULL);
    document = yaml_parse(r, diag);
    if (document != NULL)
        read_root(r, fy_document_root(document), b, options);
    else
        r->failed = true;
    fy_document_destroy(document);
    fy_diag_destroy(diag);
    return r->failed ? -EINVAL : 0;
}

int sink_behaviour_load(const char *file, const struct smtp_server_options *options,
                        struct sink_behaviour **out, struct buf *errors)
{
    struct sink_behaviour *b = calloc(1, sizeof(*b));
    struct yaml_reader r = {.file = file, .errors = errors};
    int err;

    if (b == NULL)
        return -ENOMEM;
    b->seed = 1;
    b->classes_len = 1;
    b->classes = calloc(1, sizeof(*b->classes));
    ASSERT(b->classes != NULL);
    class_init(&b->classes[0], options);
    pthread_mutex_init(&b->shared.lock, NULL);
    err = map_init(&b->shared.greylist, 1024);
    ASSERT(err == 0);
    if (file != NULL)
        err = load_file(&r, b, options);
    if (err < 0) {
        sink_behaviour_free(b);
        return err;
    }
    if (b->classes[b->classes_len - 1].name == NULL)
        b->classes[b->classes_len - 1].name = yaml_copy("default");
    *out = b;
    return 0;
}
