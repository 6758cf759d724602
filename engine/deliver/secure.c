#include "deliver/secure.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/sockaddr.h"
#include "deliver/delivery.h"
#include "dns/dns.h"
#include "sts/sts_policy.h"
#include "worker/trust.h"

struct secure_memory {
    struct map known;
    struct list by_use; /* the longest unused first */
};

/* An exchanger that the worker knows something of. */
struct known {
    struct map_node node;
    struct list_node use;
    struct tls_session *session; /* to resume, or NULL */
    uint64_t plain_until_ms;     /* monotonic; 0: never */
    char reason[SECURE_REASON_BYTES];
    size_t key_len;
    uint8_t key[];
};

int secure_memory_open(struct worker *w)
{
    w->secure_memory = calloc(1, sizeof(*w->secure_memory));
    if (w->secure_memory == NULL)
        return -ENOMEM;
    list_init(&w->secure_memory->by_use);
    return map_init(&w->secure_memory->known, 64);
}

static void known_drop(struct secure_memory *m, struct known *k)
{
    map_remove(&m->known, &k->node);
    list_remove(&k->use);
    tls_session_free(k->session);
    free(k);
}

void secure_memory_close(struct worker *w)
{
    struct secure_memory *m = w->secure_memory;
    struct list_node *n;

    if (m == NULL)
        return;
    while ((n = list_first(&m->by_use)) != NULL)
        known_drop(m, LIST_ENTRY(n, struct known, use));
    map_done(&m->known);
    free(m);
    w->secure_memory = NULL;
}

/* Whether what a policy of MTA-STS would refuse is only told. */
static bool is_tested(const struct delivery *d)
{
    return d->secure.policy == CONFIG_TLS_MAY && d->site->sts != NULL;
}

/* The file of the certificate that the peer is shown, or NULL. */
static const char *own_certificate(const struct site *site, const struct config_source *source)
{
    return site->dest->tls_certificate != NULL ? site->dest->tls_certificate
                                               : source->tls_certificate;
}

/* A configuration's authorities may differ from those of the one before, so it resumes none of the
 * other's sessions. */
static void put_key(struct buf *key, const struct site *site, const struct config_source *source,
                    const struct exchanger *to, enum config_tls policy)
{
    const struct config *config = site->config;

    buf_put(key, &to->addr, to->len);
    buf_putc(key, (char)policy);
    /* Whether it is tested: its certificate was looked at. */
    buf_putc(key, policy == CONFIG_TLS_MAY && site->sts != NULL);
    buf_puts(key, to->host);
    buf_putc(key, '\0');
    buf_puts(key, source->name);
    buf_putc(key, '\0');
    buf_put_str(key, str_of(own_certificate(site, source))); /* whom the peer took us for */
    buf_putc(key, '\0');
    buf_put(key, &config->generation, sizeof(config->generation));
    /* Records by which a session was verified may have been withdrawn. */
    for (uint16_t i = 0; policy == CONFIG_TLS_DANE && i < to->tlsa->records_len; i++) {
        buf_put(key, &to->tlsa->records[i].len, sizeof(to->tlsa->records[i].len));
        buf_put_str(key, to->tlsa->records[i]);
    }
}

static struct known *known_find(const struct secure_memory *m, struct str key, uint64_t hash)
{
    for (struct map_node *n = map_find(&m->known, hash); n != NULL; n = map_find_next(n)) {
        struct known *k = CONTAINER_OF(n, struct known, node);

        if (str_eq(key, (struct str){(const char *)k->key, k->key_len}))
            return k;
    }
    return NULL;
}

static struct known *known_new(struct secure_memory *m, struct str key, uint64_t hash)
{
    struct known *k = calloc(1, sizeof(*k) + key.len);

    ASSERT(k != NULL);
    if (m->known.count >= SECURE_KNOWN_MAX)
        known_drop(m, LIST_ENTRY(list_first(&m->by_use), struct known, use));
    k->key_len = key.len;
    memcpy(k->key, key.ptr, key.len);
    map_insert(&m->known, &k->node, hash);
    return k;
}

