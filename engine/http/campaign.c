/* /api/campaigns/v1: campaigns are made, shown, started, paused and ended here; recipients come by
 * campaign_rows.c. What changes is done by a worker (intake/campaign.h); the request waits without
 * a thread meanwhile. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <jansson.h>

#include "base/clock.h"
#include "http/campaign.h"
#include "http/http_private.h"
#include "http/mail_fields.h"
#include "intake/accept.h"
#include "intake/campaign.h"
#include "intake/campaign_report.h"
#include "intake/campaign_view.h"
#include "mail/international.h"
#include "mail/recipe.h"
#include "smtp/address.h"
#include "tls/digest.h"
#include "worker/letter_marks.h"
#include "worker/queue_name.h"

struct campaign_work {
    struct campaign_order order;
    struct http_request *request;
    struct buf about; /* of the order */
    int result;
};

/* --- what all have in common --- */

bool campaign_may_see(const struct http_request *r, const struct campaign *c)
{
    return r->token.tenant[0] == '\0' || strcmp(r->token.tenant, c->tenant) == 0;
}

bool campaign_of_request(struct http_request *r, struct campaign *out)
{
    if (campaigns_get(&r->http->shared->campaigns, &r->id, out) && campaign_may_see(r, out))
        return true;
    request_problem(r, 404, "", "there is no such campaign");
    return false;
}

void campaign_shortage(struct http_request *r, int err)
{
    const char *text = err == -ENOSPC      ? "no room in the queue, try again later"
                       : err == -ESHUTDOWN ? "shutting down, try again shortly"
                       : err == -ENOMEM    ? HTTP_NO_ROOM
                                           : "it could not be stored, try again later";

    request_problem(r, 503, "", "%s", text);
}

bool campaign_intake_refused(struct http_request *r)
{
    if (atomic_load(&r->http->draining))
        campaign_shortage(r, -ESHUTDOWN);
    else if (accept_intake(r->http->shared->queue) != QUEUE_INTAKE_OK)
        campaign_shortage(r, -ENOSPC);
    return r->answered;
}

/* One as JSON; false: its counts cannot be read. */
static bool put_campaign(struct http_request *r, const struct campaign *c, bool report,
                         struct buf *out)
{
    struct queue_tally counts = {0};
    int err = campaign_counts(r->http->shared->queue, &c->id, &counts);

    if (err < 0 && err != -ENOENT)
        return false;
    campaign_put(out, c, &counts, clock_wall_ms());
    return campaign_add_about(out, r->http->shared->queue, &c->id) == 0 &&
           (!report || campaign_add_report(out, r->http->shared->queue, &c->id) == 0);
}

static void answer_campaign(struct http_request *r, unsigned status, const struct msgid *id,
                            bool report)
{
    struct campaign c;
    struct buf out = {0};

    if (!campaigns_get(&r->http->shared->campaigns, id, &c)) { /* forgotten meanwhile */
        request_problem(r, 404, "", "there is no such campaign");
    } else if (!put_campaign(r, &c, report, &out)) {
        request_problem(r, 503, "", "the campaign's counts cannot be read");
    } else {
        buf_putc(&out, '\n');
        request_answer(r, status, "application/json", buf_str(&out));
    }
    buf_done(&out);
}

json_t *campaign_body(struct http_request *r)
{
    struct str body = r->body.len == 0 ? STR("{}") : buf_str(&r->body);
    struct json_mistake mistake;
    json_t *root = json_fields_load(body, NULL, &mistake);

    if (root != NULL && json_is_object(root))
        return root;
    if (root == NULL)
        request_problem(r, mistake.status, mistake.field, "%s", mistake.text);
    else
        request_problem(r, 400, "", "the body must be an object");
    json_decref(root);
    return NULL;
}

void campaign_mistake(struct http_request *r, const struct json_mistake *m)
{
    request_problem(r, m->status, m->field, "%s%s%s", m->field, m->field[0] != '\0' ? ": " : "",
                    m->text);
}

/* The campaign, and what became of its list. */
static void answer_upload(struct http_request *r)
{
    struct campaign c;
    struct buf out = {0};

    ASSERT(r->upload.is_on);
    buf_puts(&out, "{\"campaign\":");
    if (!campaign_of_request(r, &c)) {
        ; /* it was forgotten meanwhile */
    } else if (!put_campaign(r, &c, false, &out)) {
        request_problem(r, 503, "", "the campaign's counts cannot be read");
    } else {
        if (r->upload.told.len > 0)
            buf_printf(&out, ",\"recipients\":%.*s", STR_FMT(buf_str(&r->upload.told)));
        buf_printf(&out, ",\"again\":%s}\n", r->upload.again ? "true" : "false");
        request_answer(r, r->upload.again ? 200 : 201, "application/json", buf_str(&out));
    }
    buf_done(&out);
}

