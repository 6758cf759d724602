#include "intake/inject_login.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/password.h"
#include "worker/shared.h"

#define DELAY_STEP_MS 500 /* for each failure of late, before the client hears of the last one */
#define DELAY_STEPS   6

/* Where a login is. The worker's list of those that wait, the crew and the timer hold it in turn.
 */
enum login_state { LOGIN_WAITS, LOGIN_CHECKED, LOGIN_DELAYED };

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
    struct str name; /* in text, as the password is, which ends with NUL */
    const char *password;
    char text[];
};

static const char *const try_later = "454 4.7.0 too many logins at a time, try again shortly";
static const char *const locked_out = "454 4.7.0 too many failed logins, try again later";

static void login_free(struct login *login)
{
    explicit_bzero(login->text, login->name.len + strlen(login->password) + 1);
    config_unref(login->config);
    free(login);
}

bool inject_login_pending(const struct inject *s)
{
    return s->login != NULL;
}

const char *inject_login_name(const struct inject *s)
{
    if (s->user != NULL)
        return s->user->name;
    return s->login != NULL && s->login->user != NULL ? s->login->user->name : NULL;
}

/* --- the answer --- */

static void set_user(struct inject *s, struct config *config, const struct config_user *user)
{
    config_unref(s->user_config);
    s->user_config = config == NULL ? NULL : config_ref(config);
    s->user = user;
    s->options.trusted = inject_may_relay(s);
}

void inject_logout(struct inject *s)
{
    set_user(s, NULL, NULL);
}

/* refusal NULL: the client is who it says. */
static void answer(struct inject *s, const char *refusal)
{
    struct login *login = s->login;

    if (refusal == NULL)
        set_user(s, login->config, login->user);
    counter_add(refusal == NULL ? &s->worker->counters.logins : &s->worker->counters.logins_failed,
                1);
    smtp_server_answer(&s->server, inject_out(s), refusal);
    s->login = NULL;
    if (login != NULL)
        login_free(login);
}

static void on_delay_over(struct timer *timer)
{
    struct login *login = CONTAINER_OF(timer, struct login, timer);
    struct inject *s = login->inject;

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

static void on_run(struct crew_job *job)
{
    struct login *login = CONTAINER_OF(job, struct login, job);

    login->ok = password_check(login->hash, login->password) && login->user != NULL;
}

static bool login_submit(struct login *login);

static void next_submit(struct worker *w)
{
    while (w->login_checks < LOGIN_CHECKS_MAX && !list_empty(&w->login_wait)) {
        struct login *login = LIST_ENTRY(list_pop_front(&w->login_wait), struct login, node);
        struct inject *s = login->inject;

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

static struct login *login_new(struct inject *s, const struct smtp_login *from)
{
    struct worker *w = s->worker;
    struct login *login = calloc(1, sizeof(*login) + from->user.len + from->password.len + 1);

    if (login == NULL)
        return NULL;
    login->worker = w;
    login->inject = s;
    login->client = s->peer;
    login->config = config_ref(w->config);
    memcpy(login->text, from->user.ptr, from->user.len);
    memcpy(login->text + from->user.len, from->password.ptr, from->password.len);
    login->name = (struct str){login->text, from->user.len};
    login->password = login->text + from->user.len;
    login->user = config_user_find(login->config, login->name);
    /* To act as another is nothing that a user may. */
    if (from->authzid.len != 0 && !str_eq(from->authzid, from->user))
        login->user = NULL;
    login->hash = hash_for(w, login->name, login->user);
    return login;
}

void inject_login(struct inject *s)
{
    struct worker *w = s->worker;

    ASSERT(s->login == NULL && s->user == NULL);
    s->login = login_new(s, &s->server.login);
    if (s->login == NULL || w->logins_waiting >= LOGIN_WAITING_MAX) {
        answer(s, try_later);
    } else if (w->login_checks < LOGIN_CHECKS_MAX) {
        (void)login_submit(s->login);
    } else {
        list_push_back(&w->login_wait, &s->login->node);
        w->logins_waiting++;
    }
}

void inject_login_forget(struct inject *s)
{
    struct login *login = s->login;

    inject_logout(s);
    s->login = NULL;
    if (login == NULL)
        return;
    login->inject = NULL;
    switch (login->state) {
    case LOGIN_CHECKED: /* the crew has it */
        return;
    case LOGIN_WAITS:
        list_remove(&login->node);
        s->worker->logins_waiting--;
        break;
    case LOGIN_DELAYED:
        wheel_cancel(io_wheel(s->worker->io), &login->timer);
        break;
    }
    login_free(login);
}

/* --- what the user may --- */

/* Whether the user is still there as he was: a password that was changed, and a user that was taken
 * away, end what they began at the next message. */
static bool user_renew(struct inject *s)
{
    struct config *now = s->worker->config;
    const struct config_user *user;

    if (s->user_config == now)
        return true;
    user = config_user_find(now, str_of(s->user->name));
    if (user == NULL || strcmp(user->hash, s->user->hash) != 0)
        return false;
    set_user(s, now, user);
    return true;
}

const char *inject_user_refusal(struct inject *s, const struct smtp_address *sender,
                                struct str domain)
{
    const struct config_user *user;
    uint64_t wait_ms;

    if (s->user == NULL)
        return NULL;
    if (!user_renew(s))
        return "421 4.7.0 your account has changed, log in again";
    user = s->user;
    if (!config_user_may_send(user, sender->local_part, domain))
        return "553 5.7.1 this sender is none of yours";
    if (user->rate_messages == 0)
        return NULL;
    wait_ms = logins_rate_take(&s->worker->shared->logins, str_of(user->name), user->rate_messages,
                               user->rate_period_ms, io_now_ms(s->worker->io));
    if (wait_ms == 0)
        return NULL;
    snprintf(s->refusal, sizeof(s->refusal),
             "450 4.7.1 you have sent as much as you may, try again in %llu seconds",
             (unsigned long long)(wait_ms / 1000 + 1));
    return s->refusal;
}
