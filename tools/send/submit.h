/* Client sessions to one server that ask their owner for mail and tell it how each message ended:
 * what `hayauma source` and `hayauma send` share. Thread: the one of the io.
 *
 * Hooks run inside handlers and may not call submit_*(); do that from the io's on_tick. A
 * transaction is the owner's; its memory must outlive its on_done() by as long as the io lives (a
 * send may still hold it), so owners keep transactions in a pool and reuse them. */
#ifndef HAYAUMA_TOOLS_SUBMIT_H
#define HAYAUMA_TOOLS_SUBMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "io/io.h"
#include "smtp/client.h"
#include "tools/commands/endpoint.h"

struct submit_options {
    struct endpoint to;
    uint32_t sessions;
    struct smtp_client_options client;
    uint32_t timeout_ms;           /* without any byte from the server */
    uint32_t messages_per_session; /* QUIT and reconnect after so many; 0 = no limit */
    bool reconnect;                /* after a session ended in whatever way */
    uint32_t
        failures_max; /* sessions in a row without one reply to a message: give up; 0 = never */
};

struct submit_hooks {
    /* The next transaction, or NULL for none now; submit_poke() asks again. */
    struct smtp_transaction *(*next)(void *arg);
    void (*on_recipient)(void *arg, const struct smtp_event *event);
    void (*on_done)(void *arg, struct smtp_transaction *t);
    /* A session ended other than by our QUIT; what: what the server or the system said. */
    void (*on_trouble)(void *arg, const char *what);
};

struct submit;

/* An io for a command that SIGINT and SIGTERM wake, and that SIGPIPE does not end. Errors:
 * io_open()'s, said on stderr. One in a process. */
int submit_io_open(struct io **out, const char *command, void (*on_tick)(void *arg),
                   void *arg) MUST_USE;
/* How many SIGINT and SIGTERM have come since. */
int submit_signals(void);

/* Begins to connect. 0 or -ENOMEM. */
int submit_open(struct submit **out, struct io *io, const struct submit_options *options,
                const struct submit_hooks *hooks, void *arg) MUST_USE;
/* Asks hooks->next for the sessions that could take more. */
void submit_poke(struct submit *s);
/* No more mail: QUITs each session after what is in flight. */
void submit_finish(struct submit *s);
/* Ends all sessions at once; what is in flight gets its fate. */
void submit_abort(struct submit *s);
/* Sessions that are, or will again be, of use. 0 when finished, aborted, or all gave up. */
uint32_t submit_alive(const struct submit *s);
/* Sessions greeted and ready now. */
uint32_t submit_up(const struct submit *s);
/* Only when submit_alive() is 0. */
void submit_close(struct submit *s);

#endif