/* --- orders --- */

static void work_free(struct http_request *r)
{
    struct campaign_work *w = r->work;

    message_unref(w->order.content);
    buf_done(&w->about);
    free(w);
}

static void on_order_done(struct campaign_order *order, int result)
{
    struct campaign_work *w = CONTAINER_OF(order, struct campaign_work, order);

    ASSERT(result <= 0);
    w->result = result;
    request_resume(w->request);
}

/* Whose answer to a first request was lost learns the id here. */
static void refuse_name(struct http_request *r, const struct campaign *what)
{
    char id[MSGID_TEXT_BYTES] = "";
    struct campaign c;

    if (r->upload.is_on && campaigns_find_upload(&r->http->shared->campaigns, str_of(what->tenant),
                                                 what->upload_key, &c)) {
        msgid_text(&c.id, id);
        request_problem(r, 409, "", "an upload with this key has just made the campaign %s", id);
        return;
    }
    if (campaigns_find(&r->http->shared->campaigns, str_of(what->tenant), str_of(what->name), &c))
        msgid_text(&c.id, id);
    request_problem(r, 409, "name", "name: the campaign %s has this name, and is not over", id);
}

static void refuse_order(struct http_request *r, const struct campaign_work *w)
{
    static const char *const cannot[] = {[CAMPAIGN_START] = "only a draft can be started",
                                         [CAMPAIGN_PAUSE] = "only one that runs can be paused",
                                         [CAMPAIGN_RESUME] =
                                             "only one that is paused can be resumed",
                                         [CAMPAIGN_CANCEL] = "it is over",
                                         [CAMPAIGN_SET] = "it is over",
                                         [CAMPAIGN_CLOSE] = "it is not open",
                                         [CAMPAIGN_FORGET] = "it is not over"};

    ASSERT(w->result < 0);
    if (w->result == -EEXIST)
        refuse_name(r, &w->order.what);
    else if (w->result == -ENOENT)
        request_problem(r, 404, "", "there is no such campaign");
    else if (w->result == -EDQUOT)
        request_problem(r, 429, "",
                        "the tenant has as many campaigns that are not over as there are places "
                        "left for others; cancel some, or wait until some are done");
    else if (w->result == -EBUSY)
        request_problem(r, 409, "", "recipients are being added, or another order is under way");
    else if (w->result == -ERANGE)
        request_problem(r, 422, "at", "the campaign would begin when it has expired");
    else if (w->result == -EINVAL && w->order.verb != CAMPAIGN_CREATE)
        request_problem(r, 409, "", "%s", cannot[w->order.verb]);
    else
        campaign_shortage(r, w->result);
}

static void work_end(struct http_request *r)
{
    ASSERT(r->done != NULL && r->work != NULL);
    r->done(r);
    r->done = NULL;
    r->work = NULL;
}

static void order_done(struct http_request *r)
{
    struct campaign_work *w = r->work;

    if (w->result < 0) {
        refuse_order(r, w);
    } else if (r->upload.is_on && w->order.verb == CAMPAIGN_CREATE) {
        r->id = w->order.what.id;
        work_end(r);
        campaign_upload_rows(r);
    } else if (r->upload.is_on) {
        answer_upload(r);
    } else
        answer_campaign(r, w->order.verb == CAMPAIGN_CREATE ? 201 : 200, &w->order.what.id, false);
}

static struct campaign_work *work_new(struct http_request *r, enum campaign_verb verb)
{
    struct campaign_work *w = calloc(1, sizeof(*w));

    ASSERT(w != NULL && r->work == NULL && r->done == NULL);
    w->request = r;
    w->order.verb = verb;
    w->order.on_done = on_order_done;
    r->work = w;
    r->done = work_free;
    return w;
}

static void work_submit(struct http_request *r)
{
    struct campaign_work *w = r->work;

    request_suspend(r, order_done);
    campaign_submit(r->http->shared, &w->order);
}

/* Reads what an order's body has: of a start its time. False: it is answered. */
static bool read_order(struct http_request *r, enum campaign_verb verb, int64_t *starts_ms,
                       bool *open)
{
    static const struct json_field of_start[] = {
        {"at", JSON_IS_STRING | JSON_IS_NUMBER | JSON_MAY_MISS},
        {"open", JSON_IS_BOOLEAN | JSON_MAY_MISS}};
    struct json_mistake mistake;
    json_t *root = campaign_body(r);

    if (root == NULL)
        return false;
    if (json_fields_check(root, "", of_start, verb == CAMPAIGN_START ? ARRAY_LEN(of_start) : 0,
                          &mistake) < 0 ||
        mail_field_time(root, "at", clock_wall_ms(), starts_ms, &mistake) < 0)
        campaign_mistake(r, &mistake);
    *open = json_is_true(json_object_get(root, "open"));
    json_decref(root);
    return !r->answered;
}

