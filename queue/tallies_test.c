/* Contents whose rows are added later: pins, tallies, and what a queue needs to be opened. */
#include "queue/testkit.h"

#include "queue/shard.h"
#include "queue/testkit_fsck.h"

static const char *const lane = "a.example";

/* A content that is pinned, without rows. */
static struct message *make_pinned(struct kit_queue *f)
{
    struct message *m = kit_message(9000, 0, 4);
    struct kit_change *kit = kit_change();
    struct queue_pin pin = {.id = m->id};

    m->flags |= MESSAGE_RECIPE;
    kit_content(kit, m);
    kit->change.pins = &pin;
    kit->change.pins_len = 1;
    assert_int_equal(kit_submit(f->q, f->port, 0, kit), 0);
    return m;
}

static int unpin(struct kit_queue *f, const struct message *m, int64_t created_ms)
{
    struct queue_pin pin = {.id = m->id, .remove = true, .created_ms = created_ms};
    struct kit_change *kit = kit_change();

    kit->change.pins = &pin;
    kit->change.pins_len = 1;
    return kit_submit(f->q, f->port, 0, kit);
}

static int add(struct kit_queue *f, struct recipient **rcpts, size_t len)
{
    struct kit_change *kit = kit_change();

    for (size_t i = 0; i < len; i++)
        kit_row(kit, QUEUE_ROW_ADD, rcpts[i]);
    return kit_submit(f->q, f->port, 0, kit);
}

static int settle(struct kit_queue *f, enum queue_row_kind kind, struct recipient *r,
                  enum tally_count count)
{
    struct kit_change *kit = kit_change();
    struct queue_row *row = kit_row(kit, kind, r);

    row->count = count;
    if (kind == QUEUE_ROW_MOVE)
        r->due_ms += 1000;
    return kit_submit(f->q, f->port, 0, kit);
}

static uint64_t messages(struct kit_queue *f)
{
    struct queue_counters c = {0};

    queue_counters(f->q, 0, &c);
    return c.messages;
}

static void assert_counts(struct kit_queue *f, const struct message *m, bool pinned, uint64_t added,
                          uint64_t delivered, uint64_t deferred, uint64_t failed, uint64_t expired,
                          uint64_t cancelled)
{
    const uint64_t wanted[TALLY_COUNTS] = {0,      added,   delivered, deferred,
                                           failed, expired, cancelled};
    uint64_t pins = 0, prepared = 0;
    struct queue_tally tally;

    assert_int_equal(queue_tally_get(f->q, &m->id, &tally), 0);
    assert_int_equal(tally.pinned, pinned);
    for (int i = 0; i < TALLY_COUNTS; i++)
        assert_int_equal(tally.counts[i], wanted[i]);
    assert_int_equal(tally_queued(&tally), added - delivered - failed - expired - cancelled);
    assert_null(fsck_shard(f->q, 0, &pins, &prepared));
    assert_int_equal(pins, pinned);
}

static void test_counts(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = make_pinned(f);
    struct recipient *r[5];

    for (uint32_t i = 0; i < 5; i++)
        r[i] = kit_recipient(m, i, lane, 1000);
    assert_counts(f, m, true, 0, 0, 0, 0, 0, 0);
    assert_int_equal(add(f, r, 5), 0);
    assert_counts(f, m, true, 5, 0, 0, 0, 0, 0);
    /* What does not happen does not count. */
    assert_int_equal(add(f, r, 5), -EEXIST);
    assert_counts(f, m, true, 5, 0, 0, 0, 0, 0);
    assert_int_equal(settle(f, QUEUE_ROW_MOVE, r[0], TALLY_DEFERRED), 0);
    assert_int_equal(settle(f, QUEUE_ROW_MOVE, r[0], TALLY_NONE), 0);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r[0], TALLY_DELIVERED), 0);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r[0], TALLY_DELIVERED), 0); /* it is gone */
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r[1], TALLY_FAILED), 0);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r[2], TALLY_EXPIRED), 0);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r[3], TALLY_CANCELLED), 0);
    assert_counts(f, m, true, 5, 1, 1, 1, 1, 1);
    kit_queue_reopen(f);
    assert_counts(f, m, true, 5, 1, 1, 1, 1, 1);
    assert_int_equal(messages(f), 1);
    assert_int_equal(unpin(f, m, 0), 0);
    assert_counts(f, m, false, 5, 1, 1, 1, 1, 1);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r[4], TALLY_DELIVERED), 0);
    assert_int_equal(messages(f), 0);
    assert_counts(f, m, false, 5, 2, 1, 1, 1, 1); /* counts outlive the content */
    for (int i = 0; i < 5; i++)
        recipient_free(r[i]);
    message_unref(m);
}

