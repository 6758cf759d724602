#include "intake/campaign_report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "outcome/classify.h"

/* What one row of a table says: ends and deferrals, all or of a reason. */
struct line {
    uint8_t key; /* site or reason */
    uint64_t counts[TALLY_COUNTS];
};

static const struct {
    enum tally_count count;
    const char *name;
} columns[] = {{TALLY_DELIVERED, "delivered"},
               {TALLY_FAILED, "failed"},
               {TALLY_EXPIRED, "expired"},
               {TALLY_DEFERRED, "deferrals"}};

static uint64_t line_sum(const struct line *l)
{
    uint64_t sum = 0;

    for (int i = 0; i < TALLY_COUNTS; i++)
        sum += l->counts[i];
    return sum;
}

/* The most first. */
static int line_cmp(const void *a, const void *b)
{
    uint64_t x = line_sum(a), y = line_sum(b);

    return (x < y) - (x > y);
}

static void put_counts(struct buf *out, const struct line *l, bool delivered)
{
    for (size_t i = delivered ? 0 : 1; i < ARRAY_LEN(columns); i++)
        buf_printf(out, ",\"%s\":%" PRIu64, columns[i].name, l->counts[columns[i].count]);
}

/* Why what was not delivered was not; site: SHEET_OTHERS + 1: at all of them. */
static void put_reasons(struct buf *out, const struct sheet *s, unsigned site)
{
    struct line lines[SHEET_REASONS] = {0};

    for (uint8_t i = 0; i < SHEET_REASONS; i++)
        lines[i].key = i;
    for (uint32_t i = 0; i < s->cells_len; i++) {
        const struct sheet_cell *c = &s->cells[i];

        if (c->count != TALLY_DELIVERED && (site > SHEET_OTHERS || c->site == site))
            lines[c->reason].counts[c->count] += c->n;
    }
    qsort(lines, SHEET_REASONS, sizeof(lines[0]), line_cmp);
    buf_puts(out, "\"reasons\":[");
    for (size_t i = 0; i < SHEET_REASONS && line_sum(&lines[i]) > 0; i++) {
        buf_printf(out, "%s{\"reason\":\"%s\"", i > 0 ? "," : "",
                   classify_reason_name(lines[i].key));
        put_counts(out, &lines[i], false);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

/* What no name is known of stands last. */
static void put_sites(struct buf *out, const struct sheet *s)
{
    struct line lines[SHEET_SITES_MAX + 1] = {0};
    size_t put = 0;

    for (uint8_t i = 0; i <= SHEET_SITES_MAX; i++)
        lines[i].key = i;
    for (uint32_t i = 0; i < s->cells_len; i++)
        lines[s->cells[i].site].counts[s->cells[i].count] += s->cells[i].n;
    qsort(lines, SHEET_SITES_MAX, sizeof(lines[0]), line_cmp);
    buf_puts(out, "\"sites\":[");
    for (size_t i = 0; i <= SHEET_SITES_MAX; i++) {
        const struct line *l = &lines[i];

        if (line_sum(l) == 0)
            continue;
        buf_puts(out, put++ > 0 ? ",{\"site\":" : "{\"site\":");
        if (l->key == SHEET_OTHERS)
            buf_puts(out, "\"(others)\"");
        else if (s->sites[l->key].len == 0)
            buf_puts(out, "\"(no exchanger)\"");
        else
            buf_put_json(out, (struct str){s->sites[l->key].name, s->sites[l->key].len});
        put_counts(out, l, true);
        buf_putc(out, ',');
        put_reasons(out, s, l->key);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void put_rate(struct buf *out, const struct sheet *s)
{
    static const char *const names[SHEET_SERIES] = {
        [SHEET_DELIVERED] = "delivered", [SHEET_ENDED] = "failed", [SHEET_DEFERRED] = "deferrals"};

    buf_printf(out, "\"rate\":{\"from_ms\":%" PRIu64 ",\"step_ms\":%" PRIu64,
               s->buckets_len == 0 ? 0 : (s->first << s->width) * 1000,
               (UINT64_C(1) << s->width) * 1000);
    for (int k = 0; k < SHEET_SERIES; k++) {
        buf_printf(out, ",\"%s\":[", names[k]);
        for (uint32_t i = 0; i < s->buckets_len; i++)
            buf_printf(out, "%s%" PRIu64, i > 0 ? "," : "", s->buckets[i][k]);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
}

static void put_times(struct buf *out, const struct sheet *s)
{
    buf_puts(out, "\"times\":[");
    for (int i = 0; i < SHEET_SPANS; i++) {
        buf_puts(out, i > 0 ? ",{" : "{");
        if (i < SHEET_SPANS - 1)
            buf_printf(out, "\"below_s\":%u,", sheet_span_s[i]);
        buf_printf(out, "\"delivered\":%" PRIu64 "}", s->spans[i]);
    }
    buf_putc(out, ']');
}

void campaign_put_report(struct buf *out, const struct sheet *sheet)
{
    buf_putc(out, '{');
    put_sites(out, sheet);
    buf_putc(out, ',');
    put_reasons(out, sheet, SHEET_OTHERS + 1);
    buf_putc(out, ',');
    put_rate(out, sheet);
    buf_putc(out, ',');
    put_times(out, sheet);
    buf_putc(out, '}');
}

int campaign_add_report(struct buf *out, struct queue *q, const struct msgid *id)
{
    struct sheet *sheet = malloc(sizeof(*sheet));
    int err = sheet == NULL ? -ENOMEM : queue_sheet_get(q, id, sheet);

    if (err == 0) {
        ASSERT(out->len > 0 && out->data[out->len - 1] == '}');
        out->len--;
        buf_puts(out, ",\"report\":");
        campaign_put_report(out, sheet);
        buf_putc(out, '}');
    }
    free(sheet);
    return err;
}
