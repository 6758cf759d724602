#include "intake/inject_message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "dns/name.h"
#include "mail/international.h"
#include "mail/trace.h"
#include "worker/shared.h"

#define CONTENT_SLACK_BYTES 1024        /* room for trace fields and a little more */
#define BODY_BYTES_DEFAULT  8192        /* when no size is announced */
#define BODY_BYTES_TRUSTED  (1u << 20)  /* a larger announced size is believed as it arrives */
#define SMALL_BYTES         (64u << 10) /* such messages have a share of their own in memory */
#define ENVELOPE_KEPT_BYTES 4096        /* between messages */

const char inject_too_much[] = "452 4.3.1 too much mail is being received, try again later";
static const char out_of_memory[] = "452 4.3.1 out of memory, try again later";

/* --- memory --- */

/* A message larger than SMALL_BYTES leaves a quarter of the room to smaller ones, so that a few
 * slow clients with much to say do not silence all others. One that has nearly nothing beside it
 * has room whatever its size, or a message larger than the limit could never come in. */
bool inject_has_room(const struct inject *s, uint64_t bytes)
{
    uint64_t max = s->worker->config->queue.intake_bytes_max;
    uint64_t held = atomic_load_explicit(&s->worker->shared->intake_bytes, memory_order_relaxed);
    uint64_t others = held > s->held_bytes ? held - s->held_bytes : 0, own = s->held_bytes + bytes;

    return others < max / 8 || others + own <= (own > SMALL_BYTES ? max / 4 * 3 : max);
}

void inject_count(struct inject *s)
{
    uint64_t held =
        s->body.cap + s->envelope.cap + s->rcpts_cap * sizeof(*s->rcpts) + s->pending.cap;

    if (held == s->held_bytes)
        return;
    atomic_fetch_add_explicit(&s->worker->shared->intake_bytes, held - s->held_bytes,
                              memory_order_relaxed);
    s->held_bytes = held;
}

/* --- envelope --- */

static struct inject_slice envelope_put(struct inject *s, struct str text)
{
    struct inject_slice slice = {(uint32_t)s->envelope.len, (uint32_t)text.len};

    buf_put_str(&s->envelope, text);
    return slice;
}

static struct inject_slice keep_address(struct inject *s, const struct smtp_address *address)
{
    size_t at = s->envelope.len;

    s->utf8_address |= !international_put_address(&s->envelope, address);
    return (struct inject_slice){(uint32_t)at, (uint32_t)(s->envelope.len - at)};
}

static struct inject_slice keep_xtext(struct inject *s, struct str xtext)
{
    size_t at = s->envelope.len;

    international_put_xtext(&s->envelope, xtext);
    return (struct inject_slice){(uint32_t)at, (uint32_t)(s->envelope.len - at)};
}

struct str inject_sender(const struct inject *s)
{
    return slice_str(s, s->sender);
}

void inject_envelope_begin(struct inject *s, const struct smtp_mail *mail)
{
    buf_clear(&s->envelope);
    s->rcpts_len = 0;
    s->utf8_address = false;
    s->sender = keep_address(s, &mail->sender);
    s->envid = keep_xtext(s, mail->envid);
    s->ret = (uint8_t)mail->ret;
    s->smtputf8 = mail->smtputf8;
}

void inject_envelope_add(struct inject *s, const struct smtp_rcpt *rcpt, struct str queue)
{
    struct inject_rcpt *r;

    if (s->rcpts_len == s->rcpts_cap) {
        s->rcpts_cap = s->rcpts_cap == 0 ? 4 : s->rcpts_cap * 2;
        s->rcpts = realloc(s->rcpts, s->rcpts_cap * sizeof(*s->rcpts));
        ASSERT(s->rcpts != NULL);
    }
    r = &s->rcpts[s->rcpts_len++];
    r->address = keep_address(s, &rcpt->recipient);
    if (rcpt->recipient.domain.len == 0) { /* <postmaster>: of this host */
        struct str host = str_of(s->config->host_name);

        buf_putc(&s->envelope, '@');
        buf_put_str(&s->envelope, host);
        r->address.len += (uint32_t)host.len + 1;
    }
    r->queue = envelope_put(s, queue);
    r->orcpt = keep_xtext(s, rcpt->orcpt);
    r->notify = rcpt->notify;
}

