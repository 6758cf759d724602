/* Keys of messages by SMTP: where the listener has `idempotency_header`, a message with this field
 * is accepted once, however often its client sends it (intake/once.h). The key is taken off.
 *
 * What is known of a key is read from the store, which may wait for the disk, and the payload is
 * hashed: both by the crew. Meanwhile the session takes no step, as during a login; behind the
 * answer it goes on as with any other message, whose commit then has the key's records too. */
#include <errno.h>
#include <stdlib.h>

#include "config/config_value.h"
#include "intake/inject_message.h"
#include "intake/once.h"
#include "mail/header.h"
#include "mail/trace.h"
#include "tls/digest.h"
#include "worker/shared.h"

#define KEY_CHARS_MAX 256

/* Of one message, from its end of data until its commit has ended, or it is refused. Outlives its
 * session. */
struct inject_once {
    struct crew_job job;
    struct accept_waiter waiter;
    struct worker *worker;
    struct inject *inject; /* that waits for the crew; NULL: it has ended, or waits no more */
    struct inject_answer *answer; /* that waits for the commit, or NULL */
    struct once once;
    struct once_letter letter;
    struct msgid fresh;
    struct str owner, key, envelope; /* in text */
    struct buf text;
    struct str content;
    struct buf body; /* where content is, once the session has ended */
    int err, accepted;
};

static void once_free(struct inject_once *o)
{
    once_end(&o->once);
    buf_done(&o->text);
    buf_done(&o->body);
    free(o);
}

bool inject_once_pending(const struct inject *s)
{
    return s->once != NULL;
}

/* --- the field --- */

static struct str content_of(const struct inject *s)
{
    struct str all = {(const char *)s->body.data + s->body_room, s->body.len - s->body_room};
    size_t lead = trace_lead((const uint8_t *)all.ptr, all.len);

    return (struct str){all.ptr + lead, all.len - lead};
}

/* How many fields the content has of the listener's name; *field is the last. */
static unsigned find_field(const struct inject *s, struct str content, struct header_field *field)
{
    struct str name = str_of(s->settings->idempotency_header);
    const uint8_t *p = (const uint8_t *)content.ptr;
    struct header_field one;
    unsigned found = 0;

    for (size_t at = 0; header_field_next(p, content.len, at, &one); at = one.end)
        if (str_eq_nocase(one.name, name)) {
            *field = one;
            found++;
        }
    return found;
}

static bool key_valid(struct str key)
{
    size_t chars = 0;

    for (size_t i = 0; i < key.len; i++) {
        if (ascii_is_control(key.ptr[i]))
            return false;
        chars += ((uint8_t)key.ptr[i] & 0xc0) != 0x80;
    }
    return chars > 0 && chars <= KEY_CHARS_MAX && smtp_utf8_valid(key);
}

/* Moves what is in front of the field over it; the content begins that much later. */
static void take_field_off(struct inject *s)
{
    struct str content = content_of(s);
    uint8_t *from = s->body.data + s->body_room;
    struct header_field field;
    unsigned found = find_field(s, content, &field);
    size_t len, before;

    ASSERT(found == 1); /* inject_once_begin() */
    len = field.end - field.start;
    before = (size_t)(content.ptr - (const char *)from) + field.start;
    memmove(from + len, from, before);
    s->body_room += len;
}

/* --- the crew's part --- */

static void on_run(struct crew_job *job)
{
    struct inject_once *o = CONTAINER_OF(job, struct inject_once, job);
    uint8_t both[2 * DIGEST_BYTES], payload[DIGEST_BYTES];

    digest_sha256(o->envelope.ptr, o->envelope.len, both);
    digest_sha256(o->content.ptr, o->content.len, both + DIGEST_BYTES);
    digest_sha256(both, sizeof(both), payload);
    o->err = once_begin(&o->once, o->worker->shared, o->owner, o->key, payload, 1, &o->fresh);
    o->accepted = o->err == 0 ? once_accepted(&o->once, 0) : 0;
}

/* --- the session's --- */

static void on_committed(struct accept_waiter *waiter, int result)
{
    struct inject_once *o = CONTAINER_OF(waiter, struct inject_once, waiter);
    struct inject_answer *answer = o->answer;

    once_free(o);
    if (answer != NULL)
        inject_answer_came(answer, result);
}

void inject_once_forget(struct inject_once *o)
{
    o->answer = NULL;
}

void inject_once_order(struct inject_once *o, struct accept_order *order,
                       struct inject_answer *answer)
{
    once_letter(&o->once, 0, &o->letter);
    order->states = o->letter.states;
    order->states_len = o->letter.states_len;
    order->shard = o->once.shard;
    o->waiter = (struct accept_waiter){.on_done = on_committed};
    o->answer = answer;
}

