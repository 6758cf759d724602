/* See sheet.h: sheets as they are stored. */
#include <errno.h>
#include <stdlib.h>

#include "queue/batch.h"

#define VERSION 1

/* --- the record ---
 *
 * version 1, width 1, first bucket, number of buckets, each: a number for each series; number of
 * spans, each; number of sites, each: length 1, bytes, rank; number of cells, each: site 1 (from 1
 * on; 0: the others), what it counts as 1, reason 1, number. Numbers without a size are varints: 7
 * bits a byte, the lowest first. More may follow. */

static void put_varint(struct buf *out, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buf_putc(out, (char)(v | 0x80));
    buf_putc(out, (char)v);
}

void sheet_encode(struct buf *out, const struct sheet *s)
{
    ASSERT(s->width <= SHEET_WIDTH_MAX && s->buckets_len <= SHEET_BUCKETS);
    ASSERT(s->sites_len <= SHEET_SITES_MAX && s->cells_len <= SHEET_CELLS_MAX);
    buf_putc(out, VERSION);
    buf_putc(out, (char)s->width);
    put_varint(out, s->first);
    put_varint(out, s->buckets_len);
    for (uint32_t i = 0; i < s->buckets_len; i++)
        for (int k = 0; k < SHEET_SERIES; k++)
            put_varint(out, s->buckets[i][k]);
    put_varint(out, SHEET_SPANS);
    for (int i = 0; i < SHEET_SPANS; i++)
        put_varint(out, s->spans[i]);
    put_varint(out, s->sites_len);
    for (uint32_t i = 0; i < s->sites_len; i++) {
        ASSERT(s->sites[i].len <= SHEET_NAME_MAX);
        buf_putc(out, (char)s->sites[i].len);
        buf_put(out, s->sites[i].name, s->sites[i].len);
        put_varint(out, s->sites[i].rank);
    }
    put_varint(out, s->cells_len);
    for (uint32_t i = 0; i < s->cells_len; i++) {
        const struct sheet_cell *c = &s->cells[i];

        ASSERT(c->site == SHEET_OTHERS || c->site < s->sites_len);
        ASSERT(c->count < TALLY_COUNTS && c->reason < SHEET_REASONS);
        buf_putc(out, (char)(c->site == SHEET_OTHERS ? 0 : c->site + 1));
        buf_putc(out, (char)c->count);
        buf_putc(out, (char)c->reason);
        put_varint(out, c->n);
    }
}

/* What is left to be read; bad: it was cut. */
struct reading {
    struct str rest;
    bool bad;
};

static uint8_t take_byte(struct reading *r)
{
    uint8_t byte;

    r->bad |= r->rest.len == 0;
    if (r->bad)
        return 0;
    byte = (uint8_t)r->rest.ptr[0];
    r->rest = (struct str){r->rest.ptr + 1, r->rest.len - 1};
    return byte;
}

static uint64_t take_varint(struct reading *r)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint64_t byte = take_byte(r);

        v |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return v;
    }
    r->bad = true;
    return 0;
}

/* A number of things, of which there are at most max. */
static uint32_t take_len(struct reading *r, uint32_t max)
{
    uint64_t v = take_varint(r);

    r->bad |= v > max;
    return r->bad ? 0 : (uint32_t)v;
}

static void take_times(struct reading *r, struct sheet *s)
{
    uint32_t spans;

    s->width = take_byte(r);
    s->first = take_varint(r);
    s->buckets_len = take_len(r, SHEET_BUCKETS);
    for (uint32_t i = 0; i < s->buckets_len; i++)
        for (int k = 0; k < SHEET_SERIES; k++)
            s->buckets[i][k] = take_varint(r);
    r->bad |= s->width > SHEET_WIDTH_MAX || s->first > UINT64_MAX >> 2 >> s->width;
    spans = take_len(r, SHEET_SPANS);
    for (uint32_t i = 0; i < spans; i++)
        s->spans[i] = take_varint(r);
}

static void take_site(struct reading *r, struct sheet_site *site)
{
    site->len = take_byte(r);
    r->bad |= site->len > SHEET_NAME_MAX || site->len > r->rest.len;
    if (r->bad)
        return;
    memcpy(site->name, r->rest.ptr, site->len);
    r->rest = (struct str){r->rest.ptr + site->len, r->rest.len - site->len};
    site->rank = take_varint(r);
}

static void take_cell(struct reading *r, struct sheet *s, struct sheet_cell *c)
{
    uint8_t site = take_byte(r);

    c->site = site == 0 ? SHEET_OTHERS : (uint8_t)(site - 1);
    c->count = take_byte(r);
    c->reason = take_byte(r);
    c->n = take_varint(r);
    s->cells_named += site != 0;
    r->bad |= site > s->sites_len || c->count <= TALLY_ADDED || c->count >= TALLY_COUNTS ||
              c->reason >= SHEET_REASONS || s->cells_named > SHEET_NAMED_MAX;
}

