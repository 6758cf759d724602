#include "queue/message.h"

#include <errno.h>
#include <stdlib.h>

#define ERROR_BYTES_MAX 300

/* Any thread adds and subtracts; relaxed, because it is only a sum that limits look at. */
static _Atomic uint64_t bytes_alive;

static void alive_add(uint64_t n)
{
    atomic_fetch_add_explicit(&bytes_alive, n, memory_order_relaxed);
}

static void alive_sub(uint64_t n)
{
    uint64_t before = atomic_fetch_sub_explicit(&bytes_alive, n, memory_order_relaxed);

    ASSERT(before >= n);
}

uint64_t message_bytes_alive(void)
{
    return atomic_load_explicit(&bytes_alive, memory_order_relaxed);
}

/* Copies s to *at and moves *at behind it. */
static struct str place(char **at, struct str s)
{
    struct str out = {*at, s.len};

    if (s.len > 0)
        memcpy(*at, s.ptr, s.len);
    *at += s.len;
    return out;
}

static uint64_t message_bytes(const struct message *m)
{
    return sizeof(*m) + m->sender.len + m->envid.len + m->tenant.len + m->campaign.len +
           m->meta.len + m->protocol.len + m->origin.len + m->trace.len + m->body_hash.len +
           m->dkim_domain.len;
}

static uint64_t content_bytes(const struct message *m)
{
    return m->content_of == NULL ? m->content_len : 0;
}

struct message *message_new(const struct message *fields)
{
    uint64_t bytes = message_bytes(fields);
    struct message *m = malloc(bytes);
    char *at;

    ASSERT(fields->content_of == NULL || fields->content_block == NULL); /* one of them owns it */
    ASSERT(fields->converted[0] == NULL && fields->converted[1] == NULL && fields->front == NULL);
    if (m == NULL)
        return NULL;
    *m = *fields;
    atomic_init(&m->refs, 1);
    at = (char *)(m + 1);
    m->sender = place(&at, fields->sender);
    m->envid = place(&at, fields->envid);
    m->tenant = place(&at, fields->tenant);
    m->campaign = place(&at, fields->campaign);
    m->meta = place(&at, fields->meta);
    m->protocol = place(&at, fields->protocol);
    m->origin = place(&at, fields->origin);
    m->trace = place(&at, fields->trace);
    m->body_hash = place(&at, fields->body_hash);
    m->dkim_domain = place(&at, fields->dkim_domain);
    ASSERT(at == (char *)m + bytes);
    alive_add(bytes + content_bytes(m));
    return m;
}

struct message *message_share(struct message *m)
{
    struct message fields = *m, *share;

    ASSERT(m->recipe == NULL); /* a letter is its worker's */
    fields.content_of = m;
    fields.content_block = NULL;
    fields.converted[0] = fields.converted[1] = NULL;
    fields.inconvertible = 0;
    fields.front = NULL;
    fields.signing = NULL;
    share = message_new(&fields);
    if (share != NULL)
        message_ref(m);
    return share;
}

static uint64_t front_bytes(const struct message_front *f)
{
    return sizeof(*f) + f->fields.len + f->signers.len;
}

struct message_front *message_front_new(struct str fields, struct str signers)
{
    struct message_front *f = malloc(sizeof(*f) + fields.len + signers.len);
    char *at;

    if (f == NULL)
        return NULL;
    at = (char *)(f + 1);
    *f = (struct message_front){.fields = place(&at, fields), .signers = place(&at, signers)};
    return f;
}

void message_put_front(struct message *m, struct message_front *front)
{
    ASSERT(front->older == NULL && front != m->front);
    front->older = m->front;
    m->front = front;
    alive_add(front_bytes(front));
}

static void fronts_free(struct message_front *f)
{
    while (f != NULL) {
        struct message_front *older = f->older;

        alive_sub(front_bytes(f));
        free(f);
        f = older;
    }
}

struct message *message_ref(struct message *m)
{
    uint32_t before = atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);

    ASSERT(before > 0 && before < UINT32_MAX); /* the caller has one of them */
    return m;
}

void message_unref(struct message *m)
{
    uint32_t before;

    if (m == NULL)
        return;
    /* Release: our last use comes before the free; acquire: the one who frees sees all uses. */
    before = atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel);
    ASSERT(before > 0);
    if (before != 1)
        return;
    ASSERT(m->signing == NULL); /* it holds a reference */
    alive_sub(message_bytes(m) + content_bytes(m));
    message_unref(m->converted[0]);
    message_unref(m->converted[1]);
    message_unref(m->content_of);
    message_unref(m->recipe);
    fronts_free(m->front);
    if (m->content_of == NULL)
        free(m->content_block != NULL ? m->content_block : m->content);
    free(m);
}

static uint64_t recipient_bytes(const struct recipient *r)
{
    return sizeof(*r) + r->queue.len + r->address.len + r->orcpt.len + r->variables.len;
}

struct recipient *recipient_new(struct message *message, uint32_t index, struct str queue,
                                struct str address, struct str orcpt, struct str variables)
{
    uint64_t bytes = sizeof(struct recipient) + queue.len + address.len + orcpt.len + variables.len;
    struct recipient *r = malloc(bytes);
    char *at;

    if (r == NULL)
        return NULL;
    *r = (struct recipient){.message = message_ref(message),
                            .index = index,
                            .flow = message->flow,
                            .priority = message->priority};
    at = (char *)(r + 1);
    r->queue = place(&at, queue);
    r->address = place(&at, address);
    r->orcpt = place(&at, orcpt);
    r->variables = place(&at, variables);
    ASSERT(at == (char *)r + bytes);
    alive_add(bytes);
    return r;
}

void recipient_drop_letter(struct recipient *r)
{
    struct message *letter = r->message;

    if (letter->recipe == NULL)
        return;
    r->message = message_ref(letter->recipe);
    message_unref(letter);
}

void recipient_set_error(struct recipient *r, struct str text)
{
    size_t len = text.len < ERROR_BYTES_MAX ? text.len : ERROR_BYTES_MAX;
    char *copy = len == 0 ? NULL : malloc(len);

    /* Out of memory: the old text must not pass for the new one, so it goes all the same. */
    if (copy == NULL)
        len = 0;
    else
        memcpy(copy, text.ptr, len);
    alive_sub(r->last_error.len);
    free((char *)r->last_error.ptr);
    r->last_error = (struct str){copy, len};
    alive_add(len);
}

int recipient_set_unknown(struct recipient *r, struct str fields)
{
    char *copy;

    ASSERT(r->unknown.len == 0);
    if (fields.len == 0)
        return 0;
    copy = malloc(fields.len);
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, fields.ptr, fields.len);
    r->unknown = (struct str){copy, fields.len};
    alive_add(fields.len);
    return 0;
}

void recipient_free(struct recipient *r)
{
    if (r == NULL)
        return;
    ASSERT(!list_node_linked(&r->node)); /* nobody has it in a list */
    alive_sub(recipient_bytes(r) + r->last_error.len + r->unknown.len);
    free((char *)r->last_error.ptr);
    free((char *)r->unknown.ptr);
    message_unref(r->message);
    free(r);
}
