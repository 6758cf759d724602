#include "outcome/report.h"

#include <string.h>

#include "mail/recipe.h"

/* Two lines a message at full rate: no printf and no JSON tree, only appends, and the buffer grows
 * once (buf_reserve below covers everything but escapes). Order and names of the fields are
 * KumoMTA's; what is ours comes last. docs/records.md describes every field. */

#define FIXED_BYTES 1536 /* all names, numbers and punctuation of a line */

#define LITERAL(out, text)            buf_put(out, text, sizeof(text) - 1)
#define NAME(out, name)               LITERAL(out, ",\"" name "\":")
#define NUMBER(out, name, v)          (NAME(out, name), buf_put_i64(out, (int64_t)(v)))
#define TEXT(out, name, ...)          (NAME(out, name), buf_put_json(out, __VA_ARGS__))
#define TEXT_OR_NULL(out, name, cstr) (NAME(out, name), put_text_or_null(out, cstr))

const char *report_type_name(enum report_type type)
{
    static const char *const names[] = {
        [REPORT_RECEPTION] = "Reception",        [REPORT_DELIVERY] = "Delivery",
        [REPORT_TRANSIENT] = "TransientFailure", [REPORT_BOUNCE] = "Bounce",
        [REPORT_EXPIRATION] = "Expiration",      [REPORT_ADMIN_BOUNCE] = "AdminBounce",
        [REPORT_ADMIN_HOLD] = "AdminHold",       [REPORT_ADMIN_RELEASE] = "AdminRelease",
        [REPORT_ADMIN_REBIND] = "AdminRebind",   [REPORT_DELAYED] = "Delayed",
        [REPORT_REJECTION] = "Rejection",
    };

    ASSERT((size_t)type < ARRAY_LEN(names));
    return names[type];
}

static void put_text_or_null(struct buf *out, const char *text)
{
    if (text == NULL)
        LITERAL(out, "null");
    else
        buf_put_json(out, str_of(text));
}

/* --- parts --- */

static void put_reply(struct buf *out, const struct smtp_reply *reply)
{
    if (reply == NULL || reply->enhanced.class == 0) {
        LITERAL(out, ",\"enhanced_code\":null");
    } else {
        LITERAL(out, ",\"enhanced_code\":{\"class\":");
        buf_put_u64(out, reply->enhanced.class);
        NUMBER(out, "subject", reply->enhanced.subject);
        NUMBER(out, "detail", reply->enhanced.detail);
        buf_putc(out, '}');
    }
    TEXT(out, "content", reply == NULL ? STR("") : (struct str){reply->text, reply->text_len});
}

static void put_response(struct buf *out, const struct report_event *e)
{
    const struct smtp_reply *reply = e->reply;

    LITERAL(out, ",\"response\":{\"code\":");
    /* The field is never null at KumoMTA: a reception without words of its own was accepted. */
    buf_put_u64(out, reply != NULL ? reply->code : e->type == REPORT_RECEPTION ? 250 : 0);
    put_reply(out, reply);
    TEXT_OR_NULL(out, "command", e->command);
    buf_putc(out, '}');
}

/* "192.0.2.1:25" and "[2001:db8::1]:25" without the port: KumoMTA's addr is an IP address. What has
 * another form (a Unix socket) stays as it is. */
static struct str without_port(struct str addr)
{
    ptrdiff_t first = str_find(addr, ':'), last = str_rfind(addr, ':');

    if (addr.len > 2 && addr.ptr[0] == '[' && last > 2 && addr.ptr[last - 1] == ']')
        return (struct str){addr.ptr + 1, (size_t)last - 2};
    if (first > 0 && first == last && addr.ptr[0] >= '0' && addr.ptr[0] <= '9')
        return (struct str){addr.ptr, (size_t)first};
    return addr;
}

static void put_peer(struct buf *out, const struct report_event *e)
{
    LITERAL(out, ",\"peer_address\":");
    if (e->peer_addr == NULL) {
        LITERAL(out, "null");
        return;
    }
    LITERAL(out, "{\"name\":");
    buf_put_json(out, str_of(e->peer_name));
    TEXT(out, "addr", without_port(str_of(e->peer_addr)));
    buf_putc(out, '}');
}

static void put_source(struct buf *out, const struct report_event *e)
{
    TEXT_OR_NULL(out, "egress_pool", e->pool_name);
    LITERAL(out, ",\"egress_source\":");
    put_text_or_null(out, e->source_name);
    LITERAL(out, ",\"source_address\":");
    if (e->source_addr == NULL) {
        LITERAL(out, "null");
    } else {
        LITERAL(out, "{\"address\":");
        buf_put_json(out, str_of(e->source_addr));
        if (e->proxy_server != NULL) {
            LITERAL(out, ",\"server\":");
            buf_put_json(out, str_of(e->proxy_server));
            LITERAL(out, ",\"protocol\":");
            buf_put_json(out, str_of(e->proxy_word));
        }
        buf_putc(out, '}');
    }
}