/* What the worker knows of d's exchanger; NULL: nothing, and none is to be made. */
static struct known *known_of(const struct delivery *d, bool make)
{
    struct secure_memory *m = d->worker->secure_memory;
    struct buf key = {0};
    struct known *k;
    uint64_t hash;

    put_key(&key, d->site, d->channel->source, &d->dial.exchanger, d->secure.policy);
    hash = hash_bytes(key.data, key.len, d->worker->hash_seed);
    k = known_find(m, buf_str(&key), hash);
    if (k == NULL && make)
        k = known_new(m, buf_str(&key), hash);
    buf_done(&key);
    if (k == NULL)
        return NULL;
    if (list_node_linked(&k->use))
        list_remove(&k->use);
    list_push_back(&m->by_use, &k->use);
    return k;
}

enum config_tls secure_policy(const struct site *site, const struct exchanger *to)
{
    enum config_tls policy = config_tls_of(site->dest);
    const struct sts_policy *sts = site->sts;
    const struct dns_tlsa *tlsa = to->tlsa;
    bool enforced = sts != NULL && sts->mode == STS_ENFORCE;

    if (to->addr.sa.sa_family == AF_UNIX) /* whoever could listen is root */
        return CONFIG_TLS_NONE;
    /* Records of which none is usable ask for no certificate; the policy may. */
    if (site->dane && tlsa != NULL && (!enforced || dns_tlsa_usable(tlsa)))
        return CONFIG_TLS_DANE;
    if (enforced)
        return CONFIG_TLS_STS;
    if (config_tls_has_dane(policy) || config_tls_has_sts(policy))
        return CONFIG_TLS_MAY;
    return policy;
}

bool secure_is_plain(const struct site *site, const struct config_source *source,
                     const struct exchanger *to, const char **why, uint64_t *until_ms)
{
    const struct secure_memory *m = site->worker->secure_memory;
    const struct known *known;
    struct buf key = {0};

    if (secure_policy(site, to) != CONFIG_TLS_MAY)
        return false;
    put_key(&key, site, source, to, CONFIG_TLS_MAY);
    known = known_find(m, buf_str(&key), hash_bytes(key.data, key.len, site->worker->hash_seed));
    buf_done(&key);
    if (known == NULL || known->plain_until_ms <= io_now_ms(site->worker->io))
        return false;
    *why = known->reason;
    *until_ms = known->plain_until_ms;
    return true;
}

void secure_begin(struct delivery *d)
{
    struct secure *t = &d->secure;
    const struct known *known;

    *t = (struct secure){.anew = t->anew, .policy = secure_policy(d->site, &d->dial.exchanger)};
    if (t->policy == CONFIG_TLS_NONE)
        return;
    t->report.policy = config_tls_word(t->policy);
    if (t->policy == CONFIG_TLS_STS || is_tested(d))
        t->report.sts_mode = sts_mode_name(d->site->sts->mode);
    t->implicit = sockaddr_port(&d->dial.exchanger.addr.sa) == SECURE_PORT;
    if (t->implicit)
        return;
    known = t->policy == CONFIG_TLS_MAY ? known_of(d, false) : NULL;
    if (known != NULL && known->plain_until_ms > io_now_ms(d->worker->io)) {
        t->plain = true;
        snprintf(t->reason, sizeof(t->reason), "%s", known->reason);
    } else {
        smtp_client_use_tls(d->client,
                            t->policy == CONFIG_TLS_MAY ? SMTP_TLS_MAY : SMTP_TLS_REQUIRED);
    }
}

/* An address has no name that could be asked for, nor a certificate. */
static bool is_name(const char *host)
{
    struct str s = str_of(host);

    if (str_find(s, ':') >= 0 || str_find(s, '[') >= 0)
        return false;
    return s.len != strspn(host, "0123456789.");
}

/* Names are tlsa's base, which is the first that a certificate may bear, and the exchanger's, which
 * differs where that is an alias (RFC 7672 3.2.2; a certificate for the recipient's domain is none,
 * since the session is for all domains of its site). */
