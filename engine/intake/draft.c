/* See draft.h. */
#include "intake/draft.h"

#include <stdlib.h>

#include "mail/header.h"
#include "mail/international.h"
#include "worker/authorship.h"
#include "worker/queue_name.h"

#define CONTENT_SLACK_BYTES 1024 /* room for trace fields and a little more */

struct reading {
    struct draft *draft;
    struct trace_facts facts;
    struct str wanted[TRACE_WANTED_MAX]; /* names of the configured headers */
    size_t wanted_len;
    bool dot_lines, needs_utf8;
    uint8_t *start;
    size_t len;
    char campaign[TRACE_NAME_BYTES_MAX], tenant[TRACE_NAME_BYTES_MAX], pool[TRACE_NAME_BYTES_MAX];
};

static void content_read(struct reading *r)
{
    const struct draft *d = r->draft;
    size_t lead;

    ASSERT(d->body->len >= d->room);
    r->start = d->body->data + d->room;
    r->len = d->body->len - d->room;
    lead = trace_lead(r->start, r->len);
    r->start += lead;
    r->len -= lead;
    /* The text behind a byte order mark begins a line now. */
    r->dot_lines = d->dot_lines || (lead > 0 && r->start[0] == '.');
    r->wanted_len = d->config->records.headers_len;
    for (size_t i = 0; i < r->wanted_len && i < TRACE_WANTED_MAX; i++)
        r->wanted[i] = str_of(d->config->records.headers[i]);
    trace_scan(r->start, r->len, r->wanted, r->wanted_len, &r->facts);
}

/* What the content may not choose it has not chosen. */
static void choices_forget(struct trace_facts *f, uint32_t ignored)
{
    if ((ignored & 1u << CONFIG_HEADER_POOL) != 0)
        f->pool = STR("");
    if ((ignored & 1u << CONFIG_HEADER_CAMPAIGN) != 0)
        f->campaign = STR("");
    if ((ignored & 1u << CONFIG_HEADER_TENANT) != 0)
        f->tenant = STR("");
    if ((ignored & 1u << CONFIG_HEADER_PRIORITY) != 0)
        f->priority = -1;
    if ((ignored & 1u << CONFIG_HEADER_NOT_BEFORE) != 0)
        f->not_before_ms = 0;
    if ((ignored & 1u << CONFIG_HEADER_ENGAGED) != 0)
        f->engaged = -1;
}

static const char *from_refusal(const struct reading *r)
{
    struct draft *d = r->draft;
    struct buf added = {0};
    bool good;

    if (trace_adds_author(&d->stamp, &r->facts)) {
        trace_put_author(&d->stamp, &added);
        good = authorship_check(&d->rule, added.data, added.len, &d->refusal);
        buf_done(&added);
    } else {
        good = authorship_check(&d->rule, r->start, r->len, &d->refusal);
    }
    if (good)
        return NULL;
    buf_putc(&d->refusal, '\0');
    return (char *)d->refusal.data;
}

static const char *content_refusal(const struct reading *r)
{
    if (r->facts.fields > HEADER_FIELDS_MAX)
        return "554 5.6.0 too many header fields";
    if (r->facts.received >= r->draft->received_max)
        return "554 5.4.6 too many hops: this message is in a mail loop";
    if (r->facts.error == NULL && r->facts.pool.len > 0 &&
        config_pool_find(r->draft->config, r->facts.pool) == NULL)
        return "550 5.6.0 X-Hayauma-Pool: there is no such pool";
    return r->facts.error != NULL ? r->facts.error : from_refusal(r);
}

/* The pool that sends the message, as the rules say. */
static struct str pool_of(struct reading *r, struct str campaign, struct str tenant)
{
    const struct draft *d = r->draft;
    struct config_pool_question q = {.listener = d->listener,
                                     .client = d->client,
                                     .header = r->facts.pool,
                                     .campaign = campaign,
                                     .tenant = tenant,
                                     .sender_domain = queue_name_domain(d->sender)};
    struct str chosen = d->pool.len > 0 ? d->pool : config_pool_chosen(d->config, &q);
    const struct config_pool *pool = config_pool_for(d->config, chosen);

    if (r->facts.engaged == 1 && config_pool_engaged(d->config, pool) != pool)
        chosen = str_of(pool->engaged_name);
    if (chosen.len > sizeof(r->pool))
        chosen.len = sizeof(r->pool);
    memcpy(r->pool, chosen.ptr, chosen.len); /* the header, which stamping moves, may have it */
    return (struct str){r->pool, chosen.len};
}

