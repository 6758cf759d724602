#include "queue/remains.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/packed.h"
#include "queue/batch.h"

/* A chunk is what comes free together. With runs of 32 pages most of a commit's writes are of many
 * pages; the larger a chunk is, the longer it waits for its last content. */
#define CHUNK_PAGES 32
/* Memory: 8 MiB of chunks, which reach 128 GiB of file, and 8 MiB of entries. What is beyond is
 * freed at once. */
#define CHUNKS_MAX  (UINT32_C(1) << 20)
#define ENTRIES_MAX (UINT32_C(1) << 18)
/* A content of more pieces is a run by itself; where it is
 * none, since it was put into holes, these stay with what is kept there already, or the next
 * content would be put into them again. Beyond the second number it goes at once. */
#define SMALL_PIECES_MAX 4
#define PIECES_MAX       256
/* Mail that goes within this time lies in runs: what a commit brings goes with the next ones. */
#define AGE_MS_MIN       2000
#define UNUSED_BYTES_MIN (UINT64_C(256) << 20)
#define DISK_BYTES_MIN   (UINT64_C(256) << 20)
/* The file may become longer by so much, or by an eighth, before something kept is freed for it. */
#define GROWTH_BYTES (UINT64_C(64) << 20)
#define GROWTH_PART  8
/* A transaction frees so many pages of what is kept, and twice as many as it brings, or the file
 * would become longer while there is much to free; it looks at so many chunks for them: about a
 * millisecond. */
#define FREED_MAX 512
#define LOOKS_MAX 16384
/* Ids in a record: it fills a page at most. */
#define RECORD_IDS 250
/* Between two times that records of an earlier process are freed: 250 contents are in half a
 * millisecond. */
#define LEFT_PAUSE_NS UINT64_C(50000000)

#define RECORD_KEY_BYTES 9 /* kind, number */

struct remain {
    struct msgid id;
    struct remains_record *record; /* NULL: this transaction brings it */
    uint32_t next;                 /* of its chunk, or of the unused places */
    uint32_t pieces;               /* 0: the place is unused */
};

struct remains_record {
    uint64_t number;
    uint32_t left; /* entries that it names and that are kept still */
};

/* --- memory --- */

static void forget_entries(struct remains *r)
{
    for (uint32_t i = 0; i < r->entries_max; i++) {
        struct remain *e = &r->entries[i];

        if (e->pieces > 0 && e->record != NULL && --e->record->left == 0)
            free(e->record);
    }
    free(r->entries);
    r->entries = NULL;
    r->entries_max = r->len = 0;
    r->spare = REMAINS_NONE;
    r->pages = r->owed = 0;
}

void remains_done(struct remains *r)
{
    forget_entries(r);
    free(r->chunks);
    *r = (struct remains){.spare = REMAINS_NONE};
}

void remains_forget(struct shard *s)
{
    struct remains *r = &s->own.remains;

    forget_entries(r);
    for (size_t i = 0; i < r->chunks_len; i++)
        r->chunks[i] = (struct remains_chunk){.first = REMAINS_NONE};
    r->left_until = r->number;
    r->left = true;
}

/* NULL: the page is beyond what is counted, or memory is out. */
static struct remains_chunk *chunk_of(struct remains *r, uint64_t page)
{
    uint64_t at = page / CHUNK_PAGES;
    struct remains_chunk *grown;
    size_t len;

    if (at < r->chunks_len)
        return &r->chunks[at];
    if (at >= CHUNKS_MAX)
        return NULL;
    for (len = r->chunks_len > 0 ? r->chunks_len : 1024; len <= at;)
        len *= 2;
    grown = realloc(r->chunks, len * sizeof(*grown));
    if (grown == NULL)
        return NULL;
    r->chunks = grown;
    for (; r->chunks_len < len; r->chunks_len++)
        grown[r->chunks_len] = (struct remains_chunk){.first = REMAINS_NONE};
    return &grown[at];
}

static bool has_place(struct remains *r)
{
    uint32_t max = r->entries_max > 0 ? 2 * r->entries_max : 1024;
    struct remain *grown;

    if (r->spare != REMAINS_NONE)
        return true;
    ASSERT(r->len == r->entries_max);
    if (max > ENTRIES_MAX)
        return false;
    grown = realloc(r->entries, max * sizeof(*grown));
    if (grown == NULL)
        return false;
    for (uint32_t i = r->entries_max; i < max; i++)
        grown[i] = (struct remain){.next = i + 1 < max ? i + 1 : REMAINS_NONE};
    r->entries = grown;
    r->spare = r->entries_max;
    r->entries_max = max;
    return true;
}

