#include "intake/inject_message.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "dns/name.h"
#include "intake/draft.h"
#include "intake/inject_login.h"
#include "mail/body_hash.h"
#include "mail/international.h"
#include "worker/keyring.h"
#include "worker/shared.h"

#define BODY_BYTES_DEFAULT  8192       /* when no size is announced */
#define BODY_BYTES_TRUSTED  (1u << 20) /* a larger announced size is believed as it arrives */
#define ENVELOPE_KEPT_BYTES 4096       /* between messages */
#define HASHED_HEADER_MAX   (256u << 10)

const char inject_too_much[] = "452 4.3.1 too much mail is being received, try again later";
static const char out_of_memory[] = "452 4.3.1 out of memory, try again later";

const char *inject_refusal(struct inject *s, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(s->refusal, sizeof(s->refusal), format, args);
    va_end(args);
    return s->refusal;
}

/* --- memory --- */

bool inject_has_room(const struct inject *s, uint64_t bytes)
{
    return accept_has_room(s->worker->shared, s->worker->config, s->held_bytes, bytes);
}

void inject_count(struct inject *s)
{
    uint64_t held =
        s->body.cap + s->envelope.cap + s->rcpts_cap * sizeof(*s->rcpts) + s->pending.cap;
    uint64_t before;

    if (held == s->held_bytes && s->pending.cap == s->pending_bytes)
        return;
    before = atomic_fetch_add_explicit(&s->worker->shared->intake_bytes, held - s->held_bytes,
                                       memory_order_relaxed);
    ASSERT(before >= s->held_bytes);
    s->held_bytes = held;
    s->pending_bytes = s->pending.cap;
}

/* --- envelope --- */

static struct accept_slice envelope_put(struct inject *s, struct str text)
{
    struct accept_slice slice = {(uint32_t)s->envelope.len, (uint32_t)text.len};

    ASSERT(text.len <= UINT32_MAX - s->envelope.len);
    buf_put_str(&s->envelope, text);
    return slice;
}

/* What was put into the envelope from at on. */
static struct accept_slice envelope_from(const struct inject *s, size_t at)
{
    ASSERT(at <= s->envelope.len && s->envelope.len <= UINT32_MAX);
    return (struct accept_slice){(uint32_t)at, (uint32_t)(s->envelope.len - at)};
}

static struct accept_slice keep_sender(struct inject *s, const struct smtp_address *address)
{
    size_t at = s->envelope.len;

    s->utf8_address |= !international_put_address(&s->envelope, address);
    return envelope_from(s, at);
}

static struct accept_slice keep_rcpt(struct inject *s, const struct smtp_address *address)
{
    size_t at = s->envelope.len;

    s->utf8_address |= !accept_put_rcpt(&s->envelope, s->config, address);
    return envelope_from(s, at);
}

static struct accept_slice keep_xtext(struct inject *s, struct str xtext)
{
    size_t at = s->envelope.len;

    international_put_xtext(&s->envelope, xtext);
    return envelope_from(s, at);
}

struct str inject_sender(const struct inject *s)
{
    return slice_str(s, s->sender);
}

void inject_envelope_begin(struct inject *s, const struct smtp_mail *mail)
{
    ASSERT(s->once == NULL && s->hash == NULL);
    buf_clear(&s->envelope);
    s->rcpts_len = 0;
    s->utf8_address = false;
    s->sender = keep_sender(s, &mail->sender);
    s->envid = keep_xtext(s, mail->envid);
    s->ret = (uint8_t)mail->ret;
    s->smtputf8 = mail->smtputf8;
}

void inject_envelope_add(struct inject *s, const struct smtp_rcpt *rcpt, struct str queue)
{
    struct accept_rcpt *r;

    /* The machine counts those that it was told to accept. */
    ASSERT(s->rcpts_len == s->server.rcpts && s->rcpts_len <= s->rcpts_cap);
    if (s->rcpts_len == s->rcpts_cap) {
        s->rcpts_cap = s->rcpts_cap == 0 ? 4 : s->rcpts_cap * 2;
        s->rcpts = realloc(s->rcpts, s->rcpts_cap * sizeof(*s->rcpts));
        ASSERT(s->rcpts != NULL);
    }
    r = &s->rcpts[s->rcpts_len++];
    r->address = keep_rcpt(s, &rcpt->recipient);
    r->queue = envelope_put(s, queue);
    r->orcpt = keep_xtext(s, rcpt->orcpt);
    r->notify = rcpt->notify;
}

void inject_envelope_take_back(struct inject *s, size_t envelope_len)
{
    ASSERT(s->rcpts_len == s->server.rcpts + 1 && envelope_len <= s->envelope.len);
    s->rcpts_len--;
    s->envelope.len = envelope_len;
}

