/* The control channel against a real queue and a backend that does nothing but remember. */
#include "control/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "queue/testkit.h"

#include "control/control_private.h"

#define ROWS    60 /* of three queues, a message for each two rows */
#define SHARDS  3
#define NOW_MS  INT64_C(1700000100000)
#define LATER   (NOW_MS + 60000)
#define REPLIES 8000

struct bench {
    char *dir, path[200];
    struct queue *queue;
    struct queue_port *port;
    struct control *control;
    uint64_t mono_ms;
    struct msgid ids[ROWS / 2];
    /* What the backend saw. */
    struct control_job *jobs[64];
    size_t jobs_len, jobs_seen, rows_seen;
    bool keep_jobs; /* do not finish them at once */
    int job_result, reload_result;
    struct control_job suspend; /* the last; what it points to has gone */
    bool drained;
};

/* --- the backend --- */

static void on_describe(void *arg, struct control_description *out)
{
    (void)arg;
    *out = (struct control_description){
        .node_id = "node\"1", .host_name = "mx.example.com", .started_ms = 5, .workers = 2};
}

static void on_counters(void *arg, void (*put)(void *, const char *, uint64_t, bool), void *to)
{
    (void)arg;
    put(to, "delivered", 7, false);
    put(to, "sessions_in", 3, true);
}

static void on_turns(void *arg, uint32_t worker, struct control_turns *out)
{
    (void)arg;
    *out = (struct control_turns){
        {7000 + worker, "lanes", 300}, {5, "send", 0}, {900, "send", 0}, {4, "send", 0}};
}

static int on_reload(void *arg, struct buf *cannot, struct buf *errors)
{
    struct bench *b = arg;

    if (b->reload_result != 0)
        buf_puts(errors, "x.yaml:1:1: wrong\nx.yaml:2:1: too\n");
    else
        buf_puts(cannot, "workers: 1 -> 2 needs a restart\n");
    if (b->reload_result == 0)
        buf_puts(errors, "certificates: /c: no such file\n");
    return b->reload_result;
}

static void on_drain(void *arg)
{
    ((struct bench *)arg)->drained = true;
}

/* Sizes 0 to 100 but 64, in disorder, and a queue with lanes in two shards. */
static void fill_status(struct control_status *s)
{
    for (unsigned i = 0; i < 102; i++) {
        struct control_destination d = {.rows = i < 100 ? (i * 37) % 101 : 1000,
                                        .next_due_ms = INT64_MAX};

        if (i < 100)
            snprintf(d.queue, sizeof(d.queue), "d%u.example", i);
        else
            strcpy(d.queue, "two.example");
        control_status_offer(s, &d);
    }
}

/* b.example waits until behind what is due later, c.example for nobody knows how long. */
static void fill_waits(struct control_job *job)
{
    assert_in_range(job->waits_len, 1, CONTROL_SLICE_ROWS);
    for (size_t i = 0; i < job->waits_len; i++) {
        struct control_wait_query *q = &job->waits[i];

        if (str_eq(q->queue, STR("b.example")))
            q->wait = (struct control_wait){
                .reason = "back_off", .until_ms = LATER + 1, .host = "mx", .error = "421 busy"};
        else if (str_eq(q->queue, STR("c.example")))
            q->wait = (struct control_wait){.reason = "sessions"};
        if (str_eq(q->queue, STR("a.example")))
            strcpy(q->site, "mx.a.example");
    }
}

/* As many sites as there are no places for, and two for the same. */
static void fill_why(struct control_why *why)
{
    struct control_hold h = {.lanes = 1, .rows = 1, .in_flight = 1, .per_hour = 10};
    uint32_t had = why->len;
    bool made;

    h.wait = (struct control_wait){.reason = "rate", .until_ms = 70, .limit = {.name = "rate"}};
    h.next_ms = 70;
    why->found |= 1u << SUSPENSION_CAMPAIGN;
    why->absent = 5;
    for (unsigned i = 0; i < 100; i++) {
        snprintf(h.site, sizeof(h.site), "mx%u.example", i);
        h.per_hour = i == 1 ? 3.6e20 : 10; /* 10^9 sessions a second, of 10^8 messages each */
        assert_non_null(control_why_add(why, &h, &made));
        assert_true(made == (i + had <= CONTROL_HOLDS_WHOLE));
    }
    strcpy(h.site, "mx7.example");
    h.rows = 1000;
    h.next_ms = 50;
    assert_non_null(control_why_add(why, &h, &made));
    assert_false(made);
}

/* Lanes that the store has. */
static void fill_lanes(const struct control_job *job)
{
    bool made;

    for (size_t i = 0; i < job->waits_len; i++) {
        const struct control_wait_query *q = &job->waits[i];
        struct control_hold h = {
            .state = CONTROL_HOLD_GOES, .lanes = 1, .rows = q->rows, .next_ms = q->due_ms};

        snprintf(h.queue, sizeof(h.queue), "%.*s", STR_FMT(q->queue));
        assert_true(control_why_has_lanes(job->why, q->queue));
        job->why->found |= 1u << SUSPENSION_DOMAIN;
        (void)control_why_add(job->why, &h, &made);
    }
}

static void finish(struct bench *b, struct control_job *job)
{
    if (job->kind == CONTROL_JOB_WHY && job->waits_len > 0)
        fill_lanes(job);
    else if (job->kind == CONTROL_JOB_WHY)
        fill_why(job->why);
    else if (job->kind == CONTROL_JOB_STATUS)
        fill_status(&job->status);
    else if (job->kind == CONTROL_JOB_WAITS)
        fill_waits(job);
    else if (job->kind == CONTROL_JOB_SUSPEND || job->kind == CONTROL_JOB_CAMPAIGN)
        b->suspend = *job;
    else
        job->admin.changed = job->admin.rows_len - 1; /* one had ended */
    control_job_done(job, b->job_result);
}

static void on_job(void *arg, struct control_job *job)
{
    struct bench *b = arg;

    for (size_t i = 0; i < job->admin.rows_len; i++) {
        assert_true(job->admin.rows[i].queue.len != 0 &&
                    memcmp(job->admin.rows[i].queue.ptr + job->admin.rows[i].queue.len - 8,
                           ".example", 8) == 0);
        assert_true(job->admin.rows[i].id.bytes[0] != 0 || job->admin.rows[i].id.bytes[1] != 0);
    }
    b->rows_seen += job->admin.rows_len;
    b->jobs_seen++;
    if (b->keep_jobs)
        b->jobs[b->jobs_len++] = job;
    else
        finish(b, job);
}

static const struct suspension suspended[] = {
    {SUSPENSION_SITE, 7, 0, "mx.a.example", "", "", {0}},
    {SUSPENSION_DOMAIN, 7, 0, "xn--r8jz45g.example", "", "", {0}},
    {SUSPENSION_DOMAIN, 5, 9, "b.example", "complaints", "hanako", {0}},
    {SUSPENSION_TENANT, 6, 0, "nobody", "", "", {0}}};

static void on_suspensions(void *arg, void (*visit)(void *, const struct suspension *), void *to)
{
    (void)arg;
    for (size_t i = 0; i < ARRAY_LEN(suspended); i++)
        visit(to, &suspended[i]);
}

static const struct campaign campaigns[] = {
    {.id = {{1}}, .name = "spring", .state = CAMPAIGN_CANCELLED, .created_ms = 5},
    {.id = {{2}}, .name = "spring", .tenant = "acme", .state = CAMPAIGN_DRAFT, .created_ms = 6},
    {.id = {{3}}, .name = "autumn", .state = CAMPAIGN_PAUSED, .priority = 7, .created_ms = 7}};