static struct str local_part(const struct inject *s, const struct inject_rcpt *r)
{
    struct str address = slice_str(s, r->address);

    return (struct str){address.ptr, (size_t)str_rfind(address, '@')};
}

static uint64_t rcpt_hash(const struct inject *s, const struct inject_rcpt *r)
{
    struct str local = local_part(s, r), queue = slice_str(s, r->queue);
    uint64_t seed = s->worker->hash_seed;

    return hash_bytes(local.ptr, local.len, hash_bytes(queue.ptr, queue.len, seed));
}

static bool same_rcpt(const struct inject *s, const struct inject_rcpt *a,
                      const struct inject_rcpt *b)
{
    return str_eq(slice_str(s, a->queue), slice_str(s, b->queue)) &&
           str_eq(local_part(s, a), local_part(s, b)) && a->notify == b->notify &&
           str_eq(slice_str(s, a->orcpt), slice_str(s, b->orcpt));
}

/* A recipient that is named twice gets one copy, unless the notices asked for differ. */
static void drop_doubles(struct inject *s)
{
    uint32_t mask = 1, kept = 0, *seen; /* [hash]: 1 + index of one that is kept */

    if (s->rcpts_len < 2)
        return;
    while (mask < 2 * s->rcpts_len)
        mask = mask << 1 | 1;
    seen = calloc(mask + 1, sizeof(*seen));
    if (seen == NULL) /* two copies are better than none */
        return;
    for (uint32_t i = 0; i < s->rcpts_len; i++) {
        uint32_t at = (uint32_t)rcpt_hash(s, &s->rcpts[i]) & mask;

        while (seen[at] != 0 && !same_rcpt(s, &s->rcpts[seen[at] - 1], &s->rcpts[i]))
            at = (at + 1) & mask;
        if (seen[at] == 0) {
            s->rcpts[kept] = s->rcpts[i];
            seen[at] = ++kept;
        }
    }
    free(seen);
    s->rcpts_len = kept;
}

/* --- body --- */

/* For the Received field of any message: a client's UTF-8 as A-labels where it is a name (what is
 * none shows as '?'). */
static struct str helo_ascii(const struct inject *s, struct dns_name *name)
{
    struct str helo = str_of(s->helo);

    if (str_is_ascii(helo) || dns_name_parse(name, helo) < 0)
        return helo;
    return (struct str){name->text, name->len};
}

/* The body starts behind room for the trace fields, which are known only at the end. Its buffer is
 * of the size announced, else of the session's last message and a little more, not a power of two,
 * so that it can become the content. Nothing is allocated beyond what the intake has room for. */
bool inject_body_begin(struct inject *s)
{
    uint64_t announced = s->server.mail.size;
    size_t want = s->body_last + s->body_last / 16;
    struct dns_name helo;

    if (announced > 0 && announced < BODY_BYTES_TRUSTED)
        want = (size_t)announced;
    else if (want == 0 || want > BODY_BYTES_TRUSTED)
        want = BODY_BYTES_DEFAULT;
    buf_done(&s->body);
    s->body_room =
        trace_stamp_room(&(struct trace_stamp){.helo = helo_ascii(s, &helo),
                                               .host_name = s->config->host_name,
                                               .recipient = slice_str(s, s->rcpts[0].address)});
    inject_count(s);
    s->body.data = inject_has_room(s, s->body_room + want) ? malloc(s->body_room + want) : NULL;
    if (s->body.data == NULL)
        return false;
    s->body_lost = false;
    s->body.cap = s->body_room + want;
    s->body.len = s->body_room;
    inject_count(s);
    return true;
}

