/* The order in which free pages are used again.
 *
 * LMDB lists free pages by the transaction that freed them, and uses the oldest transaction's pages
 * first. Only what one transaction has read of the list is in order of page numbers, the lowest in
 * front, and it is stored so again. So both functions here make LMDB read the list, by asking for a
 * run of pages that is not there. From then on commits use free pages from the front of the file to
 * its end.
 *
 * holes_order() is for a backlog that went in any order and left pages all over the file: the pages
 * of one commit come from everywhere, and each is a write of its own, in another folio of the page
 * cache. It reads much, in a transaction of its own, and rests long.
 *
 * holes_gather() is for mail that comes and goes: what one transaction frees is not what one has
 * written, since messages of one commit are settled by several, and record lines stay longer. So
 * runs become shorter with each use, three pages in the end. When what was read is used up, it has
 * the list read again, while that is short, within the transaction that is about to write: all that
 * was freed meanwhile is then in order. Doing so before that would have the short runs at the front
 * of the file used again and again. */
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
/* holes_gather() looks at so many pages; more than a sixteenth of them may not break a run. */
#define MADE_MIN    64
#define BREAKS_PART 16
/* What it asks for is what some commits write. In the main row of bench/run, runs of 128, 256 and
 * 512 pages gave 0.25, 0.18 and 0.14 requests to the disk a message (without: 0.6), in files of 31,
 * 45 and 67 MB. Where none is free the file becomes longer by it. Of mail of which some stays that
 * ends where so much is free that its list is too long to be read, 128 MB: 2 % that stayed for
 * 1,500 commits of 64 made 79 MB of 13 in 2.4 million messages. */
#define GATHER_PAGES      256
#define GATHER_UNUSED_MIN (UINT64_C(64) << 20)
/* What it reads, and stores again, is bounded: so many transactions' lists, in so many pages of 512
 * numbers. That takes 2 ms at most. The main row has 10 lists, now and then 45. */
#define GATHER_LISTS_MAX      128
#define GATHER_LIST_PAGES_MAX 64
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
    s->own.holes.made++;
    /* A batch of one message has no run to break. */
    s->own.holes.breaks += s->own.holes.batch_last != 0 && page != s->own.holes.batch_last + 1;
    s->own.holes.turned |= page < before;
    s->own.holes.page_last = s->own.holes.batch_last = page;
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

/* Has LMDB read its list until it has found a run of so many pages. The value that asks for the run
 * is gone again before the transaction ends; it comes behind all contents, where the next ones go
 * too. */
static int ask_for_run(struct shard *s, MDB_txn *txn, unsigned pages)
{
    uint8_t key_bytes[PAGE_KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes};
    MDB_val value = {pages * (size_t)s->page_bytes - CHECK_HEADER_BYTES, NULL};
    int rc;

    memset(key_bytes, 0xff, sizeof(key_bytes));
    rc = mdb_put(txn, s->pages, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE);
    return rc == 0 ? mdb_del(txn, s->pages, &key, NULL) : rc;
}

int holes_gather(struct shard *s, MDB_txn *txn)
{
    uint64_t made = s->own.holes.made, breaks = s->own.holes.breaks;
    MDB_stat list;
    int rc;

    s->own.holes.batch_last = 0;
    if (made < MADE_MIN || !s->own.holes.turned)
        return 0;
    ASSERT(breaks <= made);
    s->own.holes.made = s->own.holes.breaks = s->own.holes.page_last = 0;
    s->own.holes.turned = false;
    if (breaks <= made / BREAKS_PART || shard_unused_bytes(s) < GATHER_UNUSED_MIN)
        return 0;
    rc = mdb_stat(txn, 0, &list); /* tree 0 is the list of free pages */
    if (rc != 0 || list.ms_entries > GATHER_LISTS_MAX ||
        list.ms_leaf_pages + list.ms_overflow_pages > GATHER_LIST_PAGES_MAX)
        return rc;
    return ask_for_run(s, txn, GATHER_PAGES);
}

int holes_order(struct shard *s)
{
    uint64_t began_ns = clock_mono_ns(), took_ns;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn), err;

    if (rc != 0)
        return lmdb_errno(rc);
    rc = ask_for_run(s, txn, RUN_PAGES);
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