static int note(struct kit_queue *f, enum queue_row_kind kind, struct recipient *r,
                enum tally_count count, const char *site, uint8_t reason)
{
    struct queue_note note = {.reason = reason, .site_len = (uint8_t)strlen(site), .at_ms = 5000};
    struct kit_change *kit = kit_change();
    struct queue_row *row = kit_row(kit, kind, r);

    memcpy(note.site, site, note.site_len);
    row->count = count;
    kit->change.notes = &note;
    kit->change.notes_len = 1;
    if (kind == QUEUE_ROW_MOVE)
        r->due_ms += 1000;
    return kit_submit(f->q, f->port, 0, kit);
}

static void put_sheet(struct kit_queue *f, const struct message *m, const char *value)
{
    struct kit_change *kit = kit_change();
    uint8_t key[SHEET_KEY_BYTES];
    struct queue_state state = {.key = {(char *)key, sizeof(key)}, .value = str_of(value)};

    queue_sheet_key(key, &m->id);
    kit->change.states = &state;
    kit->change.states_len = 1;
    assert_int_equal(kit_submit(f->q, f->port, 0, kit), 0);
}

/* A note counts with its row, or not at all. */
static void test_notes(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = make_pinned(f), *untold = kit_message(100, 0, 5);
    struct recipient *r[3], *s = kit_recipient(untold, 0, lane, 1000);
    struct kit_change *kit = kit_change();
    uint8_t key[SHEET_KEY_BYTES];
    struct buf stored = {0};
    struct sheet sheet;

    kit_content(kit, untold);
    kit_row(kit, QUEUE_ROW_ADD, s);
    assert_int_equal(kit_submit(f->q, f->port, 0, kit), 0);
    for (uint32_t i = 0; i < 3; i++)
        r[i] = kit_recipient(m, i, lane, 1000);
    assert_int_equal(add(f, r, 3), 0);
    assert_int_equal(note(f, QUEUE_ROW_MOVE, r[0], TALLY_DEFERRED, "gmail", 3), 0);
    assert_int_equal(note(f, QUEUE_ROW_MOVE, r[0], TALLY_NONE, "gmail", 4), 0);
    assert_int_equal(note(f, QUEUE_ROW_REMOVE, r[0], TALLY_DELIVERED, "gmail", 0), 0);
    assert_int_equal(note(f, QUEUE_ROW_REMOVE, r[0], TALLY_FAILED, "gmail", 5), 0); /* it is gone */
    kit_queue_reopen(f);
    assert_int_equal(note(f, QUEUE_ROW_REMOVE, r[1], TALLY_FAILED, "docomo", 6), 0);
    assert_int_equal(queue_sheet_get(f->q, &m->id, &sheet), 0);
    assert_int_equal(sheet.sites_len, 2);
    assert_int_equal(sheet.cells_len, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(sheet.cells[i].n, 1);
        assert_true(sheet.cells[i].reason == (sheet.cells[i].count == TALLY_DEFERRED ? 3
                                              : sheet.cells[i].count == TALLY_FAILED ? 6
                                                                                     : 0));
    }
    assert_null(fsck_shard(f->q, 0, &(uint64_t){0}, &(uint64_t){0}));
    /* A damaged one begins anew, one of a later build stays as it is. */
    put_sheet(f, m, "\x01?");
    assert_int_equal(note(f, QUEUE_ROW_MOVE, r[2], TALLY_DEFERRED, "gmail", 3), 0);
    assert_int_equal(queue_sheet_get(f->q, &m->id, &sheet), 0);
    assert_int_equal(sheet.cells_len, 1);
    put_sheet(f, m, "\x02?");
    assert_int_equal(note(f, QUEUE_ROW_MOVE, r[2], TALLY_DEFERRED, "gmail", 3), 0);
    queue_sheet_key(key, &m->id);
    assert_int_equal(queue_state_get(f->q, 0, (struct str){(char *)key, sizeof(key)}, &stored), 0);
    assert_true(str_eq(buf_str(&stored), STR("\x02?")));
    buf_done(&stored);
    /* Without a tally there is no sheet. */
    assert_int_equal(note(f, QUEUE_ROW_REMOVE, s, TALLY_DELIVERED, "gmail", 0), 0);
    assert_int_equal(queue_sheet_get(f->q, &untold->id, &sheet), 0);
    assert_int_equal(sheet.cells_len, 0);
    assert_int_equal(note(f, QUEUE_ROW_REMOVE, r[2], TALLY_DELIVERED, "", 0), 0);
    for (int i = 0; i < 3; i++)
        recipient_free(r[i]);
    recipient_free(s);
    message_unref(m);
    message_unref(untold);
}