static void on_campaigns(void *arg, void (*visit)(void *, const struct campaign *), void *to)
{
    (void)arg;
    for (size_t i = 0; i < ARRAY_LEN(campaigns); i++)
        visit(to, &campaigns[i]);
}

static const struct queue_flow *on_names(void *arg, uint32_t flow)
{
    return queue_flow_find(((struct bench *)arg)->queue, flow);
}

static struct config *configured;

static const struct config *on_config(void *arg)
{
    (void)arg;
    return configured;
}

static void on_source(void *arg, const struct config_source *of, struct control_source *out)
{
    (void)arg;
    *out = (struct control_source){.sessions = 2, .messages = 7, .suspended = of->name[0] == 'b'};
    if (of->name[0] == 'c')
        out->part[0].away = true, out->part[0].error = -EADDRNOTAVAIL;
}

static void on_sums(void *arg, enum sums_of of, size_t max, struct sums *out)
{
    (void)arg;
    *out = (struct sums){.rows = calloc(1, sizeof(struct sums_row *)), .others_len = 3};
    out->others.delivered = 5;
    if (max == 0)
        return;
    out->len = 1;
    out->rows[0] = calloc(1, sizeof(**out->rows));
    out->rows[0]->name = strdup(of == SUMS_SOURCE_SITE ? "a1" : "acme");
    out->rows[0]->site = strdup(of == SUMS_SOURCE_SITE ? "google" : "");
    out->rows[0]->attempts = 9;
    out->rows[0]->bounced_by[0] = 2;
    out->rows[0]->held_ms[GOVERNOR_SESSIONS] = 1500;
}

static struct dialogues watched;

static struct dialogues *on_dialogues(void *arg)
{
    (void)arg;
    return &watched;
}

static const struct control_backend backend = {.describe = on_describe,
                                               .counters = on_counters,
                                               .turns = on_turns,
                                               .reload = on_reload,
                                               .drain = on_drain,
                                               .suspensions = on_suspensions,
                                               .campaigns = on_campaigns,
                                               .names = on_names,
                                               .config = on_config,
                                               .source = on_source,
                                               .sums = on_sums,
                                               .dialogues = on_dialogues,
                                               .job = on_job};

/* --- the bench --- */

static void wake(void *arg)
{
    (void)arg;
}

/* Every third row is held, every other one is due later and has failed before. */
static void fill_queue(struct bench *b)
{
    static const char *const queues[] = {"a.example", "b.example", "xn--r8jz45g.example"};

    for (unsigned i = 0; i < ROWS / 2; i++) {
        struct kit_change *kit = kit_change();
        struct message *m = kit_message(i == 0 ? 200000 : 100, 2, 5);
        struct recipient *r[2];

        b->ids[i] = m->id;
        kit_content(kit, m);
        for (unsigned n = 0; n < 2; n++) {
            unsigned row = 2 * i + n;

            r[n] = kit_recipient(m, n, queues[row % 3], row % 2 == 0 ? NOW_MS - 1000 : LATER);
            if (row % 3 == 2) {
                r[n]->flags |= RECIPIENT_HELD;
                r[n]->due_ms = QUEUE_DUE_HELD;
            } else if (row % 2 != 0) {
                r[n]->attempts = 3;
                r[n]->last_attempt_ms = NOW_MS - 5000;
                recipient_set_error(r[n], STR("450 4.2.1 Mailbox Full"));
            }
            kit_row(kit, QUEUE_ROW_ADD, r[n]);
        }
        assert_int_equal(kit_submit(b->queue, b->port, i % SHARDS, kit), 0);
        recipient_free(r[0]);
        recipient_free(r[1]);
        message_unref(m);
    }
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct buf error = {0};
    struct queue_options options;

    assert_non_null(b);
    b->dir = kit_dir();
    options = (struct queue_options){.path = b->dir, .shards = SHARDS, .map_bytes = 64 << 20};
    assert_int_equal(queue_open(&b->queue, &options, NULL), 0);
    assert_int_equal(queue_port_open(&b->port, b->queue, wake, NULL), 0);
    fill_queue(b);
    snprintf(b->path, sizeof(b->path), "%s/control.sock", b->dir);
    assert_int_equal(control_open(&b->control, b->path, &backend, b, b->queue, &error), 0);
    b->mono_ms = 1000;
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    control_close(b->control);
    assert_int_equal(access(b->path, F_OK), -1); /* the socket is gone with it */
    queue_port_close(b->port);
    queue_close(b->queue);
    kit_remove(b->dir);
    free(b->dir);
    free(b);
    return 0;
}

static void turn(struct bench *b)
{
    control_turn(b->control, b->mono_ms, NOW_MS);
}

static int client(struct bench *b)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, b->path);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Lines of a reply, as JSON. */
struct replies {
    json_t *lines[REPLIES];
    size_t len;
    bool closed;
};

static void replies_done(struct replies *r)
{
    for (size_t i = 0; i < r->len; i++)
        json_decref(r->lines[i]);
    free(r);
}

static bool is_last(const json_t *line)
{
    return json_object_get(line, "done") != NULL || json_object_get(line, "error") != NULL;
}

/* Turns until the reply (or the connection) has ended. */
static struct replies *listen_to(struct bench *b, int fd)
{
    struct replies *r = calloc(1, sizeof(*r));
    struct buf in = {0};
    size_t at = 0;

    assert_non_null(r);
    for (unsigned turns = 0; turns < 100000; turns++) {
        ptrdiff_t end;
        ssize_t n;

        turn(b);
        assert_int_equal(buf_reserve(&in, 65536), 0);
        n = recv(fd, in.data + in.len, 65536, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            r->closed = true;
            break;
        }
        in.len += n > 0 ? (size_t)n : 0;
        while ((end = at == in.len
                          ? -1
                          : str_find((struct str){(char *)in.data + at, in.len - at}, '\n')) >= 0) {
            json_t *line = json_loadb((char *)in.data + at, (size_t)end, 0, NULL);

            assert_non_null(line);
            assert_true(r->len < REPLIES);
            r->lines[r->len++] = line;
            at += (size_t)end + 1;
        }
        if (r->len != 0 && is_last(r->lines[r->len - 1]))
            break;
    }
    buf_done(&in);
    return r;
}

static struct replies *ask(struct bench *b, const char *request)
{
    int fd = client(b);
    struct replies *r;

    say(fd, request);
    say(fd, "\n");
    r = listen_to(b, fd);
    close(fd);
    turn(b);
    return r;
}

static const json_t *last(const struct replies *r)
{
    assert_true(r->len != 0);
    return r->lines[r->len - 1];
}

static long long number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static void assert_error(const struct replies *r, const char *code, const char *part)
{
    const json_t *e = json_object_get(last(r), "error");
    char *text = json_dumps(last(r), 0);

    if (e == NULL || strcmp(json_string_value(json_object_get(e, "code")), code) != 0 ||
        strstr(text, part) == NULL)
        fail_msg("%s, expected %s with '%s'", text, code, part);
    free(text);
}

/* --- tests --- */