static void options_dane(struct tls_connect_options *options, const char **names,
                         const struct delivery *d)
{
    const struct dns_tlsa *tlsa = d->dial.exchanger.tlsa;

    names[0] = tlsa->base;
    names[1] = d->dial.peer_name;
    options->server_name = tlsa->base;
    options->names_len = 2;
    options->verify = TLS_VERIFY_DANE;
    options->tlsa = tlsa->records;
    options->tlsa_len = tlsa->records_len;
}

static enum tls_verify verify_of(const struct delivery *d)
{
    if (d->secure.policy == CONFIG_TLS_VERIFY || d->secure.policy == CONFIG_TLS_STS)
        return TLS_VERIFY_REQUIRE;
    return is_tested(d) ? TLS_VERIFY_REPORT : TLS_VERIFY_NONE;
}

int secure_handshake(struct delivery *d, stream_tls_ended *on_ended)
{
    struct secure *t = &d->secure;
    const char *host = d->dial.peer_name;
    const char *names[2] = {host};
    const struct known *known = t->anew ? NULL : known_of(d, false);
    struct tls_connect_options options = {
        .server_name = is_name(host) ? host : NULL,
        .names = names,
        .names_len = 1,
        .verify = verify_of(d),
        .version_min = TLS_1_2,
        .session = known == NULL ? NULL : known->session,
        .certificate = certificates_own(d->worker->trust->certificates,
                                        own_certificate(d->site, d->channel->source))};
    struct tls *tls;

    if (t->policy == CONFIG_TLS_DANE)
        options_dane(&options, names, d);
    tls = tls_connect(d->worker->trust->client, &options);
    t->due = false;
    if (tls == NULL)
        return -ENOMEM;
    t->resuming = options.session != NULL;
    return stream_tls_start(&d->stream, &d->worker->handshakes, tls, on_ended);
}

void secure_opened(struct delivery *d)
{
    struct secure *t = &d->secure;
    struct worker_counters *counters = &d->worker->counters;
    struct tls_facts facts;

    tls_facts(stream_tls_of(&d->stream), &facts);
    t->active = true;
    t->verified = facts.verdict == TLS_VERIFIED;
    t->report.protocol = facts.protocol;
    t->report.cipher = facts.cipher;
    t->report.verification = facts.verify;
    t->report.resumed = facts.resumed;
    t->report.own = facts.own;
    counter_add(&counters->tls_out, 1);
    if (facts.resumed)
        counter_add(&counters->tls_out_resumed, 1);
    if (t->verified && t->policy == CONFIG_TLS_DANE)
        counter_add(&counters->tls_out_dane, 1);
}

/* What an enforced policy would have refused. */
static void note_tested(struct delivery *d)
{
    struct secure *t = &d->secure;
    struct tls_facts facts = {.verdict = TLS_UNCHECKED};
    const char *failure = NULL;

    if (!is_tested(d))
        return;
    if (t->active)
        tls_facts(stream_tls_of(&d->stream), &facts);
    if (!sts_policy_matches(d->site->sts, d->dial.peer_name))
        failure = "the policy does not name the exchanger";
    else if (!t->active)
        failure = t->reason;
    else if (facts.verdict != TLS_VERIFIED)
        failure = facts.verify;
    if (failure == NULL)
        return;
    if (t->active)
        t->result = secure_result(d, facts.verdict);
    snprintf(t->sts_failure, sizeof(t->sts_failure), "%s", failure);
    t->report.sts_failure = t->sts_failure;
    counter_add(&d->worker->counters.sts_tested_failures, 1);
}

void secure_ready(struct delivery *d, struct str refusal)
{
    struct secure *t = &d->secure;

    if (t->policy == CONFIG_TLS_NONE)
        return;
    if (t->active) {
        secure_keep(d);
        note_tested(d);
        return;
    }
    ASSERT(t->policy == CONFIG_TLS_MAY && !t->implicit);
    t->missed = t->plain || refusal.len > 0;
    t->result = t->plain ? TLS_REPORT_VALIDATION_FAILURE : TLS_REPORT_STARTTLS_NOT_SUPPORTED;
    if (refusal.len > 0)
        snprintf(t->reason, sizeof(t->reason), "STARTTLS was refused: %.*s", STR_FMT(refusal));
    else if (!t->plain)
        snprintf(t->reason, sizeof(t->reason), "STARTTLS is not offered");
    t->report.plaintext = t->reason;
    note_tested(d);
    counter_add(&d->worker->counters.tls_out_plaintext, 1);
}

