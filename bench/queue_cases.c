#include "bench/queue_cases.h"

#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "queue/codec.h"
#include "queue/queue.h"

#define CONTENT_BYTES 4096
#define LANES         16

/* --- codec --- */

static struct {
    struct message *m;
    struct recipient *r;
    uint8_t key[ROW_KEY_MAX], row[1024], content[CONTENT_BYTES + 1024];
    size_t key_len;
    struct content_layout layout;
} codec;

static struct message *make_message(struct msgid id, size_t bytes)
{
    struct message fields = {.id = id,
                             .created_ms = clock_wall_ms(),
                             .priority = 5,
                             .recipients = 1,
                             .sender = STR("bounce-12345@news.sender.example"),
                             .campaign = STR("spring-sale"),
                             .protocol = STR("ESMTP"),
                             .origin = STR("192.0.2.1:40123"),
                             .content = malloc(bytes),
                             .content_len = bytes};

    memset(fields.content, 'x', bytes);
    return message_new(&fields);
}

static void codec_setup(void)
{
    if (codec.m != NULL)
        return;
    codec.m = make_message((struct msgid){{1, 2, 3}}, CONTENT_BYTES);
    codec.r = recipient_new(codec.m, 0, STR("example.org"), STR("somebody@example.org"),
                            (struct str){0}, (struct str){0});
    codec.r->due_ms = 1700000000000;
    codec.key_len = codec_row_key(codec.key, 0, codec.r->queue, codec.r->due_ms, &codec.m->id, 0);
    codec_row_encode(codec.row, (struct str){(char *)codec.key, codec.key_len}, codec.r);
    codec.layout = codec_content_layout(codec.m, 4096);
    codec_content_encode(codec.content, codec.m, &codec.layout, false);
}

size_t queue_case_row_encode(void)
{
    codec_setup();
    codec.key_len = codec_row_key(codec.key, 0, codec.r->queue, codec.r->due_ms, &codec.m->id, 0);
    codec_row_encode(codec.row, (struct str){(char *)codec.key, codec.key_len}, codec.r);
    return codec_row_bytes(codec.r);
}

size_t queue_case_row_decode(void)
{
    struct row_state state;
    struct row_key key;

    codec_setup();
    if (!codec_row_key_parse((struct str){(char *)codec.key, codec.key_len}, &key) ||
        codec_row_decode((struct str){(char *)codec.key, codec.key_len},
                         (struct str){(char *)codec.row, codec_row_bytes(codec.r)}, &state) < 0)
        abort();
    return codec_row_bytes(codec.r);
}

size_t queue_case_content_encode(void)
{
    codec_setup();
    codec_content_encode(codec.content, codec.m, &codec.layout, false);
    return codec.m->content_len;
}

size_t queue_case_content_decode(void)
{
    struct message fields;

    codec_setup();
    if (codec_content_decode(
            &codec.m->id,
            (struct str){(char *)codec.content, codec.layout.head_bytes + codec.layout.tail_bytes},
            &fields, NULL) < 0)
        abort();
    return codec.m->content_len;
}

/* --- the queue --- */

struct queue_case {
    char *dir, *records;
    struct queue *q;
    struct queue_port *port;
    int event;
    struct msgid_source ids;
    size_t content_bytes, ended;
    struct message **messages;
    struct recipient **rcpts;
    struct queue_change *changes;
    struct queue_row *rows;
    struct buf record;
};

static void wake(void *arg)
{
    if (write(((struct queue_case *)arg)->event, &(uint64_t){1}, sizeof(uint64_t)) < 0)
        abort();
}

static void on_done(struct queue_change *change, int result)
{
    if (result < 0)
        abort();
    ((struct queue_case *)change->owner)->ended++;
}

static void wait_for(struct queue_case *c, size_t n)
{
    uint64_t count;

    while (c->ended < n) {
        if (queue_port_poll(c->port) == 0 && read(c->event, &count, sizeof(count)) < 0)
            abort();
    }
    c->ended = 0;
}

struct queue_case *queue_case_open(size_t messages_max, size_t content_bytes, size_t records_bytes)
{
    const char *base = getenv("TMPDIR");
    struct queue_case *c = calloc(1, sizeof(*c));
    struct queue_options options = {.shards = 1};