static void test_open(void **state)
{
    struct bench *b = *state;
    struct control *second = NULL;
    struct buf error = {0};
    struct stat st;

    assert_int_equal(stat(b->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(control_open(&second, b->path, &backend, b, b->queue, &error), -EADDRINUSE);
    assert_null(second);
    assert_true(error.len != 0);
    assert_int_equal(access(b->path, F_OK), 0); /* the first one's is left alone */
    buf_clear(&error);
    assert_true(control_open(&second, "/proc/x/y", &backend, b, b->queue, &error) < 0);
    assert_true(error.len != 0);
    buf_done(&error);
}

/* A socket that a dead engine left is replaced. */
static void test_stale(void **state)
{
    struct bench *b = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct control *second = NULL;
    struct buf error = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/stale.sock", b->dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    assert_int_equal(control_open(&second, address.sun_path, &backend, b, b->queue, &error), 0);
    control_close(second);
    buf_done(&error);
}

/* A mistyped control_socket costs nobody a file. */
static void test_no_socket(void **state)
{
    struct bench *b = *state;
    struct control *second = NULL;
    struct buf error = {0};
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/file", b->dir);
    file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(control_open(&second, path, &backend, b, b->queue, &error), -EADDRINUSE);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(unlink(path), 0);
    buf_done(&error);
}

static void test_bad_requests(void **state)
{
    static const struct {
        const char *request, *part;
    } cases[] = {
        {"nonsense", "not JSON"},
        {"[1]", "JSON object"},
        {"{}", "'op'"},
        {"{\"op\":7}", "'op'"},
        {"{\"op\":\"lst\"}", "did you mean 'list'?"},
        {"{\"op\":\"list\",\"op\":\"list\"}", "not JSON"},
        {"{\"op\":\"list\",\"x\":1}", "unknown member 'x'"},
        {"{\"op\":\"list\",\"limit\":-1}", "'limit'"},
        {"{\"op\":\"list\",\"filter\":[]}", "'filter'"},
        {"{\"op\":\"list\",\"filter\":{\"sendr\":\"x\"}}", "did you mean 'sender'?"},
        {"{\"op\":\"list\",\"filter\":{\"queue\":3}}", "takes a string"},
        {"{\"op\":\"list\",\"filter\":{\"queue\":\"日 本\"}}", "no domain"},
        {"{\"op\":\"list\",\"filter\":{\"state\":\"odd\"}}", "ready, deferred or held"},
        {"{\"op\":\"list\",\"filter\":{\"id\":\"xyz\"}}", "32 hexadecimal"},
        {"{\"op\":\"list\",\"filter\":{\"age_min_ms\":\"1h\"}}", "takes a number"},
        {"{\"op\":\"show\"}", "'id' is missing"},
        {"{\"op\":\"why\"}", "'id' or a 'name'"},
        {"{\"op\":\"why\",\"name\":\"x\",\"id\":\"00000000000000000000000000000000\"}",
         "'id' or a 'name'"},
        {"{\"op\":\"why\",\"name\":\"x\",\"scope\":\"pool\"}", "'scope' is"},
        {"{\"op\":\"suspend\",\"name\":\"x\"}", "'scope' is missing"},
        {"{\"op\":\"suspend\",\"scope\":\"source_cap\",\"name\":\"a@b\"}",
         "rules alone lower limits"},
        {"{\"op\":\"resume\",\"scope\":\"source_recovery\",\"name\":\"a@b\"}",
         "nobody orders that"},
        {"{\"op\":\"suspend\",\"scope\":\"x\",\"name\":\"x\"}",
         "domain, campaign, tenant, site, source"},
        {"{\"op\":\"resume\",\"scope\":\"site\"}", "'name' is missing"},
        {"{\"op\":\"resume\",\"scope\":\"source_site\",\"name\":\"x\"}", "'x' is not WHAT@SITE"},
        {"{\"op\":\"suspend\",\"scope\":\"site\",\"name\":7}", "takes a string"},
        {"{\"op\":\"suspend\",\"scope\":\"domain\",\"name\":\"*.example\"}", "no domain"},
        {"{\"op\":\"suspend\",\"scope\":\"site\",\"name\":\"x\",\"for_ms\":0}", "ten years"},
        {"{\"op\":\"suspend\",\"scope\":\"site\",\"name\":\"x\",\"for_ms\":9223372036854775807}",
         "ten years"},
        {"{\"op\":\"campaigns\",\"x\":1}", "unknown member 'x'"},
        {"{\"op\":\"campaign_order\",\"order\":\"start\"}", "'id' is missing"},
        {"{\"op\":\"campaign_report\",\"name\":\"spring\"}", "'id' is missing"},
        {"{\"op\":\"campaign_order\",\"id\":\"00000000000000000000000000000000\"}",
         "'order' is missing"},
        {"{\"op\":\"campaign_order\",\"order\":\"create\"}", "'order' is start, pause"},
        {"{\"op\":\"campaign_order\",\"id\":\"00000000000000000000000000000000\",\"order\":"
         "\"pause\","
         "\"at_ms\":1}",
         "'at_ms' and 'open' are of a start"},
        {"{\"op\":\"cancel\"}", "every recipient"},
        {"{\"op\":\"cancel\",\"filter\":{}}", "every recipient"},
        {"{\"op\":\"cancel\",\"all\":false}", "every recipient"},
        {"{\"op\":\"cancel\",\"all\":1}", "true or false"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct replies *r = ask(*state, cases[i].request);

        assert_error(r, "bad_request", cases[i].part);
        replies_done(r);
    }
    assert_int_equal(((struct bench *)*state)->rows_seen, 0);
}

static void test_long_line(void **state)
{
    struct bench *b = *state;
    char *text = malloc(CONTROL_LINE_BYTES_MAX + 100);
    int fd = client(b);
    struct replies *r;

    assert_non_null(text);
    memset(text, 'x', CONTROL_LINE_BYTES_MAX + 100);
    for (size_t sent = 0; sent < CONTROL_LINE_BYTES_MAX + 100;) {
        ssize_t n = send(fd, text + sent, CONTROL_LINE_BYTES_MAX + 100 - sent, MSG_NOSIGNAL);

        sent += n > 0 ? (size_t)n : 0;
        turn(b);
        if (n < 0 && errno == EPIPE)
            break;
    }
    r = listen_to(b, fd);
    assert_error(r, "bad_request", "1 MiB");
    replies_done(r);
    r = listen_to(b, fd); /* and the connection ends */
    assert_true(r->closed);
    replies_done(r);
    close(fd);
    free(text);
}

static void test_filters(void **state)
{
    static const struct {
        const char *filter;
        long long matched;
    } cases[] = {
        {"{}", 60},
        {"{\"queue\":\"a.example\"}", 20},
        {"{\"queue\":\"A.Example\"}", 20},
        {"{\"queue\":\"*.example\"}", 60},
        {"{\"queue\":\"例え.example\"}", 20},
        {"{\"queue\":\"例え.*\"}", 20},
        {"{\"queue\":\"*.例え.example\"}", 0},
        {"{\"queue\":\".example\"}", 0},
        {"{\"queue\":\"a\"}", 0},
        {"{\"state\":\"held\"}", 20},
        {"{\"state\":\"ready\"}", 20},
        {"{\"state\":\"deferred\"}", 20},
        {"{\"state\":\"deferred\",\"queue\":\"b.*\"}", 10},
        {"{\"error\":\"mailbox full\"}", 20},
        {"{\"error\":\"mailbox fullx\"}", 0},
        {"{\"attempts_min\":3}", 20},
        {"{\"attempts_max\":2}", 40},
        {"{\"attempts_min\":4}", 0},
        {"{\"sender\":\"sender@*\"}", 60},
        {"{\"sender\":\"\"}", 0},
        {"{\"recipient\":\"user0@a.example\"}", 10},
        {"{\"recipient\":\"*@xn--r8jz45g.example\"}", 20},
        {"{\"recipient\":\"*@例え.example\"}", 20},
        {"{\"recipient\":\"*@例え.*\"}", 20},
        {"{\"recipient\":\"*@例.example\"}", 0},
        {"{\"campaign\":\"spring\"}", 60},
        {"{\"campaign\":\"autumn\"}", 0},
        {"{\"tenant\":\"ac*\"}", 60},
        {"{\"age_min_ms\":1}", 60},
        {"{\"age_min_ms\":86400000}", 0},
        {"{\"age_max_ms\":1}", 0},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char request[300];
        struct replies *r;

        snprintf(request, sizeof(request), "{\"op\":\"count\",\"filter\":%s}", cases[i].filter);
        r = ask(*state, request);
        if (number(last(r), "matched") != cases[i].matched)
            fail_msg("%s: %lld", cases[i].filter, number(last(r), "matched"));
        replies_done(r);
    }
}

static void test_list(void **state)
{
    struct replies *r = ask(*state, "{\"op\":\"list\",\"filter\":{\"queue\":\"b.example\"}}");
    const json_t *row;

    assert_int_equal(r->len, 21);
    assert_null(json_object_get(last(r), "truncated"));
    assert_int_equal(number(last(r), "visited"), 20); /* only its lane was read */
    row = json_object_get(r->lines[19], "row");
    assert_string_equal(json_string_value(json_object_get(row, "queue")), "b.example");
    assert_string_equal(json_string_value(json_object_get(row, "sender")), "sender@example.com");
    assert_int_equal(number(row, "size"), 100);
    replies_done(r);
    r = ask(*state, "{\"op\":\"list\",\"limit\":5}");
    assert_int_equal(r->len, 6);
    assert_true(json_is_true(json_object_get(last(r), "truncated")));
    replies_done(r);
}

/* A wait is of the due rows of its queue, and of those that will be due before it is over. */
static void test_waits(void **state)
{
    struct bench *b = *state;
    struct replies *r = ask(b, "{\"op\":\"list\"}");

    assert_int_equal(r->len, ROWS + 1);
    for (size_t i = 0; i < ROWS; i++) {
        const json_t *row = json_object_get(r->lines[i], "row"),
                     *wait = json_object_get(row, "wait");
        bool held = strcmp(json_string_value(json_object_get(row, "state")), "held") == 0;
        bool waits = strcmp(json_string_value(json_object_get(row, "queue")), "b.example") == 0;

        assert_int_equal(wait != NULL, waits && !held);
        if (wait == NULL)
            continue;
        assert_string_equal(json_string_value(json_object_get(wait, "reason")), "back_off");
        assert_string_equal(json_string_value(json_object_get(wait, "host")), "mx");
        assert_string_equal(json_string_value(json_object_get(wait, "error")), "421 busy");
        assert_int_equal(number(wait, "until_ms"), LATER + 1);
    }
    replies_done(r);
    r = ask(b, "{\"op\":\"summary\"}");
    for (size_t i = 0; i + 1 < r->len; i++) {
        const json_t *q = json_object_get(r->lines[i], "queue");
        bool waits = strcmp(json_string_value(json_object_get(q, "queue")), "b.example") == 0;

        assert_int_equal(json_object_get(q, "wait") != NULL, waits && number(q, "ready") > 0);
    }
    replies_done(r);
}

static const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));

    return value == NULL ? "" : value;
}

