/* The committer: forms batches of what was submitted, commits them, hands the results back.
 *
 * Batching is natural: what arrives while a commit syncs is the next batch. Its only timers:
 *   company   20 ms   changes that nobody waits for wait for others at most this long; on a busy
 *                     machine 60 ms where few come together
 *   rest       8 ms   at most: a busy committer of a busy machine rests as long as its last commit
 *                     took
 *   keep       1 s    while idle: space, rotation, trimming, catching up with the records
 *   refused  100 ms   the same while intake is refused, so that it resumes soon */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "queue/shard.h"

#define NS_PER_MS  UINT64_C(1000000)
#define KEEP_MS    1000
#define REFUSED_MS 100
/* From so many changes on a commit serves hundreds of sessions. Those that it answers come back
 * while the next commit would run with the other half of them; when the committer waits, all fit in
 * one: half as many commits, which write fewer pages: 9 to 12 % of a message's CPU. That is more
 * throughput where cores have no time left. Where they have, a rest is idle time of cores and disk:
 * a fifth of the throughput. */
#define REST_CHANGES_MIN 64
#define REST_NS_MAX      (8 * NS_PER_MS)
/* A commit of settles costs some 600 us, and as many of them a second were made for 5,000 messages
 * as for 50,000. Where cores have no time left, and fewer rows than so many come together, the next
 * ones wait for longer. A kill -9 doubles what was not recorded: of a shard up to three times so
 * many then. */
#define COMPANY_ROWS     512
#define COMPANY_BUSY_NS  (3 * WAIT_COMPANY_NS)
#define COUNT_PAUSE_MS   1  /* between slices when idle: counting must not crowd memory */
#define COUNT_BUSY_MS    20 /* between slices when there is work; idle after so long without any */
#define COUNT_SLICE_ROWS 2000 /* about 0.3 ms of a committer's time */

void committer_wake(struct shard *s)
{
    uint64_t one = 1;

    /* An eventfd write fails only when the counter is full: then the wake is pending anyway. */
    if (s->committer_event >= 0 && write(s->committer_event, &one, sizeof(one)) < 0)
        return;
}

/* --- ending changes --- */

static void end_change(struct queue_change *c, int result, struct list *done)
{
    ASSERT(result <= 0 && c->port != NULL);
    list_remove(&c->node);
    c->result = result;
    list_push_back(done, &c->node);
}

static void end_all(struct list *changes, int result, struct list *done)
{
    struct list_node *node;

    while ((node = list_first(changes)) != NULL)
        end_change(CONTAINER_OF(node, struct queue_change, node), result, done);
}

/* Ends changes that bring new mail; true when there were any. */
static bool end_accepts(struct list *changes, int result, struct list *done)
{
    struct list_node *node, *next;
    bool any = false;

    for (node = list_first(changes); node != NULL; node = next) {
        struct queue_change *c = CONTAINER_OF(node, struct queue_change, node);

        next = list_next(changes, node);
        if (!change_accepts(c))
            continue;
        end_change(c, result, done);
        any = true;
    }
    return any;
}

/* --- one batch --- */

/* Moves the second half of changes to the front of rest. */
static void split(struct list *changes, struct list *rest)
{
    struct list_node *node;
    struct list half;
    size_t n = 0;

    for (node = list_first(changes); node != NULL; node = list_next(changes, node))
        n++;
    ASSERT(n > 1); /* each half is smaller, so that splitting ends */
    list_init(&half);
    for (n /= 2; n > 0; n--)
        list_push_back(&half, list_pop_front(changes));
    list_splice_back(changes, rest);
    list_splice_back(rest, changes);
    list_splice_back(changes, &half);
    ASSERT(!list_empty(changes) && !list_empty(rest));
}

/* Moves changes that bring notices to the end of rest; false when all changes do, or none. */
static bool notices_behind(struct list *changes, struct list *rest)
{
    struct list_node *node, *next;
    struct list notices;
    bool both;

    list_init(&notices);
    for (node = list_first(changes); node != NULL; node = next) {
        next = list_next(changes, node);
        if (CONTAINER_OF(node, struct queue_change, node)->messages_len == 0)
            continue;
        list_remove(node);
        list_push_back(&notices, node);
    }
    both = !list_empty(&notices) && !list_empty(changes);
    list_splice_back(both ? rest : changes, &notices);
    return both;
}

