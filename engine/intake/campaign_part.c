/* See campaign.h: recipients. A part is a transaction in one shard, chosen by campaign, chunk and
 * number: rows, the part's record, and hashes of the addresses. In the state tree (numbers in keys
 * big-endian, in values little-endian):
 *
 *   STATE_CAMPAIGN, 2, campaign 16, chunk 16, number 4 -> version 1, payload 32, added 4,
 *                               duplicates 4, told 4, lines told * 4,
 *                               suppressed 4, told 4, lines told * 4; more may follow
 *   STATE_CAMPAIGN, 3, campaign 16, index 4            -> hashes of the addresses from that index
 *                               on, 8 each
 *
 * chunk is of the key: SHA-256, cut. The caller's thread looks for the part's record, tells new
 * addresses from duplicates, makes rows; the worker that owns the shard submits the change, and
 * tells the lanes behind its commit. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/hashset.h"
#include "intake/accept.h"
#include "intake/campaign_private.h"
#include "limits/retry.h"
#include "outcome/report.h"
#include "schedule/lane.h"
#include "tls/digest.h"

#define PART_VERSION     1
#define PART_MIN         (1 + 32 + 3 * 4)
#define CHUNK_BYTES      16
#define PART_KEY_BYTES   (CAMPAIGN_KEY_BYTES + CHUNK_BYTES + 4)
#define HASHES_KEY_BYTES (CAMPAIGN_KEY_BYTES + 4)
#define HASHES_EACH      200 /* of a state: it stays within a leaf of the tree */
#define HASHES_MAX       (CAMPAIGN_PART_LINES / HASHES_EACH + 1)
#define ROW_BYTES        512 /* of memory, about, beside its variables */
#define KEYS_EACH        1000
#define SETS             64 /* of an upload: each grows by itself, so the lock is held briefly */
/* Indexes of rows begin here. Earlier builds gave out those below, not in the order of the list: a
 * list that such a build has begun, or goes on with, gets none twice. */
#define INDEX_FIRST CAMPAIGN_RECIPIENTS_MAX

/* What is known of a draft while recipients are added. Under the table's lock. */
struct campaign_upload {
    struct hashset sets[SETS]; /* by the first bits of the hashes */
    size_t count;              /* of all */
    uint32_t next_index, under_way;
    bool loaded;
    uint64_t used; /* a stamp: the least recently used one goes first */
};

struct campaign_adding {
    struct list_node node; /* campaigns->parts */
    struct campaign_part *part;
    struct shared *all;
    struct campaign one;
    const struct queue_flow *flow;
    struct message *header; /* of its rows: the content without its bytes */
    uint32_t shard, first;
    int64_t late_ms;     /* behind the start */
    uint64_t held_bytes; /* of shared->intake_bytes */
    uint8_t key[PART_KEY_BYTES];
    struct worker *worker;
    struct worker_note note;
    struct queue_change change;
    struct queue_state states[1 + HASHES_MAX];
    uint8_t hash_keys[HASHES_MAX][HASHES_KEY_BYTES];
    struct buf value;
    uint64_t hashes[CAMPAIGN_PART_LINES]; /* of the part's recipients, */
    uint64_t added[CAMPAIGN_PART_LINES];  /* and of new ones alone, little-endian */
    struct queue_row rows[CAMPAIGN_PART_LINES];
};

/* --- uploads --- */

bool campaign_upload_busy(const struct campaign_entry *e)
{
    return e->upload != NULL && e->upload->under_way > 0;
}

static struct hashset *set_of(struct campaign_upload *u, uint64_t hash)
{
    return &u->sets[hash / (UINT64_MAX / SETS + 1)];
}

/* False: it is there already. There must be room. */
static bool upload_add(struct campaign_upload *u, uint64_t hash)
{
    bool added = hashset_add(set_of(u, hash), hash);

    u->count += added;
    return added;
}

