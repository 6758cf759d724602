#include "intake/inject_login.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/password.h"
#include "tls/scram.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define DELAY_STEP_MS 500 /* for each failure of late, before the client hears of the last one */
#define DELAY_STEPS   6

/* Where a login is. The worker's list of those that wait, the crew and the timer hold it in turn.
 * Of SCRAM, whose proofs cost next to nothing, the client is awaited instead: its proof, then its
 * answer to ours. */
enum login_state { LOGIN_WAITS, LOGIN_CHECKED, LOGIN_DELAYED, LOGIN_ASKED, LOGIN_PROVED };

/* One AUTH. Outlives its session while the crew has it. */
struct login {
    struct list_node node; /* worker->login_wait */
    struct crew_job job;
    struct timer timer;
    struct worker *worker;
    struct inject *inject;          /* NULL: the session has ended */
    struct sockaddr_storage client; /* of the session */
    struct config *config;          /* a reference, for user */
    const struct config_user *user; /* NULL: there is none of that name */
    const char *hash;               /* the user's, or somebody's, for the time that it takes */
    enum login_state state;
    bool ok;
    struct scram_server scram;
    struct str name; /* in text, as the password is, which ends with NUL */
    const char *password;
    char text[];
};

static const char *const try_later = "454 4.7.0 too many logins at a time, try again shortly";
static const char *const locked_out = "454 4.7.0 too many failed logins, try again later";

static void login_free(struct login *login)
{
    ASSERT(!list_node_linked(&login->node) && !timer_armed(&login->timer));
    explicit_bzero(login->text, login->name.len + strlen(login->password) + 1);
    scram_server_done(&login->scram);
    config_unref(login->config);
    free(login);
}

bool inject_login_pending(const struct inject *s)
{
    return s->login != NULL && s->login->state != LOGIN_ASKED && s->login->state != LOGIN_PROVED;
}

const char *inject_login_name(const struct inject *s, bool tries)
{
    if (s->user != NULL || !tries)
        return s->user != NULL ? s->user->name : NULL;
    return s->login != NULL && s->login->user != NULL ? s->login->user->name : NULL;
}

/* Whatever it waits for. */
static void inject_login_drop(struct inject *s)
{
    struct login *login = s->login;

    s->login = NULL;
    if (login == NULL)
        return;
    login->inject = NULL;
    switch (login->state) {
    case LOGIN_CHECKED: /* the crew has it */
        return;
    case LOGIN_WAITS:
        ASSERT(s->worker->logins_waiting > 0);
        list_remove(&login->node);
        s->worker->logins_waiting--;
        break;
    case LOGIN_DELAYED:
        wheel_cancel(io_wheel(s->worker->io), &login->timer);
        break;
    case LOGIN_ASKED:
    case LOGIN_PROVED:
        break;
    }
    login_free(login);
}

/* --- the answer --- */

static void set_user(struct inject *s, struct config *config, const struct config_user *user)
{
    ASSERT((config == NULL) == (user == NULL));
    config_unref(s->user_config);
    s->user_config = config == NULL ? NULL : config_ref(config);
    s->user = user;
    s->options.trusted = inject_may_relay(s);
}

void inject_logout(struct inject *s)
{
    s->external = false;
    set_user(s, NULL, NULL);
}

/* refusal NULL: the client is who it says. */
static void answer(struct inject *s, const char *refusal)
{
    struct login *login = s->login;

    if (refusal == NULL && login != NULL)
        set_user(s, login->config, login->user);
    counter_add(refusal == NULL ? &s->worker->counters.logins : &s->worker->counters.logins_failed,
                1);
    ASSERT(refusal != NULL || s->user != NULL);
    smtp_server_answer(&s->server, inject_out(s), refusal);
    s->login = NULL;
    if (login != NULL)
        login_free(login);
}

static void on_delay_over(struct timer *timer)
{
    struct login *login = CONTAINER_OF(timer, struct login, timer);
    struct inject *s = login->inject;

    ASSERT(login->state == LOGIN_DELAYED && s->login == login);
    answer(s, "535 5.7.8 authentication failed");
    inject_resume(s);
}

static struct logins_limit limit_of(const struct worker *w)
{
    return (struct logins_limit){w->config->auth.failures_max, w->config->auth.failures_period_ms};
}

static void login_succeeded(struct login *login)
{
    struct inject *s = login->inject;

    logins_succeeded(&s->worker->shared->logins, (struct sockaddr *)&s->peer, login->name,
                     io_now_ms(s->worker->io));
    answer(s, NULL);
    inject_resume(s);
}