/* A batch could not be committed and the shard lives on: makes it smaller or ends parts of it, so
 * that what can be stored is. Settling comes first: it frees space, and a delivery that is not
 * recorded is a duplicate later. Notices take space: they come behind it. */
static void shrink(struct shard *s, struct list *changes, struct list *rest,
                   struct queue_change *failed, int err, struct list *done)
{
    ASSERT(err < 0 && !list_empty(changes));
    if (failed != NULL && (err != -ENOSPC || failed->messages_len > 0)) {
        end_change(failed, err, done);
        return;
    }
    if (end_accepts(changes, err, done) || (err == -ENOSPC && shard_ballast_drop(s)) ||
        notices_behind(changes, rest))
        return;
    if (list_first(changes)->next != &changes->head)
        split(changes, rest);
    else
        end_all(changes, err, done);
}

/* Commits changes; every one has ended when it returns. */
static void commit_all(struct shard *s, struct list *changes, struct list *done)
{
    struct queue_change *failed;
    struct list rest;
    int err;

    list_init(&rest);
    while (!list_empty(changes)) {
        err = atomic_load_explicit(&s->shared.failed, memory_order_relaxed)
                  ? -ESHUTDOWN
                  : batch_commit(s, changes, &failed);
        if (err == 0) {
            end_all(changes, 0, done);
        } else if (err == -ESHUTDOWN) {
            shard_fail(s);
            list_splice_back(changes, &rest);
            end_all(changes, err, done);
        } else {
            atomic_fetch_add_explicit(&s->shared.commit_errors, 1, memory_order_relaxed);
            shrink(s, changes, &rest, failed, err, done);
            shard_check_space(s, clock_mono_ns());
        }
        if (list_empty(changes))
            list_splice_back(changes, &rest);
    }
    ASSERT(list_empty(&rest)); /* every change has ended */
}

/* --- forming batches --- */

static size_t mailbox_move(struct mailbox *from, struct list *to)
{
    struct list_node *node;
    struct list taken;
    size_t n = 0;

    list_init(&taken);
    mailbox_take(from, &taken);
    for (node = list_first(&taken); node != NULL; node = list_next(&taken, node))
        n++;
    list_splice_back(to, &taken);
    return n;
}

/* How long those wait that come now. By the last of them it is guessed how many will come. */
static uint64_t company_ns(const struct shard *s)
{
    bool few = s->own.last_patient_rows < COMPANY_ROWS;

    return few && atomic_load_explicit(&s->queue->cores_busy, memory_order_relaxed)
               ? COMPANY_BUSY_NS
               : WAIT_COMPANY_NS;
}

/* Changes that nobody waits for stay in their mailbox for a while (a non-empty mailbox wakes
 * nobody), and do not ride with every commit of urgent ones: a settle touches pages far from where
 * acceptance writes, and the settles of twenty commits at once touch hardly more pages than those
 * of one. now: do not wait. */
static void gather(struct shard *s, uint64_t now_ns, bool now)
{
    mailbox_take(&s->suspects, &s->own.suspects);
    s->own.urgent_len += mailbox_move(&s->urgent, &s->own.urgent);
    if (mailbox_empty(&s->patient))
        return;
    if (s->own.company_until_ns == 0)
        s->own.company_until_ns = now_ns + company_ns(s);
    if (now || now_ns >= s->own.company_until_ns) {
        s->own.patient_len += mailbox_move(&s->patient, &s->own.patient);
        s->own.company_until_ns = 0;
    }
}

static uint64_t change_bytes(const struct queue_change *c)
{
    uint64_t bytes = c->records.len;

    for (size_t i = 0; i < c->messages_len; i++)
        bytes += c->messages[i]->content_len;
    return bytes;
}

struct batch_size {
    size_t changes, rows;
    uint64_t bytes;
};

/* Moves the oldest changes of from to batch, up to the limits of a batch, at least one if batch is
 * empty. */
static void take_from(struct shard *s, struct list *from, size_t *from_len, struct list *batch,
                      struct batch_size *size)
{
    struct list_node *node;