/* Room for all of so many. 0 or -ENOMEM. */
static int upload_reserve(struct campaign_upload *u, const uint64_t *hashes, size_t len)
{
    uint32_t more[SETS] = {0};
    int err = 0;

    for (size_t i = 0; i < len; i++)
        more[set_of(u, hashes[i]) - u->sets]++;
    for (size_t i = 0; i < SETS && err == 0; i++)
        if (more[i] > 0)
            err = hashset_reserve(&u->sets[i], more[i]);
    return err;
}

static void upload_clear(struct campaigns *all, struct campaign_upload *u)
{
    ASSERT(all->hashes >= u->count);
    all->hashes -= u->count;
    u->count = 0;
    for (size_t i = 0; i < SETS; i++)
        hashset_done(&u->sets[i]);
    u->next_index = 0;
    u->loaded = false;
}

void campaign_upload_drop(struct campaigns *all, struct campaign_entry *e)
{
    ASSERT(!campaign_upload_busy(e));
    if (e->upload == NULL)
        return;
    upload_clear(all, e->upload);
    free(e->upload);
    e->upload = NULL;
}

void campaign_uploads_done(struct shared *shared)
{
    struct campaigns *all = &shared->campaigns;

    if (all->by_id.buckets == NULL)
        return;
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n))
        campaign_upload_drop(all, LIST_ENTRY(n, struct campaign_entry, order));
}

/* Lets sets go that nobody uses now, until there is room for more hashes. Under the lock. */
static bool uploads_make_room(struct campaigns *all, size_t more)
{
    while (all->hashes + more > CAMPAIGN_RECIPIENTS_MAX) {
        struct campaign_upload *oldest = NULL;

        for (struct list_node *n = list_first(&all->in_order); n != NULL;
             n = list_next(&all->in_order, n)) {
            struct campaign_upload *u = LIST_ENTRY(n, struct campaign_entry, order)->upload;

            if (u != NULL && u->under_way == 0 && u->loaded &&
                (oldest == NULL || u->used < oldest->used))
                oldest = u;
        }
        if (oldest == NULL)
            return false;
        upload_clear(all, oldest);
    }
    return true;
}

/* --- reading a draft's addresses back --- */

struct reading {
    struct queue *q;
    uint32_t shard;
    struct campaigns *all;
    struct campaign_upload *upload;
    struct buf keys; /* HASHES_KEY_BYTES each */
};

static void take_key(void *arg, struct str key)
{
    struct reading *r = arg;

    if (key.len == HASHES_KEY_BYTES && buf_reserve(&r->keys, key.len) == 0)
        buf_put_str(&r->keys, key);
}

static uint32_t key_index(const uint8_t *key)
{
    uint32_t be;

    memcpy(&be, key + CAMPAIGN_KEY_BYTES, sizeof(be));
    return be32toh(be);
}

static int take_hashes(struct reading *r, uint32_t first, struct str value)
{
    struct campaign_upload *u = r->upload;
    size_t len = value.len / sizeof(uint64_t), before;
    int err = 0;

    pthread_mutex_lock(&r->all->lock);
    if (!uploads_make_room(r->all, len))
        err = -ENOMEM;
    before = u->count;
    for (size_t i = 0; i < len && err == 0; i++) {
        uint64_t hash;

        memcpy(&hash, value.ptr + i * sizeof(hash), sizeof(hash));
        hash = le64toh(hash);
        err = hashset_reserve(set_of(u, hash), 1);
        if (err == 0)
            (void)upload_add(u, hash);
    }
    r->all->hashes += u->count - before;
    if (first + len > u->next_index)
        u->next_index = first + (uint32_t)len;
    pthread_mutex_unlock(&r->all->lock);
    return err;
}

/* One step: some keys, then what is under them. *from goes behind them. 1: more, 0: end, or -errno.
 */
static int read_some(struct reading *r, uint8_t from[HASHES_KEY_BYTES + 1], size_t *from_len,
                     struct str to)
{
    struct buf value = {0};
    size_t keys;
    int err;

