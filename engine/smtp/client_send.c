/* What the client sends: the states of a transaction and the composer of outputs. */
#include "smtp/client_private.h"
#include "smtp/scan.h"

/* A longer body waits until a recipient is accepted. A round trip is little for it, and a refused
 * one would have to be sent to its end. */
#define BODY_EAGER_BYTES_MAX ((size_t)1 << 20)
#define PIECES_MIN           4

_Static_assert(COMMAND_BYTES_MAX <= SMTP_CLIENT_OUTPUT_BYTES, "an output takes one at the least");

/* Sends what it can; false: blocked, until a reply comes or the output has gone. */
typedef bool send_fn(struct smtp_client *c, struct smtp_transaction *t);

static send_fn send_mail, send_rcpt, send_data, send_body, send_dot, send_null_dot;

static const struct {
    const char *name;
    send_fn *send;       /* NULL: waits, or has nothing to send */
    uint32_t follows;    /* states that may follow */
    enum smtp_fate lost; /* of recipients not yet final when the session ends */
} states[TRANSACTION_STATES] = {
#define TO(state) (1u << TRANSACTION_##state)
    [TRANSACTION_QUEUED] = {"queued", send_mail, TO(RCPT), SMTP_FATE_NOT_SENT},
    [TRANSACTION_RCPT] = {"rcpt", send_rcpt, TO(DATA) | TO(ABANDONED), SMTP_FATE_NOT_SENT},
    [TRANSACTION_DATA] = {"data", send_data, TO(WAIT) | TO(BODY) | TO(ABANDONED),
                          SMTP_FATE_NOT_SENT},
    [TRANSACTION_WAIT] = {"wait", NULL, TO(BODY) | TO(NULL_DOT) | TO(ABANDONED),
                          SMTP_FATE_NOT_SENT},
    [TRANSACTION_BODY] = {"body", send_body, TO(DOT) | TO(SENT), SMTP_FATE_NOT_SENT},
    [TRANSACTION_DOT] = {"dot", send_dot, TO(SENT), SMTP_FATE_NOT_SENT},
    [TRANSACTION_NULL_DOT] = {"null dot", send_null_dot, TO(ABANDONED), SMTP_FATE_NOT_SENT},
    [TRANSACTION_SENT] = {"sent", NULL, 0, SMTP_FATE_LOST},
    [TRANSACTION_ABANDONED] = {"abandoned", NULL, 0, SMTP_FATE_NOT_SENT},
#undef TO
};

static bool is_out(const struct smtp_transaction *t)
{
    return t->state == TRANSACTION_SENT || t->state == TRANSACTION_ABANDONED;
}

static struct smtp_transaction *next_transaction(const struct smtp_client *c,
                                                 const struct smtp_transaction *t)
{
    struct list_node *node = list_next(&c->transactions, &t->node);

    return node == NULL ? NULL : LIST_ENTRY(node, struct smtp_transaction, node);
}

static struct smtp_transaction *previous_transaction(const struct smtp_client *c,
                                                     const struct smtp_transaction *t)
{
    struct list_node *node = t->node.prev;

    return node == &c->transactions.head ? NULL : LIST_ENTRY(node, struct smtp_transaction, node);
}

void transaction_set_state(struct smtp_client *c, struct smtp_transaction *t,
                           enum transaction_state state)
{
    ASSERT((states[t->state].follows & 1u << state) != 0);
    t->state = (uint8_t)state;
    if (is_out(t) && c->sending == t)
        c->sending = next_transaction(c, t);
}

enum smtp_fate transaction_lost_fate(const struct smtp_transaction *t)
{
    return states[t->state].lost;
}

bool client_is_stepwise(const struct smtp_client *c)
{
    return (c->peer.capabilities & SMTP_CAP_PIPELINING) == 0;
}

bool client_is_chunking(const struct smtp_client *c)
{
    return (c->peer.capabilities & SMTP_CAP_CHUNKING) != 0;
}