    while (size->changes < s->options.batch_changes_max && (node = list_first(from)) != NULL) {
        struct queue_change *c = CONTAINER_OF(node, struct queue_change, node);

        size->bytes += change_bytes(c);
        size->rows += c->rows_len;
        if (size->changes > 0 &&
            (size->bytes > s->options.batch_bytes_max || size->rows > BATCH_ROWS_MAX))
            return;
        ASSERT(*from_len > 0);
        list_remove(node);
        list_push_back(batch, node);
        --*from_len;
        size->changes++;
    }
}

static void take_batch(struct shard *s, struct list *batch)
{
    struct batch_size size = {0};

    take_from(s, &s->own.patient, &s->own.patient_len, batch, &size);
    if (size.changes > 0)
        s->own.last_patient_rows = size.rows;
    take_from(s, &s->own.urgent, &s->own.urgent_len, batch, &size);
    ASSERT(size.changes > 0 && size.changes <= s->options.batch_changes_max);
    ASSERT(list_empty(&s->own.patient) == (s->own.patient_len == 0));
    ASSERT(list_empty(&s->own.urgent) == (s->own.urgent_len == 0));
}

static size_t commit_batch(struct shard *s)
{
    uint64_t began_ns = clock_mono_ns(), ended_ns;
    size_t urgent = s->own.urgent_len, n = 0;
    struct list batch, done;
    struct list_node *node;

    list_init(&batch);
    list_init(&done);
    take_batch(s, &batch);
    ASSERT(!list_empty(&batch));
    commit_all(s, &batch, &done);
    ASSERT(list_empty(&batch) && !list_empty(&done));
    ended_ns = clock_mono_ns();
    s->own.rest_until_ns =
        ended_ns + (ended_ns - began_ns < REST_NS_MAX ? ended_ns - began_ns : REST_NS_MAX);
    s->own.last_urgent_len = urgent;
    for (node = list_first(&done); node != NULL; node = list_next(&done, node))
        n++;
    port_changes_done(&done);
    /* Nobody waits for the work that follows: all changes have ended. */
    records_write(&s->records);
    records_rotate(&s->records, clock_wall_ms());
    if (maps_are_large(s->queue))
        shard_trim(s);
    return n;
}

/* --- housekeeping --- */

/* Counts a slice of the rows tree; see counts.h. */
static void count_slice(struct shard *s)
{
    uint8_t position[sizeof(s->counts.position)];
    MDB_val key = {s->counts.position_len, position}, value;
    uint64_t rows = 0;
    struct str lane = {NULL, 0}, found;
    char lane_bytes[ROW_KEY_MAX];
    struct row_key row;
    MDB_cursor *cursor = NULL;
    MDB_txn *txn;
    unsigned n = 0;
    int rc;

    if (s->counts.complete || mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0)
        return;
    ASSERT(s->counts.position_len <= sizeof(position));
    memcpy(position, s->counts.position, s->counts.position_len);
    rc = mdb_cursor_open(txn, s->rows, &cursor);
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &key, &value, key.mv_size == 0 ? MDB_FIRST : MDB_SET_RANGE);
    counts_lock(&s->counts);
    for (; rc == 0 && n < COUNT_SLICE_ROWS;
         n++, rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (!codec_row_key_parse(val_str(&key), &row))
            continue;
        found = codec_row_key_lane(val_str(&key));
        if (!str_eq(found, lane)) {
            counts_found(&s->counts, lane, rows);
            ASSERT(found.len <= sizeof(lane_bytes));
            memcpy(lane_bytes, found.ptr, found.len);
            lane = (struct str){lane_bytes, found.len};
            rows = 0;
        }
        rows++;
    }
    counts_found(&s->counts, lane, rows);
    if (rc == 0)
        counts_advance(&s->counts, val_str(&key));
    else if (rc == MDB_NOTFOUND)
        counts_finish(&s->counts);
    counts_unlock(&s->counts);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
}

static void free_suspects(struct shard *s)
{
    struct list_node *node;

    while ((node = list_pop_front(&s->own.suspects)) != NULL)
        free(CONTAINER_OF(node, struct suspect, node));
}

