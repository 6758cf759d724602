#include "intake/once.h"

#include <errno.h>

#include "base/packed.h"
#include "tls/digest.h"
#include "worker/shared.h"

#define DAY_MS          (INT64_C(24) * 3600 * 1000)
#define OLD_LETTERS_MAX 256 /* of a request, that take old keys with them */

_Static_assert(2 + MSGID_BYTES + 4 == ONCE_KEY_BYTES, "a letter's key");
_Static_assert(2 + 4 + ONCE_NAME_BYTES == ONCE_KEY_BYTES, "a request's key");

enum { KEY_REQUEST = 1, KEY_LETTER = 2 };

static void put_day(uint8_t *key, int64_t ms)
{
    packed_set_key(key + 2, (uint64_t)(ms / DAY_MS), 4);
}

static struct str key_str(const uint8_t *key)
{
    return (struct str){(const char *)key, ONCE_KEY_BYTES};
}

static void letter_key(uint8_t out[ONCE_KEY_BYTES], const struct msgid *batch, uint32_t n)
{
    out[0] = STATE_REQUEST;
    out[1] = KEY_LETTER;
    memcpy(out + 2, batch->bytes, MSGID_BYTES);
    packed_set_key(out + 2 + MSGID_BYTES, n, 4);
}

/* Its record of today, yesterday or tomorrow. o->key gets the day of what is found. 0, -ENOENT or
 * another error. */
static int find(struct once *o, int64_t now_ms, struct buf *value)
{
    static const int days[] = {0, -1, 1};
    int err = -ENOENT;

    for (size_t i = 0; err == -ENOENT && i < ARRAY_LEN(days); i++) {
        struct msgid batch;

        put_day(o->key, now_ms + days[i] * DAY_MS);
        err = queue_state_get(o->queue, o->shard, key_str(o->key), value);
        if (err == 0 && value->len < ONCE_VALUE_BYTES)
            return -EBADMSG;
        if (err < 0)
            continue;
        memcpy(batch.bytes, value->data, MSGID_BYTES);
        if (msgid_ms(&batch) + ONCE_KEPT_MS <= now_ms) {
            buf_clear(value);
            err = -ENOENT;
        }
    }
    return err;
}

static void take_old(void *arg, struct str key)
{
    struct once *o = arg;

    if (key.len == ONCE_KEY_BYTES)
        buf_put_str(&o->old, key);
}

/* Keys of before yesterday, as many as its letters take with them: half of each sort. */
static int find_old(struct once *o, int64_t now_ms, size_t letters)
{
    size_t max = (letters < OLD_LETTERS_MAX ? letters : OLD_LETTERS_MAX) * ONCE_OLD_EACH / 2;
    int64_t yesterday_ms = (now_ms / DAY_MS - 1) * DAY_MS;
    uint8_t from[2] = {STATE_REQUEST, KEY_REQUEST}, to[2 + 6] = {STATE_REQUEST, KEY_REQUEST};
    int err;

    if (yesterday_ms <= 0)
        return 0;
    put_day(to, yesterday_ms);
    err = queue_state_keys(o->queue, o->shard, (struct str){(char *)from, sizeof(from)},
                           (struct str){(char *)to, 2 + 4}, max, take_old, o);
    if (err < 0)
        return err;
    from[1] = to[1] = KEY_LETTER;
    packed_set_key(to + 2, (uint64_t)yesterday_ms, 6); /* as an id begins */
    return queue_state_keys(o->queue, o->shard, (struct str){(char *)from, sizeof(from)},
                            (struct str){(char *)to, sizeof(to)}, max, take_old, o);
}

/* Where o is among those that are under way, or would be. Its name is a hash. */
static struct once **bucket_of(struct shared *shared, const struct once *o)
{
    return &shared->once.first[(o->key[6] * 256u + o->key[7]) % ARRAY_LEN(shared->once.first)];
}

