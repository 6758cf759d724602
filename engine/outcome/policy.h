/* What follows from the end of an attempt: for the recipient, the session, the number of sessions
 * and the destination. One table, the one in docs/failures.md under "What an attempt's end costs";
 * policy_test.c compares the two. Pure, any thread.
 *
 * classify() reads a reply (whose fault?), policy_of_refusal() and its callers name the event, this
 * table says what it costs. A rule that reads an answer in another way only has to name another
 * event.
 */
#ifndef HAYAUMA_ENGINE_POLICY_H
#define HAYAUMA_ENGINE_POLICY_H

#include <stdbool.h>

#include "outcome/classify.h"

/* After so many attempts in a row without a success, on fresh sessions, the destination stops. */
#define POLICY_RUN_SETUP 3 /* no address gave a session; between them 1 s, 2 s */
#define POLICY_RUN_MAIL  8 /* each session refused what it was given, at once after the other */

enum policy_event {
    POLICY_TAKEN,
    POLICY_RECIPIENT,
    POLICY_TOO_MANY,
    POLICY_HOST,
    POLICY_SLOWER,
    POLICY_PAUSED,
    POLICY_SESSION_END,
    POLICY_POLITE_END,
    POLICY_POLITE_SLOWER,
    POLICY_BROKEN,
    POLICY_IN_DOUBT,
    POLICY_UNSEEN,
    POLICY_UNABLE,
    POLICY_SETUP_SLOWER,
    POLICY_SETUP_FAILED,
    POLICY_SHORTAGE,
    POLICY_EVENTS
};

/* Whether the event is an attempt of the recipient: counted and recorded, at the cost of the retry
 * time. */
enum policy_attempt {
    POLICY_ATTEMPT,
    POLICY_ONCE_FREE, /* the recipient is tried once more at once; the second time counts as an
                         attempt */
    POLICY_FREE,
    POLICY_NOBODY, /* no recipient was given to the session */
};

/* What the event does to the run of attempts without a success. */
enum policy_run { POLICY_RUN_KEEPS, POLICY_RUN_COUNTS, POLICY_RUN_ENDS };

struct policy {
    const char *name; /* as in the document */
    enum policy_attempt attempt;
    bool ends_session; /* the session takes nothing more */
    bool one_less;     /* one session fewer at once */
    enum policy_run run;
};

const struct policy *policy_of(enum policy_event event);
/* The event that the answer to a command of a transaction is. between: no command of this
 * transaction was answered before, and the session had answered another one. */
enum policy_event policy_of_refusal(const struct verdict *verdict, enum smtp_stage stage,
                                    bool between);

#endif