uint64_t client_bytes_behind_first(const struct smtp_client *c, const struct smtp_transaction *last)
{
    struct list_node *node = list_first(&c->transactions);
    uint64_t bytes = 0;

    while (node != NULL && node != (last == NULL ? NULL : &last->node)) {
        node = list_next(&c->transactions, node);
        if (node != NULL)
            bytes += LIST_ENTRY(node, struct smtp_transaction, node)->content_len;
    }
    return bytes;
}

/* --- pieces of an output --- */

static void put_piece(struct smtp_client *c, const void *bytes, size_t n)
{
    ASSERT(c->iov != NULL && c->iov_len < c->iov_max && n > 0);
    c->iov[c->iov_len++] = (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = n};
}

/* Room for one more command, and for a dot behind a body. */
static bool has_room(const struct smtp_client *c)
{
    return SMTP_CLIENT_OUTPUT_BYTES - c->commands_len >= COMMAND_BYTES_MAX &&
           c->iov_len < c->iov_max;
}

static void output_put(struct smtp_client *c, const char *bytes, size_t n)
{
    struct iovec *last = c->iov_len == 0 ? NULL : &c->iov[c->iov_len - 1];
    char *at;

    if (c->commands == NULL)
        c->commands = pool_get(c->options->outputs);
    ASSERT(c->commands != NULL && n <= SMTP_CLIENT_OUTPUT_BYTES - c->commands_len);
    at = c->commands + c->commands_len;
    memcpy(at, bytes, n);
    c->commands_len += n;
    if (last != NULL && (char *)last->iov_base + last->iov_len == at)
        last->iov_len += n;
    else
        put_piece(c, at, n);
}

static void put_str(struct smtp_client *c, struct str s)
{
    if (s.len != 0)
        output_put(c, s.ptr, s.len);
}

void client_put(struct smtp_client *c, struct str bytes)
{
    put_str(c, bytes);
}

#define PUT(c, literal) output_put(c, literal, sizeof(literal) - 1)

static void put_number(struct smtp_client *c, uint64_t v)
{
    char digits[STR_U64_BYTES];

    put_str(c, str_of_u64(v, digits));
}

/* Puts the address in the form that others may see (smtp_address_put()). */
static void put_address(struct smtp_client *c, struct str address)
{
    char room[SMTP_PATH_MAX];
    size_t given;

    put_str(c, smtp_address_local(address, room, &given));
    put_str(c, (struct str){address.ptr + given, address.len - given});
}

/* --- commands --- */

static bool has(const struct smtp_client *c, enum smtp_capability capability)
{
    return (c->peer.capabilities & (uint32_t)capability) != 0;
}

bool transaction_may_be_open(const struct smtp_transaction *t)
{
    if (t->expected != 0 || t->end_refused)
        return true;
    return t->state != TRANSACTION_SENT && (t->mail_accepted || t->stray_accepted);
}

static bool needs_rset(const struct smtp_client *c, const struct smtp_transaction *t)
{
    const struct smtp_transaction *before = previous_transaction(c, t);

    return before == NULL ? c->rset_needed : transaction_may_be_open(before);
}

static bool may_start(struct smtp_client *c, const struct smtp_transaction *t)
{
    const struct smtp_transaction *before = previous_transaction(c, t);

    if (client_is_stepwise(c))
        return before == NULL && client_expected_first(c) == NULL;
    if (before == NULL)
        return true;
    ASSERT(is_out(before));
    return !client_is_chunking(c) ||
           client_bytes_behind_first(c, t) <= c->options->pipeline_bytes_max;
}

