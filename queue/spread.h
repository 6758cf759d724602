/* A message of many recipients, whose rows lie in several shards: all of it becomes mail, or
 * nothing, also when the process dies in the middle.
 *
 * Each shard that gets rows has a part: the content and these rows. Parts but the home's are
 * prepared: stored and synced, but no mail; readers pass them by. When all are, the home's part is
 * committed as any message is, with the records and a note that it decided (STATE_WHOLE): from then
 * on the message is accepted. The other parts become whole behind that, each by a commit of its own
 * that nobody waits for, and the note goes with the last. When a part is refused the others are
 * dropped. What a crash leaves between is settled when the queue is opened: queue/DESIGN.md,
 * section 5.
 *
 * Thread: the port's; nothing here is touched by another. */
#ifndef HAYAUMA_QUEUE_SPREAD_H
#define HAYAUMA_QUEUE_SPREAD_H

#include "queue/codec.h"
#include "queue/queue.h"

enum spread_part_state {
    PART_NONE,      /* no rows for this shard */
    PART_PREPARING, /* its change is under way: as prepared, or the home's, which decides */
    PART_PREPARED,
    PART_FINISHING, /* the message is decided: it becomes whole */
    PART_WHOLE,
    PART_DROPPING, /* the message is refused */
    PART_GONE,     /* nothing is stored of it; or, of a shard that failed, nobody knows */
};

struct queue_spread;

struct queue_spread_part {
    /* The caller's: rows to add, all of one flow and due time. A message that is this part's alone,
     * since its worker may change it (message_share()). */
    struct message *message;
    struct queue_row *rows;
    size_t rows_len; /* may be 0 */
    enum spread_part_state state;
    /* private */
    struct queue_spread *spread;
    struct queue_change change;
    size_t dropped; /* of rows */
    struct queue_state note;
    uint8_t key[SPREAD_KEY_BYTES], value[PART_VALUE_BYTES];
};

struct queue_spread {
    /* The caller's; all of it lives until on_end. */
    struct queue_port *port;
    struct queue_spread_part *parts; /* [queue_shards()] */
    uint32_t parts_len;
    uint32_t home;      /* one that has rows */
    struct buf records; /* of the acceptance */
    /* The message is durable (0), or refused: as queue_change.on_done. */
    void (*on_done)(struct queue_spread *s, int result);
    /* Rows of the part are mail that may be sent, and their recipients the callee's. */
    void (*on_whole)(struct queue_spread *s, uint32_t shard);
    void (*on_end)(struct queue_spread *s); /* nothing is under way any more */
    void *owner;
    /* private */
    uint32_t under_way;
    int result;
};

void queue_spread_submit(struct queue_port *port, struct queue_spread *s);

#endif
