/* POST /api/campaigns/v1/ID/recipients: a chunk of recipients. It is read part by part, so many
 * lines each, and each part is a transaction of its own (intake/campaign.h); some are under way at
 * once, while the request waits without a thread. What was sent again adds nobody: the parts that
 * are in are known by the chunk's key and their number. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <glib.h>

#include "http/campaign.h"
#include "http/chunk.h"
#include "intake/accept.h"
#include "intake/campaign.h"
#include "mail/recipe.h"
#include "smtp/address.h"
#include "tls/digest.h"

#define PARTS_AT_ONCE 4
#define TOLD_MAX      100 /* lines that are told, of the invalid and of the duplicates */
#define ROW_BYTES     (RECIPE_RECIPIENT_MAX + SMTP_PATH_MAX + QUEUE_NAME_MAX)

struct upload_part {
    struct campaign_part part;
    struct upload *upload;
    uint64_t first_line; /* of the body */
    size_t lines;
    struct buf strings; /* what rcpts' slices are of */
    struct campaign_rcpt rcpts[CAMPAIGN_PART_LINES];
    int result;
};

struct upload {
    struct http_request *request;
    struct chunk *chunk;
    uint8_t headings[DIGEST_BYTES]; /* of what is in front of the first part */
    uint8_t body_sum[DIGEST_BYTES];
    struct str key;
    size_t at; /* in the body: of the next part */
    uint32_t next_part;
    bool read; /* all of the body */
    _Atomic uint32_t under_way;
    uint64_t lines_before; /* of the request's body, the list */
    uint64_t lines, added, invalid;
    uint64_t fresh; /* lines of parts that were not in */
    bool all_again; /* every part was in already */
    size_t errors;  /* that are told */
    struct buf errors_json;
    struct upload_told {
        uint64_t count;
        size_t lines; /* that are told */
        struct buf json;
    } duplicates, suppressed;
    struct upload_part *parts[PARTS_AT_ONCE];
    size_t parts_len; /* of this round */
};

/* --- a line --- */

static void tell_error(struct upload *u, uint64_t line, const char *text)
{
    u->invalid++;
    if (u->errors++ >= TOLD_MAX)
        return;
    buf_printf(&u->errors_json,
               "%s{\"line\":%" PRIu64 ",\"error\":", u->errors_json.len > 0 ? "," : "",
               u->lines_before + line);
    buf_put_json(&u->errors_json, str_of(text));
    buf_putc(&u->errors_json, '}');
}

/* Why the row's address gets no mail, or NULL: a recipient is added to the part. */
static const char *take_row(struct upload_part *p, const struct chunk_row *row, uint64_t line)
{
    const struct config *c = p->upload->request->config;
    struct campaign_rcpt *to = &p->rcpts[p->part.rcpts_len];
    struct smtp_address address;
    struct dns_name name;
    const char *refusal;
    size_t at = p->strings.len;
    bool ascii;

    ASSERT(p->part.rcpts_len < CAMPAIGN_PART_LINES && line >= p->first_line);
    if (row->email.len > SMTP_PATH_MAX - 2 || smtp_address_parse(row->email, true, &address) < 0)
        return smtp_address_fault(row->email)->reply;
    refusal = accept_rcpt_refusal(c, &address, &name);
    if (refusal != NULL)
        return refusal;
    ascii = accept_put_rcpt(&p->strings, c, &address);
    (void)ascii; /* who renders the letter looks */
    /* The buffer may move: strings_settle() sets the pointers. */
    to->address = (struct str){NULL, p->strings.len - at};
    buf_put(&p->strings, name.text, name.len);
    to->queue = (struct str){NULL, name.len};
    buf_put_str(&p->strings, row->variables);
    to->variables = (struct str){NULL, row->variables.len};
    to->line = (uint32_t)(line - p->first_line);
    p->part.rcpts_len++;
    return NULL;
}

static void strings_settle(struct upload_part *p)
{
    const char *at = (const char *)p->strings.data;

    for (size_t i = 0; i < p->part.rcpts_len; i++) {
        struct campaign_rcpt *r = &p->rcpts[i];

        r->address.ptr = at;
        r->queue.ptr = at + r->address.len;
        r->variables.ptr = r->queue.ptr + r->queue.len;
        at = r->variables.ptr + r->variables.len;
    }
    ASSERT((size_t)(at - (const char *)p->strings.data) == p->strings.len);
}

/* --- a part --- */

/* What the part was read from: its lines, under these headings. */
static void sum_part(struct upload *u, struct upload_part *p)
{
    uint8_t both[2 * DIGEST_BYTES];
    size_t end = chunk_read_bytes(u->chunk);

    ASSERT(u->at <= end && end <= u->request->body.len);
    memcpy(both, u->headings, DIGEST_BYTES);
    digest_sha256(u->request->body.data + u->at, end - u->at, both + DIGEST_BYTES);
    digest_sha256(both, sizeof(both), p->part.payload);
    u->at = end;
}

