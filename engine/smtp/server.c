/* The flow of bytes through the server: lines, bodies, questions and answers. What a command means
 * is in server_command.c. bench/smtp_bench, 2.6 GHz Xeon: MAIL, RCPT, DATA and 4 KiB of body in 0.7
 * us, of which the body 0.3 us. */
#include "smtp/server.h"

#include <inttypes.h>
#include <stdio.h>

#include "smtp/reply.h"
#include "smtp/server_command.h"

void smtp_server_init(struct smtp_server *s, const struct smtp_server_options *options)
{
    *s = (struct smtp_server){.options = options};
}

void smtp_server_done(struct smtp_server *s)
{
    server_auth_end(s);
    buf_wipe(&s->line); /* a login that ended in its midst */
    buf_done(&s->helo_copy);
}

bool smtp_server_idle(const struct smtp_server *s)
{
    return s->state <= SERVER_READY && s->asked == SMTP_SERVER_INPUT && s->mode == MODE_COMMAND &&
           s->pending == SMTP_SERVER_INPUT && (s->line.len == 0 || s->line_used);
}

bool smtp_server_cut_off(const struct smtp_server *s)
{
    return s->cut_off;
}

/* What is refused is read to its end, so that its client hears why; but not for ever. */
#define DISCARD_BYTES_MIN (UINT64_C(64) << 20)

/* The session is as behind its greeting, but for what is counted. */
static void forget(struct smtp_server *s)
{
    server_auth_end(s);
    s->authenticated = false;
    s->mode = MODE_COMMAND;
    s->state = SERVER_NEW;
    s->esmtp = false;
    s->helo = STR("");
    buf_clear(&s->helo_copy);
    buf_clear(&s->line);
}

void smtp_server_encrypted(struct smtp_server *s)
{
    ASSERT(!s->tls && s->state <= SERVER_READY && s->asked == SMTP_SERVER_INPUT &&
           (s->mode == MODE_TLS || s->helo_copy.len == 0));
    forget(s);
    s->tls = true;
}

/* --- replies --- */

static void put_reply(const struct smtp_server *s, struct buf *out, struct str text)
{
    size_t at;

    ASSERT(text.len >= 4);
    if (s->options->no_enhanced) {
        struct smtp_enhanced enhanced;
        struct str rest = {text.ptr + 4, text.len - 4};
        size_t skip = smtp_enhanced_parse(rest, &enhanced);

        buf_put(out, text.ptr, 4);
        text = (struct str){rest.ptr + skip, rest.len - skip};
    }
    at = out->len;
    buf_put_str(out, text);
    /* The engine's text may quote somebody: it must stay one line. */
    for (; at < out->len; at++) {
        if (out->data[at] < ' ')
            out->data[at] = '?';
    }
    buf_put(out, "\r\n", 2);
}

void server_reply(struct smtp_server *s, struct buf *out, struct str text)
{
    put_reply(s, out, text);
    if (text.ptr[0] >= '4' && s->options->on_refused != NULL)
        s->options->on_refused(s, text);
}

void server_bye(struct smtp_server *s, struct buf *out, const char *text)
{
    s->closing = true;
    server_reply(s, out, str_of(text));
}

static void count_error(struct smtp_server *s, struct buf *out)
{
    bool is_list = s->options->trusted && s->verb == VERB_RCPT;
    bool is_mail = s->options->trusted && s->verb == VERB_MAIL;

    if (is_mail)
        server_count_command(s, out);
    else if (!is_list && ++s->errors > s->options->errors_max && !s->closing)
        server_bye(s, out, "421 4.7.0 too many errors");
}

bool server_count_command(struct smtp_server *s, struct buf *out)
{
    bool too_many = s->commands++ >= s->options->commands_max;

    if (too_many && !s->closing)
        server_bye(s, out, "421 4.7.0 too many commands without mail");
    return !too_many;
}

void server_refuse(struct smtp_server *s, struct buf *out, const char *text)
{
    server_reply(s, out, str_of(text));
    count_error(s, out);
}

void server_turned_away(struct smtp_server *s, struct buf *out)
{
    uint64_t max = (uint64_t)s->options->recipients_max + s->options->commands_max;

    if (++s->turned_away > max && !s->closing)
        server_bye(s, out, "421 4.7.0 too many commands without mail");
}