static void put_tally(struct kit_queue *f, const struct message *m, struct str value)
{
    struct kit_change *kit = kit_change();
    uint8_t key[TALLY_KEY_BYTES];
    struct queue_state state = {.key = {(char *)key, sizeof(key)}, .value = value};

    queue_tally_key(key, &m->id);
    kit->change.states = &state;
    kit->change.states_len = 1;
    assert_int_equal(kit_submit(f->q, f->port, 0, kit), 0);
}

/* What was suppressed has failed, too: in the tally, and in the sheet, which knows nothing else. A
 * tally of a build that knew of none has none. */
static void test_suppressed(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = make_pinned(f);
    struct recipient *r[2];
    uint8_t older[TALLY_VALUE_BYTES];
    struct queue_tally tally = {0};
    struct sheet sheet;

    for (uint32_t i = 0; i < 2; i++)
        r[i] = kit_recipient(m, i, lane, 1000);
    assert_int_equal(add(f, r, 2), 0);
    codec_tally_encode(older, &(struct queue_tally){.pinned = true, .counts = {0, 2}});
    put_tally(f, m, (struct str){(char *)older, sizeof(older) - 8});
    assert_counts(f, m, true, 2, 0, 0, 0, 0, 0);
    assert_int_equal(note(f, QUEUE_ROW_REMOVE, r[0], TALLY_SUPPRESSED, "", 22), 0);
    assert_int_equal(queue_tally_get(f->q, &m->id, &tally), 0);
    assert_int_equal(tally.counts[TALLY_SUPPRESSED], 1);
    assert_int_equal(tally.counts[TALLY_FAILED], 1);
    assert_int_equal(tally_queued(&tally), 1);
    assert_int_equal(queue_sheet_get(f->q, &m->id, &sheet), 0);
    assert_int_equal(sheet.cells_len, 1);
    assert_int_equal(sheet.cells[0].count, TALLY_FAILED);
    assert_int_equal(sheet.cells[0].reason, 22);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r[1], TALLY_DELIVERED), 0);
    for (int i = 0; i < 2; i++)
        recipient_free(r[i]);
    message_unref(m);
}