/* Reads the next lines. False: there are none. */
static bool fill_part(struct upload *u, struct upload_part *p)
{
    struct chunk_error error;
    struct chunk_row row;
    size_t lines = 0;
    int got = 1;

    ASSERT(!u->read);
    p->part.rcpts_len = 0;
    buf_clear(&p->strings);
    while (lines < CAMPAIGN_PART_LINES && (got = chunk_next(u->chunk, &row, &error)) != 0) {
        uint64_t line = chunk_line(u->chunk);
        const char *refusal;

        if (lines++ == 0)
            p->first_line = line;
        refusal = got < 0 ? error.text : take_row(p, &row, line);
        if (refusal != NULL)
            tell_error(u, line, refusal);
    }
    u->read = got == 0;
    u->lines += lines;
    p->lines = lines;
    ASSERT(p->part.rcpts_len <= lines);
    strings_settle(p);
    if (lines > 0)
        sum_part(u, p);
    return lines > 0;
}

static void part_ended(struct upload *u)
{
    uint32_t before = atomic_fetch_sub(&u->under_way, 1);

    ASSERT(before > 0);
    if (before == 1)
        request_resume(u->request);
}

static void on_part_done(struct campaign_part *part, int result)
{
    struct upload_part *p = CONTAINER_OF(part, struct upload_part, part);

    ASSERT(result <= 0);
    p->result = result;
    part_ended(p->upload);
}

/* --- rounds --- */

static void tell(struct upload_told *to, const struct campaign_told *of, uint64_t first_line)
{
    ASSERT(of->told <= ARRAY_LEN(of->lines));
    to->count += of->count;
    for (uint32_t i = 0; i < of->told && to->lines < TOLD_MAX; i++)
        buf_printf(&to->json, "%s%" PRIu64, to->lines++ > 0 ? "," : "", first_line + of->lines[i]);
}

/* The first part that was not taken says why; 0: all were. */
static int take_results(struct upload *u)
{
    ASSERT(atomic_load(&u->under_way) == 0);
    for (size_t i = 0; i < u->parts_len; i++) {
        const struct upload_part *p = u->parts[i];

        if (p->result < 0)
            return p->result;
        u->added += p->part.added;
        u->all_again = u->all_again && p->part.again;
        u->fresh += p->part.again ? 0 : p->lines;
        tell(&u->duplicates, &p->part.duplicates, u->lines_before + p->first_line);
        tell(&u->suppressed, &p->part.suppressed, u->lines_before + p->first_line);
    }
    return 0;
}

static void refuse(struct http_request *r, int err)
{
    switch (err) {
    case -ENOENT:
        request_problem(r, 404, "", "there is no such campaign");
        break;
    case -EINVAL:
        request_problem(r, 409, "",
                        "recipients are added to drafts, and to campaigns that were started open");
        break;
    case -EEXIST:
        request_problem(r, 409, "", "another chunk of this campaign had this Idempotency-Key");
        break;
    case -EBUSY:
        request_problem(r, 409, "", "a request with this key, or a start, is under way");
        break;
    case -EFBIG:
        request_problem(r, 422, "", "more than %u recipients for one campaign",
                        CAMPAIGN_RECIPIENTS_MAX);
        break;
    default:
        campaign_shortage(r, err);
        break;
    }
}

static void answer(struct upload *u)
{
    struct buf out = {0};

    ASSERT(u->read && u->invalid <= u->lines && u->fresh <= u->lines);
    request_charge(u->request, u->lines > 0 ? u->fresh : 1);
    buf_printf(&out,
               "{\"lines\":%" PRIu64 ",\"new\":%" PRIu64 ",\"duplicates\":%" PRIu64
               ",\"suppressed\":%" PRIu64 ",\"invalid\":%" PRIu64 ",\"again\":%s,\"errors\":[",
               u->lines, u->added, u->duplicates.count, u->suppressed.count, u->invalid,
               u->all_again && u->lines > 0 ? "true" : "false");
    buf_put_str(&out, buf_str(&u->errors_json));
    buf_puts(&out, "],\"duplicate_lines\":[");
    buf_put_str(&out, buf_str(&u->duplicates.json));
    buf_puts(&out, "],\"suppressed_lines\":[");
    buf_put_str(&out, buf_str(&u->suppressed.json));
    buf_puts(&out, "]}");
    if (u->request->upload.is_on) {
        u->request->upload.told = out;
        campaign_upload_end(u->request);
        return;
    }
    buf_putc(&out, '\n');
    request_answer(u->request, 200, "application/json", buf_str(&out));
    buf_done(&out);
}

