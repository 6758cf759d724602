#include "worker/suppressions.h"

#include <errno.h>
#include <stdlib.h>

#include "base/map.h"
#include "base/packed.h"
#include "base/rng.h"
#include "mail/international.h"
#include "worker/queue_name.h"

#define VERSION      1
#define ASKED        1 /* the key's second byte: which record it is */
#define FOUND        2
#define KEY_HEAD     3                   /* kind, record, length of the tenant */
#define KEYS_EACH    1000                /* of a read transaction */
#define LEVEL_BITS   (UINT64_C(1) << 20) /* of the first; 128 KiB */
#define BITS_EACH    10                  /* of a level that is full */
#define PROBES       5
#define DAMAGED_TEXT "its record is damaged"

_Static_assert(KEY_HEAD + FLOW_NAME_MAX + SUPPRESSION_ADDRESS_MAX <= STATE_KEY_MAX,
               "a state's key");

struct suppression_level {
    uint64_t mask; /* of bits */
    uint64_t seed;
    uint64_t count; /* under the lock */
    _Atomic uint64_t words[];
};

/* --- addresses --- */

static bool text_put(char *out, size_t *len, struct str s)
{
    if (s.len > SUPPRESSION_ADDRESS_MAX - *len)
        return false;
    memcpy(out + *len, s.ptr, s.len);
    *len += s.len;
    return true;
}

/* The local part in small letters. */
static bool put_local(char *out, size_t *len, struct str local)
{
    struct buf folded = {0};
    bool fits;

    if (str_is_ascii(local)) {
        fits = text_put(out, len, local);
        for (size_t i = 0; fits && i < *len; i++)
            out[i] = ascii_lower(out[i]);
        return fits;
    }
    international_put_folded(&folded, local);
    fits = text_put(out, len, buf_str(&folded));
    buf_done(&folded);
    return fits;
}

int suppression_address(struct str address, char out[SUPPRESSION_ADDRESS_MAX + 1])
{
    char room[SMTP_PATH_MAX];
    struct smtp_address parsed;
    struct dns_name domain;
    struct str local;
    size_t given, len = 0;

    if (address.len > SMTP_PATH_MAX || smtp_address_parse(address, true, &parsed) < 0 ||
        parsed.domain.len == 0 || queue_name_of(parsed.domain, &domain) < 0)
        return -EINVAL;
    local = smtp_address_local(parsed.text, room, &given);
    if (given == 0)
        local = parsed.local_part;
    if (!put_local(out, &len, local) || !text_put(out, &len, STR("@")) ||
        !text_put(out, &len, (struct str){domain.text, domain.len}))
        return -EINVAL;
    out[len] = '\0';
    return 0;
}

static const char *const reasons[SUPPRESSION_REASONS] = {[SUPPRESSION_UNSUBSCRIBED] =
                                                             "unsubscribed",
                                                         [SUPPRESSION_COMPLAINT] = "complaint",
                                                         [SUPPRESSION_BOUNCE] = "bounce",
                                                         [SUPPRESSION_MANUAL] = "manual"};

const char *suppression_reason_name(enum suppression_reason reason)
{
    ASSERT(reason > 0 && reason < SUPPRESSION_REASONS);
    return reasons[reason];
}

enum suppression_reason suppression_reason_of(struct str name)
{
    for (enum suppression_reason i = SUPPRESSION_UNSUBSCRIBED; i < SUPPRESSION_REASONS; i++)
        if (str_eq(name, str_of(reasons[i])))
            return i;
    return 0;
}

void suppression_put_why(struct buf *out, const struct suppression *one)
{
    static const char *const words[SUPPRESSION_REASONS] = {
        [SUPPRESSION_UNSUBSCRIBED] = "it unsubscribed",
        [SUPPRESSION_COMPLAINT] = "it complained",
        [SUPPRESSION_BOUNCE] = "mail to it bounced",
        [SUPPRESSION_MANUAL] = "it was put there by hand"};

    buf_printf(out, "the address is on the suppression list%s%s: %s",
               one->tenant[0] != '\0' ? " of " : "", one->tenant, words[one->reason]);
}

/* --- the filter --- */

/* The n-th bit of an address in a level: double hashing (Kirsch, Mitzenmacher). */
static uint64_t bit_of(const struct suppression_level *l, uint64_t hash, unsigned n)
{
    return ((hash & UINT32_MAX) + n * (hash >> 32 | 1) + (uint64_t)n * n) & l->mask;
}

