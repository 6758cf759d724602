/* kill -9: a child works on a queue with all its threads and is killed at a random moment, again
 * and again on the same directory. What was acknowledged is in a ledger in shared memory, written
 * only in on_done. Each child first checks what it finds against the ledger.
 *
 *   queue_crash_test [--rounds N] [--seed S] */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "queue/queue.h"

#define ENTRIES_MAX   200000
#define CHANGES_MAX   600000
#define IN_FLIGHT_MAX 64
#define LANES         7
#define SHARDS        2

enum state { STATE_NONE, STATE_SUBMITTED, STATE_DONE };

struct change_note {
    uint32_t before; /* the entry's change before this one, 0 = none */
    uint8_t kind;    /* enum queue_row_kind */
    uint8_t state;
    int64_t due_ms; /* ADD, MOVE: what the row has afterwards */
};

struct entry {
    struct msgid id;
    uint32_t size;
    uint32_t last;  /* its newest change */
    int64_t due_ms; /* as last known to be stored; < 0: not there */
    bool seen;
};

struct ledger {
    uint32_t entries_len, changes_len; /* numbers from 1 */
    uint64_t acked;
    struct entry entries[ENTRIES_MAX];
    struct change_note changes[CHANGES_MAX];
};

static struct ledger *ledger;
static char *dir, *queue_path, *records_path;

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    printf("wrong: %s\n", what);
    fflush(stdout);
    _exit(1);
}

static uint8_t content_byte(const struct msgid *id, size_t i)
{
    return (uint8_t)(id->bytes[i % MSGID_BYTES] + i / MSGID_BYTES);
}

/* --- a child --- */

struct worker {
    struct queue *q;
    struct queue_port *port;
    struct rng rng;
    struct msgid_source ids;
    struct recipient *rows[ENTRIES_MAX]; /* what may be settled: at rest */
    size_t rows_len;
    size_t in_flight;
};

struct unit {
    struct queue_change change;
    struct worker *worker;
    struct message *message;
    struct queue_row row;
    uint32_t number;
};

static const char *lane_of(const struct msgid *id)
{
    static const char *const lanes[LANES] = {"a.example", "b.example", "c.example", "d.example",
                                             "e.example", "f.example", "g.example"};

    return lanes[id->bytes[15] % LANES];
}

static void on_done(struct queue_change *change, int result)
{
    struct unit *unit = change->owner;
    struct worker *w = unit->worker;
    struct change_note *note = &ledger->changes[unit->number];

    must(result == 0 && !unit->row.missing, "a change failed");
    note->state = STATE_DONE;
    ledger->acked++;
    w->in_flight--;
    if (note->kind == QUEUE_ROW_REMOVE)
        recipient_free(unit->row.rcpt);
    else
        w->rows[w->rows_len++] = unit->row.rcpt;
    message_unref(unit->message);
    buf_done(&change->records);
    free(unit);
}

static void submit(struct worker *w, struct unit *unit, uint32_t entry, enum queue_row_kind kind)
{
    struct recipient *r = unit->row.rcpt;

    unit->worker = w;
    unit->number = ledger->changes_len + 1;
    unit->row.kind = kind;
    unit->change.rows = &unit->row;
    unit->change.rows_len = 1;
    unit->change.urgent = rng_below(&w->rng, 4) > 0;
    unit->change.on_done = on_done;
    unit->change.owner = unit;
    buf_printf(&unit->change.records, "{\"change\":%u}\n", unit->number);
    ledger->changes[unit->number] = (struct change_note){.before = ledger->entries[entry].last,
                                                         .kind = (uint8_t)kind,
                                                         .state = STATE_SUBMITTED,
                                                         .due_ms = r->due_ms};
    ledger->entries[entry].last = unit->number;
    ledger->changes_len = unit->number;
    w->in_flight++;
    queue_submit(w->port, queue_shard_of(w->q, r->queue), &unit->change);
}