/* What has to be done now and then; idle: nothing waits for a commit. */
static void keep_house(struct shard *s, bool idle, uint64_t now_ns)
{
    bool due = now_ns - s->own.kept_ns >= KEEP_MS * NS_PER_MS;
    bool frees = idle && remains_wanted_back(s);

    if (atomic_load_explicit(&s->shared.failed, memory_order_relaxed)) {
        free_suspects(s);
        return;
    }
    if (idle || now_ns - s->own.counted_ns >= COUNT_BUSY_MS * NS_PER_MS) {
        s->own.counted_ns = now_ns;
        count_slice(s);
    }
    shard_check_space(s, now_ns);
    if (holes_want_order(s, now_ns) && holes_order(s) == -ESHUTDOWN) {
        shard_fail(s);
        free_suspects(s);
        return;
    }
    if (!due && !frees && list_empty(&s->own.suspects))
        return;
    s->own.kept_ns = now_ns;
    /* A tool that was killed in a read transaction would pin pages until the map is full. */
    (void)mdb_reader_check(s->env, NULL);
    records_rotate(&s->records, clock_wall_ms());
    if (records_behind(&s->records))
        records_catch_up(s);
    if (list_empty(&s->own.suspects) && !frees && !(idle && records_want_trim(&s->records)))
        return;
    if (batch_housekeeping(s, &s->own.suspects) == -ESHUTDOWN)
        shard_fail(s);
    free_suspects(s);
}

size_t committer_round(struct shard *s, bool now)
{
    size_t ended = 0;

    gather(s, clock_mono_ns(), now);
    while (s->own.urgent_len + s->own.patient_len > 0) {
        ended += commit_batch(s);
        gather(s, clock_mono_ns(), now);
    }
    keep_house(s, true, clock_mono_ns());
    return ended;
}

bool committer_wanted(const struct shard *s)
{
    return !mailbox_empty(&s->urgent) || !mailbox_empty(&s->patient) || !s->counts.complete;
}

/* --- the thread --- */

static void rest_until_company(struct shard *s)
{
    uint64_t now_ns = clock_mono_ns();
    struct timespec left;

    if (s->own.last_urgent_len < REST_CHANGES_MIN || now_ns >= s->own.rest_until_ns ||
        s->own.urgent_len >= 2 * s->own.last_urgent_len ||
        !atomic_load_explicit(&s->queue->cores_busy, memory_order_relaxed))
        return;
    left = (struct timespec){.tv_nsec = (long)(s->own.rest_until_ns - now_ns)};
    nanosleep(&left, NULL);
    gather(s, clock_mono_ns(), false);
}

static int wait_ms(struct shard *s, uint64_t now_ns)
{
    ASSERT(s->own.urgent_len == 0 && s->own.patient_len == 0);
    if (atomic_load_explicit(&s->shared.failed, memory_order_relaxed))
        return KEEP_MS;
    if (s->own.company_until_ns != 0 && now_ns >= s->own.company_until_ns)
        return 0;
    if (s->own.company_until_ns != 0)
        return (int)((s->own.company_until_ns - now_ns) / NS_PER_MS) + 1;
    if (!s->counts.complete)
        return COUNT_PAUSE_MS;
    return atomic_load_explicit(&s->shared.intake, memory_order_relaxed) == QUEUE_INTAKE_OK
               ? KEEP_MS
               : REFUSED_MS;
}

static void wait_for_work(struct shard *s, uint64_t now_ns)
{
    struct pollfd fd = {.fd = s->committer_event, .events = POLLIN};
    uint64_t count;

    if (!mailbox_empty(&s->urgent) || poll(&fd, 1, wait_ms(s, now_ns)) <= 0)
        return;
    if (read(s->committer_event, &count, sizeof(count)) < 0)
        return; /* the wake was taken already: the mailbox is looked at anyway */
}

void *committer_main(void *arg)
{
    struct shard *s = arg;
    uint64_t now_ns, worked_ns = 0;
    bool stop;

    for (;;) {
        /* stop is read before the mailboxes are emptied, so that all that was submitted before it
         * was set is committed. */
        stop = atomic_load_explicit(&s->stop_committer, memory_order_acquire);
        now_ns = clock_mono_ns();
        gather(s, now_ns, stop);
        if (s->own.urgent_len + s->own.patient_len > 0) {
            if (!stop)
                rest_until_company(s);
            commit_batch(s);
            keep_house(s, false, now_ns);
            worked_ns = now_ns;
            continue;
        }
        if (stop)
            return NULL;
        keep_house(s,
                   s->own.company_until_ns == 0 && now_ns - worked_ns >= COUNT_BUSY_MS * NS_PER_MS,
                   now_ns);
        wait_for_work(s, clock_mono_ns());
    }
}
