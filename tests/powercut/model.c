#include "tests/powercut/model.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <zstd.h>

#define CHANGES_PER_ROUND 4
#define ROWS_PER_CHANGE   8
#define CLOCK_MS          INT64_C(1700000000000)

static const char *const lanes[MODEL_LANES] = {"a.example", "b.example", "c.example", "d.example",
                                               "e.example"};

static void *need(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

void model_init(struct model *m, uint64_t seed, size_t messages_max)
{
    *m = (struct model){.messages_max = messages_max};
    rng_seed(&m->rng, seed);
    msgid_source_init(&m->ids, seed);
    m->messages = need(calloc(messages_max, sizeof(*m->messages)));
}

void model_done(struct model *m)
{
    for (size_t i = 0; i < m->messages_len; i++) {
        for (uint32_t j = 0; j < m->messages[i].rows_len; j++)
            recipient_free(m->messages[i].rows[j].rcpt);
    }
    free(m->messages);
}

/* --- the workload --- */

struct unit {
    struct queue_change change;
    struct message *message;
    struct queue_row rows[ROWS_PER_CHANGE];
    uint64_t number;
    void (*mark)(uint64_t value);
};

static void on_done(struct queue_change *change, int result)
{
    struct unit *unit = change->owner;

    if (result < 0)
        abort();
    unit->mark(MARK_ACKED(unit->number));
    buf_done(&change->records);
    message_unref(unit->message);
    free(unit);
}

static uint8_t content_byte(const struct msgid *id, size_t i)
{
    return (uint8_t)(id->bytes[i % MSGID_BYTES] + i / MSGID_BYTES);
}

static struct unit *new_unit(struct model *m)
{
    struct unit *unit = need(calloc(1, sizeof(*unit)));

    unit->number = ++m->changes;
    unit->change = (struct queue_change){.messages = &unit->message,
                                         .rows = unit->rows,
                                         .urgent = true,
                                         .on_done = on_done,
                                         .owner = unit};
    /* Lines of several sizes, so that entries and segments end at odd places. */
    buf_printf(
        &unit->change.records, "{\"change\":%llu,\"fill\":\"%.*s\"}\n",
        (unsigned long long)unit->number, (int)rng_below(&m->rng, 200),
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    return unit;
}

static void version_add(struct model_row *row, bool gone, int64_t due_ms, uint64_t change)
{
    if (row->versions_len == MODEL_VERSIONS_MAX)
        abort();
    row->versions[row->versions_len++] = (struct model_version){gone, due_ms, change};
}

static void accept(struct model *m, struct unit *unit)
{
    struct model_message *mm = &m->messages[m->messages_len++];
    struct message fields = {.id = msgid_next(&m->ids, CLOCK_MS + (int64_t)m->changes),
                             .created_ms = CLOCK_MS,
                             .priority = (uint8_t)rng_below(&m->rng, 10),
                             .sender = STR("s@example.com")};

    mm->id = fields.id;
    mm->size = rng_below(&m->rng, 8) == 0 ? 100 + rng_below(&m->rng, 20000)
                                          : 50 + rng_below(&m->rng, 3000);
    mm->rows_len =
        rng_below(&m->rng, 3) == 0 ? 1 + (uint32_t)rng_below(&m->rng, MODEL_ROWS_MAX) : 1;
    fields.recipients = mm->rows_len;
    fields.content_len = mm->size;
    fields.content = need(malloc(mm->size));
    for (size_t i = 0; i < mm->size; i++)
        fields.content[i] = content_byte(&mm->id, i);
    unit->message = need(message_new(&fields));
    unit->change.messages_len = 1;
    for (uint32_t i = 0; i < mm->rows_len; i++) {
        struct model_row *row = &mm->rows[i];

        row->lane = (size_t)rng_below(&m->rng, MODEL_LANES);
        row->rcpt = need(recipient_new(unit->message, i, str_of(lanes[row->lane]),
                                       STR("user@example.org"), (struct str){0}, (struct str){0}));
        row->rcpt->due_ms = CLOCK_MS + (int64_t)rng_below(&m->rng, 1000);
        unit->rows[unit->change.rows_len++] =
            (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = row->rcpt};
        version_add(row, false, row->rcpt->due_ms, unit->number);
    }
}

/* Moves or removes up to n rows that are in the store and in no other change of this round. */
static void settle(struct model *m, struct unit *unit, uint64_t round_first, size_t n)
{
    for (size_t tries = 0; tries < 4 * n && unit->change.rows_len < n && m->messages_len > 0;
         tries++) {
        struct model_message *mm = &m->messages[rng_below(&m->rng, m->messages_len)];
        struct model_row *row = &mm->rows[rng_below(&m->rng, mm->rows_len)];
        struct model_version *last = &row->versions[row->versions_len - 1];
        struct queue_row *change;

        if (last->gone || last->change >= round_first)
            continue;
        change = &unit->rows[unit->change.rows_len++];
        *change = (struct queue_row){.rcpt = row->rcpt, .old_due_ms = row->rcpt->due_ms};
        if (rng_below(&m->rng, 3) > 0 || row->versions_len == MODEL_VERSIONS_MAX - 1) {
            change->kind = QUEUE_ROW_REMOVE;
            version_add(row, true, 0, unit->number);
            continue;
        }
        change->kind = QUEUE_ROW_MOVE;
        row->rcpt->due_ms += 1 + (int64_t)rng_below(&m->rng, 1000);
        row->rcpt->attempts++;
        version_add(row, false, row->rcpt->due_ms, unit->number);
    }
}

void model_run(struct model *m, struct queue *q, struct queue_port *port, size_t rounds,
               void (*mark)(uint64_t value))
{
    for (size_t round = 0; round < rounds; round++) {
        uint64_t first = m->changes + 1;
        size_t n = 1 + rng_below(&m->rng, CHANGES_PER_ROUND);

        for (size_t i = 0; i < n; i++) {
            struct unit *unit = new_unit(m);
            uint32_t shard = 0;

            unit->mark = mark;
            if (m->messages_len < m->messages_max && rng_below(&m->rng, 2) == 0)
                accept(m, unit);
            else
                settle(m, unit, first, 1 + rng_below(&m->rng, ROWS_PER_CHANGE));
            mark(MARK_SUBMITTED(unit->number));
            queue_submit(port, shard, &unit->change);
        }
        while (queue_port_pending(port) > 0) {
            queue_pump(q);
            queue_port_poll(port);
        }
    }
}

/* --- the check --- */

struct check {
    struct model *m;
    const bool *submitted, *acked;
    struct queue *q;
    struct queue_port *port;
    uint32_t *lines; /* by change number */
    size_t rows;
    const char *wrong;
};

static void complain(struct check *c, const char *what)
{
    if (c->wrong == NULL)
        c->wrong = what;
}

/* The first and the last version of a row that a cut may show; -1: the row not being there yet. */
static void allowed(const struct check *c, const struct model_row *row, int *first, int *last)
{
    *first = *last = -1;
    for (size_t i = 0; i < row->versions_len; i++) {
        if (c->acked[row->versions[i].change])
            *first = (int)i;
        if (c->submitted[row->versions[i].change])
            *last = (int)i;
    }
}

/* version: what the store shows. Its change must be in the records exactly when it is stored. */
static void check_version(struct check *c, const struct model_row *row, int version)
{
    int first, last;

    allowed(c, row, &first, &last);
    if (version < first)
        complain(c, "an acknowledged change is lost");
    if (version > last)
        complain(c, "a change that was never submitted is there");
    for (int i = 0; i < (int)row->versions_len; i++) {
        uint32_t lines = c->lines[row->versions[i].change];

        if (lines > 1)
            complain(c, "a record is there twice");
        if (i <= version && lines == 0)
            complain(c, "a stored change has no record");
        if (i > version && lines != 0)
            complain(c, "a change that is not stored has a record");
    }
}

static void check_recipient(struct check *c, const struct recipient *r)
{
    struct model_message *mm = NULL;
    struct model_row *row;
    int version = -1;

    for (size_t i = 0; i < c->m->messages_len && mm == NULL; i++) {
        if (memcmp(&c->m->messages[i].id, &r->message->id, sizeof(struct msgid)) == 0)
            mm = &c->m->messages[i];
    }
    if (mm == NULL || r->index >= mm->rows_len) {
        complain(c, "a row of nobody's");
        return;
    }
    row = &mm->rows[r->index];
    if (row->seen)
        complain(c, "a row is there twice");
    row->seen = true;
    for (size_t i = 0; i < row->versions_len; i++) {
        if (!row->versions[i].gone && row->versions[i].due_ms == r->due_ms && r->attempts == i)
            version = (int)i;
    }
    if (version < 0 || !str_eq(r->queue, str_of(lanes[row->lane])))
        complain(c, "a row in a state that it never had");
    else
        check_version(c, row, version);
    if (r->message->content_len != mm->size)
        complain(c, "content of another length");
    for (size_t i = 0; i < r->message->content_len; i++) {
        if (r->message->content[i] != content_byte(&mm->id, i)) {
            complain(c, "content altered");
            break;
        }
    }
}

static void on_load(struct queue_load *load, int result)
{
    *(int *)load->owner = result;
}

static void check_lane(struct check *c, const char *lane)
{
    int result = 1;
    struct queue_load load = {.queue = str_of(lane),
                              .now_ms = QUEUE_DUE_HELD,
                              .rows_max = UINT32_MAX,
                              .bytes_max = UINT64_MAX,
                              .on_done = on_load,
                              .owner = &result};
    struct list_node *node;

    queue_load(c->port, 0, &load);
    while (queue_port_pending(c->port) > 0) {
        queue_pump(c->q);
        queue_port_poll(c->port);
    }
    if (result != 0 || !load.end)
        complain(c, "a lane cannot be loaded");
    while ((node = list_pop_front(&load.rcpts)) != NULL) {
        struct recipient *r = CONTAINER_OF(node, struct recipient, node);

        c->rows++;
        check_recipient(c, r);
        recipient_free(r);
    }
}

/* --- records --- */

static void read_lines(struct check *c, const char *text, size_t len)
{
    static const char head[] = "{\"change\":";
    const char *end = text + len;

    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        unsigned long long number;

        if (newline == NULL || newline - text < (ptrdiff_t)sizeof(head) ||
            memcmp(text, head, sizeof(head) - 1) != 0 || newline[-1] != '}' ||
            memchr(text, 0, (size_t)(newline - text)) != NULL) {
            complain(c, "a record line is broken");
            return;
        }
        number = strtoull(text + sizeof(head) - 1, NULL, 10);
        if (number > c->m->changes)
            complain(c, "a record of nobody's");
        else
            c->lines[number]++;
        text = newline + 1;
    }
}

static void read_file(struct check *c, const char *path)
{
    size_t cap = 1 << 20, len, plain_len;
    uint8_t *bytes = need(malloc(cap)), *plain = need(malloc(cap));
    FILE *f = fopen(path, "re");

    len = f == NULL ? 0 : fread(bytes, 1, cap, f);
    if (f != NULL)
        fclose(f);
    if (strstr(path, ".zst") != NULL) {
        ZSTD_DCtx *zstd = ZSTD_createDCtx();

        plain_len = ZSTD_decompressDCtx(zstd, plain, cap, bytes, len);
        ZSTD_freeDCtx(zstd);
        if (ZSTD_isError(plain_len))
            complain(c, "a compressed segment is broken");
        else
            read_lines(c, (char *)plain, plain_len);
    } else {
        read_lines(c, (char *)bytes, len);
    }
    free(bytes);
    free(plain);
}

static void read_records(struct check *c, const char *dir_path)
{
    DIR *dir = opendir(dir_path);
    struct dirent *entry;
    char path[1024];
    size_t len;
    struct stat st;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", dir_path, entry->d_name);
        len = strlen(entry->d_name);
        if (entry->d_name[0] == '.' || strcmp(entry->d_name + len - 4, ".tmp") == 0)
            continue;
        /* A compressed segment replaces its plain one; both may be there, with the same lines. */
        if (strcmp(entry->d_name + len - 4, ".zst") == 0) {
            path[strlen(path) - 4] = 0;
            if (stat(path, &st) == 0)
                continue;
            snprintf(path, sizeof(path), "%s/%s", dir_path, entry->d_name);
        }
        read_file(c, path);
    }
    if (dir != NULL)
        closedir(dir);
}