    buf_clear(&r->keys);
    err = queue_state_keys(r->q, r->shard, (struct str){(char *)from, *from_len}, to, KEYS_EACH,
                           take_key, r);
    keys = r->keys.len / HASHES_KEY_BYTES;
    for (size_t i = 0; i < keys && err == 0; i++) {
        const uint8_t *key = r->keys.data + i * HASHES_KEY_BYTES;

        buf_clear(&value);
        err = queue_state_get(r->q, r->shard, (struct str){(const char *)key, HASHES_KEY_BYTES},
                              &value);
        if (err == 0)
            err = take_hashes(r, key_index(key), buf_str(&value));
        else if (err == -EBADMSG) /* its addresses are not told apart any more; their rows are */
            err = take_hashes(r, key_index(key) + HASHES_EACH, STR(""));
    }
    buf_done(&value);
    if (err < 0 || keys < KEYS_EACH)
        return err;
    memcpy(from, r->keys.data + (keys - 1) * HASHES_KEY_BYTES, HASHES_KEY_BYTES);
    from[HASHES_KEY_BYTES] = 0;
    *from_len = HASHES_KEY_BYTES + 1;
    return 1;
}

static int read_shard(struct reading *r, const struct msgid *campaign)
{
    uint8_t from[HASHES_KEY_BYTES + 1], to[HASHES_KEY_BYTES + 1];
    size_t from_len = CAMPAIGN_KEY_BYTES;
    int err = 1;

    campaign_key(from, CAMPAIGN_RECORD_HASHES, campaign);
    campaign_key(to, CAMPAIGN_RECORD_HASHES, campaign);
    memset(to + CAMPAIGN_KEY_BYTES, 0xff, sizeof(to) - CAMPAIGN_KEY_BYTES);
    while (err > 0)
        err = read_some(r, from, &from_len, (struct str){(char *)to, sizeof(to)});
    return err;
}

/* The upload is held by under_way. */
static int upload_load(struct campaign_adding *a, struct campaign_upload *u)
{
    struct campaigns *all = &a->all->campaigns;
    struct reading r = {.q = a->all->queue, .all = all, .upload = u};
    int err = 0;

    pthread_mutex_lock(&all->load_lock);
    if (!u->loaded) {
        for (r.shard = 0; r.shard < queue_shards(r.q) && err == 0; r.shard++)
            err = read_shard(&r, &a->one.id);
        buf_done(&r.keys);
        pthread_mutex_lock(&all->lock);
        u->loaded = err == 0;
        if (err < 0)
            upload_clear(all, u);
        pthread_mutex_unlock(&all->lock);
    }
    pthread_mutex_unlock(&all->load_lock);
    return err;
}

/* --- the part's record --- */

static void put_number(struct buf *out, uint32_t v)
{
    for (int shift = 0; shift < 32; shift += 8)
        buf_putc(out, (char)(v >> shift));
}