/* The only line of the reply but its end. */
static const json_t *why_of(const struct replies *r)
{
    assert_int_equal(r->len, 2);
    return json_object_get(r->lines[0], "why");
}

/* Each row of a message by what it does; what holds its queue holds it only if it is due by then.
 */
static void test_why_message(void **state)
{
    struct bench *b = *state;
    char id[MSGID_TEXT_BYTES], request[120];
    const json_t *holds;
    struct replies *r;

    msgid_text(&b->ids[0], id);
    snprintf(request, sizeof(request), "{\"op\":\"why\",\"id\":\"%s\"}", id);
    r = ask(b, request);
    holds = json_object_get(why_of(r), "holds");
    assert_int_equal(json_array_size(holds), 2);
    assert_string_equal(text(json_array_get(holds, 0), "state"), "goes");
    assert_string_equal(text(json_array_get(holds, 0), "site"), "mx.a.example");
    assert_string_equal(text(json_array_get(holds, 1), "state"), "waits");
    assert_int_equal(number(json_array_get(holds, 1), "next_ms"), LATER + 1);
    assert_string_equal(text(json_object_get(json_array_get(holds, 1), "wait"), "reason"),
                        "back_off");
    replies_done(r);

    msgid_text(&b->ids[1], id);
    snprintf(request, sizeof(request), "{\"op\":\"why\",\"id\":\"%s\"}", id);
    r = ask(b, request);
    holds = json_object_get(why_of(r), "holds");
    assert_int_equal(json_array_size(holds), 2);
    assert_string_equal(text(json_array_get(holds, 0), "state"), "later");
    assert_string_equal(text(json_array_get(holds, 0), "last_error"), "450 4.2.1 Mailbox Full");
    assert_int_equal(number(json_array_get(holds, 0), "last_attempt_ms"), NOW_MS - 5000);
    assert_int_equal(number(json_array_get(holds, 0), "next_ms"), LATER);
    assert_string_equal(text(json_array_get(holds, 1), "state"), "held");
    replies_done(r);

    r = ask(b, "{\"op\":\"why\",\"id\":\"00000000000000000000000000000000\"}");
    assert_error(r, "not_found", "no message");
    replies_done(r);
}

