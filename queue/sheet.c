#include "queue/sheet.h"

#include <string.h>

const uint32_t sheet_span_s[SHEET_SPANS - 1] = {1,     2,     5,     10,    20,     30,    60,
                                                120,   300,   600,   1200,  1800,   3600,  7200,
                                                14400, 28800, 43200, 86400, 172800, 345600};

void sheet_init(struct sheet *s)
{
    s->sites_len = s->cells_len = s->cells_named = s->buckets_len = 0;
    s->width = 0;
    s->first = 0;
    memset(s->spans, 0, sizeof(s->spans));
}

/* --- by site --- */

static struct sheet_cell *cell_find(struct sheet *s, uint8_t site, uint8_t count, uint8_t reason)
{
    for (uint32_t i = 0; i < s->cells_len; i++) {
        struct sheet_cell *c = &s->cells[i];

        if (c->site == site && c->count == count && c->reason == reason)
            return c;
    }
    return NULL;
}

static void cell_add(struct sheet *s, uint8_t site, uint8_t count, uint8_t reason, uint64_t n)
{
    struct sheet_cell *c = cell_find(s, site, count, reason);

    ASSERT(site == SHEET_OTHERS || site < s->sites_len);
    ASSERT(s->cells_named <= SHEET_NAMED_MAX && s->cells_named <= s->cells_len);
    if (c == NULL && site != SHEET_OTHERS && s->cells_named == SHEET_NAMED_MAX) {
        site = SHEET_OTHERS;
        c = cell_find(s, site, count, reason);
    }
    if (c == NULL) {
        ASSERT(s->cells_len < SHEET_CELLS_MAX);
        c = &s->cells[s->cells_len++];
        *c = (struct sheet_cell){.site = site, .count = count, .reason = reason};
        s->cells_named += site != SHEET_OTHERS;
    }
    c->n += n;
}

/* What a site has is counted with the others from here on: the place is free. */
static void site_fold(struct sheet *s, uint8_t site)
{
    for (uint32_t i = 0; i < s->cells_len;) {
        struct sheet_cell c = s->cells[i];

        if (c.site != site) {
            i++;
            continue;
        }
        ASSERT(site != SHEET_OTHERS && s->cells_named > 0);
        s->cells[i] = s->cells[--s->cells_len];
        s->cells_named--;
        cell_add(s, SHEET_OTHERS, c.count, c.reason, c.n);
    }
}

static uint8_t site_lowest(const struct sheet *s)
{
    uint8_t lowest = 0;

    ASSERT(s->sites_len > 0 && s->sites_len <= SHEET_SITES_MAX);
    for (uint8_t i = 1; i < s->sites_len; i++)
        if (s->sites[i].rank < s->sites[lowest].rank)
            lowest = i;
    return lowest;
}

/* The place of a site of which n more happened. whole: that is all of it, so it comes in only for
 * one with less. Else the newcomer inherits the rank of the lowest, so that one that comes often
 * stays. */
static uint8_t site_place(struct sheet *s, struct str name, uint64_t n, bool whole)
{
    uint64_t inherited = 0;
    uint8_t i;

    if (name.len > SHEET_NAME_MAX)
        name.len = SHEET_NAME_MAX;
    for (i = 0; i < s->sites_len; i++)
        if (s->sites[i].len == name.len &&
            (name.len == 0 || memcmp(s->sites[i].name, name.ptr, name.len) == 0)) {
            s->sites[i].rank += n;
            return i;
        }
    if (s->sites_len < SHEET_SITES_MAX) {
        s->sites_len++;
    } else {
        i = site_lowest(s);
        if (whole && s->sites[i].rank >= n)
            return SHEET_OTHERS;
        inherited = whole ? 0 : s->sites[i].rank;
        site_fold(s, i);
    }
    s->sites[i] = (struct sheet_site){.rank = inherited + n, .len = (uint8_t)name.len};
    if (name.len > 0)
        memcpy(s->sites[i].name, name.ptr, name.len);
    return i;
}

/* --- over time --- */

/* Makes buckets twice as wide. */
static void buckets_widen(struct sheet *s)
{
    uint64_t old[SHEET_BUCKETS][SHEET_SERIES], first = s->first >> 1;

    ASSERT(s->width < SHEET_WIDTH_MAX && s->buckets_len > 0 && s->buckets_len <= SHEET_BUCKETS);
    memcpy(old, s->buckets, sizeof(old[0]) * s->buckets_len);
    memset(s->buckets, 0, sizeof(old[0]) * s->buckets_len);
    for (uint32_t i = 0; i < s->buckets_len; i++)
        for (int k = 0; k < SHEET_SERIES; k++)
            s->buckets[((s->first + i) >> 1) - first][k] += old[i][k];
    s->buckets_len = (uint32_t)(((s->first + s->buckets_len - 1) >> 1) - first) + 1;
    s->first = first;
    s->width++;
}

