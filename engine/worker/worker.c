/* Notes between workers: what one has to do for another travels by a ring of each pair. */
#include "worker/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/shared.h"

#define INBOX_SLOTS 4096

int worker_notes_open(struct worker *w)
{
    uint32_t workers = w->shared->workers_len;

    ASSERT(w->index < workers && workers <= WORKERS_MAX);
    w->inbox = aligned_alloc(CACHE_LINE_BYTES, (workers + 1) * sizeof(*w->inbox));
    w->outbox = calloc(workers, sizeof(*w->outbox));
    if (w->inbox == NULL || w->outbox == NULL)
        return -ENOMEM;
    memset(w->inbox, 0, (workers + 1) * sizeof(*w->inbox));
    for (uint32_t i = 0; i <= workers; i++)
        if (ring_init(&w->inbox[i], INBOX_SLOTS) < 0)
            return -ENOMEM;
    for (uint32_t i = 0; i < workers; i++)
        list_init(&w->outbox[i]);
    mailbox_init(&w->letterbox);
    list_init(&w->letters);
    return 0;
}

void worker_notes_close(struct worker *w)
{
    for (uint32_t i = 0; w->inbox != NULL && i <= w->shared->workers_len; i++)
        ring_done(&w->inbox[i]);
    for (uint32_t i = 0; w->outbox != NULL && i < w->shared->workers_len; i++)
        ASSERT(w->outbox[i].head.next == NULL || list_empty(&w->outbox[i]));
    free(w->inbox);
    free(w->outbox);
}

void worker_post(struct shared *shared, struct worker *from, uint32_t to, struct worker_note *note)
{
    struct worker *target = &shared->workers[to];

    ASSERT(to < shared->workers_len && note->run != NULL && !list_node_linked(&note->node));
    if (from == NULL) {
        while (!ring_push(&target->inbox[shared->workers_len], note)) {
            io_wake(target->io);
            usleep(1000);
        }
    } else if (!list_empty(&from->outbox[to]) || !ring_push(&target->inbox[from->index], note)) {
        list_push_back(&from->outbox[to], &note->node);
        return;
    }
    io_wake(target->io);
}

void worker_send(struct shared *shared, uint32_t to, struct worker_note *note)
{
    struct worker *target = &shared->workers[to];

    ASSERT(to < shared->workers_len && note->run != NULL && !list_node_linked(&note->node));
    if (mailbox_put(&target->letterbox, &note->node))
        io_wake(target->io);
}

void worker_send_all(struct shared *shared, uint32_t to, struct list *notes)
{
    struct worker *target = &shared->workers[to];
    struct list_node *n;
    bool was_empty = false;

    ASSERT(to < shared->workers_len);
    while ((n = list_pop_front(notes)) != NULL)
        was_empty |= mailbox_put(&target->letterbox, n);
    if (was_empty)
        io_wake(target->io);
}

struct worker *worker_of_shard(struct shared *shared, uint32_t shard)
{
    ASSERT(shared->workers_len > 0);
    return &shared->workers[shard % shared->workers_len];
}

uint32_t worker_shards(const struct worker *w)
{
    uint32_t workers = w->shared->workers_len;

    return (queue_shards(w->shared->queue) + workers - 1 - w->index) / workers;
}

/* Of source: an inbox's number, or behind them the letters'. */
static struct worker_note *note_next(struct worker *w, uint32_t source)
{
    struct list_node *n;

    ASSERT(source <= w->shared->workers_len + 1);
    if (source <= w->shared->workers_len)
        return ring_pop(&w->inbox[source]);
    n = list_pop_front(&w->letters);
    return n == NULL ? NULL : LIST_ENTRY(n, struct worker_note, node);
}

bool worker_notes_take(struct worker *w, bool (*more)(void *arg), void *arg)
{
    uint32_t sources = w->shared->workers_len + 2;
    struct worker_note *note;

    ASSERT(w->notes_turn < sources);
    mailbox_take(&w->letterbox, &w->letters);
    for (uint32_t i = 0; i < sources; i++) {
        while ((note = note_next(w, w->notes_turn)) != NULL) {
            ASSERT(note->run != NULL && !list_node_linked(&note->node));
            note->run(w, note);
            if (more != NULL && !more(arg)) {
                w->notes_turn = (w->notes_turn + 1) % sources;
                return true;
            }
        }
        w->notes_turn = (w->notes_turn + 1) % sources;
    }
    return false;
}

void worker_notes_send(struct worker *w)
{
    for (uint32_t to = 0; to < w->shared->workers_len; to++) {
        struct worker *target = &w->shared->workers[to];
        struct list_node *n;
        bool pushed = false;

        /* From the push on a note is the target's, which sends it on or frees it at once. */
        while ((n = list_pop_front(&w->outbox[to])) != NULL) {
            if (!ring_push(&target->inbox[w->index], LIST_ENTRY(n, struct worker_note, node))) {
                list_push_front(&w->outbox[to], n);
                break;
            }
            pushed = true;
        }
        if (pushed)
            io_wake(target->io);
    }
}

bool worker_notes_wait(const struct worker *w)
{
    for (uint32_t to = 0; to < w->shared->workers_len; to++)
        if (!list_empty(&w->outbox[to]))
            return true;
    return false;
}
