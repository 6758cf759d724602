/* What became of mail, as the status shows it: of sources at sites, of tenants, of campaigns. */
#include "control/control_private.h"
#include "limits/limit.h"
#include "outcome/classify.h"
#include "worker/sums.h"

static void put_bounced(const struct sums_row *row, struct buf *out)
{
    buf_puts(out, "\"bounced_by\":{");
    for (uint8_t i = 0; i < GOVERNOR_REASONS_MAX; i++)
        if (row->bounced_by[i] > 0)
            json_number(out, classify_reason_name(i), (int64_t)row->bounced_by[i]);
    json_end(out);
    buf_putc(out, ',');
}

static void put_held(const struct sums_row *row, struct buf *out)
{
    buf_puts(out, "\"held_s\":{");
    for (enum governor_counts i = 0; i < GOVERNOR_WAITS; i++)
        if (row->held_ms[i] > 0)
            buf_printf(out, "\"%s\":%.1f,", limit_name(LIMIT_RATE, i),
                       (double)row->held_ms[i] / 1000);
    json_end(out);
    buf_putc(out, ',');
}

static void put_counts(const struct sums_row *row, enum sums_of of, struct buf *out)
{
    json_number(out, "attempts", (int64_t)row->attempts);
    json_number(out, "delivered", (int64_t)row->delivered);
    json_number(out, "deferred", (int64_t)row->deferred);
    json_number(out, "bounced", (int64_t)row->bounced);
    json_number(out, "bytes", (int64_t)row->bytes);
    put_bounced(row, out);
    if (of != SUMS_SOURCE_SITE)
        return;
    json_number(out, "connect_failures", (int64_t)row->connect_failures);
    json_number(out, "sessions", (int64_t)row->sessions);
    put_held(row, out);
}

static void put_sums(struct control *c, enum sums_of of, size_t max, struct buf *out)
{
    static const char *const lists[] = {[SUMS_SOURCE_SITE] = "source_sites",
                                        [SUMS_TENANT] = "tenants",
                                        [SUMS_CAMPAIGN] = "campaigns"};
    static const char *const names[] = {
        [SUMS_SOURCE_SITE] = "source", [SUMS_TENANT] = "tenant", [SUMS_CAMPAIGN] = "campaign"};
    struct sums sums;

    c->backend->sums(c->arg, of, max, &sums);
    buf_printf(out, "\"%s\":[", lists[of]);
    for (size_t i = 0; i < sums.len; i++) {
        buf_putc(out, '{');
        json_text(out, names[of], str_of(sums.rows[i]->name));
        if (of == SUMS_SOURCE_SITE)
            json_text(out, "site", str_of(sums.rows[i]->site));
        put_counts(sums.rows[i], of, out);
        json_end(out);
        buf_putc(out, ',');
    }
    if (sums.others_len > 0) {
        buf_putc(out, '{');
        json_number(out, "others", (int64_t)sums.others_len);
        put_counts(&sums.others, of, out);
        json_end(out);
        buf_putc(out, ',');
    }
    json_end_list(out);
    sums_done(&sums);
}

void control_put_sums(struct control *c, size_t max, struct buf *out)
{
    put_sums(c, SUMS_SOURCE_SITE, max, out);
    put_sums(c, SUMS_TENANT, max, out);
    put_sums(c, SUMS_CAMPAIGN, max, out);
}
