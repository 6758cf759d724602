#include "tests/sim/crowd.h"

#include <math.h>
#include <stdlib.h>

#include "intake/hot.h"
#include "queue/shard.h"
#include "tests/sim/world.h"

#define PORTS_MAX  4
#define SHARDS_SIM 5
/* What a worker counts is halved once in this time at most: a domain that had twice what makes it
 * hot is hot. */
#define SURE_NS   (HOT_HALF_MS * SIM_MS)
#define SURE_MIN  (2 * HOT_COUNT_MIN)
#define MANY_MIN  65 /* recipients, of a message that has rows in all shards */
#define TAKES_MAX 4096
#define TAKES_MIN 100 /* fewer say nothing about weights */
/* Behind so many of a tenant the next may not be ready: on their way, or being loaded. */
#define REST 8

struct take {
    uint64_t at_ns;
    uint8_t tenant;
};

static struct {
    struct arrivals {
        const struct queue_port *port;
        uint64_t at_ns[SURE_MIN]; /* of the crowd's domain, the last ones in turn */
        uint32_t next;
        uint32_t ours, all;
    } ports[PORTS_MAX];
    uint64_t many[SHARDS_SIM]; /* rows of messages of many recipients */
    struct contest {
        struct take takes[TAKES_MAX];
        uint32_t takes_len, added[WORLD_TENANTS];
        uint64_t added_ns; /* the last of them */
    } contests[PORTS_MAX];
} crowd;

/* --- spreading --- */

static struct arrivals *arrivals_of(const struct queue_port *port)
{
    for (size_t i = 0; i < PORTS_MAX; i++) {
        struct arrivals *a = &crowd.ports[i];

        if (a->port == NULL)
            a->port = port;
        if (a->port == port)
            return a;
    }
    /* Those of a process that died. */
    memset(crowd.ports, 0, sizeof(crowd.ports));
    crowd.ports[0].port = port;
    return &crowd.ports[0];
}

static bool is_crowd(struct str domain)
{
    return world_crowd && str_eq(domain, str_of(world.domains[world.crowd_domain].name));
}

/* A message of few recipients, to shard. */
static void arrives(const struct queue_port *port, uint32_t shard, const struct message *m,
                    struct str domain)
{
    struct arrivals *a = arrivals_of(port);
    uint64_t *last = &a->at_ns[a->next % SURE_MIN];
    bool ours = is_crowd(domain), sure;

    a->all++;
    a->ours += ours;
    if (!ours)
        return;
    sure = *last != 0 && sim_now_ns() - *last < SURE_NS && a->ours > a->all / 2;
    *last = sim_now_ns();
    a->next++;
    if (sure &&
        shard != queue_shard_of(port->queue, (struct str){(const char *)m->id.bytes, MSGID_BYTES}))
        sim_fail("spreading", "mail of a hot domain goes to shard %u, and not where its id says",
                 shard);
}

static void contest_added(const struct queue_change *change, uint32_t shard)
{
    struct contest *c = &crowd.contests[shard % world.workers];

    for (size_t i = 0; i < change->rows_len; i++) {
        const struct recipient *r = change->rows[i].rcpt;
        struct str tenant = r->message->tenant;

        if (!is_crowd(r->queue))
            continue;
        ASSERT(tenant.len == 2);
        c->added[tenant.ptr[1] - '0']++;
        c->added_ns = sim_now_ns();
    }
}

void crowd_submitted(const struct queue_port *port, uint32_t shard,
                     const struct queue_change *change)
{
    const struct message *m = change->messages_len == 1 ? change->messages[0] : NULL;

    if (m == NULL || !change_accepts(change) || (m->flags & MESSAGE_NOTICE) != 0)
        return;
    if (m->recipients >= MANY_MIN && queue_shards(port->queue) > 1)
        crowd.many[shard] += change->rows_len;
    else
        arrives(port, shard, m, change->rows[0].rcpt->queue);
    if (world_crowd)
        contest_added(change, shard);
}

static void check_many(void)
{
    double all = 0, share;

    for (uint32_t i = 0; i < SHARDS_SIM; i++)
        all += (double)crowd.many[i];
    share = all / world.shards;
    for (uint32_t i = 0; i < world.shards && all > 0; i++)
        if (fabs((double)crowd.many[i] - share) > 0.1 * share + 6 * sqrt(share))
            sim_fail("spreading", "shard %u has %llu of %.0f rows of messages in all %u shards", i,
                     (unsigned long long)crowd.many[i], all, world.shards);
}

/* --- weights --- */

void crowd_taken(const struct ledger_rcpt *r)
{
    struct contest *c;

    if (!world_crowd || r->message == NULL || r->domain != world.crowd_domain || r->taken > 1)
        return;
    c = &crowd.contests[r->shard % world.workers];
    if (c->takes_len < TAKES_MAX)
        c->takes[c->takes_len++] = (struct take){sim_now_ns(), r->message->tenant};
}

static void check_shares(const struct contest *c, const uint32_t left[WORLD_TENANTS], uint32_t from)
{
    uint32_t got[WORLD_TENANTS] = {0}, all = 0, weights = 0;

    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        weights += world.weights[i];
        if (left[i] <= REST)
            return;
    }
    for (uint32_t i = from; i < c->takes_len; i++, all++) {
        uint8_t tenant = c->takes[i].tenant;

        if (++got[tenant] + REST >= left[tenant])
            break;
    }
    if (all < TAKES_MIN)
        return;
    sim_trace("crowd: %u takes of %u, %u, %u by weights %u, %u, %u", all, got[0], got[1], got[2],
              world.weights[0], world.weights[1], world.weights[2]);
    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        double due = (double)all * world.weights[i] / weights;

        /* A round is as many as the weight says. */
        if (fabs(got[i] - due) > 0.05 * due + world.weights[i] + 2)
            sim_fail("weights", "tenant t%u got %u of %u, and %.0f by its weight of %u in %u", i,
                     got[i], all, due, world.weights[i], weights);
    }
}

void crowd_check(void)
{
    check_many();
    for (uint32_t w = 0; world_crowd && w < world.workers; w++) {
        const struct contest *c = &crowd.contests[w];
        uint32_t left[WORLD_TENANTS], from = 0;

        memcpy(left, c->added, sizeof(left));
        for (; from < c->takes_len && c->takes[from].at_ns <= c->added_ns; from++)
            left[c->takes[from].tenant]--;
        check_shares(c, left, from);
    }
}
