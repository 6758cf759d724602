/* GET /api/campaigns/v1/ID/recipients: who of a campaign is in the queue, and why still; some a
 * request. Those that have had an end are in the records. */
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "config/glob.h"
#include "http/campaign.h"
#include "http/http_private.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX     1000
#define KEY_MAX       511    /* LMDB's */
#define ROWS_MAX      200000 /* that a request looks at in a shard: some 50 ms, ... */
#define LOOK_MS       50     /* ... behind which it begins no further one */

enum { ROW_ANY, ROW_READY, ROW_DEFERRED, ROW_HELD, ROW_STATES };
static const char *const state_names[ROW_STATES] = {
    [ROW_READY] = "ready", [ROW_DEFERRED] = "deferred", [ROW_HELD] = "held"};

struct listing {
    struct buf *out;
    struct str match; /* ptr NULL: any */
    int state;
    uint64_t limit, found;
    int64_t now_ms;
};

/* As a listing of the queue has it. */
static int state_of(const struct queue_row_view *row, int64_t now_ms)
{
    if ((row->flags & RECIPIENT_HELD) != 0)
        return ROW_HELD;
    return row->due_ms <= now_ms ? ROW_READY : ROW_DEFERRED;
}

static bool put_row(void *arg, const struct queue_row_view *row)
{
    struct listing *l = arg;
    int state = state_of(row, l->now_ms);

    if ((l->state != ROW_ANY && l->state != state) ||
        (l->match.ptr != NULL && !glob_match(l->match, row->address)))
        return true;
    buf_puts(l->out, l->found++ == 0 ? "{\"email\":" : ",{\"email\":");
    buf_put_json(l->out, row->address);
    buf_printf(l->out, ",\"index\":%u,\"state\":\"%s\",\"attempts\":%u", row->index,
               state_names[state], row->attempts);
    if (state != ROW_HELD)
        buf_printf(l->out, ",\"due_ms\":%" PRId64, row->due_ms);
    if (row->last_attempt_ms != 0)
        buf_printf(l->out, ",\"last_attempt_ms\":%" PRId64, row->last_attempt_ms);
    if (row->last_error.len > 0) {
        buf_puts(l->out, ",\"last_error\":");
        buf_put_json(l->out, row->last_error);
    }
    buf_putc(l->out, '}');
    return l->found < l->limit;
}

/* --- where it goes on: the shard, and the key of the last row, in hexadecimal digits --- */

static void put_place(struct buf *out, uint32_t shard, const struct queue_cursor *at)
{
    buf_printf(out, "\"%04x", shard);
    for (uint16_t i = 0; i < at->len; i++)
        buf_printf(out, "%02x", at->key[i]);
    buf_putc(out, '"');
}

static bool take_digits(const char **text, unsigned digits, uint32_t *out)
{
    *out = 0;
    for (unsigned i = 0; i < digits; i++) {
        char c = *(*text)++;
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

        if (v < 0)
            return false;
        *out = *out << 4 | (uint32_t)v;
    }
    return true;
}

static bool take_place(const char *text, uint32_t shards, uint32_t *shard, struct queue_cursor *at)
{
    *at = (struct queue_cursor){0};
    *shard = 0;
    if (text == NULL)
        return true;
    if (!take_digits(&text, 4, shard) || *shard >= shards)
        return false;
    while (*text != '\0') {
        uint32_t byte;

        if (at->len == KEY_MAX || !take_digits(&text, 2, &byte))
            return false;
        at->key[at->len++] = (uint8_t)byte;
    }
    return true;
}

/* --- the request --- */

static bool take_question(struct http_request *r, struct listing *l)
{
    const char *limit = request_argument(r, "limit"), *state = request_argument(r, "state");
    const char *match = request_argument(r, "match");
    static const char *const known[] = {"state", "match", "limit", "after"};

    if (request_arguments_refused(r, known, ARRAY_LEN(known)))
        return false;
    l->limit = LIMIT_DEFAULT;
    if (match != NULL)
        l->match = str_of(match);
    if (limit != NULL && (str_to_u64(str_of(limit), LIMIT_MAX, &l->limit) < 0 || l->limit == 0)) {
        request_problem(r, 422, "limit", "limit is 1 to %d", LIMIT_MAX);
        return false;
    }
    for (int i = ROW_READY; state != NULL && i < ROW_STATES; i++)
        if (strcmp(state, state_names[i]) == 0)
            l->state = i;
    if (state == NULL || l->state != ROW_ANY)
        return true;
    request_problem(r, 422, "state", "state is ready, deferred or held");
    return false;
}

void handle_campaign_rows(struct http_request *r)
{
    struct queue *q = r->http->shared->queue;
    struct buf out = {0};
    struct listing l = {.out = &out, .now_ms = clock_wall_ms()};
    struct queue_visit what = {.id = &r->id, .rows_max = ROWS_MAX, .visit = put_row, .arg = &l};
    struct queue_cursor at;
    uint64_t until_ns = clock_mono_ns() + LOOK_MS * UINT64_C(1000000);
    struct campaign c;
    uint32_t shard;
    int rc = 1;

    if (!campaign_of_request(r, &c) || !take_question(r, &l))
        return;
    if (!take_place(request_argument(r, "after"), queue_shards(q), &shard, &at)) {
        request_problem(r, 422, "after", "after is the \"next\" of an answer");
        return;
    }
    buf_puts(&out, "{\"recipients\":[");
    while (shard < queue_shards(q) && l.found < l.limit &&
           (rc = queue_visit(q, shard, &at, &what)) == 1) {
        shard++;
        at.len = 0;
        if (clock_mono_ns() >= until_ns)
            break;
    }
    buf_putc(&out, ']');
    if (shard < queue_shards(q)) {
        buf_puts(&out, ",\"next\":");
        put_place(&out, shard, &at);
    }
    buf_puts(&out, "}\n");
    if (rc < 0)
        request_problem(r, 503, "", "the queue cannot be read");
    else
        request_answer(r, 200, "application/json", buf_str(&out));
    buf_done(&out);
}