static void order(struct http_request *r, enum campaign_verb verb)
{
    struct campaign_work *w;
    struct campaign c;
    int64_t starts_ms = 0;
    bool open;

    if (!campaign_of_request(r, &c) || !read_order(r, verb, &starts_ms, &open))
        return;
    if (atomic_load(&r->http->draining)) {
        campaign_shortage(r, -ESHUTDOWN);
        return;
    }
    w = work_new(r, verb);
    w->order.what.id = r->id;
    w->order.starts_ms = starts_ms;
    w->order.open = open;
    work_submit(r);
}

void handle_campaign_start(struct http_request *r)
{
    order(r, CAMPAIGN_START);
}

void handle_campaign_pause(struct http_request *r)
{
    order(r, CAMPAIGN_PAUSE);
}

void handle_campaign_resume(struct http_request *r)
{
    order(r, CAMPAIGN_RESUME);
}

void handle_campaign_close(struct http_request *r)
{
    order(r, CAMPAIGN_CLOSE);
}

void handle_campaign_cancel(struct http_request *r)
{
    order(r, CAMPAIGN_CANCEL);
}

static void put_name(char out[FLOW_NAME_MAX + 1], struct str name)
{
    ASSERT(name.len <= FLOW_NAME_MAX);
    memcpy(out, name.len == 0 ? "" : name.ptr, name.len);
    out[name.len] = '\0';
}

/* --- what changes while it runs --- */

static int read_set(const json_t *root, struct campaign_order *order, struct str *pool,
                    struct json_mistake *mistake)
{
    static const struct json_field fields[] = {{"priority", JSON_IS_NUMBER | JSON_MAY_MISS},
                                               {"pool", JSON_IS_STRING | JSON_MAY_MISS},
                                               {"rate", JSON_IS_STRING | JSON_MAY_MISS}};
    int priority;

    if (json_fields_check(root, "", fields, ARRAY_LEN(fields), mistake) < 0 ||
        mail_field_priority(root, &priority, mistake) < 0 ||
        mail_field_name(root, "pool", pool, mistake) < 0)
        return -EINVAL;
    ASSERT(priority >= -1 && priority < UINT8_MAX);
    order->sets_priority = priority >= 0;
    order->set.priority = (uint8_t)(priority + 1);
    order->sets_pool = json_object_get(root, "pool") != NULL;
    return mail_field_rate(root, order, mistake);
}

void handle_campaign_set(struct http_request *r)
{
    struct json_mistake mistake;
    struct campaign_work *w;
    struct campaign c;
    struct str pool = STR("");
    json_t *root;

    if (!campaign_of_request(r, &c) || (root = campaign_body(r)) == NULL)
        return;
    w = work_new(r, CAMPAIGN_SET);
    w->order.what.id = r->id;
    if (read_set(root, &w->order, &pool, &mistake) < 0)
        campaign_mistake(r, &mistake);
    else if (atomic_load(&r->http->draining))
        campaign_shortage(r, -ESHUTDOWN);
    else if (!pool_refused(r, w->order.sets_pool, pool)) {
        put_name(w->order.set.pool, pool);
        work_submit(r);
    }
    json_decref(root);
}

/* --- create --- */

struct create {
    struct mail_fields_campaign said;
    struct dns_name dkim_domain; /* as it is kept */
    struct campaign as;          /* of an upload: its marks */
};

/* The sender as it is kept. */
static void put_sender(const struct create *create, struct buf *out)
{
    struct smtp_address address;
    int err;

    if (create->said.sender.len == 0)
        return;
    err = smtp_address_parse(create->said.sender, true, &address);
    ASSERT(err == 0); /* mail_fields_campaign() has read it */
    (void)international_put_address(out, &address);
}

/* The pool that sends it: the one that it names, else as the rules say, like that of other mail. */
static struct str pool_of(const struct http_request *r, const struct create *create,
                          const struct campaign *what, struct str sender)
{
    const struct config_pool_question q = {.campaign = str_of(what->name),
                                           .tenant = str_of(what->tenant),
                                           .sender_domain = queue_name_domain(sender)};

    return create->said.pool.len > 0 ? create->said.pool : config_pool_chosen(r->config, &q);
}