static struct str local_part(const struct inject *s, const struct accept_rcpt *r)
{
    struct str address = slice_str(s, r->address);
    ptrdiff_t at = str_rfind(address, '@');

    ASSERT(at >= 0); /* accept_put_rcpt() */
    return (struct str){address.ptr, (size_t)at};
}

static uint64_t rcpt_hash(const struct inject *s, const struct accept_rcpt *r)
{
    struct str local = local_part(s, r), queue = slice_str(s, r->queue);
    uint64_t seed = s->worker->hash_seed;

    return hash_bytes(local.ptr, local.len, hash_bytes(queue.ptr, queue.len, seed));
}

static bool same_rcpt(const struct inject *s, const struct accept_rcpt *a,
                      const struct accept_rcpt *b)
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

/* --- its hash, for signatures --- */

static void hash_drop(struct inject *s)
{
    if (s->hash == NULL)
        return;
    body_hash_drop(s->hash);
    free(s->hash);
    s->hash = NULL;
}

/* Whether the keys sign a message of that header. */
static bool is_signed(const struct keyring *keys, const uint8_t *header, size_t len)
{
    return keys != NULL && len <= HASHED_HEADER_MAX &&
           keyring_signing_domain(keys, STR(""), header, len).len > 0;
}

/* Where the header has come, the keys say whether the message will be signed; where the body has,
 * it is hashed, a piece a turn. The signer sees whether it is the hash that it wants; what a turn
 * has no time for is the signer's, too. */
static void hash_more(struct inject *s)
{
    const struct keyring *keys = s->worker->config->keyring;
    const uint8_t *bytes = s->body.data;
    struct body_hash *h = s->hash;

    if (h == NULL || (h->start == 0 && !body_hash_look(h, bytes, s->body_room, s->body.len)))
        return;
    if (h->body.hash == NULL && (!is_signed(keys, bytes + s->body_room, h->start - s->body_room) ||
                                 body_hash_begin(h, keyring_options(keys)->body_relaxed) < 0)) {
        hash_drop(s);
        return;
    }
    if (!body_hash_add(h, bytes, s->body.len))
        hash_drop(s);
}

/* False: there is none. */
static bool hash_end(struct inject *s, uint8_t out[BODY_HASH_BYTES])
{
    bool made = s->hash != NULL && s->hash->start > 0 &&
                body_hash_end(s->hash, s->body.data, s->body.len, out) == 0;

    hash_drop(s);
    return made;
}

/* The body starts behind room for the trace fields, which are known only at the end. Its buffer is
 * of the size announced, else of the session's last message and a little more, not a power of two,
 * so that it can become the content. Nothing is allocated beyond what the intake has room for. */
bool inject_body_begin(struct inject *s)
{
    uint64_t announced = s->server.mail.size;
    size_t want = s->body_last + s->body_last / 16;
    struct dns_name helo;

    ASSERT(s->rcpts_len > 0 && s->rcpts_len == s->server.rcpts);
    if (announced > 0 && announced < BODY_BYTES_TRUSTED)
        want = (size_t)announced;
    else if (want == 0 || want > BODY_BYTES_TRUSTED)
        want = BODY_BYTES_DEFAULT;
    buf_done(&s->body);
    hash_drop(s);
    s->body_room =
        trace_stamp_room(&(struct trace_stamp){.helo = helo_ascii(s, &helo),
                                               .host_name = s->config->host_name,
                                               .recipient = slice_str(s, s->rcpts[0].address),
                                               .author = inject_sender(s)});
    inject_count(s);
    s->body.data = inject_has_room(s, s->body_room + want) ? malloc(s->body_room + want) : NULL;
    if (s->body.data == NULL)
        return false;
    s->body_lost = false;
    s->body.cap = s->body_room + want;
    s->body.len = s->body_room;
    if (s->worker->config->keyring != NULL)
        s->hash = calloc(1, sizeof(*s->hash)); /* without memory the signer hashes */
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
    ASSERT(s->body.data != NULL && s->body.len >= s->body_room && s->body.len <= s->body.cap);
    if (body_grow(s, bytes.len)) {
        buf_put_str(&s->body, bytes);
        hash_more(s);
        return;
    }
    s->body_lost = true;
    buf_done(&s->body);
    hash_drop(s);
    inject_count(s);
}

/* Drops the body, also between two messages of a session: an idle session holds none, and the
 * allocator's next buffer is warmer than one kept here. */