static uint64_t hash_of(const struct suppression_level *l, const char *address)
{
    return hash_bytes(address, strlen(address), l->seed);
}

static struct suppression_level *level_at(struct suppressions *s, size_t i)
{
    return atomic_load_explicit(&s->levels[i], memory_order_acquire);
}

static bool level_has(const struct suppression_level *l, const char *address)
{
    uint64_t hash = hash_of(l, address);

    for (unsigned i = 0; i < PROBES; i++) {
        uint64_t bit = bit_of(l, hash, i);

        if ((atomic_load_explicit(&l->words[bit / 64], memory_order_relaxed) >> bit % 64 & 1) == 0)
            return false;
    }
    return true;
}

/* The level that has room; under the lock. The last one takes all that comes: it is asked in vain
 * more often then. */
static struct suppression_level *level_with_room(struct suppressions *s)
{
    for (size_t i = 0;; i++) {
        uint64_t bits = LEVEL_BITS << 2 * i;
        struct suppression_level *l = level_at(s, i);

        if (l == NULL) {
            l = calloc(1, sizeof(*l) + bits / 8);
            ASSERT(l != NULL); /* as in buf_*: memory is fatal */
            l->mask = bits - 1;
            l->seed = rng_entropy();
            atomic_store_explicit(&s->levels[i], l, memory_order_release);
        }
        if (l->count < bits / BITS_EACH || i == SUPPRESSION_LEVELS - 1)
            return l;
    }
}

static bool filter_has(struct suppressions *s, const char *address)
{
    struct suppression_level *l;

    for (size_t i = 0; i < SUPPRESSION_LEVELS && (l = level_at(s, i)) != NULL; i++)
        if (level_has(l, address))
            return true;
    return false;
}

static void filter_add(struct suppressions *s, const char *address)
{
    struct suppression_level *l = level_with_room(s);
    uint64_t hash;

    hash = hash_of(l, address);
    for (unsigned i = 0; i < PROBES; i++) {
        uint64_t bit = bit_of(l, hash, i);

        atomic_fetch_or_explicit(&l->words[bit / 64], UINT64_C(1) << bit % 64,
                                 memory_order_relaxed);
    }
    l->count++;
}

void suppressions_note(struct suppressions *s, const char *address, bool found)
{
    if (found)
        atomic_store_explicit(&s->found, true, memory_order_release);
    pthread_mutex_lock(&s->lock);
    s->count++;
    if (!filter_has(s, address)) /* who bounces again and again takes no room */
        filter_add(s, address);
    pthread_mutex_unlock(&s->lock);
}

static bool is_loading(struct suppressions *s)
{
    return atomic_load_explicit(&s->loading, memory_order_acquire);
}

/* False: it is no address, or on no list. */
static bool may_have(struct suppressions *s, struct str address,
                     char text[SUPPRESSION_ADDRESS_MAX + 1])
{
    bool loading = is_loading(s);

    return (loading || level_at(s, 0) != NULL) && suppression_address(address, text) == 0 &&
           (loading || filter_has(s, text));
}

bool suppressions_may_have(struct suppressions *s, struct str address)
{
    char text[SUPPRESSION_ADDRESS_MAX + 1];

    return may_have(s, address, text);
}

/* --- the record --- */

static size_t key_of(uint8_t record, uint8_t out[STATE_KEY_MAX], struct str tenant,
                     struct str address)
{
    ASSERT(tenant.len <= FLOW_NAME_MAX && address.len <= SUPPRESSION_ADDRESS_MAX);
    out[0] = STATE_SUPPRESSION;
    out[1] = record;
    out[2] = (uint8_t)tenant.len;
    if (tenant.len > 0)
        memcpy(out + KEY_HEAD, tenant.ptr, tenant.len);
    if (address.len > 0)
        memcpy(out + KEY_HEAD + tenant.len, address.ptr, address.len);
    return KEY_HEAD + tenant.len + address.len;
}

size_t suppression_key(uint8_t out[STATE_KEY_MAX], struct str tenant, struct str address)
{
    return key_of(ASKED, out, tenant, address);
}

size_t suppression_found_key(uint8_t out[STATE_KEY_MAX], struct str tenant, struct str address)
{
    return key_of(FOUND, out, tenant, address);
}

void suppression_encode(struct buf *out, const struct suppression *one)
{
    ASSERT(one->reason > 0 && one->reason < SUPPRESSION_REASONS);
    buf_putc(out, VERSION);
    buf_putc(out, (char)one->reason);
    packed_put(out, (uint64_t)one->at_ms, 8);
    packed_put_text(out, one->campaign);
    packed_put_text(out, one->who);
    packed_put_text(out, one->answer);
}