/* Whether s may stand in a line as the JSON object it was stored as. s was parsed before it was
 * stored; this check makes sure that even a mistake there costs one value and not the line. */
static bool is_object(struct str s)
{
    if (s.len < 2 || s.ptr[0] != '{' || s.ptr[s.len - 1] != '}')
        return false;
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < ' ')
            return false;
    return true;
}

static void put_object(struct buf *out, struct str s)
{
    if (is_object(s))
        buf_put_str(out, s);
    else
        LITERAL(out, "{}");
}

/* What is said of a recipient whose letter was not rendered. */
static void put_own_meta(struct buf *out, const struct report_event *e)
{
    struct json_t *one;

    if (recipe_parse_recipient(e->variables, &one) < 0)
        one = NULL;
    recipe_put_metadata(one, e->message->meta, out);
    recipe_recipient_free(one);
}

/* meta, with the tenant and campaign names in front, where consumers of KumoMTA's records expect
 * them. */
static void put_meta(struct buf *out, const struct report_event *e)
{
    const struct message *m = e->message;
    struct buf own = {0};
    struct str meta = m->meta;
    bool any = false;

    if ((m->flags & MESSAGE_RECIPE) != 0) {
        put_own_meta(&own, e);
        meta = buf_str(&own);
    }

    LITERAL(out, ",\"meta\":");
    if (m->tenant.len == 0 && m->campaign.len == 0) {
        put_object(out, meta);
        buf_done(&own);
        return;
    }
    buf_putc(out, '{');
    if (m->tenant.len > 0) {
        LITERAL(out, "\"tenant\":");
        buf_put_json(out, m->tenant);
        any = true;
    }
    if (m->campaign.len > 0) {
        if (any)
            buf_putc(out, ',');
        LITERAL(out, "\"campaign\":");
        buf_put_json(out, m->campaign);
    }
    if (is_object(meta)) {
        struct str inside = str_trim((struct str){meta.ptr + 1, meta.len - 2});

        if (inside.len > 0) {
            buf_putc(out, ',');
            buf_put_str(out, inside);
        }
    }
    buf_putc(out, '}');
    buf_done(&own);
}

static void put_envelope(struct buf *out, const struct report_event *e)
{
    const struct message *m = e->message;
    char id[MSGID_TEXT_BYTES] = "";

    if (m != NULL)
        msgid_text(&m->id, id);
    LITERAL(out, "{\"type\":\"");
    buf_puts(out, report_type_name(e->type));
    LITERAL(out, "\",\"id\":\"");
    buf_puts(out, id);
    LITERAL(out, "\",\"sender\":");
    buf_put_json(out, m != NULL ? m->sender : e->sender);
    TEXT(out, "recipient", e->recipient);
    TEXT(out, "queue", e->queue);
    TEXT(out, "site", e->site);
    NUMBER(out, "size", e->size);
}

static void put_times(struct buf *out, const struct report_event *e)
{
    int64_t created_ms = e->message != NULL ? e->message->created_ms : e->timestamp_ms;

    NUMBER(out, "timestamp", e->timestamp_ms / 1000);
    NUMBER(out, "created", created_ms / 1000);
    NUMBER(out, "num_attempts", e->attempts);
    TEXT(out, "bounce_classification",
         str_of(e->classification != NULL ? e->classification : "Uncategorized"));
}

/* KumoMTA's fields. */
static void put_tls(struct buf *out, const struct report_tls *tls)
{
    if (tls == NULL || tls->protocol == NULL)
        return;
    TEXT(out, "tls_cipher", str_of(tls->cipher));
    TEXT(out, "tls_protocol_version", str_of(tls->protocol));
}

static void put_own_tls(struct buf *out, const struct report_tls *tls)
{
    if (tls->policy != NULL)
        TEXT(out, "tls_policy", str_of(tls->policy));
    if (tls->protocol != NULL) {
        if (tls->verification != NULL)
            TEXT(out, "tls_verification", str_of(tls->verification));
        NAME(out, "tls_resumed");
        buf_puts(out, tls->resumed ? "true" : "false");
    } else if (tls->plaintext != NULL) {
        TEXT(out, "tls_plaintext", str_of(tls->plaintext));
    }
    if (tls->own != NULL)
        TEXT(out, "tls_own_certificate", str_of(tls->own));
    if (tls->client != NULL)
        TEXT(out, "tls_client_certificate", str_of(tls->client));
    if (tls->client_name.len > 0)
        TEXT(out, "tls_client_name", tls->client_name);
    if (tls->sts_mode != NULL)
        TEXT(out, "mta_sts_mode", str_of(tls->sts_mode));
    if (tls->sts_failure != NULL)
        TEXT(out, "mta_sts_failure", str_of(tls->sts_failure));
}

