#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "queue/shard.h"

/* How long a closing port sleeps between looks at what is still under way. */
#define CLOSE_LOOK_MS 1

int queue_port_open(struct queue_port **out, struct queue *q, void (*wake)(void *arg), void *arg)
{
    struct queue_port *port;

    if (posix_memalign((void **)&port, CACHE_LINE_BYTES, sizeof(*port)) != 0)
        return -ENOMEM;
    *port = (struct queue_port){.queue = q, .wake = wake, .wake_arg = arg};
    for (enum port_kind kind = 0; kind < PORT_KINDS; kind++) {
        mailbox_init(&port->ended[kind]);
        list_init(&port->taken[kind]);
    }
    *out = port;
    return 0;
}

void queue_port_close(struct queue_port *port)
{
    if (port == NULL)
        return;
    port->ending = true;
    while (port->pending > 0) {
        if (port->queue->options.no_threads)
            queue_pump(port->queue);
        if (queue_port_poll(port) == 0)
            poll(NULL, 0, CLOSE_LOOK_MS);
    }
    while (atomic_load_explicit(&port->handing, memory_order_acquire) != 0)
        sched_yield();
    for (enum port_kind kind = 0; kind < PORT_KINDS; kind++)
        ASSERT(mailbox_empty(&port->ended[kind]) && list_empty(&port->taken[kind]));
    free(port);
}

void queue_port_end(struct queue_port *port)
{
    port->ending = true;
}

size_t queue_port_pending(const struct queue_port *port)
{
    return port->pending;
}

static void change_ended(struct list_node *node)
{
    struct queue_change *change = CONTAINER_OF(node, struct queue_change, node);

    ASSERT(change->result <= 0);
    change->on_done(change, change->result);
}

static void load_ended(struct list_node *node)
{
    struct queue_load *load = CONTAINER_OF(node, struct queue_load, node);

    ASSERT(load->result == 0 || list_empty(&load->rcpts)); /* a failed load has nothing */
    load->on_done(load, load->result);
}

static void directory_ended(struct list_node *node)
{
    struct queue_directory *directory = CONTAINER_OF(node, struct queue_directory, node);

    directory->on_done(directory, directory->result);
}

static void walk_ended(struct list_node *node)
{
    struct queue_walk *walk = CONTAINER_OF(node, struct queue_walk, node);

    walk->on_done(walk, walk->result);
}

static void (*const ended_of[PORT_KINDS])(struct list_node *node) = {
    [PORT_CHANGES] = change_ended,
    [PORT_LOADS] = load_ended,
    [PORT_DIRECTORIES] = directory_ended,
    [PORT_WALKS] = walk_ended,
};

bool queue_port_left(const struct queue_port *port)
{
    for (enum port_kind kind = 0; kind < PORT_KINDS; kind++)
        if (!list_empty(&port->taken[kind]))
            return true;
    return false;
}

/* What ended next: kinds take turns, so that none of which much ends keeps the others waiting.
 * NULL: nothing is left. */
static struct list_node *take_next(struct queue_port *port, enum port_kind *kind)
{
    for (int i = 0; i < PORT_KINDS; i++) {
        *kind = port->turn;
        port->turn = (port->turn + 1) % PORT_KINDS;
        if (!list_empty(&port->taken[*kind]))
            return list_pop_front(&port->taken[*kind]);
    }
    return NULL;
}

size_t queue_port_poll_while(struct queue_port *port, bool (*more)(void *arg), void *arg)
{
    struct list_node *node;
    enum port_kind kind;
    size_t ended = 0;

    for (kind = 0; kind < PORT_KINDS; kind++)
        mailbox_take(&port->ended[kind], &port->taken[kind]);
    for (; (ended == 0 || more == NULL || more(arg)) && (node = take_next(port, &kind)) != NULL;
         ended++) {
        ASSERT(port->pending > 0);
        port->pending--;
        ended_of[kind](node);
    }
    return ended;
}

size_t queue_port_poll(struct queue_port *port)
{
    return queue_port_poll_while(port, NULL, NULL);
}

/* Puts nodes into a mailbox of port and wakes it once. The port may be polled empty and closed by
 * its thread as soon as the last node is in: handing keeps it alive until the wake has returned. */