/* NULL: memory is out. */
static struct message *make_content(struct http_request *r, const struct campaign *what,
                                    struct str sender, const struct create *create,
                                    const json_t *root)
{
    struct buf recipe = {0}, feedback_id = {0};
    struct recipe_marks marks = letter_marks_choose(r->config, what, sender, &feedback_id);
    struct message *m;

    recipe_put(root, str_of(r->token.tenant), &marks, &recipe);
    m = campaign_content(what, &(struct campaign_letter){.recipe = buf_str(&recipe),
                                                         .sender = sender,
                                                         .origin = str_of(r->peer_text),
                                                         .dkim_domain = {create->dkim_domain.text,
                                                                         create->dkim_domain.len},
                                                         .meta = buf_str(&create->said.tags)});
    buf_done(&recipe);
    buf_done(&feedback_id);
    return m;
}

/* What is shown of it beside its record. */
static void put_about(const struct create *create, const json_t *root, struct buf *out)
{
    char fingerprint[RECIPE_FINGERPRINT_BYTES];

    recipe_fingerprint(root, fingerprint);
    buf_printf(out, "{\"fingerprint\":\"%s\"", fingerprint);
    if (create->dkim_domain.len > 0) {
        buf_puts(out, ",\"dkim_domain\":");
        buf_put_json(out, (struct str){create->dkim_domain.text, create->dkim_domain.len});
    }
    ASSERT(create->said.tags.len == 0 || create->said.tags.data[0] == '{');
    if (create->said.tags.len > 0)
        buf_printf(out, ",%.*s", (int)create->said.tags.len - 1,
                   (char *)create->said.tags.data + 1);
    else
        buf_putc(out, '}');
}

static void create(struct http_request *r, const json_t *root, const struct create *create)
{
    struct campaign_work *w = work_new(r, CAMPAIGN_CREATE);
    struct campaign *c = &w->order.what;
    struct msgid_source ids;
    struct buf sender = {0};

    msgid_source_init(&ids, rng_entropy());
    c->created_ms = clock_wall_ms();
    c->id = msgid_next(&ids, c->created_ms);
    put_name(c->name, create->said.name);
    put_name(c->tenant, r->token.tenant[0] != '\0' ? str_of(r->token.tenant) : create->said.tenant);
    w->order.set = create->said.sets.set;
    w->order.sets_rate = create->said.sets.sets_rate;
    put_sender(create, &sender);
    put_name(c->pool, pool_of(r, create, c, buf_str(&sender)));
    c->expires_ms = create->said.expires_ms;
    memcpy(c->upload_key, create->as.upload_key, sizeof(c->upload_key));
    memcpy(c->upload_body, create->as.upload_body, sizeof(c->upload_body));
    c->priority = create->said.priority < 0 ? PRIORITY_DEFAULT : (uint8_t)create->said.priority;
    w->order.content = make_content(r, c, buf_str(&sender), create, root);
    put_about(create, root, &w->about);
    w->order.about = buf_str(&w->about);
    buf_done(&sender);
    if (w->order.content == NULL)
        campaign_shortage(r, -ENOMEM);
    else
        work_submit(r);
}

/* What the request is called, and what it is: the campaign remembers both. Without a key an upload
 * is its own name, and other requests have none. */
static void sum_request(const struct http_request *r, struct campaign *out)
{
    const char *key = request_field(r, "Idempotency-Key");
    uint8_t sum[DIGEST_BYTES];

    if (key == NULL && !r->ndjson)
        return;
    digest_sha256(r->body.data, r->body.len, sum);
    memcpy(out->upload_body, sum, sizeof(out->upload_body));
    if (key != NULL)
        digest_sha256(key, strlen(key), sum);
    memcpy(out->upload_key, sum, sizeof(out->upload_key));
}

/* Whether the request, or the beginning of an upload, came before: it is gone on with, or answered.
 */
static bool came_before(struct http_request *r, const struct create *what)
{
    static const uint8_t no_key[CAMPAIGN_UPLOAD_BYTES];
    struct str tenant = r->token.tenant[0] != '\0' ? str_of(r->token.tenant) : what->said.tenant;
    struct campaign c;

    if (memcmp(what->as.upload_key, no_key, sizeof(no_key)) == 0 ||
        !campaigns_find_upload(&r->http->shared->campaigns, tenant, what->as.upload_key, &c))
        return false;
    r->id = c.id;
    r->upload.again = true;
    if (memcmp(c.upload_body, what->as.upload_body, sizeof(c.upload_body)) != 0)
        request_problem(r, 409, "", "another request had this Idempotency-Key");
    else if (r->ndjson && c.state == CAMPAIGN_DRAFT)
        campaign_upload_rows(r);
    else {
        request_charge(r, 0);
        if (r->ndjson)
            answer_upload(r);
        else
            answer_campaign(r, 201, &c.id, false);
    }
    return true;
}

