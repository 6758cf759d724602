/* hayauma serve: runs the engine until SIGTERM or SIGINT. Main thread: signals, watchdog, control.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/backend.h"
#include "control/control.h"
#include "http/http.h"
#include "queue/flow.h"
#include "run/engine.h"
#include "run/notify.h"
#include "tools/commands/commands.h"
#include "worker/keyring.h"

#define TICK_MS 200
/* As EX_CONFIG of sysexits.h: the same file would fail again, so nobody should restart us. */
#define EXIT_CONFIG     78
#define INTAKE_MS       10000 /* between two lines about intake, which may flap, or failures of it */
#define RECORDS_SAY_MS  60000
#define RECORDS_LOOK_MS 1000
#define HARD_DRAIN_MS   5000 /* after the drain limit: sessions are cut, settles still commit */

static const char usage[] =
    "usage: hayauma serve [-c FILE] [--workers N]\n"
    "\n"
    "Runs the mail engine in the foreground until SIGTERM or SIGINT; then drains:\n"
    "finishes what is past the final dot, settles, and exits within drain_timeout. A\n"
    "second signal exits at once (nothing accepted is lost). SIGHUP reloads the\n"
    "configuration file.\n"
    "\n"
    "  -c, --config FILE   configuration (default " CONFIG_FILE ")\n"
    "  -w, --workers N     worker threads, instead of the file's (default: one per\n"
    "                      core)\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit codes: 0 drained and stopped, 1 could not start or failed, 2 wrong usage,\n"
    "78 a mistake in the file.\n";

struct serve {
    const char *file;
    uint32_t workers;
    struct config *config;
    struct engine engine;
    struct backend backend;
    struct control *control;
    struct http *http;
    int signals;
    uint64_t drain_began_ms;
    bool cut;
    enum queue_intake intake; /* as logged, at intake_ms */
    uint64_t intake_ms;
    uint64_t failures, failures_ms;         /* accept_failures as logged, and when */
    uint64_t records_ms, records_looked_ms; /* failing records: last logged (0: they are well) */
};

static uint64_t now_ms(void)
{
    return clock_mono_ns() / 1000000;
}

static int serve_options(struct serve *s, int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int c;

    s->file = CONFIG_FILE;
    while ((c = getopt_long(argc, argv, "c:w:h", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            s->file = optarg;
            break;
        case 'w': {
            char *end;
            unsigned long n = strtoul(optarg, &end, 10);

            if (*end != '\0' || n < 1 || n > WORKERS_MAX) {
                fprintf(stderr, "hayauma serve: --workers takes 1 to %d, not '%s'\n", WORKERS_MAX,
                        optarg);
                return 2;
            }
            s->workers = (uint32_t)n;
            break;
        }
        case 'h':
            fputs(usage, stdout);
            return -1;
        default:
            fputs("Try 'hayauma serve --help'.\n", stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr,
                "hayauma serve: unexpected argument '%s'; a configuration is named with -c\n",
                argv[optind]);
        return 2;
    }
    return 0;
}

/* Lines as one value of a log line, which has the level. */
static struct buf joined(struct str lines)
{
    static const struct str level = {"warning: ", 9};
    struct buf out = {0};

    while (lines.len > 0) {
        struct str line = str_take(&lines, '\n');

        if (out.len > 0)
            buf_puts(&out, "; ");
        if (str_starts_nocase(line, level))
            line = (struct str){line.ptr + level.len, line.len - level.len};
        buf_put_str(&out, line);
    }
    return out;
}

static void log_warnings(const struct serve *s, const struct config *c)
{
    struct buf lines = {0}, words;

    config_warnings(c, geteuid() == 0, &lines);
    words = joined(buf_str(&lines));
    if (words.len != 0)
        log_warn("serve.config", "file=%s reason=\"%.*s\"", s->file, STR_FMT(buf_str(&words)));
    buf_done(&words);
    buf_done(&lines);
}

/* A core dump would have private keys, passwords and people's mail in it, and so would what another
 * process of the same user may read of our memory. Before anything of that is read, and behind the
 * change of user, which sets it anew. */
static void keep_memory_in(void)
{
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        log_warn("serve.dumpable", "error=\"%s\"", strerror(errno));
}

static struct config *serve_load(struct serve *s, struct buf *errors)
{
    struct config *c = NULL;

    if (config_load(s->file, &c, errors) < 0)
        return NULL;
    if (keyring_open(c, errors) < 0) {
        config_unref(c);
        return NULL;
    }
    if (s->workers != 0)
        c->workers = s->workers;
    log_warnings(s, c);
    return c;
}

static void set_log_level(const struct config *c)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (c->log_level != NULL && strcmp(c->log_level, names[i]) == 0)
            log_set_level((enum log_level)i);
}

#define FILES_FEW 1024

/* Too few stop nothing at the start, and deliveries later: sessions out leave 64 to the rest. */
static void warn_of_file_limit(const struct config *c, const struct rlimit *limit)
{
    if (limit->rlim_cur < FILES_FEW || limit->rlim_cur < c->file_limit)
        log_warn("serve.file_limit",
                 "files=%llu file_limit=%u action=\"each session takes one: raise the limit of "
                 "open files (LimitNOFILE= of the unit, ulimit -Hn)\"",
                 (unsigned long long)limit->rlim_cur, c->file_limit);
}

static void raise_file_limit(const struct config *c)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    if (c->file_limit != 0 && c->file_limit > limit.rlim_max && geteuid() == 0)
        limit.rlim_max = c->file_limit;
    limit.rlim_cur =
        c->file_limit != 0 && c->file_limit < limit.rlim_max ? c->file_limit : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warn("serve.file_limit", "wanted=%lu error=\"%s\"", (unsigned long)limit.rlim_cur,
                 strerror(errno));
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        warn_of_file_limit(c, &limit);
}