static uint32_t number_at(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void put_told(struct buf *out, const struct campaign_told *t)
{
    put_number(out, t->count);
    put_number(out, t->told);
    for (uint32_t i = 0; i < t->told; i++)
        put_number(out, t->lines[i]);
}

/* False: it is damaged. */
static bool take_told(const uint8_t **at, const uint8_t *end, struct campaign_told *out)
{
    struct campaign_told t = {0};

    if (end - *at < 2 * 4)
        return false;
    t.count = number_at(*at);
    t.told = number_at(*at + 4);
    *at += 2 * 4;
    if (t.told > CAMPAIGN_LINES_TOLD || end - *at < (ptrdiff_t)t.told * 4)
        return false;
    for (uint32_t i = 0; i < t.told; i++, *at += 4)
        t.lines[i] = number_at(*at);
    *out = t;
    return true;
}

static void part_encode(struct buf *out, const struct campaign_part *p)
{
    buf_putc(out, PART_VERSION);
    buf_put(out, p->payload, sizeof(p->payload));
    put_number(out, p->added);
    put_told(out, &p->duplicates);
    put_told(out, &p->suppressed);
}

/* What is under the part's key: 0, it is the same; -EEXIST: another; -EBADMSG. */
static int part_decode(struct str value, struct campaign_part *p)
{
    const uint8_t *at = (const uint8_t *)value.ptr, *end = at + value.len;

    if (value.len < PART_MIN || at[0] != PART_VERSION)
        return -EBADMSG;
    if (memcmp(at + 1, p->payload, sizeof(p->payload)) != 0)
        return -EEXIST;
    at += 1 + sizeof(p->payload);
    p->added = number_at(at);
    at += 4;
    if (!take_told(&at, end, &p->duplicates))
        return -EBADMSG;
    /* What an earlier build wrote ends here: it suppressed nobody. */
    return at == end || take_told(&at, end, &p->suppressed) ? 0 : -EBADMSG;
}

static void part_key(struct campaign_adding *a)
{
    const struct campaign_part *p = a->part;
    uint8_t sum[DIGEST_BYTES], *at = a->key + CAMPAIGN_KEY_BYTES;
    uint32_t be = htobe32(p->number);

    campaign_key(a->key, CAMPAIGN_RECORD_PART, &p->campaign);
    digest_sha256(p->key.ptr, p->key.len, sum);
    memcpy(at, sum, CHUNK_BYTES);
    memcpy(at + CHUNK_BYTES, &be, sizeof(be));
    a->shard = queue_shard_of(a->all->queue, (struct str){(char *)a->key, sizeof(a->key)});
}

/* --- the end of a part --- */

/* Any thread. */
static void adding_done(struct campaign_adding *a, int result)
{
    struct campaigns *all = &a->all->campaigns;
    struct campaign_part *part = a->part;
    struct campaign_entry *e;

    pthread_mutex_lock(&all->lock);
    if (list_node_linked(&a->node)) {
        e = campaigns_entry(all, &a->one.id);
        ASSERT(e != NULL && campaign_upload_busy(e));
        list_remove(&a->node);
        e->upload->under_way--;
    }
    pthread_mutex_unlock(&all->lock);
    (void)atomic_fetch_sub_explicit(&a->all->intake_bytes, a->held_bytes, memory_order_relaxed);
    message_unref(a->header);
    buf_done(&a->value);
    buf_done(&a->change.records);
    free(a);
    part->on_done(part, result);
}

/* Its addresses are not in. */
static void adding_undo(struct campaign_adding *a)
{
    struct campaigns *all = &a->all->campaigns;
    struct campaign_entry *e;

    pthread_mutex_lock(&all->lock);
    e = campaigns_entry(all, &a->one.id);
    ASSERT(e != NULL && campaign_upload_busy(e));
    for (uint32_t i = 0; i < a->part->added; i++) {
        uint64_t hash = le64toh(a->added[i]);

        hashset_remove(set_of(e->upload, hash), hash);
    }
    e->upload->count -= a->part->added;
    all->hashes -= a->part->added;
    pthread_mutex_unlock(&all->lock);
    for (size_t i = 0; i < a->change.rows_len; i++)
        recipient_free(a->rows[i].rcpt);
}

/* --- the worker's --- */

static void on_committed(struct queue_change *change, int result)
{
    struct campaign_adding *a = change->owner;
    struct worker *w = a->worker;

    if (result < 0) {
        adding_undo(a);
        atomic_store_explicit(&w->counters.accept_error, result, memory_order_relaxed);
        counter_add(&w->counters.accept_failures, 1);
    } else {
        counter_add(&w->counters.received_recipients, change->rows_len);
        suppressions_count(&a->all->suppressions, a->part->suppressed.count);
        for (size_t i = 0; i < change->rows_len; i++)
            lane_arrive(w, a->shard, a->rows[i].rcpt);
    }
    adding_done(a, result);
}

static void on_note(struct worker *w, struct worker_note *note)
{
    struct campaign_adding *a = CONTAINER_OF(note, struct campaign_adding, note);

    if (w->draining) {
        adding_undo(a);
        adding_done(a, -ESHUTDOWN);
        return;
    }
    a->worker = w;
    queue_submit(w->port, a->shard, &a->change);
}

/* --- the caller's --- */

/* The part takes its place among those under way. 0 or -errno. */
static int adding_begin(struct campaign_adding *a)
{
    struct campaigns *all = &a->all->campaigns;
    struct campaign_entry *e;
    static uint64_t stamp; /* under the lock */
    int err = 0;

    pthread_mutex_lock(&all->lock);
    e = campaigns_entry(all, &a->part->campaign);
    if (e == NULL)
        err = -ENOENT;
    else if (e->changing)
        err = -EBUSY;
    else if (e->one.state != CAMPAIGN_DRAFT && !e->one.open)
        err = -EINVAL;
    for (struct list_node *n = list_first(&all->parts); n != NULL && err == 0;
         n = list_next(&all->parts, n))
        if (memcmp(LIST_ENTRY(n, struct campaign_adding, node)->key, a->key, sizeof(a->key)) == 0)
            err = -EBUSY;
    if (err == 0 && e->upload == NULL) {
        e->upload = calloc(1, sizeof(*e->upload));
        ASSERT(e->upload != NULL);
    }
    if (err == 0) {
        a->one = e->one;
        e->upload->under_way++;
        e->upload->used = ++stamp;
        list_push_back(&all->parts, &a->node);
    }
    pthread_mutex_unlock(&all->lock);
    return err;
}

/* An address is one whatever the case of its domain, which the queue's name is of. */
static uint64_t hash_address(const struct campaign_rcpt *r, uint64_t seed)
{
    size_t local = r->address.len;
    uint64_t hash;

    while (local > 0 && r->address.ptr[local - 1] != '@')
        local--;
    hash = hash_bytes(r->queue.ptr, r->queue.len, hash_bytes(r->address.ptr, local, seed));
    return hash + (hash == 0);
}

static void tell(struct campaign_told *t, uint32_t line)
{
    if (t->count++ < CAMPAIGN_LINES_TOLD)
        t->lines[t->told++] = line;
}

/* Those that get no mail have no hash from here on. */
static int leave_out_suppressed(struct campaign_adding *a)
{
    struct campaign_part *p = a->part;
    struct suppression why;

    for (size_t i = 0; i < p->rcpts_len; i++) {
        int held = suppressions_hold(&a->all->suppressions, str_of(a->one.tenant),
                                     p->rcpts[i].address, true, &why);

        if (held < 0)
            return held;
        if (held == 0)
            continue;
        a->hashes[i] = 0;
        tell(&p->suppressed, p->rcpts[i].line);
    }
    return 0;
}

/* Which are new, and their indexes. */
static int tell_apart(struct campaign_adding *a)
{
    struct campaigns *all = &a->all->campaigns;
    struct campaign_part *p = a->part;
    struct campaign_upload *u;
    int err = 0;

    for (size_t i = 0; i < p->rcpts_len; i++)
        a->hashes[i] = hash_address(&p->rcpts[i], a->one.seed);
    err = leave_out_suppressed(a);
    if (err < 0)
        return err;
    pthread_mutex_lock(&all->lock);
    u = campaigns_entry(all, &a->one.id)->upload;
    ASSERT(u->loaded && u->under_way > 0);
    if (u->next_index + p->rcpts_len > CAMPAIGN_RECIPIENTS_MAX)
        err = -EFBIG;
    else if (!uploads_make_room(all, p->rcpts_len) ||
             upload_reserve(u, a->hashes, p->rcpts_len) < 0)
        err = -ENOMEM;
    for (size_t i = 0; i < p->rcpts_len && err == 0; i++) {
        if (a->hashes[i] == 0)
            continue;
        if (upload_add(u, a->hashes[i])) {
            a->added[p->added++] = htole64(a->hashes[i]);
            continue;
        }
        a->hashes[i] = 0;
        tell(&p->duplicates, p->rcpts[i].line);
    }
    a->first = u->next_index;
    u->next_index += p->added;
    all->hashes += p->added;
    pthread_mutex_unlock(&all->lock);
    return err;
}

/* Who looks for what has outlived its lifetime reads no content before what the row says, counted
 * from the message's id. The content has the time itself. */
static uint32_t lifetime_s(const struct campaign *one, uint32_t set_s)
{
    int64_t own_s = (one->expires_ms - msgid_ms(&one->id) + 999) / 1000;

    if (one->expires_ms == 0 || own_s >= set_s)
        return set_s;
    return own_s < 0 ? 0 : (uint32_t)own_s;
}

static int add_row(struct campaign_adding *a, const struct campaign_rcpt *from)
{
    uint32_t n = (uint32_t)a->change.rows_len;
    const struct config_destination *dest =
        config_destination_for(a->part->config, from->queue, STR(""));
    struct recipient *r = recipient_new(a->header, INDEX_FIRST + a->first + n, from->queue,
                                        from->address, STR(""), from->variables);

    if (r == NULL)
        return -ENOMEM;
    /* For later: a draft may wait for days, and fresh rows cost the commits of all mail. */
    r->due_ms = msgid_ms(&a->one.id) + 1;
    r->flow = a->flow->id;
    r->priority = a->flow->priority;
    r->lifetime_s = lifetime_s(&a->one, retry_lifetime_s(dest, false, a->late_ms));
    a->rows[a->change.rows_len++] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = r};
    return 0;
}

