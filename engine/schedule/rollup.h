/* A rollup: what many sites have in common, in one worker. A provider's limits hold for all domains
 * whose exchangers it runs, however many sets of exchangers these are: there is one rollup for each
 * source that sends to the provider, and one for the limits over all sources. A source's own limits
 * hold for all sites: there is one for it.
 *
 * Sessions are few and sites may be many: Microsoft has a set of exchangers for each customer. So a
 * channel that gets no session stands in line, and only the first of the line asks again. A session
 * that is at work for others than those in line ends after ROLLUP_SLICE_MS.
 *
 * Thread: the worker's; a rollup lives as long as somebody has it. */
#ifndef HAYAUMA_ENGINE_ROLLUP_H
#define HAYAUMA_ENGINE_ROLLUP_H

#include "limits/governor.h"
#include "worker/worker.h"

#define ROLLUP_SLICE_MS 2000

struct channel;

struct rollup {
    struct map_node node; /* worker->rollups */
    struct worker *worker;
    struct governor_entry *entry; /* which all workers share */
    struct list line;             /* channels that lack a session of these, by line_node */
    uint32_t line_len;
    uint32_t refs;
    uint32_t sessions, yielding; /* of all its sites */
    uint64_t open_next_ns;       /* monotonic: when another session may be opened; rollup_opens() */
    char *key;
};

/* The rollup of source at provider, made when missing; source "": over all sources; provider NULL:
 * at all sites. limits become those in force. */
struct rollup *rollup_get(struct worker *w, const char *source, const char *provider,
                          const struct governor_limits *limits);
/* NULL is accepted. */
void rollup_put(struct rollup *r);

/* Whether c may ask for a session: the first of no line was there before it. Otherwise it stands in
 * such a line. */
bool rollup_turn(struct channel *c);
/* c stands in the line of the limit that it waits for, if that has one, and is the first if nobody
 * was there before it: it asks again. */
void rollup_wait(struct channel *c);
/* c wants no session now, or has got one: the next in line asks. */
void rollup_leave(struct channel *c);
/* When a session of r that is opened may find leave to send, monotonic ns; 0 or past: now. */
uint64_t rollup_open_at(const struct rollup *r, uint64_t now_ns);
/* c opens a session: of each rollup further ones follow no faster than messages may. Else all sites
 * that wait for one rate would connect at once, for one message. */
void rollup_opens(struct channel *c);
/* A session of the rollup has ended: the first in line asks at once. NULL is accepted. */
void rollup_freed(struct rollup *r);
/* Whether others than c stand in a line, for more sessions than are about to end. */
bool rollup_presses(const struct channel *c);

#endif
