#include "worker/warmup_store.h"

#include <errno.h>

#include "base/log.h"
#include "base/packed.h"

static size_t put_name(uint8_t *out, struct str name)
{
    ASSERT(name.len > 0 && name.len <= WARMUP_NAME_MAX);
    out[0] = (uint8_t)name.len;
    memcpy(out + 1, name.ptr, name.len);
    return 1 + name.len;
}

size_t warmup_key_encode(uint8_t out[WARMUP_KEY_MAX], const struct warmup_key *key)
{
    size_t len = 2;

    out[0] = STATE_WARMUP;
    out[1] = (uint8_t)key->record;
    len += put_name(out + len, key->source);
    len += put_name(out + len, key->provider);
    if (key->record == WARMUP_RECORD_DAY) {
        packed_set_key(out + len, (uint32_t)key->day, 4); /* days sort */
        len += 4;
    }
    return len;
}

static bool take_name(struct str *in, struct str *out)
{
    size_t len = in->len == 0 ? 0 : (uint8_t)in->ptr[0];

    if (len == 0 || len > WARMUP_NAME_MAX || in->len < 1 + len)
        return false;
    *out = (struct str){in->ptr + 1, len};
    *in = (struct str){in->ptr + 1 + len, in->len - 1 - len};
    return memchr(out->ptr, 0, len) == NULL;
}

int warmup_key_decode(struct str bytes, struct warmup_key *out)
{
    struct warmup_key key = {0};
    struct str rest;

    if (bytes.len < 2 || bytes.ptr[0] != STATE_WARMUP)
        return -EBADMSG;
    key.record = (uint8_t)bytes.ptr[1];
    rest = (struct str){bytes.ptr + 2, bytes.len - 2};
    if (!take_name(&rest, &key.source) || !take_name(&rest, &key.provider))
        return -EBADMSG;
    if (key.record == WARMUP_RECORD_DAY && rest.len == 4) {
        key.day = (int32_t)packed_key_at(rest.ptr, 4);
    } else if (key.record != WARMUP_RECORD_STREAM || rest.len != 0) {
        return -EBADMSG;
    }
    *out = key;
    return 0;
}

struct loading {
    struct warmup *to;
    uint32_t shard;
    int err;
};

static void load_one(void *arg, struct str key, struct str value)
{
    struct loading *l = arg;
    struct warmup_state state;
    struct warmup_key k;
    int err;

    if (l->err < 0 || warmup_key_decode(key, &k) < 0 || k.record != WARMUP_RECORD_STREAM)
        return;
    err = warmup_state_decode(value, &state);
    if (err < 0)
        log_error("warmup.record_damaged",
                  "source=\"%.*s\" provider=\"%.*s\" action=\"it begins anew tomorrow; 'hayauma "
                  "warmup set' brings it to its stage\"",
                  STR_FMT(k.source), STR_FMT(k.provider));
    l->err = warmup_restore(l->to, k.source, k.provider, l->shard, err < 0 ? NULL : &state);
}

int warmup_store_open(struct warmup *w, struct queue *q, void (*wake)(void *arg), void *arg)
{
    struct loading l = {.to = w, .err = warmup_open(w, wake, arg)};
    int err = l.err;

    for (; err == 0 && l.err == 0 && l.shard < queue_shards(q); l.shard++)
        err = queue_state_visit(q, l.shard, STATE_WARMUP, load_one, &l);
    return err < 0 ? err : l.err;
}

struct visiting {
    void (*visit)(void *arg, const struct warmup_key *key, const struct warmup_past *past);
    void *arg;
};

static void visit_one(void *arg, struct str key, struct str value)
{
    const struct visiting *v = arg;
    struct warmup_past past;
    struct warmup_key k;

    if (warmup_key_decode(key, &k) == 0 && k.record == WARMUP_RECORD_DAY &&
        warmup_past_decode(value, &past) == 0)
        v->visit(v->arg, &k, &past);
}

int warmup_store_days(struct queue *q,
                      void (*visit)(void *arg, const struct warmup_key *key,
                                    const struct warmup_past *past),
                      void *arg)
{
    struct visiting v = {visit, arg};

    return queue_state_visit(q, 0, STATE_WARMUP, visit_one, &v);
}
