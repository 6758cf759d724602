/* Why mail waits, in words: the member "wait" of rows, groups and destinations
 * (docs/control.md). */
#ifndef HAYAUMA_TOOLS_WAIT_TEXT_H
#define HAYAUMA_TOOLS_WAIT_TEXT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"

/* Whether a suspension of this scope is no more than that a campaign does not run. */
bool wait_is_of_campaign(const char *scope);
/* Whether something holds it back. */
bool wait_holds(const json_t *object);
/* When that ends, or 0. */
int64_t wait_until_ms(const json_t *object);
/* "back-off 4m: mx1.example.org: 421 4.7.0 too busy", or its last error when nothing holds it; cut
 * to columns (0: whole). For a terminal. */
void put_wait(struct buf *out, const json_t *object, int64_t now_ms, unsigned columns);
/* Of what something holds: all of that with which limit, set where, whose, used how far, when the
 * answer came, and by whom. */
void put_wait_whole(struct buf *out, const json_t *object, int64_t now_ms);

/* " 5m ago by hanako, for 2h more: listed": of a source's suspension; nothing where it has none. */
void put_source_suspension(struct buf *out, const json_t *source, int64_t now_ms);
/* "; waited 3m for rate, 5s for byte_rate" of a route or of one of its sources; what is below a
 * second is left out. */
void put_held(struct buf *out, const json_t *of);
/* ", set at /etc/hayauma/hayauma.yaml:12", or ", the default". */
void put_set(struct buf *out, const char *set);
/* " rate 60/min, sessions_max 2": what is lowered. */
void put_caps(struct buf *out, const json_t *lowered);

#endif