/* What waits for the same is one; beyond the places for that, what waits for the same reason. */
static void test_why(void **state)
{
    static struct queue_row rows[1200];
    struct bench *b = *state;
    struct message *m = kit_message(10, ARRAY_LEN(rows), 7);
    struct kit_change *kit = kit_change();
    struct replies *r = ask(*state, "{\"op\":\"why\",\"name\":\"spring\"}");
    const json_t *why = why_of(r), *holds = json_object_get(why, "holds"), *first;

    assert_string_equal(json_string_value(json_array_get(json_object_get(why, "is"), 0)),
                        "campaign");
    assert_int_equal(number(why, "recipients"), 1100);
    assert_int_equal(number(why, "in_flight"), 101);
    assert_int_equal(json_array_size(holds), CONTROL_HOLDS_WHOLE + 1);
    first = json_array_get(holds, 0);
    assert_string_equal(text(first, "site"), "mx7.example");
    assert_int_equal(number(first, "recipients"), 1001);
    assert_int_equal(number(first, "next_ms"), 50);
    assert_true(json_number_value(json_object_get(first, "hours")) == 100.1);
    assert_int_equal(number(json_array_get(holds, 1), "recipients"), 100 - CONTROL_HOLDS_WHOLE);
    assert_string_equal(text(json_array_get(holds, 1), "site"), "");
    for (size_t i = 0; i < json_array_size(holds); i++) {
        const json_t *hold = json_array_get(holds, i);

        assert_true((json_object_get(hold, "per_hour") == NULL) ==
                    (strcmp(text(hold, "site"), "mx1.example") == 0));
    }
    replies_done(r);

    /* Its own suspension is told, though no mail of it waits for that. */
    r = ask(*state, "{\"op\":\"why\",\"name\":\"B.Example\",\"scope\":\"domain\"}");
    first = NULL; /* the domain's lanes are the store's: in each shard, fresh and later */
    for (size_t i = 0; i < json_array_size(json_object_get(why_of(r), "holds")); i++) {
        first = json_array_get(json_object_get(why_of(r), "holds"), i);
        if (strcmp(json_string_value(json_object_get(first, "state")), "goes") == 0)
            break;
    }
    assert_string_equal(json_string_value(json_object_get(first, "queue")), "b.example");
    assert_int_equal(number(first, "recipients"), ROWS / 3);
    assert_int_equal(number(first, "next_ms"), NOW_MS - 1000);
    assert_int_equal(number(why_of(r), "recipients"), ROWS / 3 + 1100);
    first = json_array_get(json_object_get(why_of(r), "suspensions"), 0);
    assert_string_equal(text(first, "who"), "hanako");
    assert_int_equal(number(first, "until_ms"), 9);
    replies_done(r);
    /* The store has more of a campaign than its lanes in memory have. */
    m->flow = queue_flow_get(b->queue, 5, STR("acme"), STR("autumn"), STR(""))->id;
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++)
        rows[i] =
            (struct queue_row){QUEUE_ROW_ADD, .rcpt = kit_recipient(m, i, "c.example", LATER)};
    kit_content(kit, m);
    kit->change.rows = rows;
    kit->change.rows_len = ARRAY_LEN(rows);
    assert_int_equal(kit_submit(b->queue, b->port, 0, kit), 0);
    r = ask(b, "{\"op\":\"why\",\"name\":\"autumn\",\"scope\":\"campaign\"}");
    assert_int_equal(number(why_of(r), "recipients"), ARRAY_LEN(rows));
    assert_int_equal(number(why_of(r), "unseen"), ARRAY_LEN(rows) - 1100);
    replies_done(r);
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++)
        recipient_free(rows[i].rcpt);
    message_unref(m);
    /* A source that is configured is meant alone. */
    r = ask(*state, "{\"op\":\"why\",\"name\":\"default\"}");
    assert_int_equal(number(json_object_get(why_of(r), "source"), "messages"), 7);
    replies_done(r);
    r = ask(*state, "{\"op\":\"why\",\"name\":\"nobody\",\"scope\":\"source\"}");
    assert_error(r, "not_found", "no source 'nobody'");
    replies_done(r);
}

/* All rows of a message that has more than a slice takes; only the due ones wait. */
static void test_show_many(void **state)
{
    static struct queue_row rows[3 * CONTROL_SLICE_ROWS];
    struct bench *b = *state;
    struct message *m = kit_message(10, ARRAY_LEN(rows), 5);
    struct kit_change *kit = kit_change();
    char id[MSGID_TEXT_BYTES], request[120];
    struct replies *r;
    size_t waiting = 0;

    kit_content(kit, m);
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++)
        rows[i] = (struct queue_row){
            QUEUE_ROW_ADD, .rcpt = kit_recipient(m, i, "c.example", i % 3 ? LATER : NOW_MS - 1)};
    kit->change.rows = rows;
    kit->change.rows_len = ARRAY_LEN(rows);
    assert_int_equal(kit_submit(b->queue, b->port, 0, kit), 0);
    msgid_text(&m->id, id);
    snprintf(request, sizeof(request), "{\"op\":\"show\",\"id\":\"%s\"}", id);
    r = ask(b, request);
    assert_int_equal(r->len, ARRAY_LEN(rows) + 2);
    for (size_t i = 1; i + 1 < r->len; i++)
        waiting += json_object_get(json_object_get(r->lines[i], "row"), "wait") != NULL;
    assert_int_equal(waiting, ARRAY_LEN(rows) / 3);
    replies_done(r);
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++)
        recipient_free(rows[i].rcpt);
    message_unref(m);
}

static void test_summary(void **state)
{
    struct replies *r = ask(*state, "{\"op\":\"summary\"}");
    long long rows = 0, held = 0;

    assert_int_equal(r->len, 4);
    for (size_t i = 0; i < 3; i++) {
        const json_t *q = json_object_get(r->lines[i], "queue");

        rows += number(q, "rows");
        held += number(q, "held");
        assert_int_equal(number(q, "rows"),
                         number(q, "ready") + number(q, "deferred") + number(q, "held"));
    }
    assert_int_equal(rows, 60);
    assert_int_equal(held, 20);
    replies_done(r);
    r = ask(*state, "{\"op\":\"summary\",\"limit\":1}");
    assert_int_equal(r->len, 2);
    assert_true(json_is_true(json_object_get(last(r), "truncated")));
    replies_done(r);
}

static void test_show(void **state)
{
    struct bench *b = *state;
    char id[MSGID_TEXT_BYTES], request[120];
    const json_t *m;
    struct replies *r;

    msgid_text(&b->ids[7], id);
    snprintf(request, sizeof(request), "{\"op\":\"show\",\"id\":\"%s\"}", id);
    r = ask(b, request);
    assert_int_equal(r->len, 4); /* message, two rows, done */
    m = json_object_get(r->lines[0], "message");
    assert_string_equal(json_string_value(json_object_get(m, "id")), id);
    assert_int_equal(number(m, "recipients"), 2);
    replies_done(r);
    r = ask(b, "{\"op\":\"show\",\"id\":\"00000000000000000000000000000001\"}");
    assert_error(r, "not_found", "no message");
    replies_done(r);
}

/* Between two slices a row is tried and moves behind what was seen: it does not stand for the
 * message's other row. */
static void test_show_moved(void **state)
{
    static struct queue_row rows[2 * CONTROL_SLICE_PASSED];
    struct bench *b = *state;
    struct message *m = kit_message(10, 2, 5), *other = kit_message(10, ARRAY_LEN(rows), 5);
    struct recipient *r[2] = {kit_recipient(m, 0, "b.example", 0),
                              kit_recipient(m, 1, "x.example", LATER)};
    struct kit_change *kit = kit_change();
    char id[MSGID_TEXT_BYTES], request[120], byte;
    struct replies *replies;
    int fd = client(b);

    kit_content(kit, m);
    kit_row(kit, QUEUE_ROW_ADD, r[0]);
    kit_row(kit, QUEUE_ROW_ADD, r[1]);
    assert_int_equal(kit_submit(b->queue, b->port, 0, kit), 0);
    kit = kit_change();
    kit_content(kit, other);
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++)
        rows[i] = (struct queue_row){
            QUEUE_ROW_ADD, .rcpt = kit_recipient(other, i, "c.example", i % 2 ? LATER : 0)};
    kit->change.rows = rows;
    kit->change.rows_len = ARRAY_LEN(rows);
    assert_int_equal(kit_submit(b->queue, b->port, 0, kit), 0);
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++)
        recipient_free(rows[i].rcpt);

    msgid_text(&m->id, id);
    snprintf(request, sizeof(request), "{\"op\":\"show\",\"id\":\"%s\"}\n", id);
    say(fd, request);
    while (recv(fd, &byte, 1, MSG_PEEK) < 0)
        turn(b);
    kit = kit_change();
    kit_row(kit, QUEUE_ROW_MOVE, r[0]);
    r[0]->due_ms = LATER;
    r[0]->last_attempt_ms = NOW_MS;
    assert_int_equal(kit_submit(b->queue, b->port, 0, kit), 0);
    replies = listen_to(b, fd);
    assert_int_equal(replies->len, 5); /* message, a row twice, the other one, done */
    assert_int_equal(number(json_object_get(replies->lines[3], "row"), "index"), 1);
    replies_done(replies);
    close(fd);
    recipient_free(r[0]);
    recipient_free(r[1]);
    message_unref(m);
    message_unref(other);
}