static void log_failure(const struct delivery *d, const char *why, const char *action)
{
    log_info("delivery.tls_failed",
             "session=%s site=%s host=%s address=%s policy=%s error=\"%s\" action=\"%s\"", d->id,
             d->site->name, d->dial.peer_name, d->dial.peer_addr, d->secure.report.policy, why,
             action);
}

bool secure_failed(struct delivery *d, const char *why)
{
    struct secure *t = &d->secure;
    struct known *known;

    counter_add(&d->worker->counters.tls_out_failures, 1);
    if (t->resuming && !t->anew) {
        known = known_of(d, false);
        if (known != NULL) {
            tls_session_free(known->session);
            known->session = NULL;
        }
        t->anew = true;
        log_failure(d, why, "tried anew without resuming");
        return true;
    }
    if (t->policy != CONFIG_TLS_MAY || t->implicit) {
        log_failure(d, why, "the next exchanger, or later");
        return false;
    }
    known = known_of(d, true);
    known->plain_until_ms = io_now_ms(d->worker->io) + SECURE_PLAIN_MS;
    snprintf(known->reason, sizeof(known->reason), "TLS failed: %s", why);
    log_failure(d, why, "plaintext for an hour");
    return true;
}

bool secure_missed(struct delivery *d, const struct smtp_reply *refusal)
{
    const struct smtp_enhanced *e = &refusal->enhanced;
    struct known *known;

    /* RFC 3207 4, RFC 4954 6; 5.7.10 of RFC 5248 2.4 */
    if (!d->secure.missed || (refusal->code != 530 && refusal->code != 538 &&
                              (e->class < 4 || e->subject != 7 || e->detail != 10)))
        return false;
    known = known_of(d, false);
    if (known != NULL)
        known->plain_until_ms = 0;
    return true;
}

void secure_keep(struct delivery *d)
{
    struct tls *tls = stream_tls_of(&d->stream);
    struct tls_session *session = tls == NULL ? NULL : tls_take_session(tls);
    struct known *known;

    if (session == NULL)
        return;
    known = known_of(d, true);
    tls_session_free(known->session);
    known->session = session;
}

static bool has_record(const struct dns_tlsa *tlsa, struct str record)
{
    for (uint16_t i = 0; i < tlsa->records_len; i++)
        if (str_eq(tlsa->records[i], record))
            return true;
    return false;
}

/* A resolver gives them in any order. */
static bool same_records(const struct dns_tlsa *a, const struct dns_tlsa *b)
{
    if (a == b)
        return true;
    if (a == NULL || b == NULL || a->error != NULL || b->error != NULL ||
        a->records_len != b->records_len || strcmp(a->base, b->base) != 0)
        return false;
    for (uint16_t i = 0; i < a->records_len; i++)
        if (!has_record(b, a->records[i]))
            return false;
    return true;
}

/* Whether d's handshake was held to what one to to, its address, would be. */
static bool is_held(const struct delivery *d, const struct site *site, const struct exchanger *to)
{
    enum config_tls policy = secure_policy(site, to);

    return d->secure.policy == policy &&
           (policy != CONFIG_TLS_DANE || same_records(d->dial.exchanger.tlsa, to->tlsa));
}

bool secure_suits(const struct delivery *d, const struct site *site, const struct exchanger *to)
{
    bool named = d->secure.policy == CONFIG_TLS_VERIFY || site->dane || site->sts != NULL;

    return sts_policy_same(d->site->sts, site->sts) && is_held(d, site, to) &&
           (!named || str_eq_nocase(str_of(d->dial.peer_name), str_of(to->host)));
}

const struct report_tls *secure_report(const struct delivery *d)
{
    return d->secure.policy == CONFIG_TLS_NONE ? NULL : &d->secure.report;
}