/* Becomes the configured user for good, with all threads (glibc sets them together). */
static int drop_privileges(const struct config *c)
{
    struct passwd *pw;
    struct group *gr;
    gid_t gid;

    if (c->user == NULL)
        return 0;
    pw = getpwnam(c->user);
    if (pw == NULL) {
        log_error("serve.no_user", "user=%s action=\"create it, or change 'user'\"", c->user);
        return -ENOENT;
    }
    gid = pw->pw_gid;
    if (c->group != NULL) {
        gr = getgrnam(c->group);
        if (gr == NULL) {
            log_error("serve.no_group", "group=%s", c->group);
            return -ENOENT;
        }
        gid = gr->gr_gid;
    }
    if (geteuid() == pw->pw_uid)
        return 0;
    for (size_t i = 0; i < c->listeners_len; i++) {
        const struct sockaddr_un *un = (const void *)&c->listeners[i].address.addr;

        if (un->sun_family == AF_UNIX && lchown(un->sun_path, pw->pw_uid, gid) < 0) {
            log_error("serve.cannot_give", "socket=%s user=%s error=\"%s\"", un->sun_path, c->user,
                      strerror(errno));
            return -errno;
        }
    }
    if (initgroups(c->user, gid) < 0 || setgid(gid) < 0 || setuid(pw->pw_uid) < 0) {
        log_error("serve.cannot_become", "user=%s error=\"%s\"", c->user, strerror(errno));
        return -errno;
    }
    return 0;
}

