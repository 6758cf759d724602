/* Requests with a key, by HTTP or a message by SMTP, are carried out once, however often their
 * client sends them, also over a crash: the answer was lost, and the client knows nothing.
 *
 * The letters of such a request lie in one shard, and with each of them the state tree gets, in the
 * letter's own transaction (numbers big-endian):
 *
 *   STATE_REQUEST, 1, day 4, name 16         -> batch id 16, payload 32    the request
 *   STATE_REQUEST, 2, batch id 16, number 4  -> nothing                    its letter was accepted
 *
 * name is of the owner and the key, payload of the body: SHA-256, a name's cut. day: of the batch,
 * since 1970; looked for are today, yesterday and, since a clock may have been set back over
 * midnight, tomorrow. A letter's id follows from the batch id and the letter's number, so a request
 * that is sent again gives the same ids, and accepts what was not accepted yet. Both kinds of key
 * are ordered by time: what is older than a day goes with letters of later requests, a few with
 * each.
 *
 * Thread: any, one at a time for each request. */
#ifndef HAYAUMA_ENGINE_ONCE_H
#define HAYAUMA_ENGINE_ONCE_H

#include "base/msgid.h"
#include "queue/queue.h"

struct shared;

#define ONCE_KEPT_MS     (INT64_C(24) * 3600 * 1000)
#define ONCE_KEY_BYTES   22
#define ONCE_NAME_BYTES  16
#define ONCE_SHA256      32
#define ONCE_OLD_EACH    4 /* that go with a letter */
#define ONCE_VALUE_BYTES (MSGID_BYTES + ONCE_SHA256)

struct once {
    struct once *next;     /* of those under way, shared->once */
    struct shared *shared; /* NULL: not under way */
    struct queue *queue;
    uint32_t shard;
    struct msgid batch;
    bool again; /* some of its letters may be here */
    uint8_t key[ONCE_KEY_BYTES], value[ONCE_VALUE_BYTES];
    struct buf old; /* keys that are to go, ONCE_KEY_BYTES each */
    size_t old_at;
};

/* What goes with a letter; lives until the letter's acceptance has ended. */
struct once_letter {
    uint8_t key[ONCE_KEY_BYTES];
    struct queue_state states[2 + ONCE_OLD_EACH];
    size_t states_len;
};

/* Begins the request of an owner with this key and payload: its batch is fresh's or, again, the
 * batch that it had. owner: a token's name, "" for clients without one, or "smtp:" and a user's
 * name or nothing. letters: how many it has. 0; -EBUSY: it is under way; -EEXIST: the key was
 * another payload's; or as queue_state_get(), which may wait for the disk. once_end() follows. */
int once_begin(struct once *o, struct shared *shared, struct str owner, struct str key,
               const uint8_t payload[static ONCE_SHA256], size_t letters,
               const struct msgid *fresh) MUST_USE;
/* Whether the nth letter was accepted: 1, 0 or -EIO. */
int once_accepted(const struct once *o, uint32_t n) MUST_USE;
void once_letter(struct once *o, uint32_t n, struct once_letter *out);
/* NULL shared is accepted: it was not begun. */
void once_end(struct once *o);

#endif