static bool decode_key(struct str key, struct suppression *out)
{
    size_t tenant = key.len < KEY_HEAD ? 0 : (uint8_t)key.ptr[2], address;

    if (key.len <= KEY_HEAD + tenant || tenant > FLOW_NAME_MAX || key.ptr[0] != STATE_SUPPRESSION ||
        (key.ptr[1] != ASKED && key.ptr[1] != FOUND))
        return false;
    address = key.len - KEY_HEAD - tenant;
    if (address > SUPPRESSION_ADDRESS_MAX)
        return false;
    memcpy(out->tenant, key.ptr + KEY_HEAD, tenant);
    out->tenant[tenant] = '\0';
    memcpy(out->address, key.ptr + KEY_HEAD + tenant, address);
    out->address[address] = '\0';
    return strlen(out->tenant) == tenant && strlen(out->address) == address;
}

int suppression_decode(struct str key, struct str value, struct suppression *out)
{
    struct suppression one = {0};

    if (!decode_key(key, &one) || value.len < 10)
        return -EBADMSG;
    if ((uint8_t)value.ptr[0] != VERSION)
        return (uint8_t)value.ptr[0] > VERSION ? -EPROTO : -EBADMSG;
    one.reason = (enum suppression_reason)(uint8_t)value.ptr[1];
    one.at_ms = (int64_t)packed_at(value.ptr + 2, 8);
    value = (struct str){value.ptr + 10, value.len - 10};
    if (one.reason == 0 || one.at_ms < 0 ||
        !packed_take_text(&value, one.campaign, FLOW_NAME_MAX) ||
        !packed_take_text(&value, one.who, SUPPRESSION_WHO_MAX) ||
        (value.len > 0 && !packed_take_text(&value, one.answer, SUPPRESSION_ANSWER_MAX)))
        return -EBADMSG; /* earlier builds knew no answer */
    if (one.reason >=
        SUPPRESSION_REASONS) /* a later build has others: no mail is on the safe side */
        one.reason = SUPPRESSION_MANUAL;
    *out = one;
    return 0;
}

/* --- the store --- */

static int get(struct suppressions *s, uint32_t shard, struct str key, struct suppression *out)
{
    struct buf value = {0};
    int err = queue_state_get(s->queue, shard, key, &value);

    if (err == 0)
        err = suppression_decode(key, buf_str(&value), out);
    buf_done(&value);
    if (err != -EBADMSG && err != -EPROTO)
        return err;
    *out = (struct suppression){.reason = SUPPRESSION_MANUAL, .who = DAMAGED_TEXT};
    return decode_key(key, out) ? 0 : -EIO;
}

bool suppressions_may_find(struct suppressions *s)
{
    return is_loading(s) || atomic_load_explicit(&s->found, memory_order_acquire);
}

static uint32_t found_shards(struct suppressions *s)
{
    return suppressions_may_find(s) ? queue_shards(s->queue) : 0;
}

/* Of records 2 any: they are equally strict. */
static int get_found(struct suppressions *s, struct str tenant, const char *address,
                     struct suppression *out)
{
    uint32_t shards = found_shards(s);
    uint8_t key[STATE_KEY_MAX];
    size_t len = suppression_found_key(key, tenant, str_of(address));
    int err = -ENOENT;

    for (uint32_t i = 0; i < shards && err == -ENOENT; i++)
        err = get(s, i, (struct str){(char *)key, len}, out);
    return err;
}

int suppressions_get(struct suppressions *s, struct str tenant, const char *address,
                     struct suppression *out)
{
    uint8_t key[STATE_KEY_MAX];
    size_t len = suppression_key(key, tenant, str_of(address));
    struct suppression found;
    int err = get(s, 0, (struct str){(char *)key, len}, out), found_err;

    if (err != -ENOENT && (err < 0 || out->reason != SUPPRESSION_UNSUBSCRIBED))
        return err;
    found_err = get_found(s, tenant, address, &found);
    if (found_err == -ENOENT)
        return err;
    if (found_err == 0)
        *out = found;
    return found_err;
}

int suppressions_hold(struct suppressions *s, struct str tenant, struct str address, bool campaign,
                      struct suppression *out)
{
    const struct str whose[] = {STR(""), tenant};
    char text[SUPPRESSION_ADDRESS_MAX + 1];