static uint32_t count_failure(const struct login *login)
{
    struct worker *w = login->worker;
    struct logins_limit limit = limit_of(w);

    return logins_failed(&w->shared->logins, (const struct sockaddr *)&login->client, login->name,
                         &limit, io_now_ms(w->io));
}

/* Who tries many passwords waits longer for each; the crew has no part in that. */
static void login_failed(struct login *login)
{
    struct io *io = login->worker->io;
    uint32_t failures = count_failure(login);

    login->state = LOGIN_DELAYED;
    login->timer.on_timer = on_delay_over;
    wheel_arm(io_wheel(io), &login->timer,
              io_now_ms(io) + DELAY_STEP_MS * (failures < DELAY_STEPS ? failures : DELAY_STEPS));
}

/* --- the check --- */

static bool is_password(const char *hash, const char *password)
{
    struct password_scram keys;

    return password_scram_parse(str_of(hash), &keys) ? scram_keys_check(&keys, password)
                                                     : password_check(hash, password);
}

static void on_run(struct crew_job *job)
{
    struct login *login = CONTAINER_OF(job, struct login, job);

    login->ok = is_password(login->hash, login->password) && login->user != NULL;
}

static bool login_submit(struct login *login);

static void next_submit(struct worker *w)
{
    while (w->login_checks < LOGIN_CHECKS_MAX && !list_empty(&w->login_wait)) {
        struct login *login = LIST_ENTRY(list_pop_front(&w->login_wait), struct login, node);
        struct inject *s = login->inject;

        ASSERT(w->logins_waiting > 0 && login->state == LOGIN_WAITS && s->login == login);
        w->logins_waiting--;
        if (!login_submit(login))
            inject_resume(s);
    }
}

static void on_done(struct crew_job *job)
{
    struct login *login = CONTAINER_OF(job, struct login, job);
    struct worker *w = login->worker;

    ASSERT(w->login_checks > 0 && login->state == LOGIN_CHECKED);
    w->login_checks--;
    if (login->inject == NULL) {
        if (!login->ok) /* who does not wait for the answer has tried, too */
            (void)count_failure(login);
        login_free(login);
    } else if (login->ok) {
        login_succeeded(login);
    } else {
        login_failed(login);
    }
    next_submit(w);
}

/* False: the client has its answer. */
static bool login_submit(struct login *login)
{
    struct inject *s = login->inject;
    struct worker *w = login->worker;
    struct logins_limit limit = limit_of(w);

    /* Asked here again: tries that waited together do not all get through. */
    if (!logins_may_try(&w->shared->logins, (struct sockaddr *)&s->peer, login->name, &limit,
                        io_now_ms(w->io))) {
        answer(s, locked_out);
        return false;
    }
    login->state = LOGIN_CHECKED;
    login->job = (struct crew_job){.run = on_run, .done = on_done, .desk = &w->desk};
    if (!crew_submit(w->shared->crew, &login->job)) {
        answer(s, try_later);
        return false;
    }
    w->login_checks++;
    return true;
}

/* The user, or somebody whose hash costs what those of the file cost: from how long a refusal takes
 * nobody learns whether there is a user of that name. */
static const char *hash_for(const struct worker *w, struct str name, const struct config_user *user)
{
    const struct config *c = w->config;
    uint64_t any = hash_bytes(name.ptr, name.len, w->shared->logins.seed);

    if (user != NULL)
        return user->hash;
    return c->auth.users_len == 0 ? password_nobody : c->auth.users[any % c->auth.users_len].hash;
}

static struct login *login_new(struct inject *s, struct str authzid, struct str user,
                               struct str password)
{
    struct worker *w = s->worker;
    struct login *login = calloc(1, sizeof(*login) + user.len + password.len + 1);

    if (login == NULL)
        return NULL;
    login->worker = w;
    login->inject = s;
    login->client = s->peer;
    login->config = config_ref(w->config);
    memcpy(login->text, user.ptr, user.len);
    memcpy(login->text + user.len, password.ptr, password.len);
    login->name = (struct str){login->text, user.len};
    login->password = login->text + user.len;
    login->user = config_user_find(login->config, login->name);
    /* To act as another is nothing that a user may. */
    if (authzid.len != 0 && !str_eq(authzid, user))
        login->user = NULL;
    login->hash = hash_for(w, login->name, login->user);
    return login;
}

static void password_login(struct inject *s)
{
    const struct smtp_login *from = &s->server.login;
    struct worker *w = s->worker;

    s->login = login_new(s, from->authzid, from->user, from->password);
    if (s->login == NULL || w->logins_waiting >= LOGIN_WAITING_MAX) {
        answer(s, try_later);
    } else if (w->login_checks < LOGIN_CHECKS_MAX) {
        (void)login_submit(s->login);
    } else {
        list_push_back(&w->login_wait, &s->login->node);
        w->logins_waiting++;
    }
}