static uint64_t growth_bytes(uint64_t used_bytes)
{
    return used_bytes / GROWTH_PART > GROWTH_BYTES ? used_bytes / GROWTH_PART : GROWTH_BYTES;
}

void remains_committed(struct shard *s)
{
    uint64_t used = atomic_load_explicit(&s->shared.map_used_bytes, memory_order_relaxed);
    struct remains *r = &s->own.remains;

    if (r->len == 0) {
        r->end_bytes = used + growth_bytes(used);
        r->owed = 0;
    } else if (used > r->end_bytes) {
        r->owed += 2 * (used - r->end_bytes) / s->page_bytes;
        r->end_bytes = used;
    }
    ASSERT(r->pages >= r->len);
}

/* --- records --- */

static void record_key(uint8_t out[RECORD_KEY_BYTES], uint64_t number)
{
    out[0] = STATE_REMAINS;
    packed_set_key(out + 1, number, sizeof(number));
}

static bool is_record(const MDB_val *key)
{
    return key->mv_size == RECORD_KEY_BYTES && *(const uint8_t *)key->mv_data == STATE_REMAINS;
}

static int delete_record(struct batch *b, uint64_t number)
{
    uint8_t key[RECORD_KEY_BYTES];

    record_key(key, number);
    return state_apply(b->shard, b->txn,
                       &(struct queue_state){.key = {(char *)key, sizeof(key)}, .remove = true});
}

/* The first record, or the last (at_end); MDB_NOTFOUND: there is none. */
static int find_record(struct shard *s, MDB_txn *txn, bool at_end, uint64_t *number)
{
    uint8_t bytes[2] = {STATE_REMAINS + (at_end ? 1 : 0)};
    MDB_val key = {at_end ? 1 : 2, bytes}, value;
    MDB_cursor *at;
    int rc = mdb_cursor_open(txn, s->state, &at);

    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(at, &key, &value, MDB_SET_RANGE);
    if (at_end && (rc == 0 || rc == MDB_NOTFOUND))
        rc = mdb_cursor_get(at, &key, &value, rc == 0 ? MDB_PREV : MDB_LAST);
    if (rc == 0 && !is_record(&key))
        rc = MDB_NOTFOUND;
    if (rc == 0)
        *number = packed_key_at((const uint8_t *)key.mv_data + 1, RECORD_KEY_BYTES - 1);
    mdb_cursor_close(at);
    return rc;
}