    if (!may_have(s, address, text))
        return 0;
    for (size_t i = 0; i < (tenant.len > 0 ? 2 : 1); i++) {
        int err = suppressions_get(s, whose[i], text, out);

        if (err < 0 && err != -ENOENT)
            return err;
        if (err == 0 && (campaign || out->reason != SUPPRESSION_UNSUBSCRIBED))
            return 1;
    }
    return 0;
}

/* Keys without their first two bytes, in order, each once, whichever records they are of. */
struct keys {
    struct buf bytes, places; /* places: of struct key_place */
    size_t max;
};

struct key_place {
    uint32_t at, len; /* of bytes */
};

static size_t keys_len(const struct keys *k)
{
    return k->places.len / sizeof(struct key_place);
}

static struct str key_in(const struct keys *k, const struct key_place *p)
{
    return (struct str){(char *)k->bytes.data + p->at, p->len};
}

static struct str key_at(const struct keys *k, size_t i)
{
    struct key_place p;

    ASSERT(i < keys_len(k));
    memcpy(&p, k->places.data + i * sizeof(p), sizeof(p));
    return key_in(k, &p);
}

static void keys_put(struct keys *k, struct str key)
{
    struct key_place p = {(uint32_t)k->bytes.len, (uint32_t)key.len};

    buf_put_str(&k->bytes, key);
    buf_put(&k->places, &p, sizeof(p));
}

static void take_key(void *arg, struct str key)
{
    keys_put(arg, (struct str){key.ptr + 2, key.len - 2});
}

static int by_key(const void *a, const void *b, void *arg)
{
    return str_compare(key_in(arg, a), key_in(arg, b));
}

/* Keeps the first max of them. */
static void keys_order(struct keys *k)
{
    struct keys kept = {.max = k->max};

    if (k->places.len > 0)
        qsort_r(k->places.data, keys_len(k), sizeof(struct key_place), by_key, k);
    for (size_t i = 0; i < keys_len(k) && keys_len(&kept) < k->max; i++)
        if (i == 0 || !str_eq(key_at(k, i), key_at(k, i - 1)))
            keys_put(&kept, key_at(k, i));
    buf_done(&k->bytes);
    buf_done(&k->places);
    *k = kept;
}

/* The first k->max entries whose keys are from one until before another, both of record 1. */
static int keys_read(struct suppressions *s, struct keys *k, struct str from, struct str to)
{
    uint8_t first[STATE_KEY_MAX + 1], last[STATE_KEY_MAX + 1];
    struct str found_from = {(char *)first, from.len}, found_to = {(char *)last, to.len};
    uint32_t shards = found_shards(s);
    int err = queue_state_keys(s->queue, 0, from, to, k->max, take_key, k);

    memcpy(first, from.ptr, from.len);
    memcpy(last, to.ptr, to.len);
    first[1] = last[1] = FOUND;
    for (uint32_t i = 0; i < shards && err == 0; i++) {
        err = queue_state_keys(s->queue, i, found_from, found_to, k->max, take_key, k);
        if (keys_len(k) > k->max)
            keys_order(k);
    }
    keys_order(k);
    return err;
}

static void keys_done(struct keys *k)
{
    buf_done(&k->bytes);
    buf_done(&k->places);
}

/* False: no record is called so. */
static bool key_decode(struct str rest, struct suppression *out)
{
    char key[STATE_KEY_MAX] = {STATE_SUPPRESSION, ASKED};

    if (rest.len > sizeof(key) - 2)
        return false;
    memcpy(key + 2, rest.ptr, rest.len);
    return decode_key((struct str){key, rest.len + 2}, out);
}

ptrdiff_t suppressions_visit(struct suppressions *s, struct str tenant,
                             const struct suppression *after, size_t max,
                             void (*visit)(void *arg, const struct suppression *one), void *arg,
                             struct suppression *next)
{
    uint8_t from[STATE_KEY_MAX + 1], to[STATE_KEY_MAX];
    size_t from_len = KEY_HEAD - 1, to_len;
    struct keys keys = {.max = max};
    struct suppression one;
    ptrdiff_t n;