static void put_own(struct buf *out, const struct report_event *e)
{
    NUMBER(out, "timestamp_ms", e->timestamp_ms);
    if (e->message != NULL)
        NUMBER(out, "num_recipients", e->recipients > 0 ? e->recipients : e->message->recipients);
    LITERAL(out, ",\"queue_ms\":");
    /* Both times are the wall clock's, which may have been set back between them. */
    buf_put_i64(out, e->message != NULL && e->timestamp_ms > e->message->created_ms
                         ? e->timestamp_ms - e->message->created_ms
                         : 0);
    NUMBER(out, "connect_ms", e->connect_ms);
    NUMBER(out, "transaction_ms", e->transaction_ms);
    if (e->type == REPORT_TRANSIENT)
        NUMBER(out, "next_attempt", e->next_attempt_ms / 1000);
    if (e->rule != NULL) {
        TEXT(out, "rule", str_of(e->rule));
        if (e->no_suppression)
            LITERAL(out, ",\"suppress\":false");
    }
    if (e->suppresses)
        LITERAL(out, ",\"suppress\":true");
    if (e->signers.len > 0) {
        NAME(out, "dkim");
        buf_put_str(out, e->signers);
    }
    if (e->omitted > 0)
        NUMBER(out, "num_omitted", e->omitted);
    if (e->tls != NULL)
        put_own_tls(out, e->tls);
}

struct report_event report_event_of(enum report_type type, const char *node_id,
                                    int64_t timestamp_ms, const struct message *m,
                                    const struct recipient *r)
{
    struct report_event event = {.type = type,
                                 .node_id = node_id,
                                 .timestamp_ms = timestamp_ms,
                                 .message = m,
                                 .size = m->content_len};

    if (r != NULL) {
        event.recipient = r->address;
        event.queue = r->queue;
        event.attempts = r->attempts;
        if ((m->flags & MESSAGE_RECIPE) != 0) /* a rendered letter has what there is of it */
            event.variables = r->variables;
    }
    return event;
}

void report_line(struct buf *out, const struct report_event *event)
{
    const struct message *m = event->message;
    size_t texts = event->recipient.len + event->queue.len + event->site.len + event->signers.len +
                   SMTP_REPLY_TEXT_MAX;

    if (m != NULL)
        texts += m->sender.len + m->meta.len + m->trace.len;
    buf_room(out, FIXED_BYTES + texts);
    put_envelope(out, event);
    put_response(out, event);
    put_peer(out, event);
    put_times(out, event);
    put_source(out, event);
    LITERAL(out, ",\"feedback_report\":null");
    if (m != NULL) {
        put_meta(out, event);
        LITERAL(out, ",\"headers\":");
        put_object(out, m->trace);
    } else {
        LITERAL(out, ",\"meta\":{},\"headers\":{}");
    }
    TEXT_OR_NULL(out, "delivery_protocol", event->delivery_protocol);
    LITERAL(out, ",\"reception_protocol\":");
    if (event->reception_protocol == NULL && m != NULL && m->protocol.len > 0)
        buf_put_json(out, m->protocol);
    else
        put_text_or_null(out, event->reception_protocol);
    TEXT(out, "nodeid", str_of(event->node_id));
    put_tls(out, event->tls);
    if (event->session_id != NULL) {
        TEXT(out, "session_id", str_of(event->session_id));
    }
    if (event->user != NULL) {
        TEXT(out, "user", str_of(event->user));
    }
    put_own(out, event);
    LITERAL(out, "}\n");
}

/* --- warm-up --- */

static void put_cap(struct buf *out, const char *name, uint32_t cap)
{
    if (cap == WARMUP_NO_CAP)
        buf_printf(out, ",\"%s\":null", name);
    else
        buf_printf(out, ",\"%s\":%u", name, cap);
}

/* Whose stream it is: "egress_source", "signing_domain" or "campaign". */
static void put_warmed(struct buf *out, const char *source)
{
    const char *plain;

    switch (config_warmup_kind(source, &plain)) {
    case CONFIG_WARMUP_SIGNER:
        TEXT(out, "signing_domain", str_of(plain));
        break;
    case CONFIG_WARMUP_CAMPAIGN:
        TEXT(out, "campaign", str_of(plain));
        break;
    case CONFIG_WARMUP_SOURCE:
    case CONFIG_WARMUP_KINDS:
        TEXT(out, "egress_source", str_of(plain));
        break;
    }
}

