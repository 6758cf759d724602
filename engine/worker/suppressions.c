#include "worker/suppressions.h"

#include <errno.h>
#include <stdlib.h>

#include "base/map.h"
#include "base/packed.h"
#include "base/rng.h"
#include "mail/international.h"
#include "worker/queue_name.h"

#define VERSION      1
#define RECORD       1 /* the key's second byte */
#define KEY_HEAD     3 /* kind, record, length of the tenant */
#define KEYS_EACH    1000
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

static bool put(char *out, size_t *len, struct str s)
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
        fits = put(out, len, local);
        for (size_t i = 0; fits && i < *len; i++)
            out[i] = ascii_lower(out[i]);
        return fits;
    }
    international_put_folded(&folded, local);
    fits = put(out, len, buf_str(&folded));
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
    if (!put_local(out, &len, local) || !put(out, &len, STR("@")) ||
        !put(out, &len, (struct str){domain.text, domain.len}))
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

void suppressions_note(struct suppressions *s, const char *address)
{
    struct suppression_level *l;
    uint64_t hash;

    pthread_mutex_lock(&s->lock);
    l = level_with_room(s);
    hash = hash_of(l, address);
    for (unsigned i = 0; i < PROBES; i++) {
        uint64_t bit = bit_of(l, hash, i);

        atomic_fetch_or_explicit(&l->words[bit / 64], UINT64_C(1) << bit % 64,
                                 memory_order_relaxed);
    }
    l->count++;
    s->count++;
    pthread_mutex_unlock(&s->lock);
}

static bool filter_has(struct suppressions *s, const char *address)
{
    struct suppression_level *l;

    for (size_t i = 0; i < SUPPRESSION_LEVELS && (l = level_at(s, i)) != NULL; i++)
        if (level_has(l, address))
            return true;
    return false;
}

bool suppressions_may_have(struct suppressions *s, struct str address)
{
    char text[SUPPRESSION_ADDRESS_MAX + 1];

    return level_at(s, 0) != NULL && suppression_address(address, text) == 0 && filter_has(s, text);
}

/* --- the record --- */

size_t suppression_key(uint8_t out[STATE_KEY_MAX], struct str tenant, struct str address)
{
    ASSERT(tenant.len <= FLOW_NAME_MAX && address.len <= SUPPRESSION_ADDRESS_MAX);
    out[0] = STATE_SUPPRESSION;
    out[1] = RECORD;
    out[2] = (uint8_t)tenant.len;
    if (tenant.len > 0)
        memcpy(out + KEY_HEAD, tenant.ptr, tenant.len);
    if (address.len > 0)
        memcpy(out + KEY_HEAD + tenant.len, address.ptr, address.len);
    return KEY_HEAD + tenant.len + address.len;
}

void suppression_encode(struct buf *out, const struct suppression *one)
{
    ASSERT(one->reason > 0 && one->reason < SUPPRESSION_REASONS);
    buf_putc(out, VERSION);
    buf_putc(out, (char)one->reason);
    packed_put(out, (uint64_t)one->at_ms, 8);
    packed_put_text(out, one->campaign);
    packed_put_text(out, one->who);
}

static bool decode_key(struct str key, struct suppression *out)
{
    size_t tenant = key.len < KEY_HEAD ? 0 : (uint8_t)key.ptr[2], address;

    if (key.len <= KEY_HEAD + tenant || tenant > FLOW_NAME_MAX || key.ptr[0] != STATE_SUPPRESSION ||
        key.ptr[1] != RECORD)
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
        !packed_take_text(&value, one.who, SUPPRESSION_WHO_MAX))
        return -EBADMSG;
    if (one.reason >=
        SUPPRESSION_REASONS) /* a later build has others: no mail is on the safe side */
        one.reason = SUPPRESSION_MANUAL;
    *out = one;
    return 0;
}

/* --- the store --- */

static int get(struct suppressions *s, struct str key, struct suppression *out)
{
    struct buf value = {0};
    int err = queue_state_get(s->queue, 0, key, &value);

    if (err == 0)
        err = suppression_decode(key, buf_str(&value), out);
    buf_done(&value);
    if (err != -EBADMSG && err != -EPROTO)
        return err;
    *out = (struct suppression){.reason = SUPPRESSION_MANUAL, .who = DAMAGED_TEXT};
    return decode_key(key, out) ? 0 : -EIO;
}

int suppressions_get(struct suppressions *s, struct str tenant, const char *address,
                     struct suppression *out)
{
    uint8_t key[STATE_KEY_MAX];
    size_t len = suppression_key(key, tenant, str_of(address));