static void accept(struct worker *w)
{
    struct unit *unit = calloc(1, sizeof(*unit));
    uint32_t number = ledger->entries_len + 1;
    struct entry *e = &ledger->entries[number];
    struct message fields = {.id = msgid_next(&w->ids, 1700000000000 + number),
                             .recipients = 1,
                             .priority = 5,
                             .content_len = 100 + rng_below(&w->rng, 9000)};

    *e = (struct entry){.id = fields.id, .size = (uint32_t)fields.content_len, .due_ms = -1};
    ledger->entries_len = number;
    fields.content = malloc(fields.content_len);
    for (size_t i = 0; i < fields.content_len; i++)
        fields.content[i] = content_byte(&fields.id, i);
    unit->message = message_new(&fields);
    unit->change.messages = &unit->message;
    unit->change.messages_len = 1;
    unit->row.rcpt = recipient_new(unit->message, 0, str_of(lane_of(&fields.id)),
                                   STR("user@example.org"), (struct str){0}, (struct str){0});
    unit->row.rcpt->due_ms = number;
    submit(w, unit, number, QUEUE_ROW_ADD);
}

static void settle(struct worker *w)
{
    struct unit *unit = calloc(1, sizeof(*unit));
    size_t i = rng_below(&w->rng, w->rows_len);
    struct recipient *r = w->rows[i];
    bool move = rng_below(&w->rng, 3) == 0;
    /* The number of the entry is what the due time was made from. */
    uint32_t entry = (uint32_t)(r->due_ms % ENTRIES_MAX);

    w->rows[i] = w->rows[--w->rows_len];
    unit->row = (struct queue_row){.rcpt = r, .old_due_ms = r->due_ms};
    if (move)
        r->due_ms += ENTRIES_MAX;
    submit(w, unit, entry, move ? QUEUE_ROW_MOVE : QUEUE_ROW_REMOVE);
}

static void on_load(struct queue_load *load, int result)
{
    must(result == 0, "a load failed");
    *(bool *)load->owner = true;
}

static void check_row(struct worker *w, struct recipient *r)
{
    uint32_t number = (uint32_t)(r->due_ms % ENTRIES_MAX);
    struct entry *e = &ledger->entries[number];

    must(number > 0 && number <= ledger->entries_len, "a row of nobody's");
    must(memcmp(&e->id, &r->message->id, sizeof(e->id)) == 0, "a row of another message");
    must(!e->seen, "a row is there twice");
    must(r->message->content_len == e->size, "content of another length");
    for (size_t i = 0; i < e->size; i++)
        must(r->message->content[i] == content_byte(&e->id, i), "content altered");
    e->seen = true;
    e->due_ms = r->due_ms;
    w->rows[w->rows_len++] = r;
}

static void load_lane(struct worker *w, const char *lane)
{
    bool done = false;
    struct queue_load load = {.queue = str_of(lane),
                              .now_ms = QUEUE_DUE_HELD,
                              .rows_max = UINT32_MAX,
                              .bytes_max = UINT64_MAX,
                              .on_done = on_load,
                              .owner = &done};
    struct list_node *node;

    queue_load(w->port, queue_shard_of(w->q, str_of(lane)), &load);
    while (!done) {
        if (queue_port_poll(w->port) == 0)
            poll(NULL, 0, 1);
    }
    while ((node = list_pop_front(&load.rcpts)) != NULL)
        check_row(w, CONTAINER_OF(node, struct recipient, node));
}

/* A change that was under way when its child died either happened or did not; the store says which,
 * and from then on it counts as what it was. */
static void settle_ledger(void)
{
    for (uint32_t i = 1; i <= ledger->entries_len; i++) {
        struct entry *e = &ledger->entries[i];
        struct change_note *last = &ledger->changes[e->last];

        if (e->last > 0 && last->state == STATE_SUBMITTED) {
            bool applied =
                last->kind == QUEUE_ROW_REMOVE ? !e->seen : e->seen && e->due_ms == last->due_ms;

            last->state = applied ? STATE_DONE : STATE_NONE;
            e->last = applied ? e->last : last->before;
            last = &ledger->changes[e->last];
        }
        must(e->seen == (e->last > 0 && last->kind != QUEUE_ROW_REMOVE),
             e->seen ? "a row is back" : "a row is lost");
        must(!e->seen || e->due_ms == last->due_ms, "an acknowledged move is lost");
    }
}