/* The order of the rows' keys: each lane's together, as the queue fills pages best. */
static int compare_rows(const void *a, const void *b)
{
    const struct recipient *x = ((const struct queue_row *)a)->rcpt;
    const struct recipient *y = ((const struct queue_row *)b)->rcpt;
    int order = str_compare(x->queue, y->queue);

    return order != 0 ? order : (x->index > y->index) - (x->index < y->index);
}

static int add_rows(struct campaign_adding *a)
{
    const struct campaign_part *p = a->part;
    struct message fields = {.id = a->one.id,
                             .created_ms = a->one.open ? a->one.starts_ms : msgid_ms(&a->one.id),
                             .expires_ms = a->one.expires_ms,
                             .flags = MESSAGE_RECIPE,
                             .priority = a->one.priority,
                             .tenant = str_of(a->one.tenant),
                             .campaign = str_of(a->one.name),
                             .flow = a->flow->id};
    int err = 0;
    struct message *content = queue_message(a->all->queue, &a->one.id, &err);

    if (content != NULL) { /* for records, and who signs */
        fields.sender = content->sender;
        fields.meta = content->meta;
        fields.dkim_domain = content->dkim_domain;
    }
    a->header = message_new(&fields);
    message_unref(content);
    a->change.rows = a->rows;
    if (a->header == NULL)
        return -ENOMEM;
    /* Lifetimes are counted from the start; those of who comes later begin now. */
    a->late_ms = a->one.open ? clock_wall_ms() - a->one.starts_ms : 0;
    if (a->late_ms < 0)
        a->late_ms = 0;
    err = 0;
    for (size_t i = 0; i < p->rcpts_len && err == 0; i++)
        if (a->hashes[i] != 0)
            err = add_row(a, &p->rcpts[i]);
    ASSERT(err < 0 || a->change.rows_len == p->added);
    qsort(a->rows, a->change.rows_len, sizeof(a->rows[0]), compare_rows);
    return err;
}