static bool send_mail(struct smtp_client *c, struct smtp_transaction *t)
{
    size_t before = c->commands_len;

    if (!has_room(c) || !may_start(c, t))
        return false;
    if (needs_rset(c, t)) {
        PUT(c, "RSET\r\n");
        client_expect(c, NULL, SMTP_STAGE_RSET);
        c->rset_needed = false;
        if (client_is_stepwise(c))
            return false;
    }
    PUT(c, "MAIL FROM:<");
    put_address(c, t->sender);
    PUT(c, ">");
    if (has(c, SMTP_CAP_SIZE)) {
        PUT(c, " SIZE=");
        put_number(c, t->content_len);
    }
    if (t->eight_bit && has(c, SMTP_CAP_8BITMIME))
        PUT(c, " BODY=8BITMIME");
    if (t->smtputf8)
        PUT(c, " SMTPUTF8");
    if (has(c, SMTP_CAP_DSN)) {
        if (t->ret == SMTP_RET_FULL)
            PUT(c, " RET=FULL");
        else if (t->ret == SMTP_RET_HDRS)
            PUT(c, " RET=HDRS");
        if (t->envid.len != 0) {
            PUT(c, " ENVID=");
            put_str(c, t->envid);
        }
    }
    PUT(c, "\r\n");
    ASSERT(c->commands_len - before <= COMMAND_BYTES_MAX);
    client_expect(c, t, SMTP_STAGE_MAIL);
    transaction_set_state(c, t, TRANSACTION_RCPT);
    return true;
}

static void put_notify(struct smtp_client *c, uint8_t notify)
{
    static const struct {
        struct str word;
        uint8_t bit;
    } words[] = {
        {{"SUCCESS", 7}, SMTP_NOTIFY_SUCCESS},
        {{"FAILURE", 7}, SMTP_NOTIFY_FAILURE},
        {{"DELAY", 5}, SMTP_NOTIFY_DELAY},
    };
    struct str between = STR(" NOTIFY=");

    if ((notify & SMTP_NOTIFY_NEVER) != 0) {
        PUT(c, " NOTIFY=NEVER");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if ((notify & words[i].bit) == 0)
            continue;
        put_str(c, between);
        put_str(c, words[i].word);
        between = STR(",");
    }
}

static void skip_invalid_rcpts(struct smtp_transaction *t)
{
    while (t->rcpts_sent < t->rcpts_len && t->rcpts[t->rcpts_sent].state == RCPT_INVALID)
        t->rcpts_sent++;
}

static bool send_rcpt(struct smtp_client *c, struct smtp_transaction *t)
{
    const struct smtp_transaction_rcpt *r;
    size_t before = c->commands_len;

    if (!has_room(c) || (client_is_stepwise(c) && client_expected_first(c) != NULL))
        return false;
    skip_invalid_rcpts(t);
    ASSERT(t->rcpts_sent < t->rcpts_len); /* one is valid, and the last sent one ends this state */
    r = &t->rcpts[t->rcpts_sent++];
    skip_invalid_rcpts(t);
    PUT(c, "RCPT TO:<");
    put_address(c, r->address);
    PUT(c, ">");
    if (has(c, SMTP_CAP_DSN)) {
        put_notify(c, r->notify);
        if (r->orcpt.len != 0) {
            PUT(c, " ORCPT=");
            put_str(c, r->orcpt);
        }
    }
    PUT(c, "\r\n");
    ASSERT(c->commands_len - before <= COMMAND_BYTES_MAX);
    client_expect(c, t, SMTP_STAGE_RCPT);
    if (t->rcpts_sent == t->rcpts_len)
        transaction_set_state(c, t, TRANSACTION_DATA);
    return true;
}

static bool send_data(struct smtp_client *c, struct smtp_transaction *t)
{
    if (!has_room(c) || (client_is_stepwise(c) && client_expected_first(c) != NULL))
        return false;
    if (!client_is_chunking(c)) {
        PUT(c, "DATA\r\n");
        client_expect(c, t, SMTP_STAGE_DATA);
        transaction_set_state(c, t, TRANSACTION_WAIT);
        return false; /* the last command of a group (RFC 2920 3.1) */
    }
    if (t->content_len > BODY_EAGER_BYTES_MAX && t->expected != 0)
        return false;
    PUT(c, "BDAT ");
    put_number(c, t->content_len);
    PUT(c, " LAST\r\n");
    client_expect(c, t, SMTP_STAGE_BODY);
    transaction_set_state(c, t, TRANSACTION_BODY);
    return true;
}