    (void)suppression_key(from, STR(""), STR(""));
    if (tenant.ptr != NULL)
        from_len = suppression_key(from, tenant, STR(""));
    to_len = suppression_key(to, tenant, STR(""));
    if (tenant.ptr == NULL)
        to_len = KEY_HEAD - 1;
    to[to_len++] = 0xff; /* behind all of them: no address, and no tenant's length, is so large */
    if (after != NULL) { /* within the tenant, whatever after says */
        from_len = suppression_key(from, tenant.ptr != NULL ? tenant : str_of(after->tenant),
                                   str_of(after->address));
        from[from_len++] = '\0';
    }
    n = keys_read(s, &keys, (struct str){(char *)from, from_len}, (struct str){(char *)to, to_len});
    for (size_t i = 0; n >= 0 && i < keys_len(&keys); i++) {
        int err;

        if (!key_decode(key_at(&keys, i), next))
            continue;
        err = suppressions_get(s, str_of(next->tenant), next->address, &one);
        if (err == 0)
            visit(arg, &one);
        else if (err != -ENOENT) /* it may have gone meanwhile */
            n = err;
    }
    if (n == 0)
        n = (ptrdiff_t)keys_len(&keys);
    keys_done(&keys);
    return n;
}

/* Looks for the address under each tenant, from one to the next. */
int suppressions_visit_address(struct suppressions *s, const char *address,
                               void (*visit)(void *arg, const struct suppression *one), void *arg)
{
    static const char to[] = {STATE_SUPPRESSION, ASKED, (char)0xff};
    uint8_t from[STATE_KEY_MAX + 1] = {STATE_SUPPRESSION, ASKED};
    struct suppression first, one;
    size_t from_len = KEY_HEAD - 1;
    struct keys keys = {.max = 1};
    int err;

    for (;;) {
        err =
            keys_read(s, &keys, (struct str){(char *)from, from_len}, (struct str){to, sizeof(to)});
        if (err < 0 || keys_len(&keys) == 0)
            break;
        if (!key_decode(key_at(&keys, 0), &first)) {
            err = -EIO;
            break;
        }
        keys_done(&keys);
        keys = (struct keys){.max = 1};
        err = suppressions_get(s, str_of(first.tenant), address, &one);
        if (err == 0)
            visit(arg, &one);
        else if (err != -ENOENT)
            break;
        from_len = suppression_key(from, str_of(first.tenant), STR(""));
        from[from_len++] = 0xff; /* the next tenant */
    }
    keys_done(&keys);
    return err;
}

/* --- opening --- */

struct loading {
    struct suppressions *to;
    uint8_t last[STATE_KEY_MAX + 1];
    size_t last_len, len;
};

static void load_key(void *arg, struct str key)
{
    struct loading *l = arg;
    struct suppression one;

    memcpy(l->last, key.ptr, key.len);
    l->last[key.len] = 0;
    l->last_len = key.len + 1;
    l->len++;
    if (decode_key(key, &one))
        suppressions_note(l->to, one.address, key.ptr[1] == FOUND);
}

static int load(struct suppressions *s, uint32_t shard, uint8_t record)
{
    const char to[] = {STATE_SUPPRESSION, (char)(record + 1)};
    struct loading l = {.to = s, .last = {STATE_SUPPRESSION, record}, .last_len = 2, .len = 1};
    int err = 0;

    while (err == 0 && l.len > 0) {
        uint8_t from[STATE_KEY_MAX + 1];

        if (atomic_load_explicit(&s->stop, memory_order_relaxed))
            return -ECANCELED;
        memcpy(from, l.last, l.last_len);
        l.len = 0;
        err = queue_state_keys(s->queue, shard, (struct str){(char *)from, l.last_len},
                               (struct str){to, sizeof(to)}, KEYS_EACH, load_key, &l);
    }
    return err;
}

void suppressions_open(struct suppressions *s, struct queue *q)
{
    s->queue = q;
    atomic_store_explicit(&s->loading, true, memory_order_release);
}

int suppressions_load(struct suppressions *s)
{
    int err = load(s, 0, ASKED);

    for (uint32_t i = 0; i < queue_shards(s->queue) && err == 0; i++)
        err = load(s, i, FOUND);
    if (err == 0)
        atomic_store_explicit(&s->loading, false, memory_order_release);
    return err;
}

uint64_t suppressions_len(struct suppressions *s)
{
    uint64_t len;

    pthread_mutex_lock(&s->lock);
    len = s->count;
    pthread_mutex_unlock(&s->lock);
    return len;
}

void suppressions_stop(struct suppressions *s)
{
    atomic_store_explicit(&s->stop, true, memory_order_relaxed);
}

void suppressions_done(struct suppressions *s)
{
    for (size_t i = 0; i < SUPPRESSION_LEVELS; i++)
        free(level_at(s, i));
}