void inject_body_drop(struct inject *s)
{
    buf_done(&s->body);
    hash_drop(s);
    s->rcpts_len = 0;
    if (s->envelope.cap > ENVELOPE_KEPT_BYTES) {
        buf_done(&s->envelope);
        free(s->rcpts);
        s->rcpts = NULL;
        s->rcpts_cap = 0;
        s->sender = s->envid = (struct accept_slice){0};
    }
    inject_count(s);
}

/* --- message --- */

static struct message *make_message(struct inject *s, int64_t now_ms, const struct msgid *id,
                                    int64_t *due_ms, const char **refusal)
{
    uint8_t hash[BODY_HASH_BYTES];
    bool hashed = hash_end(s, hash);
    struct dns_name helo;
    struct draft d = {
        .config = s->config,
        .queue = s->worker->shared->queue,
        .body = &s->body,
        .room = s->body_room,
        .stamp = {.helo = helo_ascii(s, &helo),
                  .esmtp = s->server.esmtp,
                  .smtputf8 = s->smtputf8,
                  .auth = s->user != NULL,
                  .tls_protocol = s->server.tls ? s->tls.protocol : NULL,
                  .tls_cipher = s->tls.cipher,
                  .tls_bits = s->tls.cipher_bits,
                  .peer_addr = s->peer_ip[0] != '\0' ? s->peer_ip : NULL,
                  .host_name = s->config->host_name,
                  .id = id,
                  .recipient = s->rcpts_len == 1 ? slice_str(s, s->rcpts[0].address) : STR(""),
                  .author = inject_sender(s),
                  .now_ms = now_ms},
        .received_max = s->settings->received_max,
        .recipients = s->rcpts_len,
        .born_ms = io_now_ms(s->worker->io),
        .sender = inject_sender(s),
        .envid = slice_str(s, s->envid),
        .protocol = str_of(inject_protocol(s)),
        .origin = str_of(s->peer_text),
        .body_hash = {(const char *)hash, hashed ? sizeof(hash) : 0},
        .priority = -1,
        .priority_cap = (uint8_t)(s->user != NULL ? s->user->priority + 1 : 0),
        .tenant = str_of(s->user != NULL ? s->user->tenant : NULL),
        .pool = str_of(s->user != NULL ? s->user->pool : NULL),
        .listener = s->settings,
        .client = (const struct sockaddr *)&s->peer,
        .rule = inject_sender_rule(s),
        .headers_ignored = ~s->settings->headers_taken,
        .ret = s->ret,
        .suppression =
            s->settings->suppression ? MESSAGE_SUPPRESSION_ALL : MESSAGE_SUPPRESSION_NONE,
        .eight_bit = s->server.facts.eight_bit,
        .dot_lines = s->server.facts.dot_lines,
        .smtputf8 = s->smtputf8,
        .utf8_address = s->utf8_address};
    struct message *m;

    s->body_last = s->body.len - s->body_room;
    m = draft_message(&d, refusal);
    if (d.refusal.len > 0)
        *refusal = inject_refusal(s, "%s", (char *)d.refusal.data);
    buf_done(&d.refusal);
    *due_ms = d.not_before_ms > now_ms ? d.not_before_ms : now_ms;
    return m;
}

/* By BDAT content may come without the end of its last line. On the way it would get one from
 * somebody, or not, and a signature would fit one of the two only. False: no memory. */
static bool end_last_line(struct inject *s)
{
    const uint8_t *end = s->body.data + s->body.len;
    size_t len = s->body.len - s->body_room;

    if (len == 0 || (len >= 2 && end[-2] == '\r' && end[-1] == '\n'))
        return true;
    if (buf_reserve(&s->body, 2) != 0)
        return false;
    buf_puts(&s->body, "\r\n");
    inject_count(s);
    return true;
}

const char *inject_message_keyed(struct inject *s, const struct msgid *id, struct inject_once *once)
{
    int64_t due_ms;
    struct message *m;
    const char *refusal = NULL;

    drop_doubles(s);
    m = make_message(s, worker_wall_ms(s->worker), id, &due_ms, &refusal);
    if (m == NULL)
        return refusal;
    if (!inject_submit(s, m, due_ms, once))
        refusal = out_of_memory;
    message_unref(m);
    return refusal;
}

const char *inject_message(struct inject *s)
{
    const char *refusal;
    struct msgid id;

    if (s->body_lost)
        return inject_too_much;
    ASSERT(s->rcpts_len > 0 && s->body.len - s->body_room == s->server.body_bytes);
    if (!end_last_line(s))
        return out_of_memory;
    refusal = s->settings->idempotency_header == NULL ? NULL : inject_once_begin(s);
    if (refusal != NULL || inject_once_pending(s))
        return refusal;
    id = msgid_next(&s->worker->ids, worker_wall_ms(s->worker));
    return inject_message_keyed(s, &id, NULL);
}