/* A cell twice could make the others more than there is room for. */
_Static_assert(SHEET_REASONS <= 32, "a bit each");

static bool cells_differ(const struct sheet *s)
{
    uint32_t seen[SHEET_SITES_MAX + 1][TALLY_COUNTS] = {0};

    for (uint32_t i = 0; i < s->cells_len; i++) {
        const struct sheet_cell *c = &s->cells[i];

        if ((seen[c->site][c->count] & 1u << c->reason) != 0)
            return false;
        seen[c->site][c->count] |= 1u << c->reason;
    }
    return true;
}

int sheet_decode(struct str value, struct sheet *out)
{
    struct reading r = {.rest = value};
    uint8_t version = take_byte(&r);

    if (!r.bad && version != VERSION)
        return version > VERSION ? -EPROTO : -EBADMSG;
    sheet_init(out);
    take_times(&r, out);
    out->sites_len = take_len(&r, SHEET_SITES_MAX);
    for (uint32_t i = 0; i < out->sites_len && !r.bad; i++)
        take_site(&r, &out->sites[i]);
    out->cells_len = take_len(&r, SHEET_CELLS_MAX);
    for (uint32_t i = 0; i < out->cells_len && !r.bad; i++)
        take_cell(&r, out, &out->cells[i]);
    return r.bad || !cells_differ(out) ? -EBADMSG : 0;
}

/* --- in a batch --- */

void queue_sheet_key(uint8_t out[SHEET_KEY_BYTES], const struct msgid *id)
{
    out[0] = STATE_SHEET;
    memcpy(out + 1, id->bytes, MSGID_BYTES);
}

/* Reads a sheet in a write transaction; what is damaged begins anew. 0, or an LMDB code; EPROTO: it
 * is of a later version, and stays. */
static int sheet_get(struct batch *b, const struct msgid *id, struct sheet *out)
{
    uint8_t key[SHEET_KEY_BYTES];
    struct str value;
    int rc, err;

    queue_sheet_key(key, id);
    sheet_init(out);
    rc = state_read(b->shard, b->txn, (struct str){(char *)key, sizeof(key)}, &value);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    err = sheet_decode(value, out);
    if (err == -EPROTO)
        return EPROTO;
    if (err < 0)
        sheet_init(out);
    return 0;
}

int batch_sheet_note(struct batch *b, struct refs_delta *d, const struct queue_note *note,
                     enum tally_count count, int64_t since_ms)
{
    int rc = 0;

    ASSERT(!d->sheet_later || d->sheet != NULL); /* it was read, to know that */
    if (d->sheet_later)
        return 0;
    if (d->sheet == NULL) {
        d->sheet = malloc(sizeof(*d->sheet));
        if (d->sheet == NULL)
            return ENOMEM;
        rc = sheet_get(b, &d->id, d->sheet);
        d->sheet_later = rc == EPROTO;
    }
    if (rc == 0)
        sheet_count(d->sheet, note, count, since_ms);
    return rc == EPROTO ? 0 : rc;
}

int batch_sheet_put(struct batch *b, const struct refs_delta *d)
{
    uint8_t key[SHEET_KEY_BYTES];
    struct buf value = {0};
    int rc;

    if (d->sheet == NULL || d->sheet_later)
        return 0;
    queue_sheet_key(key, &d->id);
    sheet_encode(&value, d->sheet);
    rc = state_apply(
        b->shard, b->txn,
        &(struct queue_state){.key = {(char *)key, sizeof(key)}, .value = buf_str(&value)});
    buf_done(&value);
    return rc;
}

int queue_sheet_get(struct queue *q, const struct msgid *id, struct sheet *out)
{
    uint8_t key[SHEET_KEY_BYTES];
    struct sheet *one = malloc(sizeof(*one));
    struct buf value = {0};
    int err = one == NULL ? -ENOMEM : 0;

    queue_sheet_key(key, id);
    sheet_init(out);
    for (uint32_t shard = 0; shard < queue_shards(q) && err == 0; shard++) {
        buf_clear(&value);
        err = queue_state_get(q, shard, (struct str){(char *)key, sizeof(key)}, &value);
        if (err == 0 && sheet_decode(buf_str(&value), one) == 0)
            sheet_add(out, one);
        if (err == -ENOENT || err == -EBADMSG)
            err = 0;
    }
    buf_done(&value);
    free(one);
    return err;
}