static int block_signals(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is a full disk: 452, not the end */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void serve_describe(void *arg, struct control_description *out)
{
    const struct serve *s = arg;

    *out = (struct control_description){.node_id = s->engine.config->node_id,
                                        .host_name = s->engine.config->host_name,
                                        .config_file = s->engine.config->file,
                                        .started_ms = s->engine.started_ms,
                                        .draining = atomic_load(&s->engine.draining)};
}

static void log_trust(const char *event, struct buf *lines)
{
    struct buf words = joined(buf_str(lines));

    if (words.len > 0)
        log_warn(event, "reason=\"%.*s\"", STR_FMT(buf_str(&words)));
    buf_done(&words);
    buf_clear(lines);
}

/* Mail that needs no encryption goes on; certificates that do not work are seen here alone. */
static void log_certificates(const struct serve *s)
{
    const struct certificates *c = s->engine.trust->certificates;
    struct buf warnings = {0}, words = joined(buf_str(&c->complaints));

    if (words.len > 0)
        log_error("tls.certificate_failed", "reason=\"%.*s\"", STR_FMT(buf_str(&words)));
    buf_done(&words);
    trust_warnings(s->engine.trust, clock_wall_ms() / 1000, &warnings);
    log_trust("tls.certificate_expires", &warnings);
    certificates_loose_keys(c, &warnings);
    log_trust("tls.key_readable", &warnings);
    buf_done(&warnings);
}

/* --- pools that mail waits for, and that a reload took away --- */

struct lost_pools {
    const struct config *config;
    struct buf said; /* their names, a NUL behind each */
};

static void see_pool(void *arg, const struct queue_flow *flow)
{
    struct lost_pools *lost = arg;
    struct buf *said = &lost->said;
    size_t begin = said->len;

    if (flow->pool.len == 0 || flow->sums == NULL ||
        atomic_load_explicit(&flow->sums->rows, memory_order_relaxed) <= 0 ||
        config_pool_find(lost->config, flow->pool) != NULL)
        return;
    buf_put_str(said, flow->pool);
    buf_putc(said, 0);
    for (size_t at = 0; at < begin; at += strlen((const char *)said->data + at) + 1)
        if (strcmp((const char *)said->data + at, (const char *)said->data + begin) == 0) {
            said->len = begin; /* a flow before had it */
            return;
        }
    log_warn("serve.pool_gone", "pool=%.*s instead=%s", STR_FMT(flow->pool),
             config_pool_for(lost->config, flow->pool)->name);
}

static void log_lost_pools(struct serve *s, const struct config *c)
{
    struct lost_pools lost = {.config = c};

    queue_flows_visit(s->engine.shared.queue, see_pool, &lost);
    buf_done(&lost.said);
}

/* For SIGHUP and the control channel alike. */
static int serve_reload(void *arg, struct buf *cannot, struct buf *errors)
{
    struct serve *s = arg;
    struct config *c;
    struct buf words;

    notify_reloading();
    c = serve_load(s, errors);
    /* As an editor or a full disk leaves it: its defaults would send mail round every route. */
    if (c != NULL && c->is_empty) {
        buf_printf(errors, "%s: there is no key in it: an empty file is no new configuration\n",
                   s->file);
        config_unref(c);
        c = NULL;
    }
    if (c != NULL && engine_reload(&s->engine, c, cannot, errors) < 0) {
        config_unref(c);
        c = NULL;
    }
    if (c != NULL) {
        http_reload(s->http, c);
        log_certificates(s); /* which errors has lines about, too */
        log_lost_pools(s, c);
        set_log_level(c);
        config_unref(s->config);
        s->config = c;
        words = joined(buf_str(cannot));
        log_info("serve.reloaded", "file=%s needs_restart=\"%.*s\"", s->file,
                 STR_FMT(buf_str(&words)));
    } else {
        words = joined(buf_str(errors));
        log_error("serve.reload_failed", "file=%s action=\"nothing was changed\" error=\"%.*s\"",
                  s->file, STR_FMT(buf_str(&words)));
    }
    buf_done(&words);
    notify_state("READY=1");
    return c != NULL ? 0 : -EINVAL;
}

static void serve_reload_signal(struct serve *s)
{
    struct buf cannot = {0}, errors = {0};

    (void)serve_reload(s, &cannot, &errors);
    buf_done(&cannot);
    buf_done(&errors);
}

static void serve_drain(void *arg)
{
    struct serve *s = arg;

    if (s->drain_began_ms != 0) { /* asked twice: at once */
        s->drain_began_ms = 1;
        return;
    }
    log_info("serve.draining", "limit_ms=%u", s->config->drain_timeout_ms);
    notify_state("STOPPING=1");
    s->drain_began_ms = now_ms();
    http_drain(s->http);
    engine_drain(&s->engine);
}

static void serve_signals(struct serve *s)
{
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGHUP)
            serve_reload_signal(s);
        else
            serve_drain(s);
    }
}

/* Clients hear 452 and come again: without a line in the log nobody here would know. */
static void serve_note_intake(struct serve *s, uint64_t now)
{
    static const char *const names[] = {"ok", "map_full", "disk_full", "failed"};
    static const char *const actions[] = {
        "", "it resumes as mail leaves; or raise queue.map_size and restart",
        "less than 64 MiB are free there: make room; it resumes by itself",
        "the lines above say what failed"};
    enum queue_intake worst = QUEUE_INTAKE_OK, one;

    for (uint32_t i = 0; i < queue_shards(s->engine.shared.queue); i++)
        if ((one = queue_intake(s->engine.shared.queue, i)) > worst)
            worst = one;
    if (worst == s->intake || (s->intake_ms != 0 && now < s->intake_ms + INTAKE_MS))
        return;
    if (worst == QUEUE_INTAKE_OK)
        log_info("queue.intake_resumed", "was=%s", names[s->intake]);
    else
        log_warn("queue.intake_refused", "reason=%s path=%s action=\"%s\"", names[worst],
                 s->config->queue.path, actions[worst]);
    s->intake = worst;
    s->intake_ms = now;
}

