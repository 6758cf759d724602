/* kill -9: a child works on a queue with all its threads and is killed at a random moment, again
 * and again on the same directory. What was acknowledged is in a ledger in shared memory, written
 * only in on_done. Each child first checks what it finds against the ledger. Messages are of one
 * recipient, in the shard of their domain or, for the hot one, of their id; or of many, whose rows
 * lie in all shards (queue/spread.h): all of such a message is there, or nothing.
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

#include "queue/spread.h"
#include "queue/testkit_fsck.h"

#define ENTRIES_MAX   200000
#define CHANGES_MAX   600000
#define IN_FLIGHT_MAX 64
#define LANES         7
#define SHARDS        3
#define SPREAD_MAX    24 /* recipients */
#define OPEN_MS_MAX   20000

enum state { STATE_NONE, STATE_SUBMITTED, STATE_DONE };

struct change_note {
    uint32_t before; /* the entry's change before this one, 0 = none */
    uint8_t kind;    /* enum queue_row_kind */
    uint8_t state;
    int64_t due_ms; /* ADD, MOVE: what the row has afterwards */
};

/* A recipient. Its number is what the due time was made from, and its index behind that. */
struct entry {
    struct msgid id;
    uint32_t size;
    uint32_t first; /* the entry of its message's first recipient */
    uint32_t last;  /* its newest change */
    uint8_t shard;
    int64_t due_ms; /* as last known to be stored; < 0: not there */
    bool seen;
};

struct ledger {
    uint32_t entries_len, changes_len; /* numbers from 1 */
    uint64_t acked;
    _Atomic unsigned at_work; /* children that have opened the queue and checked it */
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

static uint32_t entry_of(const struct recipient *r)
{
    return (uint32_t)(r->due_ms % ENTRIES_MAX) + r->index;
}

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

/* The next change of an entry, and its line. */
static uint32_t note(uint32_t entry, enum queue_row_kind kind, int64_t due_ms, struct buf *records)
{
    uint32_t number = ledger->changes_len + 1;

    ledger->changes[number] = (struct change_note){.before = ledger->entries[entry].last,
                                                   .kind = (uint8_t)kind,
                                                   .state = STATE_SUBMITTED,
                                                   .due_ms = due_ms};
    ledger->entries[entry].last = number;
    ledger->changes_len = number;
    buf_printf(records, "{\"change\":%u}\n", number);
    return number;
}

static void submit(struct worker *w, struct unit *unit, uint32_t entry, enum queue_row_kind kind)
{
    struct recipient *r = unit->row.rcpt;

    unit->worker = w;
    unit->row.kind = kind;
    unit->change.rows = &unit->row;
    unit->change.rows_len = 1;
    unit->change.urgent = rng_below(&w->rng, 4) > 0;
    unit->change.on_done = on_done;
    unit->change.owner = unit;
    unit->number = note(entry, kind, r->due_ms, &unit->change.records);
    w->in_flight++;
    queue_submit(w->port, ledger->entries[entry].shard, &unit->change);
}

/* The first lane's domain is hot: its messages go to shards by id. */
static uint32_t shard_of(const struct worker *w, const struct msgid *id)
{
    const char *lane = lane_of(id);

    if (id->bytes[15] % LANES == 0)
        return queue_shard_of(w->q, (struct str){(const char *)id->bytes, MSGID_BYTES});
    return queue_shard_of(w->q, str_of(lane));
}

static struct message *message_make(struct worker *w, uint32_t number, uint32_t recipients)
{
    struct message fields = {.id = msgid_next(&w->ids, 1700000000000 + number),
                             .recipients = recipients,
                             .priority = 5,
                             .content_len = 100 + rng_below(&w->rng, 9000)};
    struct message *m;

