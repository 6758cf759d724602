#include "deliver/render.h"

#include <errno.h>
#include <stdlib.h>

#include "mail/header.h"
#include "mail/trace.h"
#include "smtp/scan.h"
#include "worker/authorship.h"
#include "worker/letter_marks.h"

struct rendering {
    struct render_order *order;
    struct msgid id;
    struct trace_stamp stamp;
    struct trace_facts facts;
    struct str wanted[TRACE_WANTED_MAX]; /* names of the configured headers */
    size_t wanted_len;
    struct buf body, meta, trace, token, sender;
    uint8_t *start;
    size_t len;
};

static int refuse(struct buf *why, const char *text)
{
    buf_puts(why, text);
    return -EINVAL;
}

static int put_letter(struct rendering *g, struct buf *why)
{
    const struct render_order *o = g->order;
    struct recipe_order order = {.email = o->address, .id = &g->id, .budget = &g->order->budget};
    struct json_mistake mistake = {0};
    struct json_t *one;
    int err = recipe_parse_recipient(o->variables, &one);

    if (err < 0)
        return refuse(why, "the recipient's variables are damaged");
    order.one = one;
    order.token = buf_str(&g->token);
    err = recipe_letter(o->recipe, &order, &g->body, &mistake);
    if (err < 0)
        buf_printf(why, "%s%s%s", mistake.field, mistake.field[0] != '\0' ? ": " : "",
                   mistake.text);
    else
        recipe_put_metadata(one, o->message->meta, &g->meta);
    recipe_recipient_free(one);
    return err;
}

/* Token and return path of this letter. Without a key there is none: it waits for one, since the
 * same letter without them would be another one. */
static int put_marks(struct rendering *g, struct buf *why)
{
    const struct render_order *o = g->order;
    const struct msgid *campaign = &o->message->id;
    int err = letter_marks_token(o->config, o->recipe, campaign, o->index, o->address, &g->token);

    if (err == 0)
        err = letter_marks_sender(o->config, o->recipe, campaign, o->index, o->message->sender,
                                  &g->sender);
    if (err < 0)
        buf_puts(why, "letter_keys of the configuration has no key");
    return err;
}

/* What acceptance refuses is refused here (intake/draft.c). */
static int check(const struct rendering *g, struct buf *why)
{
    const struct render_order *o = g->order;
    struct str tenant = recipe_sender_rule(o->recipe);
    struct config_sender_rule rule =
        config_sender_rule(o->config, &(struct config_sender_question){.tenant = tenant});

    if (g->facts.fields > HEADER_FIELDS_MAX)
        return refuse(why, "too many header fields");
    if (g->facts.error != NULL)
        return refuse(why, g->facts.error);
    return authorship_check(&rule, g->start, g->len, why) ? 0 : -EINVAL;
}

static int finish(struct rendering *g, struct buf *why)
{
    const struct config *config = g->order->config;
    size_t room = trace_stamp_room(&g->stamp), lead;
    int err;

    g->start = g->body.data + room;
    g->len = g->body.len - room;
    lead = trace_lead(g->start, g->len);
    g->start += lead;
    g->len -= lead;
    g->wanted_len = config->records.headers_len;
    for (size_t i = 0; i < g->wanted_len && i < TRACE_WANTED_MAX; i++)
        g->wanted[i] = str_of(config->records.headers[i]);
    trace_scan(g->start, g->len, g->wanted, g->wanted_len, &g->facts);
    err = check(g, why);
    if (err < 0)
        return err;
    trace_wanted_json(&g->facts, g->wanted, g->wanted_len, &g->trace);
    g->start = trace_finish(g->start, g->start + g->len, &g->stamp, &g->facts);
    g->len = (size_t)(g->body.data + g->body.len - g->start);
    return 0;
}

static uint32_t flags_of(const struct rendering *g)
{
    const struct render_order *o = g->order;
    uint32_t flags = o->message->flags & ~(uint32_t)(MESSAGE_RECIPE | MESSAGE_8BIT |
                                                     MESSAGE_DOT_LINES | MESSAGE_SMTPUTF8);

    if (!str_is_ascii((struct str){(const char *)g->start, g->len}))
        flags |= MESSAGE_8BIT;
    if (smtp_find_dot_line(g->start, g->len, 0) < g->len)
        flags |= MESSAGE_DOT_LINES;
    if (!str_is_ascii(o->message->sender) || !str_is_ascii(o->address))
        flags |= MESSAGE_SMTPUTF8;
    return flags;
}

static struct message *letter_new(struct rendering *g)
{
    struct message *recipe = g->order->message, *letter;
    /* One by one: other threads count the recipe's references meanwhile. */
    struct message fields = {.id = recipe->id,
                             .created_ms = recipe->created_ms,
                             .expires_ms = recipe->expires_ms,
                             .born_ms = recipe->born_ms,
                             .flags = flags_of(g),
                             .ret = recipe->ret,
                             .priority = recipe->priority,
                             .flow = recipe->flow,
                             .recipients = recipe->recipients,
                             .sender = buf_str(&g->sender),
                             .envid = recipe->envid,
                             .tenant = recipe->tenant,
                             .campaign = recipe->campaign,
                             .dkim_domain = recipe->dkim_domain,
                             .meta = buf_str(&g->meta),
                             .protocol = recipe->protocol,
                             .origin = recipe->origin,
                             .trace = buf_str(&g->trace),
                             .content = g->start,
                             .content_len = g->len,
                             .content_block = g->body.data,
                             .recipe = recipe};

    letter = message_new(&fields);
    if (letter == NULL)
        return NULL;
    message_ref(recipe);
    g->body = (struct buf){0};
    return letter;
}

int render_letter(struct render_order *order, struct message **letter, struct buf *why)
{
    struct rendering g = {.order = order};
    size_t room;
    int err;

    ASSERT((order->message->flags & MESSAGE_RECIPE) != 0);
    if (order->index >= INT32_MAX)
        return refuse(why, "the message has more recipients than it may have");
    g.id = msgid_after(&order->message->id, order->index + 1);
    g.stamp = (struct trace_stamp){.protocol = "HTTP",
                                   .no_received = true,
                                   .host_name = order->config->host_name,
                                   .id = &g.id,
                                   .recipient = order->address,
                                   .now_ms = order->message->created_ms};
    room = trace_stamp_room(&g.stamp);
    err = buf_reserve(&g.body, room + order->bytes);
    g.body.len = room;
    if (err == 0)
        err = put_marks(&g, why);
    if (err == 0)
        err = put_letter(&g, why);
    if (err == 0)
        err = finish(&g, why);
    if (err == 0) {
        *letter = letter_new(&g);
        err = *letter == NULL ? -ENOMEM : 0;
    }
    buf_done(&g.body);
    buf_done(&g.meta);
    buf_done(&g.trace);
    buf_done(&g.token);
    buf_done(&g.sender);
    return err;
}