void report_feedback(struct buf *out, const char *node_id, int64_t timestamp_ms, const char *source,
                     const char *provider, uint32_t complaints)
{
    LITERAL(out, "{\"type\":\"Feedback\"");
    NUMBER(out, "timestamp", timestamp_ms / 1000);
    put_warmed(out, source);
    TEXT(out, "provider", str_of(provider));
    NUMBER(out, "complaints", complaints);
    TEXT(out, "nodeid", str_of(node_id));
    LITERAL(out, "}\n");
}

void report_unsubscription(struct buf *out, const char *node_id, const struct suppression *one,
                           const struct msgid *campaign)
{
    char id[MSGID_TEXT_BYTES];

    msgid_text(campaign, id);
    LITERAL(out, "{\"type\":\"Unsubscription\"");
    NUMBER(out, "timestamp", one->at_ms / 1000);
    TEXT(out, "id", str_of(id));
    TEXT(out, "recipient", str_of(one->address));
    TEXT(out, "tenant", str_of(one->tenant));
    TEXT(out, "campaign", str_of(one->campaign));
    TEXT(out, "nodeid", str_of(node_id));
    NUMBER(out, "timestamp_ms", one->at_ms);
    LITERAL(out, "}\n");
}

void report_warmup(struct buf *out, const struct report_warmup *w)
{
    const struct warmup_past *p = w->past;
    char day[DAY_TEXT_BYTES];

    LITERAL(out, "{\"type\":\"Warmup\"");
    NUMBER(out, "timestamp", w->timestamp_ms / 1000);
    put_warmed(out, w->source);
    TEXT(out, "provider", str_of(w->provider));
    TEXT(out, "day", str_of(day_text(p->day, day)));
    NUMBER(out, "stage", p->stage + 1);
    put_cap(out, "cap", p->cap);
    NUMBER(out, "used", p->used);
    NUMBER(out, "delivered", p->events[WARMUP_EVENT_DELIVERED]);
    NUMBER(out, "deferred", p->events[WARMUP_EVENT_DEFERRED]);
    NUMBER(out, "bounced", p->events[WARMUP_EVENT_BOUNCED]);
    NUMBER(out, "complained", p->events[WARMUP_EVENT_COMPLAINED]);
    TEXT(out, "verdict", str_of(warmup_verdict_name(p->verdict)));
    NUMBER(out, "next_stage", w->next_stage + 1);
    put_cap(out, "next_cap", w->next_cap);
    TEXT(out, "nodeid", str_of(w->node_id));
    LITERAL(out, "}\n");
}

/* --- rules --- */

static void put_lowered(struct buf *out, const struct suspension *one)
{
    const struct suspension_cap *cap = &one->cap;

    LITERAL(out, ",\"lowered\":{\"scope\":");
    buf_put_json(out, str_of(suspension_scope_name(one->scope)));
    TEXT(out, "name", str_of(one->name));
    NUMBER(out, "until", one->until_ms / 1000);
    NUMBER(out, "doubles_every", cap->step_ms / 1000);
    if (cap->rate_messages != 0) {
        NUMBER(out, "rate", (int64_t)cap->rate_messages);
        NUMBER(out, "period", cap->rate_period_ms / 1000);
    }
    if (cap->sessions != 0)
        NUMBER(out, "sessions_max", cap->sessions);
    if (cap->session_messages != 0)
        NUMBER(out, "session_messages_max", cap->session_messages);
    buf_putc(out, '}');
}

void report_rule(struct buf *out, const struct report_rule *r)
{
    LITERAL(out, "{\"type\":\"Rule\"");
    NUMBER(out, "timestamp", r->timestamp_ms / 1000);
    TEXT(out, "rule", str_of(r->rule));
    TEXT(out, "site", r->site);
    TEXT(out, "provider", str_of(r->provider));
    TEXT(out, "egress_source", str_of(r->source));
    LITERAL(out, ",\"response\":{\"code\":");
    buf_put_u64(out, r->reply->code);
    put_reply(out, r->reply);
    buf_putc(out, '}');
    if (r->scope != NULL) {
        LITERAL(out, ",\"suspended\":{\"scope\":");
        buf_put_json(out, str_of(r->scope));
        TEXT(out, "name", str_of(r->name));
        NUMBER(out, "until", r->until_ms / 1000);
        buf_putc(out, '}');
    }
    if (r->lowered != NULL)
        put_lowered(out, r->lowered);
    NAME(out, "alarm");
    buf_puts(out, r->alarm ? "true" : "false");
    TEXT(out, "nodeid", str_of(r->node_id));
    LITERAL(out, "}\n");
}
