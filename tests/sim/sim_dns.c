/* dns_upstream.h on the simulated world's zones, with answers that take time. */
#include <stdlib.h>

#include "dns/dns_upstream.h"
#include "io/io.h"
#include "tests/sim/world.h"

struct dns_upstream {
    struct io *io;
    struct list open;
};

struct question { /* in dns_upstream_query.priv */
    struct list_node node;
    struct timer timer;
    const char *name;
    enum dns_type type;
};

_Static_assert(sizeof(struct question) <= sizeof(((struct dns_upstream_query *)0)->priv), "priv");

int dns_upstream_open(struct dns_upstream **out, struct io *io, const struct dns_options *options)
{
    struct dns_upstream *u = calloc(1, sizeof(*u));

    (void)options;
    ASSERT(u != NULL);
    u->io = io;
    list_init(&u->open);
    *out = u;
    return 0;
}

void dns_upstream_close(struct dns_upstream *u)
{
    struct list_node *n;

    if (u == NULL)
        return;
    while ((n = list_pop_front(&u->open)) != NULL)
        wheel_cancel(io_wheel(u->io), &LIST_ENTRY(n, struct question, node)->timer);
    free(u);
}

static void on_timer(struct timer *timer)
{
    struct question *q = CONTAINER_OF(timer, struct question, timer);
    struct dns_upstream_query *query = CONTAINER_OF((void *)q, struct dns_upstream_query, priv);
    struct dns_record records[8];
    struct dns_answer answer;
    struct buf memory = {0};

    list_remove(&q->node);
    world_dns(q->name, q->type, &answer, records, &memory);
    sim_trace("dns %s %d: %d", q->name, q->type, answer.status);
    query->on_answer(query, &answer);
    buf_done(&memory);
}

void dns_upstream_query(struct dns_upstream *u, struct dns_upstream_query *query, const char *name,
                        enum dns_type type)
{
    struct question *q = (void *)query->priv;

    *q = (struct question){.name = name, .type = type, .timer = {.on_timer = on_timer}};
    list_push_back(&u->open, &q->node);
    wheel_arm(io_wheel(u->io), &q->timer,
              io_now_ms(u->io) + (sim_chance(50) && !world_recovery ? sim_between(1000, 4000)
                                                                    : sim_between(0, 200)));
}