static size_t decode(const char *text, uint8_t *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0, have = 0;
    size_t n = 0;

    for (; *text != 0 && *text != '='; text++) {
        bits = bits << 6 | (uint32_t)(strchr(digits, *text) - digits);
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (uint8_t)(bits >> have);
        }
    }
    return n;
}

static void test_content(void **state)
{
    struct bench *b = *state;
    char id[MSGID_TEXT_BYTES], request[120];
    uint8_t *content = malloc(400000);
    struct replies *r;
    size_t len = 0;

    assert_non_null(content);
    msgid_text(&b->ids[0], id);
    snprintf(request, sizeof(request), "{\"op\":\"content\",\"id\":\"%s\"}", id);
    r = ask(b, request);
    for (size_t i = 0; i + 1 < r->len; i++)
        len += decode(json_string_value(json_object_get(r->lines[i], "content")), content + len);
    assert_int_equal(len, 200000);
    assert_int_equal(number(last(r), "size"), 200000);
    for (size_t i = 0; i < len; i++)
        assert_true(content[i] == kit_byte(&b->ids[0], i));
    replies_done(r);
    free(content);
}

static void test_actions(void **state)
{
    static const struct {
        const char *request;
        long long matched;
    } cases[] = {
        {"{\"op\":\"hold\",\"filter\":{\"queue\":\"*\"}}", 40}, /* not those held already */
        {"{\"op\":\"release\",\"all\":true}", 20},
        {"{\"op\":\"flush\",\"all\":true}", 40},
        {"{\"op\":\"cancel\",\"filter\":{\"queue\":\"a.example\"}}", 20},
        {"{\"op\":\"expire\",\"filter\":{\"error\":\"full\"}}", 20},
        {"{\"op\":\"cancel\",\"filter\":{\"queue\":\"none.example\"}}", 0},
    };
    struct bench *b = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct replies *r;

        b->rows_seen = b->jobs_seen = 0;
        r = ask(b, cases[i].request);
        assert_int_equal(number(last(r), "matched"), cases[i].matched);
        assert_int_equal(b->rows_seen, cases[i].matched);
        assert_int_equal(number(last(r), "changed"), cases[i].matched - (long long)b->jobs_seen);
        assert_int_equal(control_jobs(b->control), 0);
        replies_done(r);
    }
    b->job_result = -EIO;
    struct replies *r = ask(b, "{\"op\":\"hold\",\"all\":true}");
    assert_error(r, "failed", "Input/output");
    replies_done(r);
}

static void *finish_later(void *arg)
{
    struct bench *b = arg;

    for (size_t i = 0; i < b->jobs_len; i++)
        finish(b, b->jobs[i]);
    return NULL;
}

/* A job comes back from another thread; its client waits, another is served, a third has gone. */
static void test_suspend(void **state)
{
    static const struct {
        const char *request;
        struct suspension what;
        bool resume;
        const char *code; /* NULL: it is done */
        int result;
    } cases[] = {
        {"{\"op\":\"suspend\",\"scope\":\"domain\",\"name\":\"B.Example\",\"for_ms\":1000,"
         "\"reason\":\"complaints\",\"who\":\"hanako\"}",
         {SUSPENSION_DOMAIN, NOW_MS, NOW_MS + 1000, "b.example", "complaints", "hanako", {0}},
         false,
         NULL,
         0},
        {"{\"op\":\"resume\",\"scope\":\"site\",\"name\":\"Mx\"}",
         {SUSPENSION_SITE, NOW_MS, 0, "mx", "", "", {0}},
         true,
         NULL,
         0},
        {"{\"op\":\"suspend\",\"scope\":\"campaign\",\"name\":\""
         "0123456789012345678901234567890123456789012345678901234567890123456\"}",
         {SUSPENSION_CAMPAIGN,
          NOW_MS,
          0,
          "0123456789012345678901234567890123456789012345678901234567890123",
          "",
          "",
          {0}},
         false,
         NULL,
         0},
        {"{\"op\":\"resume\",\"scope\":\"tenant\",\"name\":\"acme\"}",
         {SUSPENSION_TENANT, NOW_MS, 0, "acme", "", "", {0}},
         true,
         "not_found",
         -ENOENT},
        {"{\"op\":\"suspend\",\"scope\":\"tenant\",\"name\":\"acme\"}",
         {SUSPENSION_TENANT, NOW_MS, 0, "acme", "", "", {0}},
         false,
         "refused",
         -ESHUTDOWN},
    };
    struct bench *b = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct suspension *got = &b->suspend.suspension, *wanted = &cases[i].what;
        struct replies *r;

        b->job_result = cases[i].result;
        r = ask(b, cases[i].request);
        b->job_result = 0;
        assert_int_equal(b->suspend.resume, cases[i].resume);
        assert_int_equal(got->scope, wanted->scope);
        assert_int_equal(got->since_ms, wanted->since_ms);
        assert_int_equal(got->until_ms, wanted->until_ms);
        assert_string_equal(got->name, wanted->name);
        assert_string_equal(got->reason, wanted->reason);
        assert_string_equal(got->who, wanted->who);
        if (cases[i].code == NULL)
            assert_true(json_is_true(json_object_get(last(r), "done")));
        else
            assert_string_equal(
                json_string_value(json_object_get(json_object_get(last(r), "error"), "code")),
                cases[i].code);
        replies_done(r);
    }
}

/* By scope and name; rows that somebody holds do not wait for it. */
static void test_suspensions(void **state)
{
    static const char *const names[] = {"b.example", "xn--r8jz45g.example", "nobody",
                                        "mx.a.example"};
    static const int rows[] = {ROWS / 3, 0, 0, ROWS / 3};
    struct replies *r = ask(*state, "{\"op\":\"suspensions\"}");

    assert_int_equal(r->len, ARRAY_LEN(names) + 1);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const json_t *one = json_object_get(r->lines[i], "suspension");

        assert_string_equal(json_string_value(json_object_get(one, "name")), names[i]);
        assert_int_equal(number(one, "rows"), rows[i]);
    }
    assert_int_equal(number(json_object_get(r->lines[0], "suspension"), "until_ms"), 9);
    assert_null(json_object_get(json_object_get(r->lines[1], "suspension"), "until_ms"));
    replies_done(r);
}

/* All, those of a name, the one of an id: the newest first. */
static void test_campaigns(void **state)
{
    static const struct {
        const char *request;
        uint8_t ids[4]; /* 0: no more */
    } cases[] = {{"{\"op\":\"campaigns\"}", {3, 2, 1}},
                 {"{\"op\":\"campaigns\",\"name\":\"spring\"}", {2, 1}},
                 {"{\"op\":\"campaigns\",\"name\":\"spri\"}", {0}},
                 {"{\"op\":\"campaigns\",\"id\":\"02000000000000000000000000000000\"}", {2}}};

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct replies *r = ask(*state, cases[i].request);
        size_t n = 0;

        for (; cases[i].ids[n] != 0; n++) {
            const json_t *one = json_object_get(r->lines[n], "campaign");
            struct campaign of = campaigns[cases[i].ids[n] - 1];
            char id[MSGID_TEXT_BYTES];

            msgid_text(&of.id, id);
            assert_string_equal(json_string_value(json_object_get(one, "id")), id);
            assert_string_equal(json_string_value(json_object_get(one, "name")), of.name);
            assert_int_equal(number(one, "created_ms"), of.created_ms);
            assert_int_equal(number(one, "recipients"), 0);
        }
        assert_int_equal(r->len, n + 1);
        replies_done(r);
    }
}