/* A full disk refuses each message: one line now and then for all. */
static void serve_note_failures(struct serve *s, uint64_t now)
{
    uint64_t failures = 0;
    int error = 0, last;

    for (uint32_t i = 0; i < s->engine.shared.workers_len; i++) {
        const struct worker_counters *c = &s->engine.shared.workers[i].counters;

        failures += atomic_load_explicit(&c->accept_failures, memory_order_relaxed);
        last = atomic_load_explicit(&c->accept_error, memory_order_relaxed);
        error = last != 0 ? last : error;
    }
    if (failures == s->failures || (s->failures_ms != 0 && now < s->failures_ms + INTAKE_MS))
        return;
    log_warn("queue.accept_failed", "messages=%llu error=\"%s\" action=\"clients heard 4xx\"",
             (unsigned long long)(failures - s->failures), strerror(-error));
    s->failures = failures;
    s->failures_ms = now;
}

static void say_records_failed(const struct serve *s, int error, uint64_t lag)
{
    log_warn("records.failed",
             "path=%s error=\"%s\" lag_bytes=%llu action=\"mail goes on; records wait in the queue "
             "and take its room: look at the directory and its disk\"",
             s->config->records.path, strerror(error), (unsigned long long)lag);
}

/* The first record would find it out, but that may come long behind the start. */
static void look_at_records(const struct serve *s)
{
    if (faccessat(AT_FDCWD, s->config->records.path, W_OK | X_OK, AT_EACCESS) < 0)
        say_records_failed(s, errno, 0);
}

/* Records that cannot be written wait in the store, where they take room: one line at once, then
 * one a minute. */
static void serve_note_records(struct serve *s, uint64_t now)
{
    uint64_t lag = 0;
    int error = 0;

    if (now < s->records_looked_ms + RECORDS_LOOK_MS)
        return;
    s->records_looked_ms = now;
    for (uint32_t i = 0; i < queue_shards(s->engine.shared.queue); i++) {
        uint64_t bytes;
        int err = queue_records_error(s->engine.shared.queue, i, &bytes);

        lag += bytes;
        error = err != 0 ? err : error;
    }
    if (error == 0 && s->records_ms != 0)
        log_info("records.resumed", "lag_bytes=%llu", (unsigned long long)lag);
    if (error == 0)
        s->records_ms = 0;
    if (error == 0 || (s->records_ms != 0 && now < s->records_ms + RECORDS_SAY_MS))
        return;
    say_records_failed(s, error, lag);
    s->records_ms = now;
}

/* False when it is time to stop. */
static bool serve_check(struct serve *s)
{
    uint64_t now = now_ms();

    if (queue_failed(s->engine.shared.queue)) {
        log_error("queue.failed",
                  "reason=\"a sync to disk failed; what was not acknowledged is not stored\" "
                  "action=\"check the disk, then start again\"");
        _exit(1);
    }
    serve_note_intake(s, now);
    serve_note_failures(s, now);
    serve_note_records(s, now);
    if (s->drain_began_ms == 0)
        return true;
    if (engine_drained(&s->engine))
        return false;
    if (now >= s->drain_began_ms + s->config->drain_timeout_ms && !s->cut) {
        s->cut = true;
        log_warn("serve.drain_limit", "action=\"cutting sessions\"");
        engine_cut(&s->engine);
        s->drain_began_ms = now - s->config->drain_timeout_ms;
    }
    if (s->cut && now >= s->drain_began_ms + s->config->drain_timeout_ms + HARD_DRAIN_MS) {
        log_error("serve.stuck", "action=\"exiting; the queue is safe\"");
        _exit(1);
    }
    return true;
}

