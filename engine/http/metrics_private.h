/* What the files of GET /metrics share. */
#ifndef HAYAUMA_ENGINE_METRICS_PRIVATE_H
#define HAYAUMA_ENGINE_METRICS_PRIVATE_H

#include "schedule/lane_wait.h"

/* Recipients of lanes that wait, by what for. */
struct metrics_waits {
    uint64_t recipients[LANE_WAIT_REASONS];
    int64_t oldest_due_ms; /* wall clock: of what is late; INT64_MAX: nothing is due */
};

/* --- text --- */

/* The lines that begin a family of series. help may be NULL. */
static inline void put_family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# TYPE hayauma_%s %s\n", name, type);
    if (help != NULL)
        buf_printf(out, "# HELP hayauma_%s %s\n", name, help);
}

/* name="value", with value's quotes and backslashes escaped and its control characters replaced. */
static inline void put_label_pair(struct buf *out, const char *name, struct str value)
{
    buf_puts(out, name);
    buf_puts(out, "=\"");
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];

        if (c == '\\' || c == '"')
            buf_putc(out, '\\');
        buf_putc(out, ascii_is_control(c) ? '?' : c);
    }
    buf_putc(out, '"');
}

/* {name="value"} */
static inline void put_label(struct buf *out, const char *name, struct str value)
{
    buf_putc(out, '{');
    put_label_pair(out, name, value);
    buf_putc(out, '}');
}

/* --- metrics_mail.c --- */

/* Adds lane, which has rows recipients in the queue; what that costs beside 1. The lane's worker.
 */
uint32_t metrics_see_wait(struct metrics_waits *waits, struct lane *lane, uint64_t rows);
void metrics_put_waits(struct buf *out, const struct metrics_waits *waits);
/* How long mail waited for each limit. */
void metrics_put_held(struct buf *out, const struct shared *shared);
void metrics_put_refusals(struct buf *out, const struct shared *shared);
void metrics_put_sources(struct buf *out, struct shared *shared, const struct config *config);
/* What became of the mail of sources at sites, of tenants and campaigns. */
void metrics_put_sums(struct buf *out, struct shared *shared);
void metrics_put_warmup(struct buf *out, struct shared *shared, int64_t wall_ms);

#endif