static void test_campaign_orders(void **state)
{
    static const struct {
        const char *request;
        int result;
        enum campaign_verb verb;
        int64_t starts_ms;
        const char *code; /* NULL: it is done */
    } cases[] = {{"\"order\":\"start\",\"at_ms\":77,\"open\":true", 0, CAMPAIGN_START, 77, NULL},
                 {"\"order\":\"close\"", 0, CAMPAIGN_CLOSE, 0, NULL},
                 {"\"order\":\"start\"", -EINVAL, CAMPAIGN_START, 0, "refused"},
                 {"\"order\":\"pause\"", -EBUSY, CAMPAIGN_PAUSE, 0, "refused"},
                 {"\"order\":\"resume\"", -ENOENT, CAMPAIGN_RESUME, 0, "not_found"},
                 {"\"order\":\"cancel\"", -ENOSPC, CAMPAIGN_CANCEL, 0, "failed"}};
    struct bench *b = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char request[200];
        struct replies *r;

        snprintf(request, sizeof(request),
                 "{\"op\":\"campaign_order\",\"id\":\"02000000000000000000000000000000\",%s}",
                 cases[i].request);
        b->job_result = cases[i].result;
        r = ask(b, request);
        b->job_result = 0;
        assert_int_equal(b->suspend.campaign.verb, cases[i].verb);
        assert_int_equal(b->suspend.campaign.starts_ms, cases[i].starts_ms);
        assert_int_equal(b->suspend.campaign.open, i == 0);
        assert_int_equal(b->suspend.campaign.what.id.bytes[0], 2);
        if (cases[i].code == NULL)
            assert_true(json_is_true(json_object_get(last(r), "done")));
        else
            assert_string_equal(
                json_string_value(json_object_get(json_object_get(last(r), "error"), "code")),
                cases[i].code);
        replies_done(r);
    }
}

static void test_job_elsewhere(void **state)
{
    struct bench *b = *state;
    int waits = client(b), goes = client(b);
    struct pollfd fd = {.fd = control_fd(b->control), .events = POLLIN};
    pthread_t thread;
    struct replies *r;

    b->keep_jobs = true;
    say(waits, "{\"op\":\"hold\",\"all\":true}\n");
    say(goes, "{\"op\":\"flush\",\"all\":true}\n");
    for (int i = 0; i < 10; i++)
        turn(b);
    assert_int_equal(control_jobs(b->control), 2);
    assert_int_equal(control_timeout_ms(b->control), -1); /* no spinning while they are away */
    close(goes);
    turn(b);
    r = ask(b, "{\"op\":\"version\"}");
    assert_string_equal(json_string_value(json_object_get(last(r), "node_id")), "node\"1");
    replies_done(r);
    assert_int_equal(poll(&fd, 1, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, finish_later, b), 0);
    assert_int_equal(poll(&fd, 1, 5000), 1); /* the completion wakes the loop */
    assert_int_equal(pthread_join(thread, NULL), 0);
    b->keep_jobs = false;
    r = listen_to(b, waits);
    assert_int_equal(number(last(r), "matched"), 40);
    assert_int_equal(control_jobs(b->control), 0);
    replies_done(r);
    close(waits);
}

static void test_status(void **state)
{
    struct bench *b = *state;
    struct replies *r = ask(b, "{\"op\":\"status\",\"destinations\":10}");
    const json_t *s = json_object_get(r->lines[0], "status"), *list, *queue;

    assert_int_equal(r->len, 2);
    assert_int_equal(number(json_object_get(s, "counters"), "delivered"), 7);
    assert_int_equal(number(json_object_get(s, "gauges"), "sessions_in"), 3);
    assert_null(json_object_get(json_object_get(s, "counters"), "sessions_in"));
    queue = json_object_get(s, "queue");
    assert_int_equal(number(queue, "rows"), ROWS);
    assert_int_equal(number(queue, "messages"), ROWS / 2);
    assert_string_equal(json_string_value(json_object_get(s, "intake")), "ok");
    list = json_object_get(s, "turns");
    assert_int_equal(json_array_size(list), 2);
    list = json_object_get(json_array_get(list, 1), "longest");
    assert_int_equal(number(list, "us"), 7001);
    assert_int_equal(number(list, "lanes"), 300);
    assert_string_equal(json_string_value(json_object_get(list, "doing")), "lanes");
    list = json_object_get(json_array_get(json_object_get(s, "turns"), 1), "last_minute");
    assert_int_equal(number(list, "us"), 5);
    list = json_object_get(json_array_get(json_object_get(s, "turns"), 0), "cpu_longest");
    assert_int_equal(number(list, "us"), 900);
    list = json_object_get(s, "destinations");
    assert_int_equal(json_array_size(list), 9);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "queue")),
                        "two.example");
    assert_int_equal(number(json_array_get(list, 0), "rows"), 2000);
    for (size_t i = 1; i < 9; i++)
        assert_int_equal(number(json_array_get(list, i), "rows"), 101 - i);
    list = json_array_get(json_object_get(s, "source_sites"), 0);
    assert_string_equal(json_string_value(json_object_get(list, "source")), "a1");
    assert_string_equal(json_string_value(json_object_get(list, "site")), "google");
    assert_int_equal(number(list, "attempts"), 9);
    assert_int_equal(json_object_size(json_object_get(list, "bounced_by")), 1);
    assert_true(json_real_value(json_object_get(json_object_get(list, "held_s"), "sessions_max")) ==
                1.5);
    list = json_array_get(json_object_get(s, "source_sites"), 1);
    assert_int_equal(number(list, "others"), 3);
    assert_int_equal(number(list, "delivered"), 5);
    list = json_array_get(json_object_get(s, "campaigns"), 0);
    assert_string_equal(json_string_value(json_object_get(list, "campaign")), "acme");
    assert_int_equal(number(json_object_get(list, "bounced_by"), "Uncategorized"), 2);
    assert_null(json_object_get(list, "sessions"));
    assert_int_equal(json_array_size(json_object_get(s, "tenants")), 2);
    replies_done(r);
    r = ask(b, "{\"op\":\"status\",\"destinations\":0}");
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(r->lines[0], "status"), "destinations")),
        0);
    replies_done(r);
}

static void test_reload_drain(void **state)
{
    struct bench *b = *state;
    struct replies *r = ask(b, "{\"op\":\"reload\"}");
    const json_t *cannot = json_object_get(last(r), "cannot");

    assert_int_equal(json_array_size(cannot), 1);
    assert_string_equal(json_string_value(json_array_get(cannot, 0)),
                        "workers: 1 -> 2 needs a restart");
    assert_string_equal(json_string_value(json_array_get(json_object_get(last(r), "failed"), 0)),
                        "certificates: /c: no such file");
    replies_done(r);
    b->reload_result = -EINVAL;
    r = ask(b, "{\"op\":\"reload\"}");
    assert_error(r, "refused", "x.yaml:2:1: too");
    replies_done(r);
    assert_false(b->drained);
    r = ask(b, "{\"op\":\"drain\"}");
    assert_true(b->drained);
    replies_done(r);
    r = ask(b, "{\"op\":\"quarantine\"}");
    assert_int_equal(number(last(r), "matched"), 0);
    replies_done(r);
}

