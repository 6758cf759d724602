/* TLS of sessions inward (RFC 3207, 8314): when it begins, and what is kept of it. The handshake
 * runs in the crew (worker/stream_tls.h) while the session waits for its end in INJECT_SHAKING, no
 * longer than tls_handshake_timeout. */
#include <errno.h>

#include "base/log.h"
#include "intake/inject_message.h"
#include "outcome/report.h"
#include "worker/shared.h"
#include "worker/trust.h"

bool inject_tls_implicit(const struct inject *s)
{
    return strcmp(s->settings->tls, "implicit") == 0;
}

/* --- how many at a time --- */

static _Atomic uint32_t *handshakes_of(const struct inject *s)
{
    return &s->worker->shared->listener_handshakes[s->listener->index];
}

#define STRANGER_PART 16 /* one client may have a 16th of a listener's handshakes */
#define USER_PART     2  /* and half where nobody is known before the login */

/* Memory of a handshake is outside of intake_memory_max, and anybody may begin one. NULL: this
 * session may; else why not. */
static const char *handshake_take(struct inject *s)
{
    uint32_t max = s->settings->tls_handshakes_max, own = 0;
    bool users = s->options.auth_required;

    if (s->shaking)
        return NULL;
    if (users || !inject_may_relay(s))
        own = 1 + (max - 1) / (users ? USER_PART : STRANGER_PART);
    /* As with sessions: strangers get half, where others are known by their addresses. */
    if (!users && !inject_may_relay(s))
        max = (max + 1) / 2;
    if (!clients_shake(&s->worker->shared->clients, (struct sockaddr *)&s->peer, s->listener->index,
                       own))
        return "454 4.7.0 too many handshakes from your address at a time, try again shortly";
    if (atomic_fetch_add(handshakes_of(s), 1) >= max) {
        atomic_fetch_sub(handshakes_of(s), 1);
        clients_shaken(&s->worker->shared->clients, (struct sockaddr *)&s->peer,
                       s->listener->index);
        return "454 4.7.0 too many handshakes at a time, try again shortly";
    }
    s->shaking = true;
    return NULL;
}

void inject_handshake_over(struct inject *s)
{
    uint32_t before;

    if (!s->shaking)
        return;
    before = atomic_fetch_sub(handshakes_of(s), 1);
    ASSERT(before > 0);
    clients_shaken(&s->worker->shared->clients, (struct sockaddr *)&s->peer, s->listener->index);
    s->shaking = false;
}

/* --- the handshake --- */

/* What came behind the command was there before its reply. No client that means well does that:
 * somebody on the way may want his commands to be taken for the client's. */
bool inject_tls_answer(struct inject *s, size_t behind)
{
    const char *refusal = NULL;

    if (s->worker->draining)
        refusal = INJECT_DRAINING;
    else if (behind > 0)
        refusal = "421 4.7.0 nothing may be sent behind STARTTLS before its reply";
    else if (s->worker->trust->certificates->server == NULL)
        refusal = "454 4.7.0 TLS is not available now, try again later";
    else
        refusal = handshake_take(s);
    smtp_server_answer(&s->server, inject_out(s), refusal);
    return refusal == NULL;
}

void inject_tls_failed(struct inject *s, const char *why)
{
    counter_add(&s->worker->counters.tls_in_failures, 1);
    log_debug("smtp.tls_failed", "session=%s peer=%s reason=\"%s\"", s->id, s->peer_text, why);
}

static void on_ended(struct stream *stream, const char *error)
{
    struct inject *s = CONTAINER_OF(stream, struct inject, stream);
    struct worker_counters *counters = &s->worker->counters;

    ASSERT(s->state == INJECT_SHAKING && s->shaking);
    if (error != NULL) {
        inject_tls_failed(s, error);
    } else {
        tls_facts(stream_tls_of(stream), &s->tls);
        counter_add(&counters->tls_in, 1);
        counter_add(&counters->tls_in_resumed, s->tls.resumed);
        log_debug("smtp.tls", "session=%s peer=%s protocol=%s cipher=%s resumed=%d name=\"%s\"",
                  s->id, s->peer_text, s->tls.protocol, s->tls.cipher, s->tls.resumed,
                  s->tls.server_name);
    }
    inject_shaken(s, error == NULL);
}

int inject_tls_begin(struct inject *s)
{
    struct tls_server *server = s->worker->trust->certificates->server;
    struct tls_accept_options options = {.scope = str_of(s->settings->address.text),
                                         .ask = config_asks_certificate(s->settings),
                                         .authorities =
                                             trust_authorities(s->worker->trust, s->settings)};
    struct tls *tls;

    if (strcmp(s->settings->tls_version_min, "1.3") == 0)
        options.version_min = TLS_1_3;
    if (server == NULL) /* of a listener that begins with TLS */
        return -ENOENT;
    if (handshake_take(s) != NULL) /* the same */
        return -EAGAIN;
    tls = tls_accept(server, &options);
    return tls == NULL ? -ENOMEM
                       : stream_tls_start(&s->stream, &s->worker->handshakes, tls, on_ended);
}

const char *inject_protocol(const struct inject *s)
{
    static const char *const names[2][2] = {{"ESMTP", "ESMTPA"}, {"ESMTPS", "ESMTPSA"}};

    return s->server.esmtp ? names[s->server.tls][s->user != NULL] : "SMTP";
}

const struct report_tls *inject_tls_report(const struct inject *s, struct report_tls *out)
{
    if (!s->server.tls)
        return NULL;
    *out = (struct report_tls){
        .protocol = s->tls.protocol, .cipher = s->tls.cipher, .resumed = s->tls.resumed};
    if (s->shown != NULL) {
        out->client = s->shown->fingerprint;
        out->client_name =
            str_of(s->shown->names_len > 0 ? (const char *)s->shown->names.data : NULL);
    }
    return out;
}