void smtp_server_greet(struct smtp_server *s, struct buf *out, const char *refuse)
{
    const char *banner = s->options->banner == NULL ? "ESMTP Hayauma" : s->options->banner;

    if (refuse != NULL) {
        server_bye(s, out, refuse);
        return;
    }
    buf_puts(out, "220 ");
    buf_puts(out, s->options->host_name);
    buf_putc(out, ' ');
    buf_puts(out, banner);
    buf_put(out, "\r\n", 2);
}

static const struct offer {
    const char *line;
    size_t off_at; /* in smtp_server_options: the bool that takes it back */
} offers[] = {
    {"250-PIPELINING\r\n", offsetof(struct smtp_server_options, no_pipelining)},
    {"250-8BITMIME\r\n", offsetof(struct smtp_server_options, no_8bitmime)},
    {"250-SMTPUTF8\r\n", offsetof(struct smtp_server_options, no_smtputf8)},
    {"250-CHUNKING\r\n", offsetof(struct smtp_server_options, no_chunking)},
    {"250-ENHANCEDSTATUSCODES\r\n", offsetof(struct smtp_server_options, no_enhanced)},
    {"250-DSN\r\n", offsetof(struct smtp_server_options, no_dsn)},
};

static void put_limit(struct buf *out, const char *name, uint32_t limit)
{
    if (limit == 0)
        return;
    buf_puts(out, name);
    buf_put_u64(out, limit);
}

static void reply_hello(struct smtp_server *s, struct buf *out)
{
    const struct smtp_server_options *o = s->options;
    size_t last = out->len;

    buf_puts(out, "250-");
    buf_puts(out, o->host_name);
    buf_put(out, "\r\n", 2);
    for (size_t i = 0; s->esmtp && i < ARRAY_LEN(offers); i++) {
        if (*((const bool *)((const char *)o + offers[i].off_at)))
            continue;
        last = out->len;
        buf_puts(out, offers[i].line);
    }
    if (s->esmtp && o->starttls && !s->tls) {
        last = out->len;
        buf_puts(out, "250-STARTTLS\r\n");
    }
    if (s->esmtp && server_auth_offered(s) != 0) {
        last = out->len;
        server_auth_put_offer(s, out);
    }
    if (s->esmtp && o->xclient) {
        last = out->len;
        buf_puts(out, SERVER_XCLIENT_OFFER);
    }
    if (s->esmtp && !o->no_size) {
        last = out->len;
        buf_puts(out, "250-SIZE ");
        buf_put_u64(out, o->message_bytes_max);
        buf_put(out, "\r\n", 2);
    }
    if (s->esmtp && !o->no_limits && (o->messages_max != 0 || o->recipients_max != 0)) {
        last = out->len;
        buf_puts(out, "250-LIMITS");
        put_limit(out, " MAILMAX=", o->messages_max);
        put_limit(out, " RCPTMAX=", o->recipients_max);
        buf_put(out, "\r\n", 2);
    }
    ASSERT(out->len > last + 3 && out->data[last + 3] == '-'); /* the last line's */
    out->data[last + 3] = ' ';
}

/* --- answers --- */

/* The engine's own words instead of the standard reply. */
static void answer_text(struct smtp_server *s, struct buf *out, struct str text)
{
    server_reply(s, out, text);
    if (str_starts_nocase(text, STR("421")))
        s->closing = true;
    if (text.ptr[0] == '5')
        count_error(s, out);
}

static void answer_data(struct smtp_server *s, struct buf *out, struct str text, bool accepted)
{
    ASSERT(s->mode == MODE_CHUNK || s->mode == MODE_DATA);
    if (s->mode == MODE_CHUNK) {
        if (accepted)
            s->state = SERVER_BDAT;
        else
            server_drop_chunk(s, s->chunk_left, text);
        return;
    }
    if (accepted) {
        s->body_bytes = 0;
        smtp_data_decoder_init(&s->decoder);
        smtp_body_scanner_init(&s->scanner);
        smtp_repair_init(&s->repair, true);
        server_reply(s, out, STR("354 end data with <CR><LF>.<CR><LF>"));
        return;
    }
    s->mode = MODE_COMMAND;
    answer_text(s, out, text);
}

static void count_message(struct smtp_server *s)
{
    s->messages++;
    s->errors = s->commands = s->turned_away = 0;
    s->discarded = 0;
}

