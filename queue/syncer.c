/* The syncer: one thread that syncs and finishes record segments, gives mapped pages back, and
 * looks whether the machine's cores are busy. Its timers: 1 s for records, 100 ms for many of them,
 * 200 ms for cores, 100 ms for pages: committers look themselves, but a listing of a queue at rest
 * can map a lot in a second. */
#include <time.h>

#include "base/clock.h"
#include "queue/shard.h"

#define TICKS_PER_SYNC 10
#define TICKS_PER_LOOK 2
#define TICK_NS        100000000
/* Records of a second of the main row are 20 MB: while they are synced at once, commits wait for
 * the disk, 20 to 60 ms once a second. So many bytes are synced at the next tick: 250 came after 51
 * ms at the 99th percentile instead of 64, and 5 % more messages went through. */
#define SYNC_EARLY_BYTES (UINT64_C(1) << 20)

void syncer_round(struct queue *q)
{
    for (uint32_t i = 0; i < q->shards_len; i++) {
        records_sync(&q->shards[i]->records);
        records_finish(&q->shards[i]->records, clock_wall_ms());
    }
}

static void sync_early(struct queue *q)
{
    for (uint32_t i = 0; i < q->shards_len; i++) {
        if (records_lag(&q->shards[i]->records) >= SYNC_EARLY_BYTES)
            records_sync(&q->shards[i]->records);
    }
}

void *syncer_main(void *arg)
{
    struct queue *q = arg;
    struct timespec until;

    pthread_mutex_lock(&q->syncer_lock);
    for (unsigned tick = 1; !q->syncer_stop; tick++) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&q->syncer_wake, &q->syncer_lock, &until);
        pthread_mutex_unlock(&q->syncer_lock);
        if (tick % TICKS_PER_SYNC == 0)
            syncer_round(q);
        else
            sync_early(q);
        if (tick % TICKS_PER_LOOK == 0)
            atomic_store_explicit(&q->cores_busy, cores_are_busy(&q->cores), memory_order_relaxed);
        if (maps_are_large(q))
            for (uint32_t i = 0; i < q->shards_len; i++)
                shard_trim(q->shards[i]);
        pthread_mutex_lock(&q->syncer_lock);
    }
    pthread_mutex_unlock(&q->syncer_lock);
    return NULL;
}