static void test_pin(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = make_pinned(f), *stored;
    struct recipient *r = kit_recipient(m, 0, lane, 1000);
    int err;

    /* Content stays without rows: before them, and behind them. */
    assert_int_equal(messages(f), 1);
    assert_int_equal(add(f, &r, 1), 0);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r, TALLY_DELIVERED), 0);
    kit_queue_reopen(f);
    assert_int_equal(messages(f), 1);
    assert_int_equal(add(f, &r, 1), 0);
    /* The pin goes, and lifetimes begin; once. */
    assert_int_equal(unpin(f, m, 777777), 0);
    assert_int_equal(unpin(f, m, 888888), 0);
    stored = queue_message(f->q, &m->id, &err);
    assert_non_null(stored);
    assert_int_equal(stored->created_ms, 777777);
    assert_int_equal(stored->flags, MESSAGE_RECIPE);
    assert_true(kit_content_right(stored));
    message_unref(stored);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r, TALLY_DELIVERED), 0);
    assert_int_equal(messages(f), 0);
    /* Nobody is added to what is gone. */
    assert_int_equal(add(f, &r, 1), -ENOENT);
    recipient_free(r);
    message_unref(m);
    m = make_pinned(f);
    assert_int_equal(unpin(f, m, 0), 0);
    assert_int_equal(messages(f), 0);
    message_unref(m);
}

static int64_t loaded_created_ms(struct kit_queue *f)
{
    struct kit_load kit = {0};
    struct recipient *r;
    int64_t ms;

    assert_int_equal(kit_load(f->q, f->port, 0, &kit, lane, 2000, 10), 0);
    r = kit_pop(&kit);
    assert_non_null(r);
    ms = r->message->created_ms;
    recipient_free(r);
    return ms;
}

/* Lifetimes begin for what had been read before, too. */
static void test_read_before(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = make_pinned(f);
    struct recipient *r = kit_recipient(m, 0, lane, 1000);

    assert_int_equal(add(f, &r, 1), 0);
    assert_int_equal(loaded_created_ms(f), m->created_ms);
    assert_int_equal(unpin(f, m, 777777), 0);
    assert_int_equal(loaded_created_ms(f), 777777);
    recipient_free(r);
    message_unref(m);
}

/* A content of the same kind without a tally is not counted, and no error. */
static void test_without_tally(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = kit_message(100, 0, 5);
    struct recipient *r = kit_recipient(m, 0, lane, 1000);
    struct kit_change *kit = kit_change();
    struct queue_tally tally;

    kit_content(kit, m);
    kit_row(kit, QUEUE_ROW_ADD, r);
    assert_int_equal(kit_submit(f->q, f->port, 0, kit), 0);
    assert_int_equal(queue_tally_get(f->q, &m->id, &tally), -ENOENT);
    assert_int_equal(unpin(f, m, 5), 0);
    assert_int_equal(settle(f, QUEUE_ROW_REMOVE, r, TALLY_DELIVERED), 0);
    assert_int_equal(messages(f), 0);
    recipient_free(r);
    message_unref(m);
}

static uint64_t needs_of(struct kit_queue *f)
{
    struct shard *s = f->q->shards[0];
    MDB_val key = {6, "format"}, value;
    struct queue_format format;
    MDB_txn *txn;

    assert_int_equal(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_get(txn, s->meta, &key, &value), 0);
    assert_int_equal(codec_format_decode(val_str(&value), &format), 0);
    mdb_txn_abort(txn);
    return format.needs;
}

/* A build that knows no recipes must not open the queue from the first one on. */
static void test_needs(void **state)
{
    struct kit_queue *f = *state;
    struct message *m;

    assert_int_equal(needs_of(f), 0);
    m = make_pinned(f);
    assert_int_equal(needs_of(f), FORMAT_NEEDS_RECIPES);
    kit_queue_reopen(f);
    assert_int_equal(needs_of(f), FORMAT_NEEDS_RECIPES);
    message_unref(m);
}

static void count_key(void *arg, struct str key)
{
    assert_int_equal(key.len, 3);
    ++*(unsigned *)arg;
}

