/* Warm-up as tables and plots for people. */
#ifndef HAYAUMA_TOOLS_WARMUP_PRINT_H
#define HAYAUMA_TOOLS_WARMUP_PRINT_H

#include <jansson.h>

#include "tools/commands/warmup_plan.h"

/* A line of warmup status, of warmup history (docs/control.md); first: with the head of the table.
 * The sentence at its end stands below it where it has no room. width: of the screen, 0: as long as
 * it is. */
void warmup_put_stream(struct buf *out, const json_t *stream, bool first, unsigned width);
void warmup_put_past(struct buf *out, const json_t *past, bool first, unsigned width);
/* The same to stdout, as wide as that is. */
void warmup_print_stream(const json_t *stream, bool first);
void warmup_print_past(const json_t *past, bool first);
/* The plan as a table with a plot, or as lines of JSON, and what it forecasts. volume: 0 or the
 * recipients a day to be reached. 0 or -ENOENT: see plan_run(). */
int warmup_print_plan(const struct plan *p, uint64_t volume, bool json) MUST_USE;

#endif