/* Puts o among those that are under way. False: one of its name is there. */
static bool enter(struct once *o, struct shared *shared)
{
    struct once **first = bucket_of(shared, o), *other;

    pthread_mutex_lock(&shared->once.lock);
    other = *first;
    while (other != NULL && memcmp(other->key + 6, o->key + 6, ONCE_NAME_BYTES) != 0)
        other = other->next;
    if (other == NULL) {
        ASSERT(o->shared == NULL);
        o->shared = shared;
        o->next = *first;
        *first = o;
    }
    pthread_mutex_unlock(&shared->once.lock);
    return other == NULL;
}

int once_begin(struct once *o, struct shared *shared, struct str owner, struct str key,
               const uint8_t payload[static ONCE_SHA256], size_t letters, const struct msgid *fresh)
{
    int64_t now_ms = msgid_ms(fresh);
    uint8_t sum[DIGEST_BYTES];
    struct buf value = {0};
    int err;

    *o = (struct once){.queue = shared->queue, .batch = *fresh};
    buf_put_str(&value, owner);
    buf_putc(&value, '\0'); /* no name has one */
    buf_put_str(&value, key);
    digest_sha256(value.data, value.len, sum);
    buf_clear(&value);
    o->key[0] = STATE_REQUEST;
    o->key[1] = KEY_REQUEST;
    memcpy(o->key + 6, sum, ONCE_NAME_BYTES);
    o->shard = queue_shard_of(o->queue, (struct str){(char *)sum, ONCE_NAME_BYTES});
    err = enter(o, shared) ? find(o, now_ms, &value) : -EBUSY;
    if (err == 0) {
        o->again = true;
        memcpy(o->batch.bytes, value.data, MSGID_BYTES);
        err = memcmp(value.data + MSGID_BYTES, payload, ONCE_SHA256) == 0 ? 0 : -EEXIST;
    } else if (err == -ENOENT) {
        put_day(o->key, now_ms);
        err = 0;
    }
    memcpy(o->value, o->batch.bytes, MSGID_BYTES);
    memcpy(o->value + MSGID_BYTES, payload, ONCE_SHA256);
    buf_done(&value);
    return err < 0 ? err : find_old(o, now_ms, letters);
}

int once_accepted(const struct once *o, uint32_t n)
{
    uint8_t key[ONCE_KEY_BYTES];
    struct buf value = {0};
    int err;

    if (!o->again)
        return 0;
    letter_key(key, &o->batch, n);
    err = queue_state_get(o->queue, o->shard, key_str(key), &value);
    buf_done(&value);
    return err == 0 || err == -EBADMSG ? 1
           : err == -ENOENT            ? 0
                                       : err; /* what is damaged is there */
}

void once_letter(struct once *o, uint32_t n, struct once_letter *out)
{
    ASSERT(o->shared != NULL && o->old.len % ONCE_KEY_BYTES == 0); /* under way, until once_end() */
    letter_key(out->key, &o->batch, n);
    out->states[0] =
        (struct queue_state){.key = key_str(o->key), .value = {(char *)o->value, ONCE_VALUE_BYTES}};
    out->states[1] = (struct queue_state){.key = key_str(out->key), .value = STR("")};
    out->states_len = 2;
    for (size_t i = 0; i < ONCE_OLD_EACH && o->old_at < o->old.len; i++) {
        out->states[out->states_len++] =
            (struct queue_state){.key = key_str(o->old.data + o->old_at), .remove = true};
        o->old_at += ONCE_KEY_BYTES;
    }
    ASSERT(out->states_len <= ARRAY_LEN(out->states) && o->old_at <= o->old.len);
}

void once_end(struct once *o)
{
    struct shared *shared = o->shared;
    struct once **at;

    if (shared == NULL)
        return;
    pthread_mutex_lock(&shared->once.lock);
    for (at = bucket_of(shared, o); *at != o; at = &(*at)->next)
        ASSERT(*at != NULL);
    *at = o->next;
    pthread_mutex_unlock(&shared->once.lock);
    buf_done(&o->old);
    o->shared = NULL;
}