/* LMTP: a reply for each recipient (RFC 2033 4.2), the last line again where there are too few. */
static void answer_message(struct smtp_server *s, struct buf *out, struct str text)
{
    uint32_t replies = s->options->lmtp ? s->rcpts : 1;
    bool accepted = false;

    ASSERT(s->state >= SERVER_MAIL && s->rcpts > 0);
    s->state = SERVER_READY;
    for (uint32_t i = 0; i < replies; i++) {
        ptrdiff_t end = str_find(text, '\n');
        struct str line = {text.ptr, end < 0 ? text.len : (size_t)end};

        accepted |= line.ptr[0] == '2';
        answer_text(s, out, line);
        if (end >= 0)
            text = (struct str){text.ptr + end + 1, text.len - (size_t)end - 1};
    }
    if (accepted)
        count_message(s);
}

void smtp_server_defer(struct smtp_server *s)
{
    ASSERT(s->asked == SMTP_SERVER_MESSAGE && !s->options->lmtp);
    s->asked = SMTP_SERVER_INPUT;
    s->state = SERVER_READY;
    count_message(s);
}

void smtp_server_put_reply(const struct smtp_server *s, struct buf *out, const char *reply)
{
    put_reply(s, out, str_of(reply));
}

void smtp_server_answer(struct smtp_server *s, struct buf *out, const char *reply)
{
    enum smtp_server_want question = s->asked;
    bool accepted = reply == NULL || reply[0] == '2';
    struct str text = str_of(reply);

    s->asked = SMTP_SERVER_INPUT;
    switch (question) {
    case SMTP_SERVER_HELO:
        if (reply == NULL)
            reply_hello(s, out);
        if (accepted)
            s->state = SERVER_READY;
        break;
    case SMTP_SERVER_TLS:
        if (reply == NULL) {
            server_reply(s, out, STR("220 2.0.0 ready to start TLS"));
            s->mode = MODE_TLS;
        }
        break;
    case SMTP_SERVER_AUTH:
        server_auth_end(s);
        s->authenticated = accepted;
        if (reply == NULL)
            server_reply(s, out, STR("235 2.7.0 authentication successful"));
        break;
    case SMTP_SERVER_XCLIENT:
        if (reply == NULL)
            forget(s);
        break;
    case SMTP_SERVER_MAIL:
        ASSERT(s->state == SERVER_READY && s->rcpts == 0);
        if (reply == NULL)
            server_reply(s, out, STR("250 2.1.0 OK"));
        if (accepted)
            s->state = SERVER_MAIL;
        break;
    case SMTP_SERVER_RCPT:
        ASSERT(s->state == SERVER_MAIL);
        if (reply == NULL)
            server_reply(s, out, STR("250 2.1.5 OK"));
        if (accepted)
            s->rcpts++;
        break;
    case SMTP_SERVER_DATA:
        answer_data(s, out, text, accepted);
        return;
    case SMTP_SERVER_MESSAGE:
        answer_message(s, out, reply == NULL ? STR("250 2.0.0 OK") : text);
        return;
    case SMTP_SERVER_INPUT:
    case SMTP_SERVER_BODY:
    case SMTP_SERVER_ABORT:
    case SMTP_SERVER_CLOSE:
        ASSERT(false); /* nothing was asked */
    }
    if (reply == NULL)
        return;
    answer_text(s, out, text);
    if (reply[0] == '4')
        server_turned_away(s, out);
}

void smtp_server_challenge(struct smtp_server *s, struct buf *out, struct str bytes)
{
    ASSERT(s->asked == SMTP_SERVER_AUTH && s->mode == MODE_AUTH);
    s->asked = SMTP_SERVER_INPUT;
    server_auth_challenge(s, out, bytes);
}

/* --- bodies --- */

/* Why a complete body is refused, or NULL. */
static const char *body_fault(struct smtp_server *s)
{
    const struct smtp_server_options *o = s->options;

    if (o->message_bytes_max != 0 && s->body_bytes > o->message_bytes_max)
        return "552 5.3.4 message is larger than this server takes";
    if (s->facts.bare_cr || s->facts.bare_lf)
        return "554 5.6.0 lines must end in CRLF: message has a bare CR or LF; closing";
    if (s->facts.nul)
        return "554 5.6.0 message has a NUL byte";
    if (o->body_line_bytes_max != 0 &&
        s->facts.line_bytes_max + (uint64_t)2 > o->body_line_bytes_max) {
        snprintf(s->fault, sizeof(s->fault),
                 "554 5.6.0 a line of the message has %" PRIu64 " bytes with CRLF, and %" PRIu32
                 " are the most",
                 s->facts.line_bytes_max + (uint64_t)2, o->body_line_bytes_max);
        return s->fault;
    }
    return NULL;
}