/* A name of the header, which stamping moves, in room of its own. */
static struct str name_kept(char room[static TRACE_NAME_BYTES_MAX], struct str said,
                            struct str found)
{
    if (said.len > 0)
        return said;
    ASSERT(found.len <= TRACE_NAME_BYTES_MAX); /* trace_scan() */
    memcpy(room, found.ptr, found.len);
    return (struct str){room, found.len};
}

static void content_stamp(struct reading *r)
{
    const struct draft *d = r->draft;
    const uint8_t *end = d->body->data + d->body->len;

    r->start = trace_finish(r->start, end, &d->stamp, &r->facts);
    ASSERT(r->start >= d->body->data && r->start <= end); /* the room sufficed */
    r->len = (size_t)(end - r->start);
}

/* The content becomes the message's: the gathering buffer itself where little of it is unused, else
 * an exact copy, since it may live long in the window. */
static bool content_take(struct reading *r, struct message *fields)
{
    struct buf *body = r->draft->body;

    fields->content_len = r->len;
    if (r->len >= body->cap / 4 * 3 || body->cap - r->len <= CONTENT_SLACK_BYTES) {
        fields->content_block = body->data;
        fields->content = r->start;
        *body = (struct buf){0};
        return true;
    }
    fields->content = malloc(r->len);
    if (fields->content == NULL)
        return false;
    memcpy(fields->content, r->start, r->len);
    return true;
}

static uint8_t priority_of(const struct reading *r)
{
    int said = r->draft->priority >= 0 ? r->draft->priority : r->facts.priority;
    int best = r->draft->priority_cap - 1;

    if (said < 0)
        said = best >= 0 ? best : PRIORITY_DEFAULT;
    ASSERT(said < FLOW_PRIORITIES && best < FLOW_PRIORITIES);
    return (uint8_t)(said < best ? best : said);
}

static struct message *message_make(struct reading *r, struct str trace, struct str campaign,
                                    struct str tenant, struct str pool)
{
    const struct draft *d = r->draft;
    const struct queue_flow *flow;
    struct message *m;
    struct message fields = {.id = *d->stamp.id,
                             .created_ms = d->stamp.now_ms,
                             .born_ms = d->born_ms,
                             .flags = (d->eight_bit ? MESSAGE_8BIT : 0u) |
                                      (r->dot_lines ? MESSAGE_DOT_LINES : 0u) |
                                      (r->needs_utf8 ? MESSAGE_SMTPUTF8 : 0u),
                             .ret = d->ret,
                             .priority = priority_of(r),
                             .suppression = d->suppression,
                             .recipients = d->recipients,
                             .sender = d->sender,
                             .envid = d->envid,
                             .campaign = campaign,
                             .tenant = tenant,
                             .meta = d->meta,
                             .protocol = d->protocol,
                             .origin = d->origin,
                             .body_hash = d->body_hash,
                             .dkim_domain = d->dkim_domain,
                             .trace = trace};

    flow = queue_flow_get(d->queue, fields.priority, fields.tenant, fields.campaign, pool);
    if (flow == NULL || !content_take(r, &fields))
        return NULL;
    fields.flow = flow->id;
    m = message_new(&fields);
    if (m == NULL)
        free(fields.content_block != NULL ? fields.content_block : fields.content);
    return m;
}

struct message *draft_message(struct draft *d, const char **refusal)
{
    struct reading r = {.draft = d};
    struct buf trace_json = {0};
    struct str campaign, tenant, pool;
    struct message *m;

    content_read(&r);
    choices_forget(&r.facts, d->headers_ignored);
    *refusal = content_refusal(&r);
    if (*refusal != NULL)
        return NULL;
    ASSERT(r.facts.received < d->received_max && d->recipients > 0);
    r.needs_utf8 = d->smtputf8 && (d->utf8_address ||
                                   international_content(r.start, r.len, &r.facts, d->eight_bit));
    campaign = name_kept(r.campaign, d->campaign, r.facts.campaign);
    tenant = name_kept(r.tenant, d->tenant, r.facts.tenant);
    pool = pool_of(&r, campaign, tenant);
    d->not_before_ms = r.facts.not_before_ms;
    trace_wanted_json(&r.facts, r.wanted, r.wanted_len, &trace_json);
    content_stamp(&r);
    m = message_make(&r, buf_str(&trace_json), campaign, tenant, pool);
    buf_done(&trace_json);
    if (m == NULL)
        *refusal = "452 4.3.1 out of memory, try again later";
    return m;
}
