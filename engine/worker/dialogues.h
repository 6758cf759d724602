/* Dialogues of sessions that somebody watches (`hayauma trace`): what client and server say,
 * without contents and passwords, which whoever calls dialogues_put() leaves out.
 *
 * A watch keeps what its reader has not taken, up to a bound; beyond it lines are dropped and
 * counted: no session waits for a reader. The lock is held for microseconds, while a line is
 * written or the lines are handed over. While nobody watches, a session pays one load. Any thread.
 */
#ifndef HAYAUMA_ENGINE_DIALOGUES_H
#define HAYAUMA_ENGINE_DIALOGUES_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/msgid.h"
#include "config/config.h"

#define DIALOGUES_MAX           4            /* watches at a time */
#define DIALOGUE_BYTES_MAX      (256u << 10) /* that a reader has not taken */
#define DIALOGUE_TEXT_BYTES_MAX 1000         /* of a line; the rest is counted */

/* Which sessions: all that is given must match. Names empty: any. */
struct dialogue_filter {
    struct config_network client; /* of sessions in */
    bool has_client;
    char site[160], source[CONFIG_SHARE_NAME_MAX + 1]; /* of sessions out */
    struct msgid message;                              /* that a session out has under way */
    bool has_message;
};

struct dialogue { /* a watch */
    struct list_node node;
    struct dialogue_filter filter;
    struct buf lines; /* under the lock, as is dropped */
    uint64_t dropped;
};

struct dialogues {
    pthread_mutex_t lock; /* of all, and of what is in it */
    struct list all;
    _Atomic uint32_t len; /* of all; relaxed: a watch may begin a little late */
};

/* Who speaks in a session. */
struct dialogue_session {
    const char *id;
    const struct sockaddr *client; /* of a session in; NULL: it is one out */
    const char *peer;              /* "192.0.2.1:25", or the host's name */
    struct str site, source;       /* of a session out */
    /* Whether a session out has the message under way; of it. NULL: none. */
    bool (*carries)(const void *of, const struct msgid *message);
    const void *of;
};

void dialogues_init(struct dialogues *d);
void dialogues_done(struct dialogues *d);
static inline bool dialogues_watched(const struct dialogues *d)
{
    return atomic_load_explicit(&d->len, memory_order_relaxed) > 0;
}
/* Text was said; wall_ms: when. from_us: by this host. */
void dialogues_put(struct dialogues *d, const struct dialogue_session *who, int64_t wall_ms,
                   bool from_us, struct str text);

/* A watch begins. -ENOSPC: there are as many as may be. */
int dialogues_add(struct dialogues *d, struct dialogue *watch) MUST_USE;
/* The watch ends; its lines are freed. */
void dialogues_remove(struct dialogues *d, struct dialogue *watch);
/* Moves the lines that there are to out. Returns how many were dropped since the last call. */
uint64_t dialogues_take(struct dialogues *d, struct dialogue *watch, struct buf *out);

#endif