static void hand_back(struct queue_port *port, enum port_kind kind, struct list *nodes)
{
    struct list_node *node;
    bool was_empty = false;

    ASSERT(!list_empty(nodes));
    atomic_fetch_add_explicit(&port->handing, 1, memory_order_relaxed);
    while ((node = list_pop_front(nodes)) != NULL)
        was_empty |= mailbox_put(&port->ended[kind], node);
    if (was_empty && port->wake != NULL)
        port->wake(port->wake_arg);
    atomic_fetch_sub_explicit(&port->handing, 1, memory_order_release);
}

static void hand_back_one(struct queue_port *port, enum port_kind kind, struct list_node *node)
{
    struct list nodes;

    list_init(&nodes);
    list_push_back(&nodes, node);
    hand_back(port, kind, &nodes);
}

void port_changes_done(struct list *changes)
{
    while (!list_empty(changes)) {
        struct list_node *node = list_first(changes), *next;
        struct queue_port *port = CONTAINER_OF(node, struct queue_change, node)->port;
        struct list mine;

        list_init(&mine);
        for (; node != NULL; node = next) {
            next = list_next(changes, node);
            if (CONTAINER_OF(node, struct queue_change, node)->port != port)
                continue;
            list_remove(node);
            list_push_back(&mine, node);
        }
        ASSERT(port != NULL && !list_empty(&mine));
        hand_back(port, PORT_CHANGES, &mine);
    }
}

void port_loads_done(struct queue_port *port, struct list *loads)
{
    ASSERT(port != NULL);
    hand_back(port, PORT_LOADS, loads);
}

void port_directory_done(struct queue_directory *directory, int result)
{
    ASSERT(result == 0 || directory->lanes == NULL); /* a failed directory has nothing */
    directory->result = result;
    hand_back_one(directory->port, PORT_DIRECTORIES, &directory->node);
}

void port_walk_done(struct queue_walk *walk, int result)
{
    ASSERT(walk->port != NULL && result <= 0);
    walk->result = result;
    hand_back_one(walk->port, PORT_WALKS, &walk->node);
}

void queue_submit(struct queue_port *port, uint32_t shard, struct queue_change *change)
{
    struct shard *s = shard_at(port->queue, shard);

    ASSERT(change->on_done != NULL);
    /* Messages are accepted, or notices of what is settled; what is prepared is made whole later.
     */
    ASSERT(!change->prepared || (change->messages_len > 0 && change->whole == NULL));
    ASSERT(change->messages_len == 0 || change->messages != NULL);
    ASSERT(change->rows_len == 0 || change->rows != NULL);
    ASSERT(change->notes_len == 0 || (change->notes != NULL && change->rows_len > 0));
    ASSERT(change->states_len == 0 || change->states != NULL);
    ASSERT(change->purges_len == 0 || change->purges != NULL);
    ASSERT(change->pins_len == 0 || change->pins != NULL);
    change->port = port;
    port->pending++;
    if (mailbox_put(change->urgent ? &s->urgent : &s->patient, &change->node))
        committer_wake(s);
}

void queue_load(struct queue_port *port, uint32_t shard, struct queue_load *load)
{
    struct shard *s = shard_at(port->queue, shard);

    ASSERT(load->on_done != NULL);
    ASSERT(!load->header_only || load->exact != NULL);
    ASSERT(load->cursor.len <= sizeof(load->cursor.key));
    load->port = port;
    list_init(&load->rcpts);
    port->pending++;
    if (mailbox_put(&s->loads, &load->node))
        loader_wake(s);
}

void queue_directory(struct queue_port *port, uint32_t shard, struct queue_directory *d)
{
    struct shard *s = shard_at(port->queue, shard);

    ASSERT(d->on_done != NULL && d->cursor.len <= sizeof(d->cursor.key));
    d->port = port;
    d->lanes = NULL;
    d->lanes_len = 0;
    d->memory = (struct buf){0};
    port->pending++;
    if (mailbox_put(&s->directories, &d->node))
        loader_wake(s);
}

void queue_walk(struct queue_port *port, uint32_t shard, struct queue_walk *walk)
{
    struct shard *s = shard_at(port->queue, shard);

    ASSERT(walk->on_done != NULL && walk->what.visit != NULL);
    ASSERT(walk->cursor.len <= sizeof(walk->cursor.key));
    walk->port = port;
    port->pending++;
    if (mailbox_put(&s->walks, &walk->node))
        loader_wake(s);
}

void queue_directory_done(struct queue_directory *d)
{
    free(d->lanes);
    d->lanes = NULL;
    d->lanes_len = 0;
    buf_done(&d->memory);
}