    return get(s, (struct str){(char *)key, len}, out);
}

int suppressions_hold(struct suppressions *s, struct str tenant, struct str address, bool campaign,
                      struct suppression *out)
{
    const struct str whose[] = {STR(""), tenant};
    char text[SUPPRESSION_ADDRESS_MAX + 1];

    if (level_at(s, 0) == NULL || suppression_address(address, text) < 0 || !filter_has(s, text))
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

struct keys {
    struct buf bytes; /* length 2, bytes */
    size_t len;
};

static void take_key(void *arg, struct str key)
{
    struct keys *k = arg;
    uint16_t len = (uint16_t)key.len;

    buf_put(&k->bytes, &len, sizeof(len));
    buf_put_str(&k->bytes, key);
    k->len++;
}

/* Reads what is under the keys, which may have gone meanwhile. */
static ptrdiff_t visit_keys(struct suppressions *s, const struct keys *k,
                            void (*visit)(void *arg, const struct suppression *one), void *arg,
                            struct suppression *next)
{
    struct suppression one;
    uint16_t len;

    for (size_t at = 0; at < k->bytes.len; at += sizeof(len) + len) {
        struct str key;
        int err;

        memcpy(&len, k->bytes.data + at, sizeof(len));
        key = (struct str){(char *)k->bytes.data + at + sizeof(len), len};
        err = get(s, key, &one);
        if (err < 0 && err != -ENOENT)
            return err;
        if (err == 0)
            visit(arg, &one);
        (void)decode_key(key, next);
    }
    return (ptrdiff_t)k->len;
}

ptrdiff_t suppressions_visit(struct suppressions *s, struct str tenant,
                             const struct suppression *after, size_t max,
                             void (*visit)(void *arg, const struct suppression *one), void *arg,
                             struct suppression *next)
{
    uint8_t from[STATE_KEY_MAX + 1], to[STATE_KEY_MAX];
    size_t from_len = KEY_HEAD - 1, to_len;
    struct keys keys = {0};
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
    n = queue_state_keys(s->queue, 0, (struct str){(char *)from, from_len},
                         (struct str){(char *)to, to_len}, max, take_key, &keys);
    if (n == 0)
        n = visit_keys(s, &keys, visit, arg, next);
    buf_done(&keys.bytes);
    return n;
}

/* Looks for the address under each tenant, from one to the next. */
int suppressions_visit_address(struct suppressions *s, const char *address,
                               void (*visit)(void *arg, const struct suppression *one), void *arg)
{
    static const char to[] = {STATE_SUPPRESSION, RECORD + 1};
    uint8_t from[STATE_KEY_MAX + 1] = {STATE_SUPPRESSION, RECORD};
    struct suppression first, one;
    size_t from_len = KEY_HEAD - 1;
    struct keys keys = {0};
    int err;

    for (;;) {
        buf_clear(&keys.bytes);
        err = queue_state_keys(s->queue, 0, (struct str){(char *)from, from_len},
                               (struct str){to, sizeof(to)}, 1, take_key, &keys);
        if (err < 0 || keys.bytes.len == 0)
            break;
        if (!decode_key((struct str){(char *)keys.bytes.data + sizeof(uint16_t),
                                     keys.bytes.len - sizeof(uint16_t)},
                        &first)) {
            err = -EIO;
            break;
        }
        err = suppressions_get(s, str_of(first.tenant), address, &one);
        if (err == 0)
            visit(arg, &one);
        else if (err != -ENOENT)
            break;
        from_len = suppression_key(from, str_of(first.tenant), STR(""));
        from[from_len++] = 0xff; /* the next tenant */
    }
    buf_done(&keys.bytes);
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
        suppressions_note(l->to, one.address);
}

int suppressions_open(struct suppressions *s, struct queue *q)
{
    static const char to[] = {STATE_SUPPRESSION, RECORD + 1};
    struct loading l = {.to = s, .last = {STATE_SUPPRESSION, RECORD}, .last_len = 2, .len = 1};
    int err = 0;

    s->queue = q;
    while (err == 0 && l.len > 0) {
        uint8_t from[STATE_KEY_MAX + 1];

        memcpy(from, l.last, l.last_len);
        l.len = 0;
        err = queue_state_keys(q, 0, (struct str){(char *)from, l.last_len},
                               (struct str){to, sizeof(to)}, KEYS_EACH, load_key, &l);
    }
    return err;
}

void suppressions_done(struct suppressions *s)
{
    for (size_t i = 0; i < SUPPRESSION_LEVELS; i++)
        free(level_at(s, i));
}
