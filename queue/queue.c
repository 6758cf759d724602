#include "queue/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "queue/shard.h"

#define MAP_BYTES           (UINT64_C(64) << 30)
#define BATCH_CHANGES       2048
#define BATCH_BYTES         (16u << 20)
#define INTAKE_FREE_PERCENT 10
#define DISK_FREE_BYTES     (64u << 20)
#define RSS_BYTES           (UINT64_C(64) << 20)
#define SEGMENT_BYTES       (256u << 20)
#define SEGMENT_AGE_S       3600
#define CHECK_NS            UINT64_C(1000000000)
#define PUMPS_PER_SYNC      8 /* the syncer runs less often than the committer, as with threads */

static void fill_defaults(struct queue_options *o)
{
    o->shards = o->shards == 0 ? 1 : o->shards;
    o->map_bytes = o->map_bytes == 0 ? MAP_BYTES : o->map_bytes;
    o->batch_changes_max = o->batch_changes_max == 0 ? BATCH_CHANGES : o->batch_changes_max;
    o->batch_bytes_max = o->batch_bytes_max == 0 ? BATCH_BYTES : o->batch_bytes_max;
    o->intake_free_percent =
        o->intake_free_percent == 0 ? INTAKE_FREE_PERCENT : o->intake_free_percent;
    o->disk_free_bytes_min = o->disk_free_bytes_min == 0 ? DISK_FREE_BYTES : o->disk_free_bytes_min;
    o->rss_bytes_max = o->rss_bytes_max == 0 ? RSS_BYTES : o->rss_bytes_max;
    if (o->records.segment_bytes_max == 0)
        o->records.segment_bytes_max = SEGMENT_BYTES;
    if (o->records.segment_age_s_max == 0)
        o->records.segment_age_s_max = SEGMENT_AGE_S;
}

/* Returns why, unless the disk is read-only: then owner and mode are innocent. */
static const char *unless_read_only(const char *why)
{
    return errno == EROFS ? "its disk is mounted read-only: mount it for writing" : why;
}