static unsigned states_left(struct kit_queue *f, const char *from, const char *to)
{
    unsigned n = 0;

    assert_int_equal(queue_state_keys(f->q, 0, str_of(from), str_of(to), 100, count_key, &n), 0);
    return n;
}

static void test_range(void **state)
{
    struct kit_queue *f = *state;
    struct queue_state states[20];
    struct queue_states_range range = {.from = STR("\xf1"
                                                   "b"),
                                       .to = STR("\xf1"
                                                 "c"),
                                       .max = 6};
    char keys[20][4];
    struct kit_change *kit;

    for (unsigned i = 0; i < 20; i++) {
        snprintf(keys[i], sizeof(keys[i]), "\xf1%c%c", i < 10 ? 'b' : 'c', 'a' + i % 10);
        states[i] = (struct queue_state){.key = {keys[i], 3}, .value = STR("x")};
    }
    kit = kit_change();
    kit->change.states = states;
    kit->change.states_len = 20;
    assert_int_equal(kit_submit(f->q, f->port, 0, kit), 0);
    for (int round = 0; round < 3; round++) {
        kit = kit_change();
        kit->change.range = &range;
        assert_int_equal(kit_submit(f->q, f->port, 0, kit), 0);
        assert_int_equal(range.more, round == 0);
        assert_int_equal(states_left(f,
                                     "\xf1"
                                     "b",
                                     "\xf1"
                                     "c"),
                         round == 0 ? 4 : 0);
        assert_int_equal(states_left(f,
                                     "\xf1"
                                     "c",
                                     "\xf1"
                                     "d"),
                         10);
    }
}

struct seen {
    unsigned rows;
    int64_t expires_ms;
};

static bool see(void *arg, const struct queue_row_view *row)
{
    struct seen *seen = arg;

    seen->rows++;
    seen->expires_ms = row->expires_ms;
    return true;
}

/* A visit of one flow's rows, of all names and classes; and when they end. */
static void test_visit(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = make_pinned(f);
    struct recipient *r[6];
    struct queue_visit what = {.rows_max = 100, .visit = see};
    int64_t id_ms = msgid_ms(&m->id);
    uint32_t flows[3];

    for (uint32_t i = 0; i < 3; i++) {
        char name[2] = {(char)('x' + i), 0};

        flows[i] = queue_flow_get(f->q, 5, STR("t"), str_of(name), STR(""))->id;
    }
    for (uint32_t i = 0; i < 6; i++) {
        r[i] = kit_recipient(m, i, i < 3 ? "a.example" : "b.example", i % 2 == 0 ? 500 : 1000);
        r[i]->flow = flows[i % 3];
        r[i]->lifetime_s = 10;
    }
    assert_int_equal(add(f, r, 6), 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct queue_cursor cursor = {0};
        struct seen seen = {0};

        what.arg = &seen;
        what.flow = flows[i];
        what.ripe_ms = id_ms + 9999;
        assert_int_equal(queue_visit(f->q, 0, &cursor, &what), 1);
        assert_int_equal(seen.rows, 2);
        assert_int_equal(seen.expires_ms, id_ms + 10000); /* by the id */
    }
    assert_int_equal(unpin(f, m, id_ms + 500000), 0);
    for (int ripe = 0; ripe < 2; ripe++) {
        struct queue_cursor cursor = {0};
        struct seen seen = {0};

        what.arg = &seen;
        what.ripe_ms = id_ms + 9999 + ripe;
        assert_int_equal(queue_visit(f->q, 0, &cursor, &what), 1);
        assert_int_equal(seen.expires_ms, id_ms + (ripe == 0 ? 10000 : 510000));
    }
    for (int i = 0; i < 6; i++)
        recipient_free(r[i]);
    message_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counts, kit_queue_setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_notes, kit_queue_setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_suppressed, kit_queue_setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_pin, kit_queue_setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_read_before, kit_queue_setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_without_tally, kit_queue_setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_needs, kit_queue_setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_range, kit_queue_setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_visit, kit_queue_setup, kit_queue_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