/* The bucket of a second; what lies too far away for the widest ones is in the first or last. */
static uint64_t *bucket_at(struct sheet *s, uint64_t second)
{
    uint64_t at, low, high;

    if (s->buckets_len == 0) {
        s->first = second >> s->width;
        memset(s->buckets[0], 0, sizeof(s->buckets[0]));
        s->buckets_len = 1;
    }
    for (;;) {
        at = second >> s->width;
        low = at < s->first ? at : s->first;
        high = s->first + s->buckets_len - 1;
        high = at > high ? at : high;
        if (high - low < SHEET_BUCKETS)
            break;
        if (s->width == SHEET_WIDTH_MAX)
            return s->buckets[at < s->first ? 0 : s->buckets_len - 1];
        buckets_widen(s);
    }
    if (low < s->first)
        memmove(s->buckets[s->first - low], s->buckets[0], sizeof(s->buckets[0]) * s->buckets_len);
    memset(s->buckets[low < s->first ? 0 : s->buckets_len], 0,
           sizeof(s->buckets[0]) * (high - low + 1 - s->buckets_len));
    s->buckets_len = (uint32_t)(high - low) + 1;
    s->first = low;
    ASSERT(s->buckets_len <= SHEET_BUCKETS && at - low < s->buckets_len);
    return s->buckets[at - low];
}

static void span_count(struct sheet *s, int64_t took_ms)
{
    size_t i = 0;

    while (i < SHEET_SPANS - 1 && took_ms >= (int64_t)sheet_span_s[i] * 1000)
        i++;
    s->spans[i]++;
}

/* --- both --- */

void sheet_count(struct sheet *s, const struct queue_note *note, enum tally_count count,
                 int64_t since_ms)
{
    /* A clock that was set far back must not make all buckets wide for good. */
    int64_t at_ms = note->at_ms > since_ms ? note->at_ms : since_ms;
    uint64_t *bucket = bucket_at(s, (uint64_t)(at_ms > 0 ? at_ms : 0) / 1000);
    struct str site = {note->site, note->site_len};
    uint8_t reason = note->reason < SHEET_REASONS ? note->reason : 0;

    ASSERT(count > TALLY_ADDED && count < TALLY_COUNTS);
    cell_add(s, site_place(s, site, 1, false), (uint8_t)count, reason, 1);
    bucket[count == TALLY_DELIVERED  ? SHEET_DELIVERED
           : count == TALLY_DEFERRED ? SHEET_DEFERRED
                                     : SHEET_ENDED]++;
    if (count == TALLY_DELIVERED)
        span_count(s, at_ms - since_ms);
}

void sheet_add(struct sheet *s, const struct sheet *from)
{
    uint64_t sums[SHEET_SITES_MAX] = {0};

    ASSERT(s != from && from->sites_len <= SHEET_SITES_MAX && from->buckets_len <= SHEET_BUCKETS);
    for (uint32_t i = 0; i < from->cells_len; i++)
        if (from->cells[i].site != SHEET_OTHERS)
            sums[from->cells[i].site] += from->cells[i].n;
    for (uint32_t i = 0; i < from->sites_len; i++) {
        struct str name = {from->sites[i].name, from->sites[i].len};
        /* With its cells: the place may be another site's behind the next one. */
        uint8_t place = site_place(s, name, sums[i], true);

        for (uint32_t k = 0; k < from->cells_len; k++)
            if (from->cells[k].site == i)
                cell_add(s, place, from->cells[k].count, from->cells[k].reason, from->cells[k].n);
    }
    for (uint32_t k = 0; k < from->cells_len; k++)
        if (from->cells[k].site == SHEET_OTHERS)
            cell_add(s, SHEET_OTHERS, from->cells[k].count, from->cells[k].reason,
                     from->cells[k].n);
    while (s->width < from->width && s->buckets_len > 0)
        buckets_widen(s);
    if (s->width < from->width)
        s->width = from->width;
    for (uint32_t i = 0; i < from->buckets_len; i++) {
        uint64_t *bucket = bucket_at(s, (from->first + i) << from->width);

        for (int k = 0; k < SHEET_SERIES; k++)
            bucket[k] += from->buckets[i][k];
    }
    for (int i = 0; i < SHEET_SPANS; i++)
        s->spans[i] += from->spans[i];
}