/* Room for more bytes. A large body gets the size that was announced at once; a client that sends
 * more than it said, or said nothing, costs copies. */
static bool body_grow(struct inject *s, size_t more)
{
    size_t need = s->body.len + more, cap = s->body.cap + s->body.cap / 2;
    uint64_t announced = s->body_room + s->server.mail.size;
    uint8_t *data;

    if (need <= s->body.cap)
        return true;
    if (need >= BODY_BYTES_TRUSTED && announced >= need)
        cap = announced;
    cap = cap > need ? cap : need;
    if (!inject_has_room(s, cap - s->body.cap))
        return false;
    data = realloc(s->body.data, cap);
    if (data == NULL)
        return false;
    s->body.data = data;
    s->body.cap = cap;
    inject_count(s);
    return true;
}

/* Content that finds no room is refused at its end; until then it takes no memory. */
void inject_body_add(struct inject *s, struct str bytes)
{
    if (s->body_lost)
        return;
    if (body_grow(s, bytes.len)) {
        buf_put_str(&s->body, bytes);
        return;
    }
    s->body_lost = true;
    buf_done(&s->body);
    inject_count(s);
}

/* Drops the body, also between two messages of a session: an idle session holds none, and the
 * allocator's next buffer is warmer than one kept here. */
void inject_body_drop(struct inject *s)
{
    buf_done(&s->body);
    s->rcpts_len = 0;
    if (s->envelope.cap > ENVELOPE_KEPT_BYTES) {
        buf_done(&s->envelope);
        free(s->rcpts);
        s->rcpts = NULL;
        s->rcpts_cap = 0;
        s->sender = s->envid = (struct inject_slice){0};
    }
    inject_count(s);
}

/* --- message --- */

struct draft {
    struct trace_facts facts;
    struct str wanted[TRACE_WANTED_MAX]; /* names of the configured headers */
    size_t wanted_len;
    bool needs_utf8, dot_lines;
    struct msgid id;
    int64_t now_ms;
    uint8_t *start;
    size_t len;
};

static void draft_read(struct inject *s, struct draft *d)
{
    size_t lead;

    d->start = s->body.data + s->body_room;
    d->len = s->body.len - s->body_room;
    s->body_last = d->len;
    lead = trace_lead(d->start, d->len);
    d->start += lead;
    d->len -= lead;
    /* The text behind a byte order mark begins a line now. */
    d->dot_lines = s->server.facts.dot_lines || (lead > 0 && d->start[0] == '.');
    d->wanted_len = s->config->records.headers_len;
    for (size_t i = 0; i < d->wanted_len && i < TRACE_WANTED_MAX; i++)
        d->wanted[i] = str_of(s->config->records.headers[i]);
    trace_scan(d->start, d->len, d->wanted, d->wanted_len, &d->facts);
}

static const char *draft_refusal(const struct inject *s, const struct draft *d)
{
    if (d->facts.received >= s->settings->received_max)
        return "554 5.4.6 too many hops: this message is in a mail loop";
    return d->facts.error;
}

static void draft_stamp(struct inject *s, struct draft *d, const struct str *wanted,
                        struct buf *trace_json)
{
    struct dns_name helo;
    struct trace_stamp stamp = {.helo = helo_ascii(s, &helo),
                                .esmtp = s->server.esmtp,
                                .smtputf8 = s->smtputf8,
                                .peer_addr = s->peer_ip[0] != '\0' ? s->peer_ip : NULL,
                                .host_name = s->config->host_name,
                                .id = &d->id,
                                .now_ms = d->now_ms};
    uint8_t *start;

    if (s->rcpts_len == 1)
        stamp.recipient = slice_str(s, s->rcpts[0].address);
    trace_wanted_json(&d->facts, wanted, d->wanted_len, trace_json);
    d->start += d->facts.has_ending ? trace_strip(d->start, &d->facts) : 0;
    d->start -= trace_border(d->start, (size_t)(s->body.data + s->body.len - d->start), &d->facts);
    start = trace_prepend(d->start, &stamp, &d->facts);
    d->len = (size_t)(s->body.data + s->body.len - start);
    d->start = start;
}