/* Requests sent at once and a half-closed connection, as a shell pipeline does it. */
static void test_pipeline(void **state)
{
    struct bench *b = *state;
    int fd = client(b);
    struct replies *r;

    say(fd, "{\"op\":\"version\"}\r\n\n{\"op\":\"nope\"}\n{\"op\":\"count\"}\n{\"op\":\"ver");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    r = listen_to(b, fd);
    while (!r->closed) {
        struct replies *more = listen_to(b, fd);

        for (size_t i = 0; i < more->len; i++)
            json_incref(r->lines[r->len++] = more->lines[i]);
        r->closed = more->closed;
        replies_done(more);
    }
    assert_int_equal(r->len, 3); /* the unfinished line is no request */
    assert_non_null(json_object_get(r->lines[0], "version"));
    assert_non_null(json_object_get(r->lines[1], "error"));
    assert_int_equal(number(r->lines[2], "matched"), ROWS);
    replies_done(r);
    close(fd);
}

/* A client that asks much and reads nothing: its buffer stays bounded, others are served, and after
 * a minute it is gone. */
static void test_slow_client(void **state)
{
    struct bench *b = *state;
    int slow = client(b);
    struct control_client *c;
    struct replies *r;

    for (int i = 0; i < 100; i++)
        say(slow, "{\"op\":\"list\"}\n{\"op\":\"list\"}\n");
    for (int i = 0; i < 2000; i++)
        turn(b);
    c = LIST_ENTRY(list_first(&b->control->clients), struct control_client, node);
    assert_in_range(c->out.len - c->out_at, CONTROL_OUT_BYTES_MAX / 2, 2 * CONTROL_OUT_BYTES_MAX);
    assert_true(control_timeout_ms(b->control) > 0); /* it is not worked for */
    r = ask(b, "{\"op\":\"count\"}");
    assert_int_equal(number(last(r), "matched"), ROWS);
    replies_done(r);
    b->mono_ms += CONTROL_STALL_MS_MAX - 1;
    turn(b);
    assert_int_equal(b->control->clients_len, 1);
    b->mono_ms += 2;
    turn(b);
    assert_int_equal(b->control->clients_len, 0);
    close(slow);
}

/* An idle client may wait as long as it likes; its next answer is not taken for a stall. */
/* Lines come as they are said, several times a second, and end with the time or the client. */
static void test_trace(void **state)
{
    static const struct dialogue_session who = {.id = "s1", .peer = "mx", .site = {"mx", 2}};
    struct bench *b = *state;
    int fd = client(b);
    char got[400] = "";
    struct replies *r;

    dialogues_init(&watched);
    say(fd, "{\"op\":\"trace\",\"site\":\"MX\",\"for_ms\":1000}\n");
    for (int i = 0; i < 3; i++)
        turn(b);
    assert_true(dialogues_watched(&watched));
    assert_int_equal(control_timeout_ms(b->control), CONTROL_TRACE_MS);
    dialogues_put(&watched, &who, NOW_MS, true, STR("QUIT\r\n"));
    turn(b);
    assert_int_equal(recv(fd, got, sizeof(got) - 1, 0), -1); /* it rests */
    b->mono_ms += CONTROL_TRACE_MS;
    turn(b);
    assert_true(recv(fd, got, sizeof(got) - 1, 0) > 0);
    assert_non_null(strstr(got, "\"text\":\"QUIT\\r\\n\"}}\n"));
    close(fd);
    turn(b);
    assert_false(dialogues_watched(&watched));

    r = ask(b, "{\"op\":\"trace\",\"client\":\"somebody\"}");
    assert_error(r, "bad_request", "an address or a network");
    replies_done(r);
    dialogues_done(&watched);
}

static void test_idle_client(void **state)
{
    struct bench *b = *state;
    int fd = client(b);
    struct replies *r;

    turn(b);
    b->mono_ms += 10 * CONTROL_STALL_MS_MAX;
    say(fd, "{\"op\":\"list\"}\n");
    r = listen_to(b, fd);
    assert_int_equal(r->len, ROWS + 1);
    replies_done(r);
    close(fd);
}

static void test_many_clients(void **state)
{
    struct bench *b = *state;
    int fds[CONTROL_CLIENTS_MAX + 1];
    struct replies *r;

    for (size_t i = 0; i <= CONTROL_CLIENTS_MAX; i++) {
        fds[i] = client(b);
        turn(b);
    }
    assert_int_equal(b->control->clients_len, CONTROL_CLIENTS_MAX);
    r = listen_to(b, fds[CONTROL_CLIENTS_MAX]);
    assert_error(r, "refused", "too many");
    replies_done(r);
    /* Those without a request make room, the longest ones first. */
    b->mono_ms++;
    say(fds[0], "{\"op\":\"count\"}\n");
    replies_done(listen_to(b, fds[0]));
    b->mono_ms++;
    r = ask(b, "{\"op\":\"count\"}");
    assert_int_equal(number(last(r), "matched"), ROWS);
    replies_done(r);
    r = listen_to(b, fds[1]);
    assert_true(r->closed);
    replies_done(r);
    say(fds[0], "{\"op\":\"count\"}\n");
    r = listen_to(b, fds[0]);
    assert_false(r->closed);
    replies_done(r);
    for (size_t i = 0; i <= CONTROL_CLIENTS_MAX; i++)
        close(fds[i]);
    turn(b);
    assert_int_equal(b->control->clients_len, 0);
}

/* The process has no descriptor for a client: it waits in the backlog without a spin, and is served
 * when something else, not a client, gave one back. */
static void test_no_descriptors(void **state)
{
    struct bench *b = *state;
    int fd = client(b);
    struct rlimit limit, none;
    struct replies *r;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    turn(b);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    turn(b);
    assert_int_equal(b->control->clients_len, 0);
    assert_in_range(control_timeout_ms(b->control), 1, CONTROL_PAUSE_MS);
    b->mono_ms += CONTROL_PAUSE_MS;
    turn(b);
    assert_int_equal(b->control->clients_len, 1);
    assert_int_equal(control_timeout_ms(b->control), -1);
    say(fd, "{\"op\":\"count\"}\n");
    r = listen_to(b, fd);
    assert_int_equal(number(last(r), "matched"), ROWS);
    replies_done(r);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    int failed;
    const struct CMUnitTest tests[] = {
        TEST(test_open),          TEST(test_stale),           TEST(test_no_socket),
        TEST(test_bad_requests),  TEST(test_long_line),       TEST(test_filters),
        TEST(test_list),          TEST(test_summary),         TEST(test_show),
        TEST(test_show_moved),    TEST(test_show_many),       TEST(test_waits),
        TEST(test_content),       TEST(test_actions),         TEST(test_suspend),
        TEST(test_campaigns),     TEST(test_campaign_orders), TEST(test_suspensions),
        TEST(test_job_elsewhere), TEST(test_status),          TEST(test_reload_drain),
        TEST(test_pipeline),      TEST(test_slow_client),     TEST(test_why),
        TEST(test_why_message),   TEST(test_trace),           TEST(test_idle_client),
        TEST(test_many_clients),  TEST(test_no_descriptors),
    };

    configured = config_default();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    config_unref(configured);
    return failed;
}
