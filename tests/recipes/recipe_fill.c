/* Puts a recipe (engine/mail/recipe.h) with its recipients into a new queue, as a campaign does.
 *
 *   recipe_fill QUEUE RECIPE < RECIPIENTS
 *
 * RECIPE is a file with what recipe_put() writes. Each line of RECIPIENTS is an address, a tab, and
 * what recipe_put_recipient() writes. Prints the message's id. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "queue/queue.h"

#define RECIPIENTS_MAX 4096
#define LINE_BYTES     8192

static void die(const char *what, int err)
{
    fprintf(stderr, "recipe_fill: %s: %s\n", what, strerror(-err));
    exit(1);
}

static void *need(void *p)
{
    if (p == NULL)
        die("memory", -ENOMEM);
    return p;
}

static struct message *recipe_of(const char *path)
{
    struct msgid_source ids;
    struct message fields = {.created_ms = clock_wall_ms(),
                             .flags = MESSAGE_RECIPE,
                             .priority = PRIORITY_DEFAULT,
                             .sender = STR("news@sender.example"),
                             .campaign = STR("spring"),
                             .protocol = STR("HTTP"),
                             .origin = STR("127.0.0.1:25")};
    FILE *file = fopen(path, "r");

    if (file == NULL)
        die(path, -errno);
    msgid_source_init(&ids, rng_entropy());
    fields.id = msgid_next(&ids, fields.created_ms);
    fields.content = need(malloc(1u << 20));
    fields.content_len = fread(fields.content, 1, 1u << 20, file);
    fclose(file);
    return need(message_new(&fields));
}

static void row_add(struct queue_change *change, struct message *m, char *line)
{
    char *variables = need(strchr(line, '\t')), *domain;
    struct recipient *r;

    *variables++ = '\0';
    variables[strcspn(variables, "\n")] = '\0';
    domain = need(strrchr(line, '@'));
    r = need(recipient_new(m, (uint32_t)change->rows_len, str_of(domain + 1), str_of(line), STR(""),
                           str_of(variables)));
    r->due_ms = m->created_ms;
    r->lifetime_s = 3600;
    change->rows[change->rows_len++] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = r};
}

static void on_done(struct queue_change *change, int result)
{
    *(int *)change->owner = result;
}

int main(int argc, char **argv)
{
    static struct queue_row rows[RECIPIENTS_MAX];
    static char line[LINE_BYTES];
    struct queue_options options = {.path = argc == 3 ? argv[1] : "", .shards = 1};
    char id[MSGID_TEXT_BYTES];
    const struct queue_flow *flow;
    struct queue *q;
    struct queue_port *port;
    struct message *m;
    int err, result = 1;
    struct queue_change change = {.messages = &m,
                                  .messages_len = 1,
                                  .rows = rows,
                                  .urgent = true,
                                  .on_done = on_done,
                                  .owner = &result};

    if (argc != 3)
        die("usage: recipe_fill QUEUE RECIPE", -EINVAL);
    m = recipe_of(argv[2]);
    err = queue_open(&q, &options, NULL);
    if (err == 0)
        err = queue_port_open(&port, q, NULL, NULL);
    if (err < 0)
        die(argv[1], err);
    flow = need((void *)(uintptr_t)queue_flow_get(q, m->priority, STR(""), m->campaign, STR("")));
    m->flow = flow->id;
    while (change.rows_len < RECIPIENTS_MAX && fgets(line, sizeof(line), stdin) != NULL)
        row_add(&change, m, line);
    queue_submit(port, 0, &change);
    while (result == 1 && queue_port_poll(port) == 0)
        poll(NULL, 0, 1);
    if (result < 0)
        die("commit", result);
    for (size_t i = 0; i < change.rows_len; i++)
        recipient_free(rows[i].rcpt);
    msgid_text(&m->id, id);
    message_unref(m);
    queue_port_close(port);
    queue_close(q);
    puts(id);
    return 0;
}
