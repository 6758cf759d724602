/* Whether recipients of stored mail are on the suppression list (worker/suppressions.h) by now, or
 * for a tenant whom only the message names. Asked before each attempt at mail for which the list
 * was asked when it came; letters of campaigns ask by themselves (deliver/recipes.h).
 *
 * The filter is asked in the worker. Whom it may have the crew looks up, a few at a time.
 *
 * Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_SUPPRESSED_H
#define HAYAUMA_ENGINE_SUPPRESSED_H

#include "queue/message.h"
#include "worker/worker.h"

struct suppressed_look;

/* Looks for len recipients of m. NULL: none of them is on the list. Else on_done(arg) is called
 * once, never inside this call, unless suppressed_leave() comes before; it may note that, no more.
 */
struct suppressed_look *suppressed_look(struct worker *w, struct message *m,
                                        struct recipient *const *rcpts, size_t len,
                                        void (*on_done)(void *arg), void *arg) MUST_USE;
/* Behind on_done(): 0, or -EIO: nobody knows. */
int suppressed_error(const struct suppressed_look *look);
/* The same: why rcpt, by its place, gets no mail; empty: it does. look may be NULL. */
struct str suppressed_why(const struct suppressed_look *look, size_t rcpt);
/* At any time; NULL is accepted. */
void suppressed_leave(struct suppressed_look *look);

#endif