/* Where a line begins with a dot in p, at or behind what is sent of it; its length: nowhere. The
 * bytes in front of p decide about its first two. */
static size_t next_dot(const struct smtp_transaction *t, const struct smtp_piece *p)
{
    size_t from = t->piece_sent;

    if (from <= 1 && t->line == LINE_CR && p->len > 1 && p->bytes[0] == '\n' && p->bytes[1] == '.')
        return 1;
    if (from == 0 && t->line != LINE_START)
        from = 1; /* a line starts at 0 for smtp_find_dot_line() */
    return smtp_find_dot_line(p->bytes, p->len, from);
}

/* The line state behind p. */
static enum line_state line_behind(enum line_state before, const struct smtp_piece *p)
{
    uint8_t last;
    bool cr;

    if (p->len == 0)
        return before;
    last = p->bytes[p->len - 1];
    cr = p->len == 1 ? before == LINE_CR : p->bytes[p->len - 2] == '\r';
    if (last == '\r')
        return LINE_CR;
    return last == '\n' && cr ? LINE_START : LINE_WITHIN;
}

/* Sends of the present piece what there is room for; false: there is more of it. */
static bool send_piece(struct smtp_client *c, struct smtp_transaction *t, bool stuff)
{
    const struct smtp_piece *p = &t->pieces[t->piece];

    ASSERT(t->piece < SMTP_PIECES_MAX && t->piece_sent <= p->len);
    while (t->piece_sent < p->len) {
        size_t dot = p->len, end;

        if (c->iov_max - c->iov_len < 2 || c->content_left == 0)
            return false;
        if (stuff)
            dot = next_dot(t, p);
        end = dot == p->len ? dot : dot + 1;
        if (end - t->piece_sent > c->content_left) {
            end = t->piece_sent + c->content_left;
            dot = p->len; /* not in this output */
        }
        put_piece(c, p->bytes + t->piece_sent, end - t->piece_sent);
        c->content_left -= end - t->piece_sent;
        t->piece_sent = end;
        t->in_output = true;
        /* The extra dot goes behind the line's own dot instead of in front of it: the bytes are the
         * same. */
        if (dot != p->len)
            put_piece(c, ".", 1);
    }
    return true;
}

static bool send_body(struct smtp_client *c, struct smtp_transaction *t)
{
    bool chunk = client_is_chunking(c);

    while (t->piece < SMTP_PIECES_MAX) {
        if (!send_piece(c, t, t->dot_lines && !chunk))
            return false;
        t->line = (uint8_t)line_behind((enum line_state)t->line, &t->pieces[t->piece]);
        t->piece++;
        t->piece_sent = 0;
    }
    transaction_set_state(c, t, chunk ? TRANSACTION_SENT : TRANSACTION_DOT);
    return true;
}

static bool send_dot(struct smtp_client *c, struct smtp_transaction *t)
{
    if (!has_room(c))
        return false;
    /* Without its CRLF the dot would be content, and the peer would wait for ever. */
    if (t->line != LINE_START)
        PUT(c, "\r\n");
    PUT(c, ".\r\n");
    client_expect(c, t, SMTP_STAGE_BODY);
    transaction_set_state(c, t, TRANSACTION_SENT);
    return true;
}

static bool send_null_dot(struct smtp_client *c, struct smtp_transaction *t)
{
    if (!has_room(c))
        return false;
    PUT(c, ".\r\n");
    client_expect(c, t, SMTP_STAGE_BODY);
    transaction_set_state(c, t, TRANSACTION_ABANDONED);
    return true;
}