static enum smtp_server_want body_complete(struct smtp_server *s, struct buf *out)
{
    const char *fault = body_fault(s);

    ASSERT(s->mode == MODE_DATA || s->mode == MODE_CHUNK);
    ASSERT(s->state >= SERVER_MAIL && s->rcpts > 0);
    s->mode = MODE_COMMAND;
    if (fault == NULL)
        return SMTP_SERVER_MESSAGE;
    for (uint32_t i = 0; i < (s->options->lmtp ? s->rcpts : 1); i++)
        server_reply(s, out, str_of(fault));
    /* Mixed line ends are what smuggling looks like: the sender and we may not agree where the
     * message ended, so what follows is not taken for commands. */
    if (s->facts.bare_cr || s->facts.bare_lf)
        s->closing = true;
    count_error(s, out);
    s->state = SERVER_READY;
    return SMTP_SERVER_ABORT;
}

/* Counts bytes that are no mail; whether they have been too many. */
static bool discard(struct smtp_server *s, size_t n)
{
    uint64_t max = s->options->message_bytes_max;

    s->discarded += n;
    return max != 0 && s->discarded > (max > DISCARD_BYTES_MIN ? max : DISCARD_BYTES_MIN);
}

/* A slice of body, unless the body is over-long: then it is only counted, for a while. */
static enum smtp_server_want body_slice(struct smtp_server *s, struct str slice, struct buf *out)
{
    uint64_t max = s->options->message_bytes_max;

    s->body_bytes += slice.len;
    if (slice.len == 0)
        return SMTP_SERVER_INPUT;
    if (max == 0 || s->body_bytes <= max) {
        s->body = slice;
        return SMTP_SERVER_BODY;
    }
    if (!discard(s, slice.len))
        return SMTP_SERVER_INPUT;
    server_bye(s, out, "552 5.3.4 message is larger than this server takes; closing");
    s->cut_off = true;
    s->mode = MODE_COMMAND;
    s->state = SERVER_READY;
    return SMTP_SERVER_ABORT;
}

static void input_consume(struct smtp_server_input *in, size_t n)
{
    ASSERT(n <= in->len);
    in->data += n;
    in->len -= n;
}

/* All of the body is scanned: what it is. */
static enum smtp_server_want scan_complete(struct smtp_server *s, struct buf *out)
{
    smtp_body_scan_end(&s->scanner);
    s->facts = s->scanner.facts;
    return body_complete(s, out);
}

static enum smtp_server_want scan_slice(struct smtp_server *s, struct str slice, struct buf *out)
{
    smtp_body_scan(&s->scanner, (const uint8_t *)slice.ptr, slice.len);
    return body_slice(s, slice, out);
}

static enum smtp_server_want step_data(struct smtp_server *s, struct smtp_server_input *in,
                                       struct buf *out)
{
    bool repair = s->options->repair_newlines, end;
    struct str slice;
    size_t used;

    end = repair ? smtp_repair_next(&s->repair, in->data, in->len, &used, &slice)
                 : smtp_data_next(&s->decoder, in->data, in->len, &used, &slice);
    input_consume(in, used);
    /* A client that ends lines with LF alone ends its content so too, and waits: it hears at once.
     */
    s->cut_off = !end && !repair && s->decoder.facts.bare_lf;
    end |= s->cut_off;
    if (!end)
        return repair ? scan_slice(s, slice, out) : body_slice(s, slice, out);
    if (repair)
        return scan_complete(s, out);
    s->facts = s->decoder.facts;
    return body_complete(s, out);
}

static enum smtp_server_want step_chunk(struct smtp_server *s, struct smtp_server_input *in,
                                        struct buf *out)
{
    size_t n = s->chunk_left < in->len ? (size_t)s->chunk_left : in->len;
    struct str slice = {(const char *)in->data, n};

    if (n != 0) {
        if (s->options->repair_newlines)
            smtp_repair_next(&s->repair, in->data, n, &n, &slice);
        ASSERT(n <= s->chunk_left);
        input_consume(in, n);
        s->chunk_left -= n;
        return scan_slice(s, slice, out);
    }
    if (s->chunk_last) {
        slice = s->options->repair_newlines ? smtp_repair_end(&s->repair) : STR("");
        return slice.len != 0 ? scan_slice(s, slice, out) : scan_complete(s, out);
    }
    server_reply(s, out, STR("250 2.0.0 chunk received"));
    s->mode = MODE_COMMAND;
    return SMTP_SERVER_INPUT;
}

