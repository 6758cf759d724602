/* The order in which free pages are used again.
 *
 * LMDB lists free pages by the transaction that freed them, and uses the oldest transaction's pages
 * first. A backlog that went in any order leaves pages all over the file, so the pages of one
 * commit come from everywhere: each is a write of its own, in another folio of the page cache.
 * Only what one transaction has read of the list is in order of page numbers, the lowest in front,
 * and it is stored so again. So holes_order() makes LMDB read the list, by asking for a run of
 * pages that is not there. From then on commits use free pages from the front of the file to its
 * end. */
#include <string.h>

#include "base/clock.h"
#include "queue/shard.h"

/* The run that is asked for. LMDB reads 60 transactions' pages for each page of it, and stops where
 * it finds such a run. That bounds the time: 960 records, of 509 pages each at most, take 0.2 s. */
#define RUN_PAGES 16
/* Pages used since the last look, before they say anything. */
#define USED_MIN 1024
/* Pages within so many of each other are near. In order, and half of all pages free, the next is 2
 * away; the page cache and the disk do well with that. */
#define NEAR_PAGES 32
/* Putting in order takes at most a hundredth of the committer's time. */
#define REST_SHARE  100
#define REST_NS_MIN UINT64_C(1000000000)

void holes_note(struct shard *s, const MDB_val *value)
{
    uint64_t page, before = s->own.holes.page_last;

    if (value->mv_size < s->page_bytes / 2)
        return; /* it may lie in a leaf, with others */
    /* The header in front of a large value begins with the page's number. */
    memcpy(&page, (const uint8_t *)value->mv_data - CHECK_HEADER_BYTES, sizeof(page));
    ASSERT(page >= 2); /* map_bytes may have been more before: LMDB goes on with what is there */
    s->own.holes.used++;
    s->own.holes.far += page > before ? page - before > NEAR_PAGES : before - page > NEAR_PAGES;
    s->own.holes.page_last = page;
    ASSERT(s->own.holes.far <= s->own.holes.used);
}

bool holes_want_order(struct shard *s, uint64_t now_ns)
{
    bool scattered = s->own.holes.far > s->own.holes.used / 2;

    if (s->own.holes.used < USED_MIN)
        return false;
    s->own.holes.used = s->own.holes.far = 0;
    return scattered && now_ns >= s->own.holes.rest_until_ns;
}

/* The value that asks for the run is gone again before the transaction ends. */
static int ask_for_run(struct shard *s, MDB_txn *txn)
{
    uint8_t key_bytes[PAGE_KEY_BYTES] = {0};
    MDB_val key = {sizeof(key_bytes), key_bytes};
    MDB_val value = {RUN_PAGES * (size_t)s->page_bytes - CHECK_HEADER_BYTES, NULL};
    int rc = mdb_put(txn, s->pages, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE);

    return rc == 0 ? mdb_del(txn, s->pages, &key, NULL) : rc;
}

int holes_order(struct shard *s)
{
    uint64_t began_ns = clock_mono_ns(), took_ns;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn), err;

    if (rc != 0)
        return lmdb_errno(rc);
    rc = ask_for_run(s, txn);
    if (rc != 0) {
        mdb_txn_abort(txn);
        err = lmdb_errno(rc);
    } else {
        rc = mdb_txn_commit(txn);
        err = rc == 0 ? 0 : shard_commit_verdict(s, lmdb_errno(rc));
    }
    took_ns = clock_mono_ns() - began_ns;
    s->own.holes.rest_until_ns =
        began_ns + (took_ns > REST_NS_MIN / REST_SHARE ? took_ns * REST_SHARE : REST_NS_MIN);
    return err;
}