    fields.content = malloc(fields.content_len);
    for (size_t i = 0; i < fields.content_len; i++)
        fields.content[i] = content_byte(&fields.id, i);
    m = message_new(&fields);
    must(m != NULL, "memory");
    return m;
}

static struct recipient *entry_make(struct message *m, uint32_t first, uint32_t index,
                                    const char *lane, uint32_t shard)
{
    uint32_t number = first + index;
    struct recipient *r = recipient_new(m, index, str_of(lane), STR("user@example.org"),
                                        (struct str){0}, (struct str){0});

    must(r != NULL, "memory");
    r->due_ms = first;
    ledger->entries[number] = (struct entry){.id = m->id,
                                             .size = (uint32_t)m->content_len,
                                             .first = first,
                                             .shard = (uint8_t)shard,
                                             .due_ms = -1};
    ledger->entries_len = number;
    return r;
}

static void accept(struct worker *w)
{
    struct unit *unit = calloc(1, sizeof(*unit));
    uint32_t number = ledger->entries_len + 1;

    unit->message = message_make(w, number, 1);
    unit->change.messages = &unit->message;
    unit->change.messages_len = 1;
    unit->row.rcpt = entry_make(unit->message, number, 0, lane_of(&unit->message->id),
                                shard_of(w, &unit->message->id));
    submit(w, unit, number, QUEUE_ROW_ADD);
}

/* --- messages in several shards --- */

struct spread_unit {
    struct queue_spread spread;
    struct queue_spread_part parts[SHARDS];
    struct queue_row rows[SHARDS][SPREAD_MAX];
    struct worker *worker;
    uint32_t notes[SPREAD_MAX], notes_len;
};

static void on_spread_done(struct queue_spread *s, int result)
{
    struct spread_unit *unit = s->owner;

    must(result == 0, "a message in several shards was refused");
    for (uint32_t i = 0; i < unit->notes_len; i++)
        ledger->changes[unit->notes[i]].state = STATE_DONE;
    ledger->acked += unit->notes_len;
}

static void on_spread_whole(struct queue_spread *s, uint32_t shard)
{
    struct spread_unit *unit = s->owner;
    struct worker *w = unit->worker;

    for (size_t i = 0; i < unit->parts[shard].rows_len; i++)
        w->rows[w->rows_len++] = unit->rows[shard][i].rcpt;
}

static void on_spread_end(struct queue_spread *s)
{
    struct spread_unit *unit = s->owner;

    for (size_t i = 0; i < SHARDS; i++)
        message_unref(unit->parts[i].message);
    unit->worker->in_flight--;
    buf_done(&s->records);
    free(unit);
}

static void accept_spread(struct worker *w)
{
    struct spread_unit *unit = calloc(1, sizeof(*unit));
    uint32_t len = 2 + (uint32_t)rng_below(&w->rng, SPREAD_MAX - 1);
    uint32_t first = ledger->entries_len + 1, home = 0;
    struct message *m = message_make(w, first, len);

    unit->worker = w;
    unit->spread = (struct queue_spread){.parts = unit->parts,
                                         .parts_len = SHARDS,
                                         .on_done = on_spread_done,
                                         .on_whole = on_spread_whole,
                                         .on_end = on_spread_end,
                                         .owner = unit};
    for (size_t i = 0; i < SHARDS; i++)
        unit->parts[i] = (struct queue_spread_part){.message = i == 0 ? m : message_share(m),
                                                    .rows = unit->rows[i]};
    for (uint32_t i = 0; i < len; i++) {
        uint32_t shard = (uint32_t)rng_below(&w->rng, SHARDS);
        struct queue_spread_part *part = &unit->parts[shard];

        part->rows[part->rows_len++] = (struct queue_row){
            .kind = QUEUE_ROW_ADD,
            .rcpt = entry_make(part->message, first, i,
                               lane_of(&(struct msgid){.bytes[15] = (uint8_t)i}), shard)};
        unit->notes[unit->notes_len++] =
            note(first + i, QUEUE_ROW_ADD, first, &unit->spread.records);
        home = shard;
    }
    unit->spread.home = home;
    w->in_flight++;
    queue_spread_submit(w->port, &unit->spread);
}

static void settle(struct worker *w)
{
    struct unit *unit = calloc(1, sizeof(*unit));
    size_t i = rng_below(&w->rng, w->rows_len);
    struct recipient *r = w->rows[i];
    bool move = rng_below(&w->rng, 3) == 0;
    uint32_t entry = entry_of(r);

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

static void check_row(struct worker *w, struct recipient *r, uint32_t shard)
{
    uint32_t number = entry_of(r);
    struct entry *e = &ledger->entries[number];

    must(number > 0 && number <= ledger->entries_len, "a row of nobody's");
    must(e->shard == shard, "a row in another shard");
    must(memcmp(&e->id, &r->message->id, sizeof(e->id)) == 0, "a row of another message");
    must(!e->seen, "a row is there twice");
    must(r->message->content_len == e->size, "content of another length");
    for (size_t i = 0; i < e->size; i++)
        must(r->message->content[i] == content_byte(&e->id, i), "content altered");
    e->seen = true;
    e->due_ms = r->due_ms;
    w->rows[w->rows_len++] = r;
}

static void load_lane(struct worker *w, const char *lane, uint32_t shard)
{
    bool done = false;
    struct queue_load load = {.queue = str_of(lane),
                              .now_ms = QUEUE_DUE_HELD,
                              .rows_max = UINT32_MAX,
                              .bytes_max = UINT64_MAX,
                              .on_done = on_load,
                              .owner = &done};
    struct list_node *node;

    queue_load(w->port, shard, &load);
    while (!done) {
        if (queue_port_poll(w->port) == 0)
            poll(NULL, 0, 1);
    }
    while ((node = list_pop_front(&load.rcpts)) != NULL)
        check_row(w, CONTAINER_OF(node, struct recipient, node), shard);
}

/* A message whose acceptance was under way is there with all its recipients, or with none. */
static void check_whole(void)
{
    for (uint32_t i = 1; i <= ledger->entries_len; i++) {
        const struct entry *e = &ledger->entries[i];
        const struct change_note *last = &ledger->changes[e->last];

        if (e->last > 0 && last->kind == QUEUE_ROW_ADD && last->state == STATE_SUBMITTED)
            must(e->seen == ledger->entries[e->first].seen, "a part of a message is there");
    }
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
    uint64_t pins = 0, prepared = 0;

    if (queue_open(&w->q, &options, &error) < 0)
        must(false, error);
    for (uint32_t i = 0; i < SHARDS; i++)
        w->q->shards[i]->own.remains.age_ms_min = 0; /* keeps pieces of mail that just came */
    must(queue_port_open(&w->port, w->q, NULL, NULL) == 0, "port");
    for (uint32_t i = 1; i <= ledger->entries_len; i++)
        ledger->entries[i].seen = false;
    for (size_t i = 0; i < LANES * SHARDS; i++)
        load_lane(w, lanes[i % LANES], (uint32_t)(i / LANES));
    check_whole();
    settle_ledger();
    for (uint32_t i = 0; i < SHARDS; i++) {
        const char *wrong = fsck_shard(w->q, i, &pins, &prepared);

        must(wrong == NULL, wrong);
        queue_counters(w->q, i, &counters);
        must(counters.quarantined == 0, "something was quarantined");
    }
    must(pins == 0 && prepared == 0, "a message is not finished, or counts too many rows");
}

static void work(uint64_t seed)
{
    struct worker *w = calloc(1, sizeof(*w));

    rng_seed(&w->rng, seed);
    msgid_source_init(&w->ids, seed);
    open_and_check(w);
    ledger->at_work++;
    while (ledger->entries_len < ENTRIES_MAX - SPREAD_MAX - 1 &&
           ledger->changes_len < CHANGES_MAX - IN_FLIGHT_MAX - SPREAD_MAX) {
        while (w->in_flight < IN_FLIGHT_MAX && ledger->entries_len < ENTRIES_MAX - SPREAD_MAX - 1) {
            uint64_t what = rng_below(&w->rng, 100);

            if (w->rows_len > 0 && what < 62)
                settle(w);
            else if (what < 97)
                accept(w);
            else
                accept_spread(w);
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

/* Kills a child at a random moment: three times out of four at one of its work, however long
 * this machine takes to open the queue. */
static void kill_sometime(pid_t pid, struct rng *rng, unsigned at_work)
{
    if (rng_below(rng, 4) > 0) {
        for (int i = 0; i < OPEN_MS_MAX && ledger->at_work == at_work; i++)
            poll(NULL, 0, 1);
    }
    poll(NULL, 0, (int)(5 + rng_below(rng, 150)));
    kill(pid, SIGKILL);
}

static int run(unsigned rounds, uint64_t seed)
{
    struct rng rng;
    unsigned at_work;
    int bad = 0;
    pid_t pid;

    rng_seed(&rng, seed);
    for (unsigned i = 0; i <= rounds && bad == 0; i++) {
        fflush(stdout);
        at_work = ledger->at_work;
        pid = fork();
        if (pid == 0 && i == rounds)
            finish();
        if (pid == 0)
            work(seed * 1000 + i);
        if (i < rounds)
            kill_sometime(pid, &rng, at_work);
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