static void add_states(struct campaign_adding *a)
{
    const struct campaign_part *p = a->part;

    part_encode(&a->value, p);
    a->states[0] =
        (struct queue_state){.key = {(char *)a->key, sizeof(a->key)}, .value = buf_str(&a->value)};
    a->change.states = a->states;
    a->change.states_len = 1;
    for (uint32_t at = 0; at < p->added; at += HASHES_EACH) {
        uint32_t len = p->added - at < HASHES_EACH ? p->added - at : HASHES_EACH;
        uint8_t *key = a->hash_keys[at / HASHES_EACH];
        uint32_t be = htobe32(a->first + at);

        campaign_key(key, CAMPAIGN_RECORD_HASHES, &a->one.id);
        memcpy(key + CAMPAIGN_KEY_BYTES, &be, sizeof(be));
        a->states[a->change.states_len++] =
            (struct queue_state){.key = {(char *)key, HASHES_KEY_BYTES},
                                 .value = {(char *)&a->added[at], len * sizeof(uint64_t)}};
    }
}

static void add_record(struct campaign_adding *a)
{
    const struct campaign_part *p = a->part;
    struct report_event event =
        report_event_of(REPORT_RECEPTION, p->config->node_id, clock_wall_ms(), a->header, NULL);

    if (p->added == 0)
        return;
    event.recipients = p->added;
    event.peer_name = p->peer_name;
    event.peer_addr = p->peer_addr;
    event.reception_protocol = "HTTP";
    event.session_id = p->session_id;
    report_line(&a->change.records, &event);
}

