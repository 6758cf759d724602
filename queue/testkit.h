/* For the queue's tests: a queue in a temporary directory, messages with known content, and
 * synchronous submit and load. Header only, since each test is a program of its own. */
#ifndef HAYAUMA_QUEUE_TESTKIT_H
#define HAYAUMA_QUEUE_TESTKIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "queue/queue.h"

#define KIT_ROWS_MAX 64

static struct msgid_source kit_ids;
static int64_t kit_clock_ms = INT64_C(1700000000000);

static inline int kit_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void kit_remove(const char *path)
{
    nftw(path, kit_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline char *kit_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *path;

    assert_true(asprintf(&path, "%s/queue-test-XXXXXX", base != NULL ? base : "/tmp") > 0);
    assert_non_null(mkdtemp(path));
    msgid_source_init(&kit_ids, 1);
    return path;
}

/* A message of size bytes whose content follows from its id, so that it can be checked later. */
static inline uint8_t kit_byte(const struct msgid *id, size_t i)
{
    return (uint8_t)(id->bytes[i % MSGID_BYTES] + i / MSGID_BYTES);
}

static inline struct message *kit_message_as(struct msgid id, size_t size, uint32_t recipients,
                                             uint8_t priority)
{
    struct message fields = {.id = id,
                             .created_ms = kit_clock_ms,
                             .priority = priority,
                             .recipients = recipients,
                             .sender = STR("sender@example.com"),
                             .campaign = STR("spring"),
                             .tenant = STR("acme"),
                             .meta = STR("{\"k\":1}"),
                             .protocol = STR("ESMTP"),
                             .origin = STR("192.0.2.1:4711"),
                             .content_len = size};
    struct message *m;

    fields.content = malloc(size + 1);
    assert_non_null(fields.content);
    for (size_t i = 0; i < size; i++)
        fields.content[i] = kit_byte(&id, i);
    m = message_new(&fields);
    assert_non_null(m);
    return m;
}

static inline struct message *kit_message(size_t size, uint32_t recipients, uint8_t priority)
{
    return kit_message_as(msgid_next(&kit_ids, kit_clock_ms++), size, recipients, priority);
}

static inline bool kit_content_right(const struct message *m)
{
    for (size_t i = 0; i < m->content_len; i++) {
        if (m->content[i] != kit_byte(&m->id, i))
            return false;
    }
    return true;
}

static inline struct recipient *kit_recipient(struct message *m, uint32_t index, const char *queue,
                                              int64_t due_ms)
{
    char address[600];
    struct recipient *r;

    snprintf(address, sizeof(address), "user%u@%s", index, queue);
    r = recipient_new(m, index, str_of(queue), str_of(address), (struct str){0}, (struct str){0});
    assert_non_null(r);
    r->due_ms = due_ms;
    return r;
}

/* A change with room for rows and messages. */
struct kit_change {
    struct queue_change change;
    struct message *messages[4];
    struct queue_row rows[KIT_ROWS_MAX];
    bool done;
    int result;
};

static inline void kit_on_done(struct queue_change *change, int result)
{
    struct kit_change *kit = change->owner;

    kit->done = true;
    kit->result = result;
}

static inline struct kit_change *kit_change(void)
{
    struct kit_change *kit = calloc(1, sizeof(*kit));

    assert_non_null(kit);
    kit->change = (struct queue_change){.messages = kit->messages,
                                        .rows = kit->rows,
                                        .urgent = true,
                                        .on_done = kit_on_done,
                                        .owner = kit};
    return kit;
}

static inline void kit_content(struct kit_change *kit, struct message *m)
{
    kit->messages[kit->change.messages_len++] = m;
}

static inline struct queue_row *kit_row(struct kit_change *kit, enum queue_row_kind kind,
                                        struct recipient *r)
{
    struct queue_row *row = &kit->rows[kit->change.rows_len++];

    assert_true(kit->change.rows_len <= KIT_ROWS_MAX);
    *row = (struct queue_row){.kind = kind, .rcpt = r, .old_due_ms = r->due_ms};
    return row;
}

static inline void kit_wait(struct queue *q, struct queue_port *port, const bool *done)
{
    (void)q;
    for (unsigned ms = 0; !*done; ms++) {
        assert_true(ms < 20000);
        if (queue_port_poll(port) == 0)
            poll(NULL, 0, 1);
    }
}

/* Submits, waits, frees; the result. */
static inline int kit_submit(struct queue *q, struct queue_port *port, uint32_t shard,
                             struct kit_change *kit)
{
    int result;

    queue_submit(port, shard, &kit->change);
    kit_wait(q, port, &kit->done);
    result = kit->result;
    buf_done(&kit->change.records);
    free(kit);
    return result;
}

struct kit_load {
    struct queue_load load;
    bool done;
    int result;
};

static inline void kit_on_load(struct queue_load *load, int result)
{
    struct kit_load *kit = load->owner;

    kit->done = true;
    kit->result = result;
}

/* Loads on from kit's cursor (zeroed: from the start). */
static inline int kit_load(struct queue *q, struct queue_port *port, uint32_t shard,
                           struct kit_load *kit, const char *lane, int64_t now_ms,
                           uint32_t rows_max)
{
    kit->load.queue = str_of(lane);
    kit->load.now_ms = now_ms;
    kit->load.rows_max = rows_max;
    kit->load.bytes_max = UINT64_C(1) << 30;
    kit->load.on_done = kit_on_load;
    kit->load.owner = kit;
    kit->done = false;
    queue_load(port, shard, &kit->load);
    kit_wait(q, port, &kit->done);
    return kit->result;
}

static inline struct recipient *kit_pop(struct kit_load *kit)
{
    struct list_node *node = list_pop_front(&kit->load.rcpts);

    return node == NULL ? NULL : CONTAINER_OF(node, struct recipient, node);
}

static inline void kit_free_loaded(struct kit_load *kit)
{
    struct recipient *r;

    while ((r = kit_pop(kit)) != NULL)
        recipient_free(r);
}

/* --- a queue of its own for each test --- */

struct kit_queue {
    char *dir;
    struct queue_options options;
    struct queue *q;
    struct queue_port *port;
};

static inline void kit_queue_open(struct kit_queue *f)
{
    const char *error = NULL;
    int err = queue_open(&f->q, &f->options, &error);

    if (err < 0)
        fail_msg("queue_open: %d %s", err, error);
    assert_int_equal(queue_port_open(&f->port, f->q, NULL, NULL), 0);
}

static inline void kit_queue_close(struct kit_queue *f)
{
    queue_port_close(f->port);
    queue_close(f->q);
    f->q = NULL;
    f->port = NULL;
}

static inline void kit_queue_reopen(struct kit_queue *f)
{
    kit_queue_close(f);
    kit_queue_open(f);
}

static inline int kit_queue_setup(void **state)
{
    struct kit_queue *f = calloc(1, sizeof(*f));

    f->dir = kit_dir();
    kit_clock_ms = 800; /* what is due at 1000 is for later, what is due at 500 is fresh */
    f->options = (struct queue_options){.path = f->dir, .map_bytes = UINT64_C(1) << 30};
    kit_queue_open(f);
    *state = f;
    return 0;
}

static inline int kit_queue_teardown(void **state)
{
    struct kit_queue *f = *state;

    if (f->q != NULL)
        kit_queue_close(f);
    kit_remove(f->dir);
    free(f->dir);
    free(f);
    assert_int_equal(message_bytes_alive(), 0);
    return 0;
}

/* A queue without threads in dir, for what keeps a table in its states. */
struct kit_states {
    struct queue *queue;
    struct queue_port *port;
};

static inline void kit_states_open(struct kit_states *k, const char *dir)
{
    struct queue_options options = {
        .path = dir, .shards = 2, .map_bytes = 64u << 20, .no_threads = true, .no_sync = true};
    const char *why = NULL;

    assert_int_equal(queue_open(&k->queue, &options, &why), 0);
    assert_int_equal(queue_port_open(&k->port, k->queue, NULL, NULL), 0);
}

static inline void kit_states_close(struct kit_states *k)
{
    queue_port_close(k->port);
    queue_close(k->queue);
}

static inline void kit_on_state_stored(struct queue_change *change, int result)
{
    *(int *)change->owner = result;
}

/* Stores a state in shard, or removes it. */
static inline void kit_state_store(struct kit_states *k, uint32_t shard, struct queue_state state)
{
    int result = 1;
    struct queue_change change = {.states = &state,
                                  .states_len = 1,
                                  .urgent = true,
                                  .on_done = kit_on_state_stored,
                                  .owner = &result};

    queue_submit(k->port, shard, &change);
    queue_pump(k->queue);
    queue_port_poll(k->port);
    assert_int_equal(result, 0);
}

#endif