void server_drop_chunk(struct smtp_server *s, uint64_t bytes, struct str text)
{
    buf_clear(&s->line);
    buf_put_str(&s->line, text);
    s->line_used = false;
    s->chunk_left = bytes;
    s->mode = MODE_DROP;
}

static enum smtp_server_want step_drop(struct smtp_server *s, struct smtp_server_input *in,
                                       struct buf *out)
{
    size_t n = s->chunk_left < in->len ? (size_t)s->chunk_left : in->len;
    /* LMTP: the last chunk is answered for each recipient that was accepted (RFC 2033 4.3). */
    bool for_each = s->options->lmtp && s->chunk_last && s->state > SERVER_READY && s->rcpts > 0;

    ASSERT(s->line.len >= 4 && !s->line_used); /* the reply that waits */
    input_consume(in, n);
    s->chunk_left -= n;
    s->closing |= discard(s, n);
    if (s->chunk_left != 0 && !s->closing)
        return SMTP_SERVER_INPUT;
    s->chunk_left = 0;
    s->mode = MODE_COMMAND;
    s->line_used = true;
    for (uint32_t i = 1; for_each && i < s->rcpts; i++)
        server_reply(s, out, buf_str(&s->line));
    answer_text(s, out, buf_str(&s->line));
    if (s->state <= SERVER_READY)
        return SMTP_SERVER_INPUT;
    s->state = SERVER_READY;
    return SMTP_SERVER_ABORT;
}

/* --- lines --- */

#define BARE_LINE "500 5.5.2 lines must end in CRLF: bare CR or LF"

/* Up to the CRLF of a line that was refused, perhaps for a LF in an address. A client that ends its
 * lines with LF alone would wait for ever: its next one ends the session. */
static void skip_line(struct smtp_server *s, struct smtp_server_input *in, struct buf *out)
{
    const uint8_t *lf = memchr(in->data, '\n', in->len);
    size_t n = lf == NULL ? in->len : (size_t)(lf - in->data) + 1;
    bool crlf = lf != NULL && (n > 1 ? in->data[n - 2] == '\r' : s->skip_cr);

    if (crlf || (lf != NULL && s->options->repair_newlines))
        s->mode = MODE_COMMAND;
    else if (lf != NULL)
        server_bye(s, out, BARE_LINE "; closing");
    s->skip_cr = in->data[n - 1] == '\r';
    input_consume(in, n);
    if (discard(s, n) && !s->closing)
        server_bye(s, out, "421 4.7.0 too much input that is no mail");
}

/* Refuses a line whose end is not seen yet; last: its last byte so far. */
static void refuse_line(struct smtp_server *s, struct buf *out, const char *text, uint8_t last)
{
    server_auth_end(s);
    s->mode = MODE_SKIP;
    s->skip_cr = last == '\r';
    s->line_used = true;
    server_refuse(s, out, text);
}

/* How long the line may be that has begun. AUTH may bring a response of its mechanism's length
 * whatever the limit of commands is (RFC 4954 4). */
static size_t line_bytes_max(const struct smtp_server *s, const struct smtp_server_input *in)
{
    static const char verb[] = "AUTH ";
    size_t max = s->options->line_bytes_max, i = 0;

    if (s->mode == MODE_AUTH)
        return SERVER_AUTH_LINE_BYTES_MAX;
    if (max >= SERVER_AUTH_LINE_BYTES_MAX || s->options->auth == 0)
        return max;
    while (verb[i] != '\0' && i < s->line.len + in->len) {
        uint8_t c = i < s->line.len ? s->line.data[i] : in->data[i - s->line.len];

        if (ascii_lower((char)c) != ascii_lower(verb[i]))
            return max;
        i++;
    }
    return verb[i] == '\0' ? SERVER_AUTH_LINE_BYTES_MAX : max;
}

/* The next line without its CRLF. False: there is none yet, or it was refused. */
static bool take_line(struct smtp_server *s, struct smtp_server_input *in, struct buf *out,
                      struct str *line)
{
    bool auth = s->mode == MODE_AUTH, crlf;
    size_t max = line_bytes_max(s, in), room = max - s->line.len;
    size_t n = in->len < room ? in->len : room;
    const uint8_t *lf = memchr(in->data, '\n', n);