void campaign_upload_end(struct http_request *r)
{
    struct campaign_work *w;

    ASSERT(r->upload.is_on);
    work_end(r);
    if (!r->upload.starts) {
        answer_upload(r);
        return;
    }
    w = work_new(r, CAMPAIGN_START);
    w->order.what.id = r->id;
    w->order.starts_ms = r->upload.starts_ms;
    work_submit(r);
}

/* What is refused of a campaign that is new. One that came before was taken once. */
static bool create_refused(struct http_request *r, struct create *what)
{
    return expires_refused(r, what->said.expires_ms, what->said.starts_ms, "at") ||
           mail_refused(r, what->said.sender, what->said.tenant, what->said.pool) ||
           dkim_refused(r, what->said.dkim, &what->dkim_domain);
}

/* The campaign that an upload begins with: its first line, which goes from the body. */
static json_t *read_head(struct http_request *r, struct create *what, uint64_t *bytes,
                         struct json_mistake *mistake)
{
    struct str body = buf_str(&r->body);
    ptrdiff_t end = str_find(body, '\n');
    json_t *root;

    r->upload.is_on = r->ndjson;
    sum_request(r, &what->as);
    if (!r->ndjson)
        return json_fields_load(body, bytes, mistake);
    root =
        json_fields_load((struct str){body.ptr, end < 0 ? body.len : (size_t)end}, bytes, mistake);
    buf_consume(&r->body, end < 0 ? body.len : (size_t)end + 1);
    return root;
}

void handle_campaign_create(struct http_request *r)
{
    struct create what = {0};
    struct recipe *recipe = NULL;
    struct json_mistake mistake;
    uint64_t bytes;
    json_t *root;

    if (campaign_intake_refused(r))
        return;
    root = read_head(r, &what, &bytes, &mistake);
    if (root == NULL) {
        campaign_mistake(r, &mistake);
        return;
    }
    if (!json_is_object(root))
        request_problem(r, 400, "", "the body must be an object");
    else if (bytes > r->held_bytes && !request_hold(r, bytes - r->held_bytes))
        campaign_shortage(r, -ENOMEM);
    else if (mail_fields_campaign(root, r->ndjson, &what.said, &mistake) < 0 ||
             recipe_read(root, &recipe, &mistake) < 0)
        campaign_mistake(r, &mistake);
    else if (!request_key_refused(r)) {
        r->upload.starts = what.said.starts_ms != 0 || json_is_true(json_object_get(root, "start"));
        r->upload.starts_ms = what.said.starts_ms;
        if (!came_before(r, &what) && !create_refused(r, &what))
            create(r, root, &what);
    }
    recipe_free(recipe);
    buf_done(&what.said.tags);
    json_decref(root);
}

/* --- what is there --- */

void handle_campaign_show(struct http_request *r)
{
    struct campaign c;

    if (!request_arguments_refused(r, NULL, 0) && campaign_of_request(r, &c))
        answer_campaign(r, 200, &r->id, true);
}

struct list_of {
    const struct http_request *request;
    struct buf campaigns; /* of struct campaign */
};

static void take_one(void *arg, const struct campaign *one)
{
    struct list_of *l = arg;

    if (campaign_may_see(l->request, one))
        buf_put(&l->campaigns, one, sizeof(*one));
}

/* The newest first. */
void handle_campaign_list(struct http_request *r)
{
    struct list_of l = {.request = r};
    struct buf out = {0};
    size_t len;

    if (request_arguments_refused(r, NULL, 0))
        return;
    campaigns_visit(&r->http->shared->campaigns, take_one, &l);
    len = l.campaigns.len / sizeof(struct campaign);
    buf_puts(&out, "{\"campaigns\":[");
    for (size_t i = len; i > 0; i--) {
        struct campaign c;

        memcpy(&c, l.campaigns.data + (i - 1) * sizeof(c), sizeof(c));
        if (i < len)
            buf_putc(&out, ',');
        if (!put_campaign(r, &c, false, &out)) {
            request_problem(r, 503, "", "the counts of campaign '%s' cannot be read", c.name);
            break;
        }
    }
    buf_puts(&out, "]}\n");
    if (!r->answered)
        request_answer(r, 200, "application/json", buf_str(&out));
    buf_done(&l.campaigns);
    buf_done(&out);
}
