/* The recipes of a worker's mail (mail/recipe.h), and the letters that are made of them. A recipe
 * is read once, by the crew, and kept for the recipients that come. A letter is made when its
 * recipient's transaction may be submitted: at once where that takes less than a millisecond, else
 * by the crew. What is made at once takes RECIPE_TURN_UNITS of a turn; behind them letters wait
 * for the next turns, in the order in which they were asked for, whichever session asks.
 *
 * Thread: the worker's. Bounded: recipes that nobody uses are at most RECIPES_MAX and
 * RECIPES_BYTES_MAX, the longest unused ones go first; RECIPE_JOBS_MAX jobs of a worker are with
 * the crew. Letters count as other messages do (message_bytes_alive()). */
#ifndef HAYAUMA_ENGINE_RECIPES_H
#define HAYAUMA_ENGINE_RECIPES_H

#include <errno.h>

#include "queue/message.h"
#include "worker/worker.h"

#define RECIPES_MAX       256
#define RECIPES_BYTES_MAX (16u << 20)
#define RECIPE_JOBS_MAX   16

/* The recipient is on the suppression list (worker/suppressions.h): there is to be no letter. */
#define RECIPES_SUPPRESSED (-EKEYREVOKED)

struct recipe_entry;
struct recipe_job;

#define RECIPE_TURN_UNITS 100000 /* of letters that are made in a turn: 5 ms */

/* Who wants a letter. Zeroed before it is first used. */
struct recipe_wait {
    struct list_node node;      /* the entry's, while its recipe is read; or recipes.later */
    struct recipe_entry *entry; /* likewise, or NULL */
    struct recipe_job *job;     /* makes the letter; or NULL */
    /* recipes_letter() is to be called again. To be noted, no more. */
    void (*on_ready)(struct recipe_wait *wait);
    /* Out. */
    struct message *letter; /* a reference, the caller's */
    int result;             /* or -errno: -EINVAL, -E2BIG: there can be none; RECIPES_SUPPRESSED */
    struct buf why;         /* the caller's to free */
    bool made;              /* by the crew: letter and result stand */
    bool granted;           /* it waited for a turn, which is now */
};

void recipes_init(struct worker *w);
void recipes_done(struct worker *w);
/* Whether the crew has something of them still. */
bool recipes_pending(const struct worker *w);

/* True: wait->letter is r's, or wait->result says why there is none. False: wait->on_ready() is
 * called once, never inside this call, unless recipes_leave() comes before. */
bool recipes_letter(struct worker *w, const struct recipient *r, struct recipe_wait *wait) MUST_USE;
void recipes_leave(struct recipe_wait *wait);
/* A turn begins: letters may be made. */
void recipes_turn(struct worker *w);
/* Whether a letter that waited for its turn may be made now: its on_ready() was called. */
bool recipes_grant(struct worker *w);

#endif