    ASSERT(s->line.len < max && !s->line_used); /* a line that fills its room was refused */
    if (lf != NULL)
        n = (size_t)(lf - in->data) + 1;
    *line = (struct str){(const char *)in->data, n};
    input_consume(in, n);
    if (lf == NULL && n == room) {
        refuse_line(s, out, auth ? "500 5.5.6 line too long" : "500 5.5.2 line too long",
                    (uint8_t)line->ptr[n - 1]);
        return false;
    }
    if (lf == NULL || s->line.len != 0) {
        buf_put_secret(&s->line, line->ptr, line->len);
        *line = buf_str(&s->line);
        s->line_used = lf != NULL;
    }
    if (lf == NULL)
        return false;
    crlf = line->len > 1 && line->ptr[line->len - 2] == '\r';
    if (!crlf && !s->options->repair_newlines) {
        refuse_line(s, out, BARE_LINE, '\n');
        return false;
    }
    line->len -= crlf ? 2 : 1;
    if (str_find(*line, '\r') >= 0) {
        server_auth_end(s);
        server_refuse(s, out, BARE_LINE);
        return false;
    }
    return true;
}

static bool is_text(uint8_t c)
{
    return (c >= ' ' && c < 0x7f) || c == '\t' || c == '\r' || c == '\n';
}

static void line_begin(struct smtp_server *s)
{
    if (s->line_used)
        buf_clear(&s->line);
    s->line_used = false;
}

static enum smtp_server_want step_auth(struct smtp_server *s, struct smtp_server_input *in,
                                       struct buf *out)
{
    struct str line;

    line_begin(s);
    return take_line(s, in, out, &line) ? server_auth_line(s, line, out) : SMTP_SERVER_INPUT;
}

static enum smtp_server_want step_command(struct smtp_server *s, struct smtp_server_input *in,
                                          struct buf *out)
{
    struct str line;

    line_begin(s);
    s->verb = VERB_OTHER;
    s->command = NULL;
    s->address = (struct str){0};
    /* A TLS hello or binary junk may never send a line end. */
    if (s->line.len == 0 && !is_text(in->data[0])) {
        server_bye(s, out, "421 4.7.0 this is not SMTP");
        return SMTP_SERVER_INPUT;
    }
    if (!take_line(s, in, out, &line))
        return SMTP_SERVER_INPUT;
    return server_command(s, line, out);
}

static bool is_question(enum smtp_server_want want)
{
    return want == SMTP_SERVER_HELO || want == SMTP_SERVER_TLS || want == SMTP_SERVER_AUTH ||
           want == SMTP_SERVER_XCLIENT || want == SMTP_SERVER_MAIL || want == SMTP_SERVER_RCPT ||
           want == SMTP_SERVER_DATA || want == SMTP_SERVER_MESSAGE;
}

enum smtp_server_want smtp_server_step(struct smtp_server *s, struct smtp_server_input *in,
                                       struct buf *out)
{
    enum smtp_server_want want = s->pending;

    ASSERT(s->asked == SMTP_SERVER_INPUT);
    s->pending = SMTP_SERVER_INPUT;
    while (want == SMTP_SERVER_INPUT) {
        /* A chunk of no bytes, or one just consumed, is complete without input. */
        bool ready =
            in->len != 0 || (s->chunk_left == 0 && (s->mode == MODE_CHUNK || s->mode == MODE_DROP));

        if (s->closing)
            return SMTP_SERVER_CLOSE;
        if (!ready)
            return SMTP_SERVER_INPUT;
        switch ((enum server_mode)s->mode) {
        case MODE_COMMAND:
            want = step_command(s, in, out);
            break;
        case MODE_SKIP:
            skip_line(s, in, out);
            break;
        case MODE_AUTH:
            want = step_auth(s, in, out);
            break;
        case MODE_DATA:
            want = step_data(s, in, out);
            break;
        case MODE_CHUNK:
            want = step_chunk(s, in, out);
            break;
        case MODE_DROP:
            want = step_drop(s, in, out);
            break;
        case MODE_TLS:
            ASSERT(false); /* the handshake is the caller's */
        }
    }
    if (is_question(want))
        s->asked = (uint8_t)want;
    return want;
}
