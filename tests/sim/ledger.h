/* The books of all sides, and what must hold between them. Senders write what they were told,
 * receivers what they took, the engine its records; at the end they are compared:
 *
 *   nothing lost     acknowledged -> one final record; delivered on record -> taken by a receiver
 *   one outcome      at most one final record for a recipient, and none without acceptance
 *   duplicates       of all times that a recipient was taken, at most one is without excuse: its
 * 250 reached the engine, which then lived long enough to settle it limits           sessions and
 * message rate of each source at a site, and of all together, at every moment content          what
 * is taken is what was sent notices a failed recipient's sender gets one */
#ifndef HAYAUMA_TESTS_SIM_LEDGER_H
#define HAYAUMA_TESTS_SIM_LEDGER_H

#include "base/list.h"
#include "base/map.h"
#include "queue/queue.h"
#include "tests/sim/world.h"

enum ledger_final { FINAL_NONE, FINAL_DELIVERY, FINAL_BOUNCE, FINAL_EXPIRATION, FINAL_CANCELLED };

struct ledger_message {
    struct list_node node;
    uint32_t number;
    uint64_t body_hash, body_len; /* behind the header */
    bool eight_bit, null_sender;
    uint8_t tenant;         /* in a world with a crowd */
    uint32_t owed, notices; /* recipients whose failure the sender should hear of; final notices */
};

struct ledger_rcpt {
    struct map_node map;
    struct ledger_message *message; /* NULL: of a notice */
    uint32_t domain, shard;         /* shard: where its row is */
    uint8_t notify;
    bool acked, refused;
    uint64_t greylisted_ns;
    uint32_t finals, taken, unexcused;
    enum ledger_final final;
    struct list acceptances;
    char key[]; /* the address; of a notice its message id */
};

struct ledger_acceptance {
    struct list_node node, session_node;
    uint64_t offset;      /* of the end of its 250 in the receiver's output */
    uint64_t answered_ns; /* when the engine saw that, 0: not */
    bool excused;
};

struct ledger_message *ledger_message(uint32_t number);
struct ledger_rcpt *ledger_rcpt(struct ledger_message *m, const char *address, uint32_t domain);
struct ledger_rcpt *ledger_find(struct str key);
/* A notice by its message id, made when missing. */
struct ledger_rcpt *ledger_notice(struct str id);

/* A worker stores what a change says. */
void ledger_stored(uint32_t shard, const struct queue_change *change);
/* A receiver took r; its answer ends at offset (UINT64_MAX: there will be none). */
void ledger_taken(struct ledger_rcpt *r, struct list *session, uint64_t offset);
/* The engine has looked at a session's output up to offset. */
void ledger_seen(struct list *session, uint64_t offset);
/* The engine died: what was answered at or after from_ns may not be settled. */
void ledger_crashed(uint64_t from_ns);

void ledger_session(const struct sockaddr *from, const struct sockaddr *to, bool opened);
void ledger_mail(const struct sockaddr *from, const struct world_host *host);
void ledger_reloaded(void);

uint64_t ledger_hash(const void *bytes, size_t len);
/* The end: reads the records and compares all. Frees everything. */
struct ledger_totals {
    uint32_t messages, rcpts, acked, delivered, bounced, expired, cancelled, duplicates, notices;
};
void ledger_check(const char *records_dir, struct ledger_totals *out);

#endif