/* --- EXTERNAL --- */

/* Whom TLS knows already; there is nothing that could be guessed. */
static void external_login(struct inject *s)
{
    const struct smtp_login *from = &s->server.login;
    struct config *c = s->worker->config;
    const struct config_user *user = inject_certificate_user(s, c);

    if (user != NULL && from->authzid.len > 0 && !str_eq(from->authzid, str_of(user->name)))
        user = NULL;
    if (user != NULL)
        set_user(s, c, user);
    s->external = user != NULL;
    answer(s, user != NULL ? NULL : "535 5.7.8 your certificate is not that user's");
}

/* --- SCRAM --- */

/* The keys of the user, also for who would act as another, since other keys would say that there is
 * such a user; or keys that nobody tells from a user's: those of the file's first user, which who
 * asks does not know, say what they are for a name. So they are the same after a restart, and on
 * all nodes that have the file. */
static bool scram_keys(const struct login *login, struct password_scram *out)
{
    const struct config *c = login->config;
    const struct config_user *named = config_user_find(c, login->name);
    struct password_scram first;

    if (c->auth.users_len == 0 || !password_scram_parse(str_of(c->auth.users[0].hash), &first))
        return false; /* a reload took them away */
    if (named != NULL)
        return password_scram_parse(str_of(named->hash), out);
    scram_keys_nobody(out, &first, login->name);
    return true;
}

static void challenge(struct inject *s, struct str bytes, enum login_state state)
{
    s->login->state = state;
    smtp_server_challenge(&s->server, inject_out(s), bytes);
}

static void bindings_of(const struct inject *s, struct scram_offer *out)
{
    const struct tls *tls = stream_tls_of(&s->stream);

    out->len = 0;
    for (int kind = 0; tls != NULL && kind < TLS_BINDING_KINDS; kind++)
        out->len += tls_binding(tls, (enum tls_binding_kind)kind, &out->bindings[out->len]);
}

void inject_login_secured(struct inject *s)
{
    struct scram_offer offer;

    if ((s->options.auth & SMTP_AUTH_SCRAM) == 0)
        return;
    bindings_of(s, &offer);
    if (offer.len > 0)
        s->options.auth |= SMTP_AUTH_SCRAM_PLUS;
}

/* Why no exchange begins, or NULL. */
static const char *scram_refusal(const struct inject *s, struct str message,
                                 struct scram_server *scram)
{
    struct scram_offer offer = {.plus = s->server.login.mechanism == SMTP_AUTH_SCRAM_PLUS};
    int err;

    /* Where the TLS is a proxy's (XCLIENT) the client has no binding of it, nor hears of one. */
    if ((s->options.auth & SMTP_AUTH_SCRAM_PLUS) != 0)
        bindings_of(s, &offer);
    err = scram_server_begin(scram, message, &offer);
    if (err == -EPERM)
        return "535 5.7.8 SCRAM-SHA-256-PLUS is offered here: somebody took it from what you heard";
    return err == 0 ? NULL
                    : "501 5.5.2 not a first message of SCRAM, or not a binding that is had here";
}

static void scram_begin(struct inject *s, struct str message)
{
    struct logins_limit limit = limit_of(s->worker);
    char nonce[SCRAM_NONCE_CHARS + 1];
    struct password_scram keys;
    struct scram_server scram;
    struct buf out = {0};
    const char *refusal = scram_refusal(s, message, &scram);

    if (refusal != NULL) {
        scram_server_done(&scram);
        answer(s, refusal);
        return;
    }
    s->login = login_new(s, str_of(scram.authzid), str_of(scram.user), STR(""));
    if (s->login == NULL) {
        scram_server_done(&scram);
        answer(s, try_later);
        return;
    }
    s->login->scram = scram;
    if (!logins_may_try(&s->worker->shared->logins, (struct sockaddr *)&s->peer, s->login->name,
                        &limit, io_now_ms(s->worker->io))) {
        answer(s, locked_out);
    } else if (!scram_keys(s->login, &keys)) {
        answer(s, "454 4.7.0 the users have changed, try again");
    } else {
        scram_nonce(nonce);
        scram_server_challenge(&s->login->scram, &keys, nonce, &out);
        challenge(s, buf_str(&out), LOGIN_ASKED);
    }
    buf_done(&out);
    explicit_bzero(&keys, sizeof(keys));
}

