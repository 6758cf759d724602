/* Where a lane ends within a page of the rows tree.
 *
 * LMDB divides a full page in its middle, unless the new row is the page's last one: then the page
 * stays full, and a new one begins. A campaign's rows come at the end of their lane each time. If
 * rows of the next lane follow in that page, it is divided in the middle, and again, with the same
 * rows behind the lane's end: every page that the lane leaves behind stays half full. So what
 * follows the end of a long lane is given a page of its own. Two fillers between them, each as
 * large as half a page, make LMDB divide there; they are gone before the transaction ends. From
 * then on the lane's end is a page's end. */
#include "base/packed.h"
#include "queue/batch.h"

#define INDEX_BYTES 4 /* at the end of a row's key */

/* When something is deleted and less than a quarter of its page is left, LMDB moves a row there
 * from the page before. So the next row is made this large until the fillers are gone. */
#define LEFT_MIN(b) ((b)->shard->page_bytes / 4 + 64)

/* A lane of less goes without, since up to a page is lost with each: what is left for the next one.
 * One that gets several rows of a list at once will get more. In bytes a recipient of rows' pages,
 * measured with lists of 100,000 and 300,000: 1,000 domains, a quarter of a page 305, half a page
 * 350, a page 410 (of 400,000: 249, 264, 272); many small domains among large ones (Zipf's law,
 * 100,000), a page for all lanes 298, with a quarter for those 304, half a page for all 312;
 * domains of one or two recipients 327, as without. */
#define LANE_MIN(e) ((e)->b->shard->page_bytes / ((e)->run > 1 ? 4 : 1))

struct lane_end {
    struct batch *b;
    size_t run;                /* rows that came at once */
    uint8_t last[ROW_KEY_MAX]; /* the key of the lane's last row */
    size_t last_len;
    uint8_t next[ROW_KEY_MAX]; /* of the row behind it, in the same page, */
    size_t next_len;
    uint8_t value[2048]; /* and its value, if it is no longer than this */
    size_t value_len;
};

/* LMDB has a page in memory in one piece, aligned to its size (jemalloc gives out those of a
 * transaction so). Where that is not so fewer pages become full. */
static bool same_page(const struct batch *b, const void *a, const void *c)
{
    return (uintptr_t)a / b->shard->page_bytes == (uintptr_t)c / b->shard->page_bytes;
}

/* Whether key is the last row's but for so many bytes at its end. */
static bool is_like_last(const struct lane_end *e, const MDB_val *key, size_t but)
{
    return key->mv_size == e->last_len && memcmp(key->mv_data, e->last, e->last_len - but) == 0;
}

/* The cursor is at the lane's last row: whether the next row, which goes into e, is in the same
 * page, of another lane, and this lane long enough. */
static int look(struct lane_end *e, bool *shared)
{
    struct batch *b = e->b;
    MDB_val last, key, value;
    const void *at;
    size_t bytes = 0;
    int rc = mdb_cursor_get(b->rows, &last, &value, MDB_GET_CURRENT);

    *shared = false;
    if (rc != 0)
        return rc;
    ASSERT(last.mv_size <= ROW_KEY_MAX && last.mv_size > ROW_KEY_HEAD + ROW_KEY_TAIL);
    rc = mdb_cursor_get(b->rows, &key, &value, MDB_NEXT);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    at = last.mv_data;
    if (!same_page(b, at, key.mv_data) || key.mv_size > ROW_KEY_MAX)
        return 0;
    e->last_len = last.mv_size;
    memcpy(e->last, at, e->last_len);
    e->next_len = key.mv_size;
    memcpy(e->next, key.mv_data, e->next_len);
    e->value_len = value.mv_size;
    if (is_like_last(e, &key, INDEX_BYTES) ||
        packed_key_at((char *)e->last + e->last_len - INDEX_BYTES, INDEX_BYTES) > UINT32_MAX - 2)
        return 0;
    if (e->value_len <= sizeof(e->value)) {
        if (!shard_written(b->shard, &value) && !shard_readable(b->shard, &value))
            return 0;
        memcpy(e->value, value.mv_data, e->value_len);
    }
    do {
        rc = mdb_cursor_get(b->rows, &key, &value, MDB_PREV);
        if (rc == 0 && is_like_last(e, &key, ROW_KEY_TAIL))
            bytes += key.mv_size + value.mv_size;
        else
            return rc == MDB_NOTFOUND ? 0 : rc;
    } while (bytes < LANE_MIN(e));
    *shared = true;
    return 0;
}

static void filler_key(uint8_t out[ROW_KEY_MAX], const struct lane_end *e, uint32_t index)
{
    memcpy(out, e->last, e->last_len);
    packed_set_key(out + e->last_len - INDEX_BYTES, index, INDEX_BYTES);
}

/* As large as a value in a leaf may be: two of them fill a page. */
static int put_filler(struct lane_end *e, uint32_t index)
{
    uint8_t bytes[ROW_KEY_MAX];
    MDB_val key = {e->last_len, bytes};
    MDB_val value = {codec_leaf_bytes(e->b->shard->page_bytes) - e->last_len, NULL};
    int rc;

    filler_key(bytes, e, index);
    rc = mdb_cursor_put(e->b->rows, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE);
    if (rc == 0)
        memset(value.mv_data, 0, value.mv_size);
    return rc;
}

static int delete_filler(struct lane_end *e, uint32_t index)
{
    uint8_t bytes[ROW_KEY_MAX];
    MDB_val key = {e->last_len, bytes};

    filler_key(bytes, e, index);
    return mdb_del(e->b->txn, e->b->shard->rows, &key, NULL);
}

/* Whether less than a quarter of the page that begins with the next row would be left. */
static int next_is_small(struct lane_end *e, bool *small)
{
    MDB_val key = {e->next_len, e->next}, value;
    size_t bytes = 0;
    const void *at;
    int rc = mdb_cursor_get(e->b->rows, &key, &value, MDB_SET_KEY);

    at = key.mv_data;
    while (rc == 0 && bytes < LEFT_MIN(e->b) && same_page(e->b, at, key.mv_data)) {
        bytes += key.mv_size + value.mv_size;
        rc = mdb_cursor_get(e->b->rows, &key, &value, MDB_NEXT);
    }
    *small = bytes < LEFT_MIN(e->b);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The next row becomes that large. */
static int put_next(struct lane_end *e, size_t bytes)
{
    MDB_val key = {e->next_len, e->next}, value = {bytes, NULL};
    int rc = mdb_cursor_put(e->b->rows, &key, &value, MDB_RESERVE);

    if (rc == 0)
        memset(value.mv_data, 0, bytes);
    if (rc == 0 && bytes == e->value_len)
        memcpy(value.mv_data, e->value, bytes);
    return rc;
}

int batch_lane_end(struct batch *b, size_t run)
{
    struct lane_end e = {.b = b, .run = run};
    bool shared, small = false;
    int rc = look(&e, &shared);

    if (rc != 0 || !shared)
        return rc;
    rc = put_filler(&e, UINT32_MAX - 1);
    if (rc == 0)
        rc = put_filler(&e, UINT32_MAX);
    if (rc == 0 && e.value_len <= sizeof(e.value))
        rc = next_is_small(&e, &small);
    if (rc == 0 && small)
        rc = put_next(&e, LEFT_MIN(b));
    if (rc == 0)
        rc = delete_filler(&e, UINT32_MAX);
    if (rc == 0)
        rc = delete_filler(&e, UINT32_MAX - 1);
    if (rc == 0 && small)
        rc = put_next(&e, e.value_len);
    return rc;
}
