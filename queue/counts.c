#include "queue/counts.h"

#include <errno.h>
#include <stdlib.h>

#include "base/rng.h"

struct lane_count {
    struct map_node node;
    uint64_t rows;
    uint16_t len;
    bool partial; /* it may have been forgotten: up to counts->small rows more */
    char name[];
};

int counts_init(struct counts *c, struct flows *flows)
{
    int err = map_init(&c->lanes, 256);

    if (err < 0)
        return err;
    c->flows = flows;
    pthread_mutex_init(&c->lock, NULL);
    c->seed = rng_entropy();
    return 0;
}

void counts_done(struct counts *c)
{
    struct map_node *node, *next;
    size_t bucket = 0;

    if (c->lanes.buckets == NULL)
        return;
    for (node = map_walk(&c->lanes, &bucket, NULL); node != NULL; node = next) {
        next = map_walk(&c->lanes, &bucket, node);
        free(CONTAINER_OF(node, struct lane_count, node));
    }
    map_done(&c->lanes);
    pthread_mutex_destroy(&c->lock);
}

void counts_lock(struct counts *c)
{
    pthread_mutex_lock(&c->lock);
}

void counts_unlock(struct counts *c)
{
    pthread_mutex_unlock(&c->lock);
}

static struct lane_count *lane_count_find(struct counts *c, struct str lane, uint64_t hash)
{
    struct map_node *node;

    for (node = map_find(&c->lanes, hash); node != NULL; node = map_find_next(node)) {
        struct lane_count *count = CONTAINER_OF(node, struct lane_count, node);

        if (str_eq((struct str){count->name, count->len}, lane))
            return count;
    }
    return NULL;
}

static void lane_count_free(struct counts *c, struct lane_count *count)
{
    map_remove(&c->lanes, &count->node);
    free(count);
}

/* Forgets small lanes until a quarter of the places is free. A lane of many rows stays while there
 * are smaller ones: each time those of one row go first. Where all have many, the steps grow: the
 * lock is held. */
static void forget_small(struct counts *c)
{
    uint64_t small = 0;

    while (c->lanes.count > COUNTS_LANES_MAX / 4 * 3) {
        struct map_node *node, *next;
        size_t bucket = 0;

        small += 1 + small / 4;
        for (node = map_walk(&c->lanes, &bucket, NULL); node != NULL; node = next) {
            struct lane_count *count = CONTAINER_OF(node, struct lane_count, node);

            next = map_walk(&c->lanes, &bucket, node);
            if (count->rows <= small)
                lane_count_free(c, count);
        }
    }
    c->small = small > c->small ? small : c->small;
}

static void lane_count_add(struct counts *c, struct str lane, int64_t delta)
{
    uint64_t hash = hash_bytes(lane.ptr, lane.len, c->seed);
    struct lane_count *count = lane_count_find(c, lane, hash);

    if (c->flows != NULL)
        flows_count(c->flows, codec_lane_flow(lane), delta);
    if (count == NULL) {
        if (delta < 0) /* of a lane that was forgotten */
            return;
        if (c->lanes.count >= COUNTS_LANES_MAX)
            forget_small(c);
        count = malloc(sizeof(*count) + lane.len);
        if (count == NULL) { /* as if it had been forgotten */
            c->small += c->small == 0;
            return;
        }
        count->rows = 0;
        count->partial = c->small > 0;
        count->len = (uint16_t)lane.len;
        memcpy(count->name, lane.ptr, lane.len);
        map_insert(&c->lanes, &count->node, hash);
    }
    ASSERT(lane.len > 0 && delta != 0);
    ASSERT(delta > 0 || count->rows >= (uint64_t)-delta);
    count->rows = count->rows + (uint64_t)delta;
    if (count->rows == 0)
        lane_count_free(c, count);
}

static bool counted(const struct counts *c, struct str key)
{
    size_t common = key.len < c->position_len ? key.len : c->position_len;
    int order;

    if (c->complete)
        return true;
    order = memcmp(key.ptr, c->position, common);
    return order != 0 ? order < 0 : key.len < c->position_len;
}

void counts_change(struct counts *c, struct str key, int delta)
{
    if (counted(c, key))
        lane_count_add(c, codec_row_key_lane(key), delta);
}

void counts_found(struct counts *c, struct str lane, uint64_t rows)
{
    if (rows > 0)
        lane_count_add(c, lane, (int64_t)rows);
}

void counts_advance(struct counts *c, struct str key_behind)
{
    ASSERT(!c->complete);
    if (key_behind.len > sizeof(c->position))
        key_behind.len = sizeof(c->position);
    c->position_len = (uint16_t)key_behind.len;
    memcpy(c->position, key_behind.ptr, key_behind.len);
}

void counts_finish(struct counts *c)
{
    ASSERT(!c->complete);
    c->complete = true;
}

uint64_t counts_get(struct counts *c, struct str lane, bool *complete)
{
    struct lane_count *count;
    uint64_t rows;

    counts_lock(c);
    count = lane_count_find(c, lane, hash_bytes(lane.ptr, lane.len, c->seed));
    rows = count == NULL ? 0 : count->rows;
    *complete = c->complete && (count == NULL ? c->small == 0 : !count->partial);
    counts_unlock(c);
    return rows;
}

bool counts_complete(struct counts *c)
{
    bool complete;

    counts_lock(c);
    complete = c->complete;
    counts_unlock(c);
    return complete;
}