    if (asprintf(&c->dir, "%s/queue-bench-XXXXXX", base != NULL ? base : "/var/tmp") < 0 ||
        mkdtemp(c->dir) == NULL || asprintf(&c->records, "%s/records", c->dir) < 0)
        abort();
    options.path = c->dir;
    options.records.path = records_bytes > 0 ? c->records : NULL;
    c->event = eventfd(0, EFD_CLOEXEC);
    c->content_bytes = content_bytes;
    if (queue_open(&c->q, &options, NULL) < 0 || queue_port_open(&c->port, c->q, wake, c) < 0)
        abort();
    msgid_source_init(&c->ids, rng_entropy());
    c->messages = calloc(messages_max, sizeof(*c->messages));
    c->rcpts = calloc(messages_max, sizeof(*c->rcpts));
    c->changes = calloc(messages_max, sizeof(*c->changes));
    c->rows = calloc(messages_max, sizeof(*c->rows));
    for (size_t i = 0; i < records_bytes; i++)
        buf_putc(&c->record, i + 1 == records_bytes ? '\n' : 'r');
    return c;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void queue_case_close(struct queue_case *c)
{
    queue_port_close(c->port);
    queue_close(c->q);
    nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    close(c->event);
    buf_done(&c->record);
    free(c->messages);
    free(c->rcpts);
    free(c->changes);
    free(c->rows);
    free(c->records);
    free(c->dir);
    free(c);
}

void queue_case_accept(struct queue_case *c, size_t n)
{
    char lane[32];

    for (size_t i = 0; i < n; i++) {
        struct message *m = make_message(msgid_next(&c->ids, clock_wall_ms()), c->content_bytes);

        snprintf(lane, sizeof(lane), "lane%zu.example", i % LANES);
        c->messages[i] = m;
        c->rcpts[i] = recipient_new(m, 0, str_of(lane), STR("somebody@example.org"),
                                    (struct str){0}, (struct str){0});
        c->rcpts[i]->due_ms = m->created_ms;
        message_unref(m);
        c->rows[i] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = c->rcpts[i]};
        c->changes[i] = (struct queue_change){.messages = &c->messages[i],
                                              .messages_len = 1,
                                              .rows = &c->rows[i],
                                              .rows_len = 1,
                                              .records = c->record,
                                              .urgent = true,
                                              .on_done = on_done,
                                              .owner = c};
        queue_submit(c->port, 0, &c->changes[i]);
    }
    wait_for(c, n);
}

void queue_case_settle(struct queue_case *c, size_t n)
{
    struct buf records = {0};

    for (size_t i = 0; i < n; i++) {
        c->rows[i] = (struct queue_row){
            .kind = QUEUE_ROW_REMOVE, .rcpt = c->rcpts[i], .old_due_ms = c->rcpts[i]->due_ms};
        if (c->record.len > 0)
            buf_put(&records, c->record.data, c->record.len);
    }
    c->changes[0] = (struct queue_change){.rows = c->rows,
                                          .rows_len = n,
                                          .records = records,
                                          .urgent = true,
                                          .on_done = on_done,
                                          .owner = c};
    queue_submit(c->port, 0, &c->changes[0]);
    wait_for(c, 1);
    buf_done(&records);
    for (size_t i = 0; i < n; i++)
        recipient_free(c->rcpts[i]);
}

static void on_load(struct queue_load *load, int result)
{
    if (result < 0)
        abort();
    ((struct queue_case *)load->owner)->ended++;
}

void queue_case_load(struct queue_case *c, size_t n)
{
    char lane[32];
    size_t loaded = 0;

    for (size_t i = 0; i < LANES; i++) {
        struct queue_load load = {.now_ms = QUEUE_DUE_HELD,
                                  .rows_max = (uint32_t)n,
                                  .bytes_max = UINT64_MAX,
                                  .on_done = on_load,
                                  .owner = c};
        struct list_node *node;

        snprintf(lane, sizeof(lane), "lane%zu.example", i);
        load.queue = str_of(lane);
        queue_load(c->port, 0, &load);
        wait_for(c, 1);
        for (; (node = list_pop_front(&load.rcpts)) != NULL; loaded++)
            recipient_free(CONTAINER_OF(node, struct recipient, node));
    }
    if (loaded != n)
        abort();
}