static void serve_loop(struct serve *s)
{
    uint64_t watchdog_ms = notify_watchdog_ms(), next_ms = now_ms() + watchdog_ms;
    struct pollfd fds[] = {{.fd = s->signals, .events = POLLIN},
                           {.fd = control_fd(s->control), .events = POLLIN}};

    while (serve_check(s)) {
        int wait_ms = control_timeout_ms(s->control);

        (void)poll(fds, ARRAY_LEN(fds), wait_ms < 0 || wait_ms > TICK_MS ? TICK_MS : wait_ms);
        serve_signals(s);
        http_tick(s->http);
        control_turn(s->control, now_ms(), clock_wall_ms());
        if (watchdog_ms != 0 && now_ms() >= next_ms) {
            /* The main thread speaks for all: a worker that is stuck is what the watchdog is for.
             */
            if (engine_alive(&s->engine, watchdog_ms + WORKER_TURN_MS))
                notify_state("WATCHDOG=1");
            else
                log_error("serve.worker_stuck", "action=\"systemd restarts the service\"");
            next_ms = now_ms() + watchdog_ms;
        }
    }
}

/* Workers have ended or end soon; jobs they still have come back first. */
static void serve_close_control(struct serve *s)
{
    while (s->control != NULL && control_jobs(s->control) > 0) {
        struct pollfd fd = {.fd = control_fd(s->control), .events = POLLIN};

        (void)poll(&fd, 1, TICK_MS);
        control_turn(s->control, now_ms(), clock_wall_ms());
    }
    control_close(s->control);
}

static const struct config *serve_config(void *arg)
{
    return ((struct serve *)arg)->engine.config;
}

/* In front of the first client's greeting: who saw that finds an engine to ask. */
static int serve_control(void *arg, struct buf *error)
{
    struct serve *s = arg;

    s->backend = (struct backend){&s->engine.shared, serve_describe, serve_reload,
                                  serve_drain,       serve_config,   s};
    return control_open(&s->control, s->config->control_socket, &backend_functions, &s->backend,
                        s->engine.shared.queue, error);
}

static int serve_run(struct serve *s)
{
    struct buf error = {0}, listeners = {0};
    int err = engine_open(&s->engine, s->config, &error);

    if (err == 0)
        log_certificates(s);
    if (err == 0)
        err = http_open(&s->http, s->config, &error);
    if (err == 0)
        err = drop_privileges(s->config);
    keep_memory_in();
    if (err == 0)
        err = engine_start(&s->engine, serve_control, s, &error);
    if (err == 0)
        err = http_start(s->http, &s->engine.shared, &error);
    if (err < 0) {
        http_close(s->http);
        control_close(s->control);
        if (error.len > 0)
            fprintf(stderr, "hayauma serve: %.*s\n", (int)error.len, (char *)error.data);
        buf_done(&error);
        engine_close(&s->engine);
        return 1;
    }
    look_at_records(s);
    for (size_t i = 0; i < s->config->listeners_len; i++)
        buf_printf(&listeners, "%s%s", i > 0 ? " " : "", s->config->listeners[i].address.text);
    log_info("serve.ready", "workers=%u shards=%u queue=%s listeners=\"%.*s\" http=\"%s\"",
             s->engine.shared.workers_len, queue_shards(s->engine.shared.queue),
             s->config->queue.path, STR_FMT(buf_str(&listeners)),
             s->http == NULL ? "" : s->config->http.listen.text);
    buf_done(&listeners);
    notify_state("READY=1");
    serve_loop(s);
    http_close(s->http); /* what its requests wait for comes from the workers */
    serve_close_control(s);
    engine_close(&s->engine);
    log_info("serve.stopped", "reason=drained");
    return 0;
}

int cmd_serve(int argc, char **argv)
{
    struct serve s = {0};
    struct buf errors = {0};
    int rc = serve_options(&s, argc, argv);

    if (rc != 0)
        return rc < 0 ? 0 : rc;
    keep_memory_in();
    s.config = serve_load(&s, &errors);
    if (s.config == NULL)
        fprintf(stderr, "%.*s", (int)errors.len, (char *)errors.data);
    buf_done(&errors);
    if (s.config == NULL)
        return EXIT_CONFIG;
    /* The engine starts no program, so none that is set-user-ID may give it more than it has. All
     * threads to come inherit it. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        log_warn("serve.no_new_privs", "error=\"%s\"", strerror(errno));
    set_log_level(s.config);
    raise_file_limit(s.config);
    s.signals = block_signals();
    rc = serve_run(&s);
    close(s.signals);
    config_unref(s.config);
    return rc;
}