/* The content becomes the message's: the gathering buffer itself where little of it is unused, else
 * an exact copy, since it may live long in the window. */
static bool draft_content(struct inject *s, const struct draft *d, struct message *fields)
{
    fields->content_len = d->len;
    if (d->len >= s->body.cap / 4 * 3 || s->body.cap - d->len <= CONTENT_SLACK_BYTES) {
        fields->content_block = s->body.data;
        fields->content = d->start;
        s->body = (struct buf){0};
        return true;
    }
    fields->content = malloc(d->len);
    if (fields->content == NULL)
        return false;
    memcpy(fields->content, d->start, d->len);
    return true;
}

static struct message *draft_message(struct inject *s, const struct draft *d,
                                     struct message *fields)
{
    const struct smtp_body_facts *body = &s->server.facts;
    const struct queue_flow *flow;
    struct message *m;

    fields->id = d->id;
    fields->created_ms = d->now_ms;
    fields->born_ms = io_now_ms(s->worker->io);
    fields->flags = (body->eight_bit ? MESSAGE_8BIT : 0u) |
                    (d->dot_lines ? MESSAGE_DOT_LINES : 0u) |
                    (d->needs_utf8 ? MESSAGE_SMTPUTF8 : 0u);
    fields->ret = s->ret;
    fields->priority = d->facts.priority < 0 ? PRIORITY_DEFAULT : (uint8_t)d->facts.priority;
    fields->recipients = s->rcpts_len;
    fields->sender = inject_sender(s);
    fields->envid = slice_str(s, s->envid);
    fields->protocol = s->server.esmtp ? STR("ESMTP") : STR("SMTP");
    fields->origin = str_of(s->peer_text);
    flow = queue_flow_get(s->worker->shared->queue, fields->priority, fields->tenant,
                          fields->campaign, STR(""));
    if (flow == NULL || !draft_content(s, d, fields))
        return NULL;
    fields->flow = flow->id;
    m = message_new(fields);
    if (m == NULL)
        free(fields->content_block != NULL ? fields->content_block : fields->content);
    return m;
}

const char *inject_message(struct inject *s)
{
    struct worker *w = s->worker;
    struct draft d = {.now_ms = worker_wall_ms(w)};
    struct message fields = {0};
    struct buf trace_json = {0};
    struct message *m;
    const char *refusal;
    int64_t due_ms;
    bool submitted;

    if (s->body_lost)
        return inject_too_much;
    drop_doubles(s);
    draft_read(s, &d);
    refusal = draft_refusal(s, &d);
    if (refusal != NULL)
        return refusal;
    d.needs_utf8 =
        s->smtputf8 && (s->utf8_address ||
                        international_content(d.start, d.len, &d.facts, s->server.facts.eight_bit));
    d.id = msgid_next(&w->ids, d.now_ms);
    /* Campaign and tenant point into the header, which stamping moves. */
    char campaign[TRACE_NAME_BYTES_MAX], tenant[TRACE_NAME_BYTES_MAX];
    memcpy(campaign, d.facts.campaign.ptr, d.facts.campaign.len);
    memcpy(tenant, d.facts.tenant.ptr, d.facts.tenant.len);
    fields.campaign = (struct str){campaign, d.facts.campaign.len};
    fields.tenant = (struct str){tenant, d.facts.tenant.len};
    due_ms = d.facts.not_before_ms > d.now_ms ? d.facts.not_before_ms : d.now_ms;
    draft_stamp(s, &d, d.wanted, &trace_json);
    fields.trace = buf_str(&trace_json);
    m = draft_message(s, &d, &fields);
    buf_done(&trace_json);
    if (m == NULL)
        return out_of_memory;
    submitted = inject_submit(s, m, due_ms);
    message_unref(m);
    return submitted ? NULL : out_of_memory;
}