static void open_and_check(struct worker *w)
{
    static const char *const lanes[LANES] = {"a.example", "b.example", "c.example", "d.example",
                                             "e.example", "f.example", "g.example"};
    struct queue_options options = {
        .path = queue_path,
        .shards = SHARDS,
        .rss_bytes_max = 1, /* give mapped pages back all the time */
        .records = {.path = records_path, .segment_bytes_max = 20000, .zstd = false}};
    const char *error = NULL;
    struct queue_counters counters;

    if (queue_open(&w->q, &options, &error) < 0)
        must(false, error);
    must(queue_port_open(&w->port, w->q, NULL, NULL) == 0, "port");
    for (uint32_t i = 1; i <= ledger->entries_len; i++)
        ledger->entries[i].seen = false;
    for (size_t i = 0; i < LANES; i++)
        load_lane(w, lanes[i]);
    settle_ledger();
    for (uint32_t i = 0; i < SHARDS; i++) {
        queue_counters(w->q, i, &counters);
        must(counters.quarantined == 0, "something was quarantined");
        must(counters.rows == counters.messages, "content without a row");
        must(counters.messages > 0 || counters.pieces == 0, "pieces of a content that has gone");
    }
}

static void work(uint64_t seed)
{
    struct worker *w = calloc(1, sizeof(*w));

    rng_seed(&w->rng, seed);
    msgid_source_init(&w->ids, seed);
    open_and_check(w);
    while (ledger->entries_len < ENTRIES_MAX - 1 && ledger->changes_len < CHANGES_MAX - 1) {
        while (w->in_flight < IN_FLIGHT_MAX) {
            if (w->rows_len > 0 && rng_below(&w->rng, 100) < 55)
                settle(w);
            else
                accept(w);
        }
        if (queue_port_poll(w->port) == 0)
            poll(NULL, 0, 1);
    }
    _exit(3); /* the ledger is full: more rounds than it was made for */
}

/* --- the end: records --- */

static void read_records(uint32_t *lines)
{
    DIR *d = opendir(records_path);
    struct dirent *entry;
    char path[600], line[100];
    unsigned number;
    FILE *f;

    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", records_path, entry->d_name);
        f = fopen(path, "re");
        while (fgets(line, sizeof(line), f) != NULL) {
            must(sscanf(line, "{\"change\":%u}", &number) == 1 && strchr(line, '\n') != NULL &&
                     number <= ledger->changes_len,
                 "a record line is broken");
            lines[number]++;
        }
        fclose(f);
    }
    closedir(d);
}

static void finish(void)
{
    struct worker *w = calloc(1, sizeof(*w));
    uint32_t *lines = calloc(CHANGES_MAX, sizeof(*lines));

    open_and_check(w);
    queue_port_close(w->port);
    queue_close(w->q);
    read_records(lines);
    for (uint32_t i = 1; i <= ledger->changes_len; i++) {
        must(ledger->changes[i].state != STATE_DONE || lines[i] == 1,
             "a change's record is not there exactly once");
        must(ledger->changes[i].state == STATE_DONE || lines[i] == 0,
             "a change that did not happen has a record");
    }
    _exit(0);
}

/* --- the parent --- */

static int wait_for(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid)
        return 1;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int run(unsigned rounds, uint64_t seed)
{
    struct rng rng;
    int bad = 0;
    pid_t pid;

    rng_seed(&rng, seed);
    for (unsigned i = 0; i <= rounds && bad == 0; i++) {
        fflush(stdout);
        pid = fork();
        if (pid == 0 && i == rounds)
            finish();
        if (pid == 0)
            work(seed * 1000 + i);
        if (i < rounds) {
            poll(NULL, 0, (int)(5 + rng_below(&rng, 150)));
            kill(pid, SIGKILL);
        }
        bad = wait_for(pid);
    }
    printf("%u kills: %u messages, %u changes, %llu acknowledged: %s\n", rounds,
           ledger->entries_len, ledger->changes_len, (unsigned long long)ledger->acked,
           bad ? "WRONG" : "nothing lost, records exactly once");
    return bad;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rounds", 1, NULL, 'r'}, {"seed", 1, NULL, 's'}, {NULL, 0, NULL, 0}};
    const char *base = getenv("TMPDIR");
    unsigned rounds = 40;
    uint64_t seed = 1;
    int c, bad;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'r')
            rounds = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 's')
            seed = strtoull(optarg, NULL, 10);
        else
            return 2;
    }
    ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ledger == MAP_FAILED ||
        asprintf(&dir, "%s/queue-crash-XXXXXX", base != NULL ? base : "/tmp") < 0 ||
        mkdtemp(dir) == NULL || asprintf(&queue_path, "%s/queue", dir) < 0 ||
        asprintf(&records_path, "%s/records", dir) < 0)
        return 1;
    bad = run(rounds, seed);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (ledger->acked < rounds)
        bad = 1; /* hardly anything was done: this tested nothing */
    return bad;
}
