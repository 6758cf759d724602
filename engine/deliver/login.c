#include "deliver/login.h"

#include <stdlib.h>

#include "deliver/delivery.h"
#include "tls/scram.h"
#include "worker/shared.h"

#define CREW_FULL_MS 5 /* until it is asked again */

/* One exchange of SCRAM. Outlives its session while the crew has it. */
struct delivery_login {
    struct crew_job job;
    struct timer timer; /* armed: the crew was full */
    struct worker *worker;
    struct delivery *delivery; /* NULL: the session has ended */
    struct config *config;     /* a reference, for password */
    const char *password;
    struct scram_client scram;
    bool with_crew;
    struct buf challenge, answer; /* the crew's while it works */
    const char *why;              /* there is no answer */
};

static void login_free(struct delivery_login *l)
{
    scram_client_done(&l->scram);
    buf_wipe(&l->challenge);
    buf_wipe(&l->answer);
    config_unref(l->config);
    free(l);
}

void login_forget(struct delivery *d)
{
    struct delivery_login *l = d->login;

    d->login = NULL;
    if (l == NULL)
        return;
    l->delivery = NULL;
    wheel_cancel(io_wheel(l->worker->io), &l->timer);
    if (!l->with_crew)
        login_free(l);
}

static void on_run(struct crew_job *job)
{
    struct delivery_login *l = CONTAINER_OF(job, struct delivery_login, job);

    if (scram_client_answer(&l->scram, l->password, buf_str(&l->challenge), &l->answer, &l->why) ==
        0)
        l->why = NULL;
}

static void answer(struct delivery *d, struct str response, const char *why)
{
    if (why == NULL)
        smtp_client_auth_respond(d->client, response);
    else
        smtp_client_auth_refuse(d->client, why);
}

static void on_done(struct crew_job *job)
{
    struct delivery_login *l = CONTAINER_OF(job, struct delivery_login, job);
    struct delivery *d = l->delivery;

    l->with_crew = false;
    if (d == NULL) {
        login_free(l);
        return;
    }
    answer(d, buf_str(&l->answer), l->why);
    delivery_logged_on(d);
}

/* That this host has no time now is no failure of the login: `ehlo` bounds the wait. */
static void submit(struct delivery_login *l)
{
    struct io *io = l->worker->io;

    l->with_crew = crew_submit(l->worker->shared->crew, &l->job);
    if (!l->with_crew)
        wheel_arm(io_wheel(io), &l->timer, io_now_ms(io) + CREW_FULL_MS);
}

static void on_timer(struct timer *timer)
{
    submit(CONTAINER_OF(timer, struct delivery_login, timer));
}

/* By what every server has that offers to bind at all (RFC 5802 6, RFC 9266 3). */
static bool binding_of(const struct delivery *d, struct tls_binding *out)
{
    const struct tls *tls = stream_tls_of(&d->stream);

    return tls != NULL &&
           (tls_binding(tls, TLS_EXPORTER, out) || tls_binding(tls, TLS_UNIQUE, out));
}

bool login_binds(const struct delivery *d)
{
    struct tls_binding to;

    return d->channel->options.auth_user != NULL && binding_of(d, &to);
}

static void scram_begin(struct delivery *d, const struct smtp_event *event)
{
    struct delivery_login *l = calloc(1, sizeof(*l));
    bool plus = event->mechanism == SMTP_AUTH_SCRAM_PLUS;
    enum scram_client_binds binds = plus                ? SCRAM_BOUND
                                    : event->would_bind ? SCRAM_WOULD_BIND
                                                        : SCRAM_UNBOUND;
    char nonce[SCRAM_NONCE_CHARS + 1];
    struct tls_binding to;

    ASSERT(l != NULL);
    login_forget(d);
    d->login = l;
    l->worker = d->worker;
    l->delivery = d;
    l->config = config_ref(d->site->config);
    l->password = d->channel->options.auth_password;
    l->job = (struct crew_job){.run = on_run, .done = on_done, .desk = &d->worker->desk};
    l->timer.on_timer = on_timer;
    scram_nonce(nonce);
    if (plus && !binding_of(d, &to)) {
        answer(d, STR(""), "the connection has nothing that a login can be bound to");
        return;
    }
    scram_client_begin(&l->scram, d->channel->options.auth_user, nonce, binds, plus ? &to : NULL,
                       &l->answer);
    answer(d, buf_str(&l->answer), NULL);
    buf_wipe(&l->answer);
}

static void scram_answer(struct delivery *d, struct str challenge)
{
    struct delivery_login *l = d->login;

    buf_put_str(&l->challenge, challenge);
    submit(l);
}

static void cram_answer(struct delivery *d, struct str challenge)
{
    struct buf out = {0};
    int err = cram_md5_answer(d->channel->options.auth_user, d->channel->options.auth_password,
                              challenge, &out);

    answer(d, buf_str(&out), err < 0 ? "CRAM-MD5 is not to be had here" : NULL);
    buf_wipe(&out);
}

void login_step(struct delivery *d, const struct smtp_event *event)
{
    if (event->mechanism == SMTP_AUTH_CRAM_MD5)
        cram_answer(d, event->challenge);
    else if (event->step == 0)
        scram_begin(d, event);
    else if (event->step == 1)
        scram_answer(d, event->challenge);
    else
        answer(d, STR(""),
               scram_client_end(&d->login->scram, event->challenge)
                   ? NULL
                   : "the server has not proved that it knows the password");
}