static void send_hello(struct smtp_client *c)
{
    bool helo = c->session == SESSION_HELO;

    put_str(c, helo ? STR("HELO ") : c->options->lmtp ? STR("LHLO ") : STR("EHLO "));
    put_str(c, str_of(c->options->ehlo_name));
    PUT(c, "\r\n");
    client_expect(c, NULL, helo ? SMTP_STAGE_HELO : SMTP_STAGE_EHLO);
    c->command_out = true;
}

/* Alone: what is sent behind it is the handshake. */
static void send_starttls(struct smtp_client *c)
{
    PUT(c, "STARTTLS\r\n");
    client_expect(c, NULL, SMTP_STAGE_STARTTLS);
    c->command_out = true;
}

static void send_transactions(struct smtp_client *c)
{
    while (c->sending != NULL) {
        struct smtp_transaction *t = c->sending;

        ASSERT(!is_out(t) && t->unable == SMTP_UNABLE_NONE);
        if (states[t->state].send == NULL || !states[t->state].send(c, t))
            return;
    }
    if (c->quit && list_empty(&c->transactions) && client_expected_first(c) == NULL) {
        PUT(c, "QUIT\r\n");
        client_expect(c, NULL, SMTP_STAGE_QUIT);
        client_set_session(c, SESSION_QUIT);
    }
}

size_t smtp_client_output(struct smtp_client *c, struct iovec *iov, size_t iov_max)
{
    if (c->lost)
        return 0;
    ASSERT(iov_max >= PIECES_MIN && !c->output_busy);
    ASSERT(c->iov == NULL && c->commands == NULL && !c->secret_out);
    c->iov = iov;
    c->iov_len = 0;
    c->iov_max = iov_max;
    c->content_left = CONTENT_BYTES_MAX;
    c->commands_len = 0;
    switch ((enum session_state)c->session) {
    case SESSION_EHLO:
    case SESSION_HELO:
        if (!c->command_out)
            send_hello(c);
        break;
    case SESSION_STARTTLS:
        if (!c->command_out)
            send_starttls(c);
        break;
    case SESSION_AUTH:
        if (!c->command_out && !c->auth_waits)
            client_auth_send(c);
        break;
    case SESSION_READY:
        send_transactions(c);
        break;
    case SESSION_BANNER:
    case SESSION_HANDSHAKE:
    case SESSION_QUIT:
    case SESSION_CLOSING:
    case SESSION_CLOSED:
        break;
    }
    c->output_cut = c->sending != NULL && states[c->sending->state].send != NULL &&
                    (!has_room(c) || c->iov_max - c->iov_len < 2 || c->content_left == 0);
    ASSERT(c->iov_len <= iov_max && (c->commands_len == 0) == (c->commands == NULL));
    c->iov = NULL;
    c->output_busy = c->iov_len != 0;
    return c->iov_len;
}

bool smtp_client_output_cut(const struct smtp_client *c)
{
    return c->output_cut;
}

void client_contents_sent(struct smtp_client *c)
{
    for (struct list_node *n = list_first(&c->transactions); n != NULL;
         n = list_next(&c->transactions, n))
        LIST_ENTRY(n, struct smtp_transaction, node)->in_output = false;
}

void client_forget_secret(struct smtp_client *c)
{
    if (c->secret_out && c->commands != NULL)
        explicit_bzero(c->commands, SMTP_CLIENT_OUTPUT_BYTES);
    c->secret_out = false;
}

struct str smtp_client_said(const struct smtp_client *c, const struct iovec *piece)
{
    const char *at = piece->iov_base;

    if (c->secret_out || c->commands == NULL || at < c->commands ||
        at >= c->commands + SMTP_CLIENT_OUTPUT_BYTES)
        return STR("");
    return (struct str){at, piece->iov_len};
}

void smtp_client_sent(struct smtp_client *c)
{
    c->output_busy = false;
    client_forget_secret(c);
    pool_put(c->options->outputs, c->commands);
    c->commands = NULL;
    client_contents_sent(c);
}
