/* The syncer: one thread that syncs and finishes record segments about once a second and gives
 * mapped pages back. Its timers: 1 s for records, 100 ms for pages, since a listing can map a lot
 * in a second. */
#include <lmdb.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "queue/shard.h"

#define TICKS_PER_SYNC 10
#define TICK_NS        100000000

/* Resident pages of files, the store's maps nearly all of them. */
static uint64_t resident_file_bytes(void)
{
    unsigned long long size, resident, shared = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%llu %llu %llu", &size, &resident, &shared) != 3)
        shared = 0;
    fclose(f);
    return shared * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The map is shared and read-only: dropping its pages loses nothing, a reader faults them in again
 * from the page cache. */
static void trim_maps(struct queue *q)
{
    MDB_envinfo info;

    if (resident_file_bytes() <= q->options.rss_bytes_max)
        return;
    for (uint32_t i = 0; i < q->shards_len; i++) {
        struct shard *s = q->shards[i];

        if (s->map != NULL && mdb_env_info(s->env, &info) == 0)
            madvise(s->map, (info.me_last_pgno + 1) * s->page_bytes, MADV_DONTNEED);
    }
}

void syncer_round(struct queue *q)
{
    for (uint32_t i = 0; i < q->shards_len; i++) {
        records_sync(&q->shards[i]->records);
        records_finish(&q->shards[i]->records, clock_wall_ms());
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
        trim_maps(q);
        pthread_mutex_lock(&q->syncer_lock);
    }
    pthread_mutex_unlock(&q->syncer_lock);
    return NULL;
}