static int take_lock(struct queue *q, const char **error)
{
    char *path;

    if (mkdir(q->path, 0700) < 0 && errno != EEXIST) {
        *error =
            unless_read_only("the queue directory cannot be made: check the path and its owner");
        return -errno;
    }
    if (asprintf(&path, "%s/lock", q->path) < 0)
        return -ENOMEM;
    q->lock_fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    free(path);
    if (q->lock_fd < 0) {
        *error = unless_read_only(
            "the queue's lock file cannot be opened: check the directory's owner and mode");
        return -errno;
    }
    if (flock(q->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        *error = errno == EWOULDBLOCK ? "another process has this queue open: stop it first"
                                      : "the queue cannot be locked: use a local file system";
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    }
    return 0;
}

/* Two engines in one directory of records would compress and delete each other's segments, also
 * those that are written to. */
static int take_records_lock(struct queue *q, const char **error)
{
    const char *path = q->options.records.path;

    if (path == NULL)
        return 0;
    (void)mkdir(path, 0750); /* open() says what is wrong with path */
    q->records_lock_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (q->records_lock_fd < 0) {
        *error = "the directory of the records cannot be opened (records.path)";
        return -errno;
    }
    if (flock(q->records_lock_fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        *error = "another engine writes its records there: give each a records.path of its own";
        return -EBUSY;
    }
    return 0; /* a file system without locks may be fit for records all the same */
}

static int shard_stat(const struct queue *q, uint32_t index, const char *name)
{
    struct stat st;
    char *path;
    int err;

    if (asprintf(&path, "%s/shard-%03u%s", q->path, index, name) < 0)
        return -ENOMEM;
    err = stat(path, &st) < 0 ? -errno : 0;
    free(path);
    return err;
}

/* A shard that there was is not made anew, empty. */
static int must_be_there(struct queue *q, uint32_t index, const char **error)
{
    static char text[500]; /* outlives the queue */
    int err = shard_stat(q, index, "/data.mdb");

    if (err == 0)
        return 0;
    snprintf(text, sizeof(text), "%.400s/shard-%03u/data.mdb %s", q->path, index,
             err == -ENOENT ? "is missing: put it back, its mail is in it"
                            : "cannot be reached: check owner and mode of all in the directory");
    *error = text;
    return err;
}

/* The shard's own errors name no file, or begin with "/" and one of the shard's directory. */
static int open_one(struct queue *q, uint32_t index, struct queue_format *format,
                    const char **error)
{
    static char text[900]; /* outlives the queue */
    int err = shard_open(&q->shards[index], q, index, format, error);
    const char *why = *error != NULL ? *error : "it cannot be opened";

    if (err == 0)
        return 0;
    snprintf(text, sizeof(text), "%.400s/shard-%03u%s%.450s", q->path, index,
             why[0] == '/' ? "" : ": ", why);
    *error = text;
    return err;
}

/* Shard 0 is the one that says how many there are; it says "complete" only when all exist, so that
 * a shard lost later is noticed. It is made before the others: where there are others, it was lost.
 */
static int open_shards(struct queue *q, const char **error)
{
    struct queue_format format = {.version = FORMAT_VERSION, .shards = q->options.shards};
    int err;

    for (size_t i = 0; i < sizeof(format.id); i += sizeof(uint64_t))
        memcpy(format.id + i, &(uint64_t){rng_entropy()}, sizeof(uint64_t));
    q->check_until_ns = clock_mono_ns() + CHECK_NS;
    q->shards = calloc(SHARDS_MAX, sizeof(*q->shards));
    if (q->shards == NULL)
        return -ENOMEM;
    if (shard_stat(q, 0, "") == 0 || shard_stat(q, 1, "") == 0) {
        err = must_be_there(q, 0, error);
        if (err < 0)
            return err;
    }
    err = open_one(q, 0, &format, error);
    q->shards_len = err == 0;
    if (err < 0)
        return err;
    if (format.shards == 0 || format.shards > SHARDS_MAX) {
        *error = "the queue's format record is damaged; restore from a copy";
        return -EBADMSG;
    }
    for (uint32_t i = 1; i < format.shards; i++) {
        struct queue_format own = format;

        ASSERT(q->shards_len == i); /* each opens behind the ones before it */
        own.complete = 0;
        err = format.complete ? must_be_there(q, i, error) : 0;
        if (err == 0)
            err = open_one(q, i, &own, error);
        if (err < 0)
            return err;
        q->shards_len++;
    }
    if (format.complete)
        return 0;
    format.shard = 0;
    format.complete = 1;
    return shard_write_format(q->shards[0], &format);
}

static int start_thread(pthread_t *thread, bool *started, void *(*run)(void *), void *arg,
                        const char *name)
{
    int err = pthread_create(thread, NULL, run, arg);

    *started = err == 0;
    if (err == 0)
        pthread_setname_np(*thread, name);
    return -err;
}

/* Signals are the main thread's: the queue's threads take none. */
static int start_threads(struct queue *q)
{
    pthread_condattr_t attr;
    sigset_t all, before;
    int err = 0;

    ASSERT(!q->options.no_threads && q->shards_len > 0 && !q->syncer_started);

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->syncer_wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&q->syncer_lock, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 0; i < q->shards_len && err == 0; i++) {
        struct shard *s = q->shards[i];
        char name[16];

        snprintf(name, sizeof(name), "q-commit-%u", i % 1000);
        err = start_thread(&s->committer_thread, &s->committer_started, committer_main, s, name);
        snprintf(name, sizeof(name), "q-load-%u", i % 1000);
        if (err == 0)
            err = start_thread(&s->loader_thread, &s->loader_started, loader_main, s, name);
    }
    if (err == 0)
        err = start_thread(&q->syncer_thread, &q->syncer_started, syncer_main, q, "q-sync");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

static void stop_threads(struct queue *q)
{
    for (uint32_t i = 0; i < q->shards_len; i++) {
        struct shard *s = q->shards[i];

        atomic_store_explicit(&s->stop_loader, true, memory_order_release);
        loader_wake(s);
        if (s->loader_started)
            pthread_join(s->loader_thread, NULL);
        atomic_store_explicit(&s->stop_committer, true, memory_order_release);
        committer_wake(s);
        if (s->committer_started)
            pthread_join(s->committer_thread, NULL);
    }
    if (!q->syncer_started)
        return;
    pthread_mutex_lock(&q->syncer_lock);
    q->syncer_stop = true;
    pthread_cond_signal(&q->syncer_wake);
    pthread_mutex_unlock(&q->syncer_lock);
    pthread_join(q->syncer_thread, NULL);
    pthread_cond_destroy(&q->syncer_wake);
    pthread_mutex_destroy(&q->syncer_lock);
}

int queue_open(struct queue **out, const struct queue_options *options, const char **error)
{
    const char *said = "memory is out";
    struct queue *q = calloc(1, sizeof(*q));
    int err = -ENOMEM;

    if (error == NULL)
        error = &said;
    *error = said;
    if (q == NULL)
        return err;
    q->lock_fd = q->records_lock_fd = -1;
    q->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    cores_open(&q->cores);
    q->options = *options;
    fill_defaults(&q->options);
    q->path = strdup(options->path);
    q->records_path = options->records.path == NULL ? NULL : strdup(options->records.path);
    if (q->path == NULL || (options->records.path != NULL && q->records_path == NULL))
        goto fail;
    *error = NULL; /* the errno says why, where no text does */
    q->options.path = q->path;
    q->options.records.path = q->records_path;
    if (q->options.shards > SHARDS_MAX) {
        *error = "too many shards: at most 256";
        err = -EINVAL;
        goto fail;
    }
    err = take_lock(q, error);
    if (err == 0)
        err = take_records_lock(q, error);
    if (err == 0 && !q->options.no_sync)
        err = sync_name(q->path);
    if (err == 0)
        err = flows_init(&q->flows);
    if (err == 0)
        err = open_shards(q, error);
    if (err == 0)
        err = spread_settle(q);
    for (uint32_t i = 0; i < q->shards_len && err == 0; i++)
        err = state_load_flows(q->shards[i]);
    if (err == 0 && !q->options.no_threads)
        err = start_threads(q);
    if (err < 0)
        goto fail;
    *error = NULL;
    *out = q;
    return 0;
fail:
    queue_close(q);
    return err;
}

/* Syncs and trims the records at the end, so that the next start has nothing to replay. */
static void settle_down(struct queue *q)
{
    for (uint32_t i = 0; i < q->shards_len; i++)
        committer_round(q->shards[i], true);
    syncer_round(q);
    for (uint32_t i = 0; i < q->shards_len; i++) {
        q->shards[i]->own.kept_ns = 0;
        committer_round(q->shards[i], true);
        ASSERT(mailbox_empty(&q->shards[i]->urgent) && mailbox_empty(&q->shards[i]->patient));
    }
}

void queue_close(struct queue *q)
{
    if (q == NULL)
        return;
    stop_threads(q);
    settle_down(q);
    for (uint32_t i = 0; i < q->shards_len; i++)
        shard_close(q->shards[i]);
    free(q->shards);
    flows_done(&q->flows);
    if (q->records_lock_fd >= 0)
        close(q->records_lock_fd);
    if (q->lock_fd >= 0)
        close(q->lock_fd);
    if (q->statm_fd >= 0)
        close(q->statm_fd);
    cores_close(&q->cores);
    free(q->records_path);
    free(q->path);
    free(q);
}

uint32_t queue_shards(const struct queue *q)
{
    return q->shards_len;
}

bool queue_foreign_shard(const struct queue *q, struct buf *path)
{
    buf_printf(path, "%s/shard-%03u", q->path, q->shards_len);
    return shard_stat(q, q->shards_len, "") == 0;
}

uint32_t queue_shard_of(const struct queue *q, struct str what)
{
    ASSERT(q->shards_len > 0);
    return (uint32_t)(hash_bytes(what.ptr, what.len, 0) % q->shards_len);
}

enum queue_intake queue_intake(const struct queue *q, uint32_t shard)
{
    return (enum queue_intake)atomic_load_explicit(&shard_at(q, shard)->shared.intake,
                                                   memory_order_relaxed);
}

uint64_t queue_notice_room_bytes(const struct queue *q, uint32_t shard)
{
    return atomic_load_explicit(&shard_at(q, shard)->shared.notice_room_bytes,
                                memory_order_relaxed);
}

bool queue_failed(const struct queue *q)
{
    for (uint32_t i = 0; i < q->shards_len; i++) {
        if (atomic_load_explicit(&q->shards[i]->shared.failed, memory_order_acquire))
            return true;
    }
    return false;
}

size_t queue_pump(struct queue *q)
{
    size_t ended = 0;

    ASSERT(q->options.no_threads && !q->syncer_started);
    for (uint32_t i = 0; i < q->shards_len; i++) {
        ended += committer_round(q->shards[i], true);
        ended += loader_round(q->shards[i]);
    }
    if (q->pumps++ % PUMPS_PER_SYNC == 0)
        syncer_round(q);
    return ended;
}

size_t queue_pump_part(struct queue *q, uint32_t shard, enum queue_part part)
{
    struct shard *s = shard_at(q, shard);

    ASSERT(q->options.no_threads);
    switch (part) {
    case QUEUE_COMMITTER:
        return committer_round(s, false);
    case QUEUE_LOADER:
        return loader_round(s);
    case QUEUE_SYNCER:
        syncer_round(q);
        break;
    }
    return 0;
}

bool queue_part_wanted(const struct queue *q, uint32_t shard, enum queue_part part)
{
    const struct shard *s = shard_at(q, shard);

    ASSERT(q->options.no_threads);
    if (part == QUEUE_COMMITTER)
        return committer_wanted(s);
    return part == QUEUE_LOADER && !(mailbox_empty(&s->loads) && mailbox_empty(&s->directories) &&
                                     mailbox_empty(&s->walks));
}