/* Rows take memory until they are in. */
static bool adding_hold(struct campaign_adding *a)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < a->part->rcpts_len; i++)
        bytes += ROW_BYTES + a->part->rcpts[i].variables.len;
    if (!accept_has_room(a->all, a->part->config, 0, bytes))
        return false;
    a->held_bytes = bytes;
    (void)atomic_fetch_add_explicit(&a->all->intake_bytes, bytes, memory_order_relaxed);
    return true;
}

/* Whether the part is in: 1, -ENOENT, or why nobody knows. */
static int part_find(struct campaign_adding *a)
{
    struct str key = {(char *)a->key, sizeof(a->key)};
    struct buf value = {0};
    int err = queue_state_get(a->all->queue, a->shard, key, &value);

    if (err == 0)
        err = part_decode(buf_str(&value), a->part);
    buf_done(&value);
    return err == 0 ? 1 : err;
}

/* All up to the change. 0, 1: it was in already, or -errno. */
static int adding_prepare(struct campaign_adding *a)
{
    struct campaigns *all = &a->all->campaigns;
    struct campaign_upload *u;
    int err = part_find(a);

    if (err != -ENOENT)
        return err;
    if (queue_intake(a->all->queue, a->shard) != QUEUE_INTAKE_OK)
        return -ENOSPC;
    if (!adding_hold(a))
        return -ENOMEM;
    a->flow = campaign_flow(a->all->queue, &a->one);
    if (a->flow == NULL)
        return -ENOSPC;
    pthread_mutex_lock(&all->lock);
    u = campaigns_entry(all, &a->one.id)->upload;
    pthread_mutex_unlock(&all->lock);
    err = upload_load(a, u);
    return err < 0 ? err : tell_apart(a);
}

void campaign_part_submit(struct shared *all, struct campaign_part *part)
{
    struct campaign_adding *a = calloc(1, sizeof(*a));
    int err;

    ASSERT(a != NULL && part->rcpts_len <= CAMPAIGN_PART_LINES && part->on_done != NULL);
    a->part = part;
    a->all = all;
    part->again = false;
    part->added = 0;
    part->duplicates = part->suppressed = (struct campaign_told){0};
    part_key(a);
    err = adding_begin(a);
    if (err == 0)
        err = adding_prepare(a);
    else if (err == -EINVAL) { /* what was in before it began hears so still */
        err = part_find(a);
        err = err == -ENOENT ? -EINVAL : err;
    }
    if (err != 0) {
        part->again = err > 0;
        adding_done(a, err > 0 ? 0 : err);
        return;
    }
    err = add_rows(a);
    if (err < 0) {
        adding_undo(a);
        adding_done(a, err);
        return;
    }
    add_states(a);
    add_record(a);
    a->change.urgent = true;
    a->change.on_done = on_committed;
    a->change.owner = a;
    a->note = (struct worker_note){.run = on_note};
    worker_send(all, worker_of_shard(all, a->shard)->index, &a->note);
}