int remains_open(struct shard *s, MDB_txn *txn)
{
    struct remains *r = &s->own.remains;
    uint64_t last = 0;
    int rc = find_record(s, txn, true, &last);

    *r = (struct remains){.spare = REMAINS_NONE,
                          .left = rc == 0,
                          .age_ms_min = AGE_MS_MIN,
                          .unused_bytes_min = UNUSED_BYTES_MIN};
    r->number = r->left_until = rc == 0 ? last + 1 : 1;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* --- a transaction --- */

static bool has_room(const struct shard *s)
{
    uint64_t used = atomic_load_explicit(&s->shared.map_used_bytes, memory_order_relaxed);
    uint64_t disk = atomic_load_explicit(&s->shared.disk_free_bytes, memory_order_relaxed);
    uint64_t unused = s->options.map_bytes > used ? s->options.map_bytes - used : 0;

    return unused >= s->own.remains.unused_bytes_min && unused >= s->options.map_bytes / 4 &&
           disk >= 2 * s->options.disk_free_bytes_min + DISK_BYTES_MIN;
}

bool remains_wanted_back(const struct shard *s)
{
    return (s->own.remains.len > 0 || s->own.remains.left) && !has_room(s);
}

void batch_remains_begin(struct batch *b)
{
    struct remains *r = &b->shard->own.remains;

    r->room = has_room(b->shard);
    if (!r->room)
        r->owed = r->pages;
}

void batch_remains_put(struct batch *b, const MDB_val *value)
{
    struct remains_chunk *chunk;
    uint64_t page;

    if (value->mv_size < b->shard->page_bytes / 2)
        return;
    /* The header in front of a large value begins with the page's number. */
    memcpy(&page, (const uint8_t *)value->mv_data - CHECK_HEADER_BYTES, sizeof(page));
    chunk = chunk_of(&b->shard->own.remains, page);
    if (chunk != NULL && chunk->live < UINT16_MAX)
        chunk->live++;
}

static int entry_add(struct batch *b, struct remains_chunk *chunk, const struct msgid *id,
                     uint32_t pieces)
{
    struct remains *r = &b->shard->own.remains;
    uint32_t place = r->spare;
    struct remain *e = &r->entries[place];

    ASSERT(place < r->entries_max && e->pieces == 0 && pieces > 0);
    if (buf_reserve(&b->kept, sizeof(place)) < 0)
        return ENOMEM;
    buf_put(&b->kept, &place, sizeof(place));
    r->spare = e->next;
    *e = (struct remain){.id = *id, .next = chunk->first, .pieces = pieces};
    chunk->first = place;
    r->len++;
    r->pages += pieces;
    return 0;
}

static uint64_t page_of(const struct shard *s, const MDB_val *value)
{
    return (uint64_t)((const uint8_t *)value->mv_data - (const uint8_t *)s->map) / s->page_bytes;
}

/* Whether a piece has a page alone, of which the number is known. */
static bool lies_alone(const struct shard *s, const MDB_val *value)
{
    return value->mv_size >= s->page_bytes / 2 && !shard_written(s, value);
}

/* The cursor of pages is at the first piece of id. breaks: pieces that are not behind the one
 * before. pieces is 0 when there are too many. */
static int count_pieces(struct batch *b, const struct msgid *id, uint32_t *pieces, uint32_t *breaks)
{
    uint64_t page = 0, last;
    MDB_val key, value;
    int rc = mdb_cursor_get(b->pages, &key, &value, MDB_GET_CURRENT);

    *pieces = *breaks = 0;
    while (rc == 0 && codec_page_key_of(val_str(&key), id)) {
        if (*pieces == PIECES_MAX) {
            *pieces = 0;
            return 0;
        }
        last = page;
        page = page_of(b->shard, &value);
        *breaks += *pieces > 0 && lies_alone(b->shard, &value) && page != last + 1;
        ++*pieces;
        rc = mdb_cursor_get(b->pages, &key, &value, MDB_NEXT);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* One that is old begins to be kept, if it is small. Where something is kept already others are
 * too, whose pages would be used again otherwise. */
static int content_keep(struct batch *b, struct remains_chunk *chunk, const struct msgid *id,
                        bool *kept)
{
    uint32_t pieces, breaks;
    int rc = count_pieces(b, id, &pieces, &breaks);

    if (rc != 0 || pieces == 0 || !has_place(&b->shard->own.remains))
        return rc;
    *kept = pieces <= SMALL_PIECES_MAX || (chunk->first != REMAINS_NONE && breaks > pieces / 4);
    return *kept ? entry_add(b, chunk, id, pieces) : 0;
}

int batch_remains_keep(struct batch *b, const struct msgid *id, bool *kept)
{
    struct remains *r = &b->shard->own.remains;
    struct remains_chunk *chunk;
    uint8_t key_bytes[PAGE_KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes}, value;
    int rc;

    *kept = false;
    codec_page_key(key_bytes, id, 0);
    rc = mdb_cursor_get(b->pages, &key, &value, MDB_SET_RANGE);
    if (rc != 0 || !codec_page_key_of(val_str(&key), id) || !lies_alone(b->shard, &value))
        return rc == MDB_NOTFOUND ? 0 : rc;
    chunk = chunk_of(r, page_of(b->shard, &value));
    if (chunk == NULL || chunk->live == 0)
        return 0; /* who else is in the chunk is not known */
    chunk->live--;
    if (chunk->live > 0 && r->room &&
        (chunk->first != REMAINS_NONE || clock_wall_ms() - msgid_ms(id) >= r->age_ms_min))
        return content_keep(b, chunk, id, kept);
    if (chunk->live == 0 && chunk->first != REMAINS_NONE) {
        uint32_t at = (uint32_t)(chunk - r->chunks);

        if (buf_reserve(&b->cleared, sizeof(at)) < 0)
            return ENOMEM;
        buf_put(&b->cleared, &at, sizeof(at));
    }
    return 0;
}

/* Deletes all that is kept in a chunk; *freed is added to. */
static int chunk_clear(struct batch *b, struct remains_chunk *chunk, uint64_t *freed)
{
    struct remains *r = &b->shard->own.remains;
    int rc = 0;

    while (rc == 0 && chunk->first != REMAINS_NONE) {
        uint32_t place = chunk->first;
        struct remain *e = &r->entries[place];

        ASSERT(place < r->entries_max && e->pieces > 0 && r->len > 0);
        rc = batch_delete_pages(b, &e->id);
        if (e->record != NULL && --e->record->left == 0) {
            rc = rc == 0 ? delete_record(b, e->record->number) : rc;
            free(e->record);
        }
        *freed += e->pieces;
        r->pages -= e->pieces;
        r->len--;
        chunk->first = e->next;
        *e = (struct remain){.next = r->spare};
        r->spare = place;
    }
    return rc;
}

/* The file is longer than it may be: frees what is kept, from the front of the file to its end, so
 * that what is freed together lies together. */
static int free_owed(struct batch *b)
{
    const struct shard *s = b->shard;
    struct remains *r = &b->shard->own.remains;
    uint64_t brought = (s->own.room_bytes - b->room_bytes) / s->page_bytes;
    uint64_t freed = 0, max = FREED_MAX + 2 * brought;
    int rc = 0;

    ASSERT(b->room_bytes <= s->own.room_bytes);
    max = max < r->owed ? max : r->owed;
    for (unsigned looks = 0; rc == 0 && r->len > 0 && looks < LOOKS_MAX && freed < max; looks++) {
        r->hand = r->hand + 1 < r->chunks_len ? r->hand + 1 : 0;
        rc = chunk_clear(b, &r->chunks[r->hand], &freed);
    }
    r->owed -= freed < r->owed ? freed : r->owed;
    return rc;
}

/* Frees what the first record of an earlier process names; *freed: so many contents more. */
static int free_first(struct batch *b, size_t *freed)
{
    struct remains *r = &b->shard->own.remains;
    uint8_t key[RECORD_KEY_BYTES], ids[RECORD_IDS * MSGID_BYTES];
    struct str value = {NULL, 0};
    uint64_t number;
    int rc;

    rc = find_record(b->shard, b->txn, false, &number);
    r->left = rc == 0 && number < r->left_until;
    if (!r->left)
        return rc == MDB_NOTFOUND ? 0 : rc;
    record_key(key, number);
    rc = state_read(b->shard, b->txn, (struct str){(char *)key, sizeof(key)}, &value);
    if (rc == 0 && value.len <= sizeof(ids))
        memcpy(ids, value.ptr, value.len);
    else
        value.len = 0; /* damaged: the pieces stay for good */
    rc = rc == MDB_NOTFOUND ? 0 : rc;
    *freed += 1 + value.len / MSGID_BYTES;
    for (size_t at = 0; at + MSGID_BYTES <= value.len && rc == 0; at += MSGID_BYTES) {
        struct msgid id;

        memcpy(id.bytes, ids + at, MSGID_BYTES);
        rc = batch_delete_pages(b, &id);
    }
    return rc == 0 ? delete_record(b, number) : rc;
}

/* A record may name a few contents only: those of a transaction that kept no more. */
static int free_left(struct batch *b)
{
    struct remains *r = &b->shard->own.remains;
    uint64_t now_ns = clock_mono_ns();
    size_t freed = 0;
    int rc = 0;

    if (!r->left || now_ns < r->left_next_ns)
        return 0;
    r->left_next_ns = now_ns + LEFT_PAUSE_NS;
    while (rc == 0 && r->left && freed < RECORD_IDS)
        rc = free_first(b, &freed);
    return rc;
}

/* Writes down those of places that are kept still. */
static int put_record(struct batch *b, const uint32_t *places, size_t n)
{
    struct remains *r = &b->shard->own.remains;
    struct remains_record *record = calloc(1, sizeof(*record));
    uint8_t key[RECORD_KEY_BYTES], ids[RECORD_IDS * MSGID_BYTES];
    struct queue_state state = {.key = {(char *)key, sizeof(key)}};

    ASSERT(n > 0 && n <= RECORD_IDS);
    if (record == NULL)
        return ENOMEM;
    record->number = r->number;
    for (size_t i = 0; i < n; i++) {
        struct remain *e = &r->entries[places[i]];

        if (e->pieces == 0)
            continue; /* its chunk has come free meanwhile */
        memcpy(ids + MSGID_BYTES * record->left++, e->id.bytes, MSGID_BYTES);
        e->record = record;
    }
    if (record->left == 0) {
        free(record);
        return 0;
    }
    record_key(key, r->number++);
    state.value = (struct str){(char *)ids, record->left * MSGID_BYTES};
    return state_apply(b->shard, b->txn, &state);
}

int batch_remains_end(struct batch *b)
{
    struct remains *r = &b->shard->own.remains;
    const uint32_t *cleared = (const uint32_t *)(const void *)b->cleared.data;
    const uint32_t *kept = (const uint32_t *)(const void *)b->kept.data;
    size_t cleared_len = b->cleared.len / sizeof(*cleared), kept_len = b->kept.len / sizeof(*kept);
    uint64_t freed = 0;
    int rc = free_left(b);

    for (size_t i = 0; i < cleared_len && rc == 0; i++)
        rc = chunk_clear(b, &r->chunks[cleared[i]], &freed);
    if (rc == 0)
        rc = free_owed(b);
    for (size_t i = 0; i < kept_len && rc == 0; i += RECORD_IDS)
        rc = put_record(b, kept + i, kept_len - i < RECORD_IDS ? kept_len - i : RECORD_IDS);
    return rc;
}