struct accept_waiter *inject_once_waiter(struct inject_once *o)
{
    return &o->waiter;
}

static const char *refusal_of(struct inject *s, const struct inject_once *o)
{
    const char *header = s->settings->idempotency_header;

    if (o->err == -EBUSY)
        return inject_refusal(s, "450 4.3.0 a message with this %s is being received", header);
    if (o->err == -EEXIST)
        return inject_refusal(s, "550 5.6.0 another message had this %s within 24 hours", header);
    return o->err < 0 || o->accepted < 0
               ? "451 4.3.0 what is known of the message's key cannot be read, try again later"
               : NULL;
}

static void on_done(struct crew_job *job)
{
    struct inject_once *o = CONTAINER_OF(job, struct inject_once, job);
    struct inject *s = o->inject;
    const char *refusal;
    struct msgid id;

    if (s == NULL) {
        once_free(o);
        return;
    }
    ASSERT(s->once == o);
    s->once = NULL;
    o->inject = NULL;
    refusal = refusal_of(s, o);
    id = msgid_after(&o->once.batch, 1);
    if (refusal == NULL && o->accepted > 0) {
        inject_answer_again(s, &id);
        once_free(o);
    } else if (refusal != NULL) {
        once_free(o);
        inject_message_end(s, refusal);
    } else {
        take_field_off(s);
        refusal = inject_message_keyed(s, &id, o);
        if (refusal != NULL)
            once_free(o);
        inject_message_end(s, refusal);
    }
    inject_resume(s);
}

/* Whose the key is: a user's, or that of the listener's narrowest network of relay_networks which
 * the client is of: its machines may send again what another one of them sent first. */
static void put_owner(struct buf *out, const struct inject *s)
{
    const struct config_listener *l = s->settings;
    const struct config_network *narrowest = NULL;

    if (s->user != NULL) {
        buf_puts(out, s->user->name);
        return;
    }
    buf_printf(out, "\n%s\n", l->name); /* no user is called so */
    for (size_t i = 0; i < l->relay_networks_len; i++) {
        const struct config_network *n = &l->relay_networks[i];

        if (config_network_match(n, 1, (const struct sockaddr *)&s->peer) &&
            (narrowest == NULL || n->prefix > narrowest->prefix))
            narrowest = n;
    }
    if (narrowest != NULL)
        config_format_network(out, narrowest);
}

static void text_make(struct inject_once *o, struct str key)
{
    const struct inject *s = o->inject;
    size_t owner, envelope;

    buf_puts(&o->text, "smtp:");
    put_owner(&o->text, s);
    owner = o->text.len;
    buf_put_str(&o->text, key);
    envelope = o->text.len;
    buf_put_str(&o->text, inject_sender(s));
    for (uint32_t i = 0; i < s->rcpts_len; i++) {
        buf_putc(&o->text, '\n'); /* no address has one */
        buf_put_str(&o->text, slice_str(s, s->rcpts[i].address));
    }
    o->owner = (struct str){(char *)o->text.data, owner};
    o->key = (struct str){(char *)o->text.data + owner, key.len};
    o->envelope = (struct str){(char *)o->text.data + envelope, o->text.len - envelope};
}

const char *inject_once_begin(struct inject *s)
{
    const char *header = s->settings->idempotency_header;
    struct worker *w = s->worker;
    struct str content = content_of(s), key;
    struct header_field field;
    unsigned found = find_field(s, content, &field);
    struct inject_once *o;

    if (found == 0)
        return NULL;
    key = header_field_value((const uint8_t *)content.ptr, &field);
    if (found > 1 || !key_valid(key))
        return inject_refusal(s, "550 5.6.0 %s is not one field of 1 to %d characters", header,
                              KEY_CHARS_MAX);
    o = calloc(1, sizeof(*o));
    ASSERT(o != NULL);
    o->worker = w;
    o->inject = s;
    o->content = content;
    o->fresh = msgid_next(&w->ids, worker_wall_ms(w));
    text_make(o, key);
    o->job = (struct crew_job){.run = on_run, .done = on_done, .desk = &w->desk};
    if (!crew_submit(w->shared->crew, &o->job)) {
        once_free(o);
        return "451 4.3.2 too many messages with keys at a time, try again shortly";
    }
    s->once = o;
    return NULL;
}

void inject_once_drop(struct inject *s)
{
    struct inject_once *o = s->once;

    s->once = NULL;
    if (o == NULL)
        return;
    o->inject = NULL;
    o->body = s->body; /* the crew may be reading it */
    s->body = (struct buf){0};
}