/* Asked for leave once more: exchanges that began together do not all get through. */
static void scram_prove(struct inject *s, struct str message)
{
    struct login *login = s->login;
    struct logins_limit limit = limit_of(s->worker);
    struct buf out = {0};
    bool good = scram_server_end(&login->scram, message, &out) && login->user != NULL;

    ASSERT(login->state == LOGIN_ASKED && login->inject == s);
    if (!logins_may_try(&s->worker->shared->logins, (struct sockaddr *)&s->peer, login->name,
                        &limit, io_now_ms(s->worker->io)))
        answer(s, locked_out);
    else if (good)
        challenge(s, buf_str(&out), LOGIN_PROVED);
    else
        login_failed(login);
    buf_done(&out);
}

static void scram_login(struct inject *s)
{
    const struct smtp_login *from = &s->server.login;

    if (from->begins) {
        inject_login_drop(s);
        scram_begin(s, from->response);
    } else if (s->login->state == LOGIN_ASKED) {
        scram_prove(s, from->response);
    } else { /* the client may say what it likes to our proof: it stays, so it believes it */
        ASSERT(s->login->state == LOGIN_PROVED && s->login->user != NULL);
        logins_succeeded(&s->worker->shared->logins, (struct sockaddr *)&s->peer, s->login->name,
                         io_now_ms(s->worker->io));
        answer(s, NULL);
    }
}

void inject_login(struct inject *s)
{
    ASSERT(!inject_login_pending(s) && s->user == NULL);
    if (s->server.login.mechanism == SMTP_AUTH_SCRAM ||
        s->server.login.mechanism == SMTP_AUTH_SCRAM_PLUS) {
        scram_login(s);
        return;
    }
    inject_login_drop(s);
    if (s->server.login.mechanism == SMTP_AUTH_EXTERNAL)
        external_login(s);
    else
        password_login(s);
}

void inject_login_forget(struct inject *s)
{
    inject_logout(s);
    inject_login_drop(s);
}

/* --- what the user may --- */

/* Whether the user is still there as he was: a password that was changed, a user or a certificate
 * of his that was taken away, end what they began at the next message. */
static bool user_renew(struct inject *s)
{
    struct config *now = s->worker->config;
    const struct config_user *user;

    if (s->user_config == now)
        return true;
    user = config_user_find(now, str_of(s->user->name));
    if (user == NULL || strcmp(user->hash, s->user->hash) != 0 ||
        (s->external && inject_certificate_user(s, now) != user))
        return false;
    set_user(s, now, user);
    return true;
}

struct config_sender_rule inject_sender_rule(const struct inject *s)
{
    if (!inject_may_relay(s)) /* whose mail goes nowhere anyway */
        return (struct config_sender_rule){.senders = NULL};
    return config_sender_rule(
        s->config,
        &(struct config_sender_question){.user = s->user,
                                         .tenant = str_of(s->user != NULL ? s->user->tenant : NULL),
                                         .listener = s->settings,
                                         .client = (const struct sockaddr *)&s->peer});
}

static const char *rate_refusal(struct inject *s, const struct config_user *user)
{
    uint64_t wait_ms;

    if (user == NULL || user->rate_messages == 0)
        return NULL;
    wait_ms = logins_rate_take(&s->worker->shared->logins, str_of(user->name), user->rate_messages,
                               user->rate_period_ms, io_now_ms(s->worker->io));
    if (wait_ms == 0)
        return NULL;
    return inject_refusal(s,
                          "450 4.7.1 user %s has sent as much as its rate allows, try again in "
                          "%llu seconds",
                          user->name, (unsigned long long)(wait_ms / 1000 + 1));
}

const char *inject_sender_refusal(struct inject *s, const struct smtp_address *sender)
{
    struct str domain = sender->domain;
    struct config_sender_rule rule;
    struct dns_name name;

    if (s->user != NULL && !user_renew(s))
        return "421 4.7.0 your account has changed, log in again";
    rule = inject_sender_rule(s);
    /* A domain of UTF-8 may be no domain although it is read as one: its A-labels say. */
    if (sender->utf8 || rule.senders != NULL) {
        if (queue_name_of(domain, &name) == 0)
            domain = (struct str){name.text, name.len};
        else if (sender->utf8)
            return "553 5.1.7 the sender's domain is none";
    }
    if (rule.senders != NULL && !config_may_send(rule.senders, sender->local_part, domain)) {
        struct buf who = {0};
        const char *refusal;

        config_put_sender_rule(&rule, &who);
        refusal = inject_refusal(s, "553 5.7.1 this sender is not in the list of %.*s",
                                 STR_FMT(buf_str(&who)));
        buf_done(&who);
        return refusal;
    }
    return rate_refusal(s, s->user);
}