static void check_rest(struct check *c)
{
    struct queue_counters counters;
    size_t messages = 0, rows = 0;

    for (size_t i = 0; i < c->m->messages_len; i++) {
        struct model_message *mm = &c->m->messages[i];
        bool any = false;

        for (uint32_t j = 0; j < mm->rows_len; j++) {
            struct model_row *row = &mm->rows[j];
            struct model_version *last = &row->versions[row->versions_len - 1];
            int gone = -1;

            any |= row->seen;
            rows += row->seen;
            if (row->seen)
                continue;
            /* Not there: not yet, or gone for good. */
            if (last->gone && c->submitted[last->change] && c->lines[last->change] > 0)
                gone = (int)row->versions_len - 1;
            check_version(c, row, gone);
        }
        messages += any;
    }
    queue_counters(c->q, 0, &counters);
    if (counters.messages != messages)
        complain(c, "content without rows, or rows without content");
    if (messages == 0 && counters.pieces != 0)
        complain(c, "pieces of a content that has gone");
    if (counters.rows != rows)
        complain(c, "rows that no load finds");
    if (counters.quarantined != 0)
        complain(c, "something was quarantined");
}

/* After an open and a close nothing is left in the outbox: all records are in their files. */
static bool settle_records(const struct queue_options *options)
{
    struct queue *q;

    if (queue_open(&q, options, NULL) < 0)
        return false;
    queue_close(q);
    return true;
}

const char *model_check(struct model *m, const struct queue_options *options, const bool *submitted,
                        const bool *acked)
{
    struct check c = {.m = m, .submitted = submitted, .acked = acked};

    if (!settle_records(options))
        return "the queue cannot be opened";
    c.lines = need(calloc(m->changes + 2, sizeof(*c.lines)));
    read_records(&c, options->records.path);
    for (size_t i = 0; i < m->messages_len; i++) {
        for (uint32_t j = 0; j < m->messages[i].rows_len; j++)
            m->messages[i].rows[j].seen = false;
    }
    if (queue_open(&c.q, options, NULL) < 0 || queue_port_open(&c.port, c.q, NULL, NULL) < 0) {
        free(c.lines);
        return "the queue cannot be opened again";
    }
    for (size_t i = 0; i < MODEL_LANES; i++)
        check_lane(&c, lanes[i]);
    check_rest(&c);
    queue_port_close(c.port);
    queue_close(c.q);
    free(c.lines);
    return c.wrong;
}