static void next_round(struct http_request *r)
{
    struct upload *u = r->work;
    struct shared *shared = r->http->shared;
    int err = take_results(u);
    size_t parts = 0;

    u->parts_len = 0;
    if (err < 0) {
        refuse(r, err);
        return;
    }
    if (!u->read && campaign_intake_refused(r))
        return;
    while (!u->read && u->parts_len < PARTS_AT_ONCE && fill_part(u, u->parts[u->parts_len]))
        u->parts_len++;
    if (u->parts_len == 0) {
        answer(u);
        return;
    }
    parts = u->parts_len;
    atomic_store(&u->under_way, (uint32_t)parts + 1); /* or u might be gone in the middle */
    request_suspend(r, next_round);
    for (size_t i = 0; i < parts; i++) {
        struct campaign_part *part = &u->parts[i]->part;

        part->number = u->next_part++;
        campaign_part_submit(shared, part);
    }
    part_ended(u);
}

static void upload_free(struct http_request *r)
{
    struct upload *u = r->work;

    ASSERT(atomic_load(&u->under_way) == 0);
    chunk_close(u->chunk);
    for (size_t i = 0; i < PARTS_AT_ONCE; i++) {
        if (u->parts[i] != NULL)
            buf_done(&u->parts[i]->strings);
        free(u->parts[i]);
    }
    buf_done(&u->errors_json);
    buf_done(&u->duplicates.json);
    buf_done(&u->suppressed.json);
    free(u);
}

/* --- its begin --- */

/* What the client calls the chunk; without a name the body is its own. */
static bool take_key(struct upload *u)
{
    const char *key = request_field(u->request, "Idempotency-Key");

    u->key = key != NULL ? str_of(key) : (struct str){(char *)u->body_sum, DIGEST_BYTES};
    return !request_key_refused(u->request);
}

static bool open_chunk(struct upload *u)
{
    struct http_request *r = u->request;
    struct str body = buf_str(&r->body);
    struct chunk_error error;

    if (chunk_open(&u->chunk, r->csv ? CHUNK_CSV : CHUNK_NDJSON, body, &error) < 0) {
        request_problem(r, 422, "", "line %" PRIu64 ": %s; nothing of the chunk was taken",
                        u->lines_before + error.line, error.text);
        return false;
    }
    u->at = chunk_read_bytes(u->chunk);
    digest_sha256(body.ptr, u->at, u->headings);
    digest_sha256(body.ptr, body.len, u->body_sum);
    return true;
}

/* What a round takes: rows are at most so long, and little longer than what they are read from. */
static bool hold_round(struct upload *u)
{
    uint64_t most = (uint64_t)PARTS_AT_ONCE * CAMPAIGN_PART_LINES * ROW_BYTES;
    uint64_t body = 2 * (uint64_t)u->request->body.len + SMTP_PATH_MAX + QUEUE_NAME_MAX;

    if (request_hold(u->request, body < most ? body : most))
        return true;
    campaign_shortage(u->request, -ENOMEM);
    return false;
}

static void parts_new(struct upload *u, const struct campaign *c)
{
    struct http_request *r = u->request;

    for (size_t i = 0; i < PARTS_AT_ONCE; i++) {
        u->parts[i] = calloc(1, sizeof(*u->parts[i]));
        ASSERT(u->parts[i] != NULL);
        u->parts[i]->upload = u;
        u->parts[i]->part = (struct campaign_part){.campaign = c->id,
                                                   .key = u->key,
                                                   .config = r->config,
                                                   .rcpts = u->parts[i]->rcpts,
                                                   .peer_name = request_token(r),
                                                   .peer_addr = r->peer_text,
                                                   .session_id = "",
                                                   .on_done = on_part_done};
    }
}

static void rows_begin(struct http_request *r, const struct campaign *c)
{
    struct upload *u = calloc(1, sizeof(*u));

    ASSERT(u != NULL && r->work == NULL && r->done == NULL);
    u->request = r;
    u->lines_before = r->upload.is_on ? 1 : 0;
    u->all_again = true;
    r->work = u;
    r->done = upload_free;
    if (!open_chunk(u) || !take_key(u) || !hold_round(u))
        return;
    parts_new(u, c);
    next_round(r);
}

void campaign_upload_rows(struct http_request *r)
{
    struct campaign c;

    if (campaign_of_request(r, &c))
        rows_begin(r, &c);
}

void handle_campaign_recipients(struct http_request *r)
{
    struct campaign c;

    if (!campaign_intake_refused(r) && campaign_of_request(r, &c))
        rows_begin(r, &c);
}
