#include "smtp/server_command.h"

#include <errno.h>

#define SIZE_DIGITS_MAX 20  /* RFC 1870 3 */
#define ENVID_BYTES_MAX 100 /* RFC 3461 4.4 */
#define ORCPT_BYTES_MAX 500 /* RFC 3461 4.2 */
#define AUTH_BYTES_MAX  500 /* RFC 4954 5 */
#define BDAT_BYTES_MAX  INT64_MAX
#define CHUNK_BYTES_MIN 64 /* smaller ones, but for the last, carry no mail worth their reply */

typedef enum smtp_server_want verb_fn(struct smtp_server *s, struct str args, struct buf *out);

static struct str str_from(struct str s, size_t at)
{
    return (struct str){s.ptr + at, s.len - at};
}

static struct str skip_spaces(struct str s)
{
    while (s.len != 0 && s.ptr[0] == ' ')
        s = str_from(s, 1);
    return s;
}

/* --- parameters of MAIL and RCPT --- */

/* Each returns NULL or the refusal. */
typedef const char *param_fn(struct smtp_server *s, struct str value);

/* Stands for the text of the row in params. */
static const char *const bad_value = "501 5.5.4 bad parameter value";

static const char *param_size(struct smtp_server *s, struct str value)
{
    uint64_t max = s->options->message_bytes_max;

    if (value.len > SIZE_DIGITS_MAX)
        return bad_value;
    switch (str_to_u64(value, UINT64_MAX, &s->mail.size)) {
    case 0:
        break;
    case -ERANGE:
        s->mail.size = UINT64_MAX;
        break;
    default:
        return bad_value;
    }
    if (max != 0 && s->mail.size > max)
        return "552 5.3.4 message is larger than this server takes";
    return NULL;
}

static const char *param_body(struct smtp_server *s, struct str value)
{
    if (str_eq_nocase(value, STR("8BITMIME"))) {
        s->mail.body_8bit = true;
        return NULL;
    }
    if (str_eq_nocase(value, STR("BINARYMIME")))
        return "504 5.5.4 BINARYMIME is not offered";
    return str_eq_nocase(value, STR("7BIT")) ? NULL : bad_value;
}

static const char *param_smtputf8(struct smtp_server *s, struct str value)
{
    (void)value;
    s->mail.smtputf8 = true;
    return NULL;
}

static const char *param_ret(struct smtp_server *s, struct str value)
{
    if (str_eq_nocase(value, STR("FULL")))
        s->mail.ret = SMTP_RET_FULL;
    else if (str_eq_nocase(value, STR("HDRS")))
        s->mail.ret = SMTP_RET_HDRS;
    else
        return bad_value;
    return NULL;
}

static const char *param_envid(struct smtp_server *s, struct str value)
{
    char decoded[ENVID_BYTES_MAX];

    if (value.len > ENVID_BYTES_MAX || smtp_xtext_decode(value, decoded, sizeof(decoded)) < 0)
        return bad_value;
    s->mail.envid = value;
    return NULL;
}

/* Whose mail the client says that it is (RFC 4954 5): nothing is made of it. */
static const char *param_auth(struct smtp_server *s, struct str value)
{
    char decoded[AUTH_BYTES_MAX];

    (void)s;
    return value.len > AUTH_BYTES_MAX || (!str_eq(value, STR("<>")) &&
                                          smtp_xtext_decode(value, decoded, sizeof(decoded)) < 0)
               ? bad_value
               : NULL;
}

static const char *param_notify(struct smtp_server *s, struct str value)
{
    static const struct {
        struct str word;
        uint8_t bit;
    } words[] = {
        {{"NEVER", 5}, SMTP_NOTIFY_NEVER},
        {{"SUCCESS", 7}, SMTP_NOTIFY_SUCCESS},
        {{"FAILURE", 7}, SMTP_NOTIFY_FAILURE},
        {{"DELAY", 5}, SMTP_NOTIFY_DELAY},
    };
    uint8_t notify = 0;

    for (;;) {
        ptrdiff_t comma = str_find(value, ',');
        struct str word = {value.ptr, comma < 0 ? value.len : (size_t)comma};
        uint8_t bit = 0;

        for (size_t i = 0; i < ARRAY_LEN(words); i++)
            bit |= str_eq_nocase(word, words[i].word) ? words[i].bit : 0;
        if (bit == 0)
            return bad_value;
        notify |= bit;
        if (comma < 0)
            break;
        value = str_from(value, (size_t)comma + 1);
    }
    /* NEVER stands alone (RFC 3461 4.1). */
    if ((notify & SMTP_NOTIFY_NEVER) != 0 && notify != SMTP_NOTIFY_NEVER)
        return bad_value;
    s->rcpt.notify = notify;
    return NULL;
}

static const char *param_orcpt(struct smtp_server *s, struct str value)
{
    char decoded[ORCPT_BYTES_MAX];
    ptrdiff_t semicolon = str_find(value, ';');
    struct str address;

    if (semicolon <= 0 || value.len > ORCPT_BYTES_MAX)
        return bad_value;
    address = str_from(value, (size_t)semicolon + 1);
    for (ptrdiff_t i = 0; i < semicolon; i++) {
        char c = ascii_lower(value.ptr[i]);

        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-')
            return bad_value;
    }
    if (address.len == 0)
        return bad_value;
    /* With SMTPUTF8 a "utf-8" address may be bare UTF-8 (RFC 6533 3); the tokenizer has let only
     * valid UTF-8 without controls through. */
    if (smtp_xtext_decode(address, decoded, sizeof(decoded)) < 0 &&
        !(s->mail.smtputf8 && str_starts_nocase(value, STR("utf-8;")) &&
          str_find(address, '+') < 0))
        return bad_value;
    s->rcpt.orcpt = value;
    return NULL;
}

enum param_owner { PARAM_MAIL = 1, PARAM_RCPT = 2 };

static const struct param {
    struct str name;
    enum param_owner owner;
    bool has_value;
    size_t off_at; /* in smtp_server_options: the bool that takes the offer back */
    param_fn *set;
    const char *bad; /* the reply to a value that cannot be */
} params[] = {
#define OFF(member) offsetof(struct smtp_server_options, member)
#define BAD(name)   "501 5.5.4 bad value of parameter " name
    {{"SIZE", 4}, PARAM_MAIL, true, OFF(no_size), param_size, BAD("SIZE")},
    {{"BODY", 4}, PARAM_MAIL, true, OFF(no_8bitmime), param_body, BAD("BODY")},
    {{"SMTPUTF8", 8}, PARAM_MAIL, false, OFF(no_smtputf8), param_smtputf8, BAD("SMTPUTF8")},
    {{"RET", 3}, PARAM_MAIL, true, OFF(no_dsn), param_ret, BAD("RET")},
    {{"ENVID", 5}, PARAM_MAIL, true, OFF(no_dsn), param_envid, BAD("ENVID")},
    {{"AUTH", 4}, PARAM_MAIL, true, 0, param_auth, BAD("AUTH")},
    {{"NOTIFY", 6}, PARAM_RCPT, true, OFF(no_dsn), param_notify, BAD("NOTIFY")},
    {{"ORCPT", 5}, PARAM_RCPT, true, OFF(no_dsn), param_orcpt, BAD("ORCPT")},
#undef BAD
#undef OFF
};
_Static_assert(ARRAY_LEN(params) <= 32, "a bit for each");

static bool is_offered(const struct smtp_server *s, const struct param *p)
{
    if (p->set == param_auth) /* some relays say it wherever they send, and nothing is made of it */
        return s->esmtp;
    return s->esmtp && !*((const bool *)((const char *)s->options + p->off_at));
}

/* esmtp-value (RFC 5321 4.1.2, RFC 6531 3.3): printable, no '=', UTF-8 when that is offered. */
static bool is_value(const struct smtp_server *s, struct str value)
{
    bool high = false;

    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = (uint8_t)value.ptr[i];

        if (c <= ' ' || c == '=' || c == 0x7f)
            return false;
        high |= c > 0x7f;
    }
    return value.len != 0 && (!high || (!s->options->no_smtputf8 && smtp_utf8_valid(value)));
}

static const char *parse_param(struct smtp_server *s, enum param_owner owner, struct str token,
                               uint32_t *seen)
{
    ptrdiff_t equals = str_find(token, '=');
    struct str name = {token.ptr, equals < 0 ? token.len : (size_t)equals};
    struct str value = equals < 0 ? STR("") : str_from(token, (size_t)equals + 1);
    const char *refusal;

    for (size_t i = 0; i < ARRAY_LEN(params); i++) {
        const struct param *p = &params[i];

        if (p->owner != owner || !str_eq_nocase(name, p->name) || !is_offered(s, p))
            continue;
        if ((*seen & 1u << i) != 0)
            return "501 5.5.4 parameter given twice";
        *seen |= 1u << i;
        refusal = bad_value;
        if (p->has_value ? is_value(s, value) : equals < 0)
            refusal = p->set(s, value);
        return refusal == bad_value ? p->bad : refusal;
    }
    return "555 5.5.4 parameter not recognised";
}

/* rest: what follows the path. NULL or the refusal. */
static const char *parse_params(struct smtp_server *s, enum param_owner owner, struct str rest)
{
    uint32_t seen = 0;

    while (rest.len != 0) {
        struct str token = skip_spaces(rest);
        const char *refusal;
        ptrdiff_t space;

        if (token.len == rest.len)
            return "501 5.5.4 parameters are separated by spaces";
        space = str_find(token, ' ');
        rest = space < 0 ? str_from(token, token.len) : str_from(token, (size_t)space);
        if (space >= 0)
            token.len = (size_t)space;
        refusal = parse_param(s, owner, token, &seen);
        if (refusal != NULL)
            return refusal;
    }
    return NULL;
}

/* --- commands that carry mail --- */

static enum smtp_server_want refuse(struct smtp_server *s, struct buf *out, const char *text)
{
    server_refuse(s, out, text);
    return SMTP_SERVER_INPUT;
}

static const char needs_smtputf8[] = "553 5.6.7 a non-ASCII address needs SMTPUTF8";

/* Paths are read as UTF-8 without SMTPUTF8 too, to say what they need (RFC 6531 3.5). */
static bool knows_utf8(const struct smtp_server *s)
{
    return s->esmtp && !s->options->no_smtputf8;
}

/* "< a@b >": lists that were cut at commas have blanks around addresses. */
static bool parse_blank_path(struct str path, bool utf8_ok, struct smtp_address *out, size_t *used)
{
    ptrdiff_t close = str_find(path, '>');

    if (close < 1)
        return false;
    *used = (size_t)close + 1;
    return smtp_address_parse(str_trim((struct str){path.ptr + 1, (size_t)close - 1}), utf8_ok,
                              out) == 0;
}

static bool parse_path(const struct smtp_server *s, struct str path, bool null_ok,
                       struct smtp_address *out, size_t *used)
{
    bool utf8_ok = knows_utf8(s);

    if (s->options->trusted && path.len != 0 && path.ptr[0] != '<')
        return smtp_bare_path_parse(path, utf8_ok, out, used) == 0;
    return smtp_path_parse(path, null_ok, utf8_ok, out, used) == 0 ||
           (s->options->trusted && parse_blank_path(path, utf8_ok, out, used));
}

static enum smtp_server_want verb_mail(struct smtp_server *s, struct str args, struct buf *out)
{
    const char *refusal;
    struct str path;
    size_t used;

    if (s->state == SERVER_NEW)
        return refuse(s, out, "503 5.5.1 send EHLO first");
    if (s->state != SERVER_READY)
        return refuse(s, out, "503 5.5.1 a transaction is open");
    if (s->options->auth_required && !s->authenticated)
        return refuse(s, out,
                      server_auth_offered(s) != 0 ? "530 5.7.0 send AUTH first"
                                                  : "530 5.7.0 send STARTTLS and AUTH first");
    if (s->options->messages_max != 0 && s->messages >= s->options->messages_max) {
        server_bye(s, out, "421 4.7.0 too many messages in one session");
        return SMTP_SERVER_INPUT;
    }
    if (!str_starts_nocase(args, STR("FROM:")))
        return refuse(s, out, "501 5.5.4 syntax: MAIL FROM:<address>");
    s->mail = (struct smtp_mail){0};
    path = skip_spaces(str_from(args, 5)); /* not RFC 5321, but seen */
    s->address = path;
    if (!parse_path(s, path, true, &s->mail.sender, &used))
        return refuse(s, out, "501 5.1.7 bad sender address syntax");
    ASSERT(used <= path.len);
    s->address = s->mail.sender.text;
    refusal = parse_params(s, PARAM_MAIL, str_from(path, used));
    if (refusal != NULL)
        return refuse(s, out, refusal);
    if (s->mail.sender.utf8 && !s->mail.smtputf8)
        return refuse(s, out, needs_smtputf8);
    s->rcpts = 0;
    s->body_bytes = 0;
    return SMTP_SERVER_MAIL;
}

static enum smtp_server_want verb_rcpt(struct smtp_server *s, struct str args, struct buf *out)
{
    const char *refusal;
    struct str path;
    size_t used;

    if (s->state != SERVER_MAIL)
        return refuse(s, out, "503 5.5.1 send MAIL first");
    if (!str_starts_nocase(args, STR("TO:")))
        return refuse(s, out, "501 5.5.4 syntax: RCPT TO:<address>");
    s->rcpt = (struct smtp_rcpt){0};
    path = skip_spaces(str_from(args, 3));
    s->address = path;
    if (!parse_path(s, path, false, &s->rcpt.recipient, &used))
        return refuse(s, out, "501 5.1.3 bad recipient address syntax");
    ASSERT(used <= path.len && s->rcpt.recipient.text.len > 0);
    s->address = s->rcpt.recipient.text;
    refusal = parse_params(s, PARAM_RCPT, str_from(path, used));
    if (refusal != NULL)
        return refuse(s, out, refusal);
    if (s->rcpt.recipient.utf8 && !s->mail.smtputf8)
        return refuse(s, out, needs_smtputf8);
    if (s->options->recipients_max != 0 && s->rcpts >= s->options->recipients_max) {
        server_reply(s, out, STR("452 4.5.3 too many recipients"));
        server_turned_away(s, out);
        return SMTP_SERVER_INPUT;
    }
    return SMTP_SERVER_RCPT;
}

/* NULL: a body may begin. */
static const char *body_out_of_sequence(const struct smtp_server *s)
{
    if (s->state != SERVER_MAIL)
        return "503 5.5.1 send MAIL and RCPT first";
    return s->rcpts == 0 ? "554 5.5.1 no valid recipients" : NULL;
}

static enum smtp_server_want verb_data(struct smtp_server *s, struct str args, struct buf *out)
{
    const char *refusal = body_out_of_sequence(s);

    if (args.len != 0)
        return refuse(s, out, "501 5.5.4 DATA takes no parameter");
    if (refusal != NULL)
        return refuse(s, out, refusal);
    ASSERT(s->rcpts > 0 && s->chunk_left == 0);
    s->mode = MODE_DATA;
    return SMTP_SERVER_DATA;
}

/* The bytes of a chunk follow whatever is wrong with it (RFC 3030 2), so a size that cannot be read
 * is the end of the session. */
static enum smtp_server_want verb_bdat(struct smtp_server *s, struct str args, struct buf *out)
{
    ptrdiff_t space = str_find(args, ' ');
    struct str digits = {args.ptr, space < 0 ? args.len : (size_t)space};
    struct str last = skip_spaces(str_from(args, digits.len));
    uint64_t bytes, max = s->options->message_bytes_max;
    const char *refusal = s->state == SERVER_BDAT ? NULL : body_out_of_sequence(s);

    if (str_to_u64(digits, BDAT_BYTES_MAX, &bytes) != 0) {
        server_bye(s, out, "501 5.5.4 syntax: BDAT size [LAST]; out of step, closing");
        return SMTP_SERVER_INPUT;
    }
    if (s->state != SERVER_BDAT)
        s->body_bytes = 0;
    s->chunk_last = str_eq_nocase(last, STR("LAST"));
    if (s->options->no_chunking)
        refusal = "502 5.5.1 BDAT is not offered";
    else if (last.len != 0 && !s->chunk_last)
        refusal = "501 5.5.4 syntax: BDAT size [LAST]";
    else if (refusal == NULL && max != 0 && (s->body_bytes > max || bytes > max - s->body_bytes))
        refusal = "552 5.3.4 message is larger than this server takes";
    if (refusal != NULL) {
        server_drop_chunk(s, bytes, str_of(refusal));
        return SMTP_SERVER_INPUT;
    }
    if (bytes < CHUNK_BYTES_MIN && !s->chunk_last && !server_count_command(s, out))
        return SMTP_SERVER_INPUT;
    s->chunk_left = bytes;
    s->mode = MODE_CHUNK;
    if (s->state == SERVER_BDAT)
        return SMTP_SERVER_INPUT;
    smtp_body_scanner_init(&s->scanner);
    smtp_repair_init(&s->repair, false);
    return SMTP_SERVER_DATA;
}

/* --- the others --- */

/* Ends an open transaction; then asks want, if that is a question. */
static enum smtp_server_want end_transaction(struct smtp_server *s, enum smtp_server_want want)
{
    ASSERT(s->pending == SMTP_SERVER_INPUT); /* one question at a time */
    if (s->state <= SERVER_READY)
        return want;
    s->state = SERVER_READY;
    s->pending = (uint8_t)want;
    return SMTP_SERVER_ABORT;
}

static enum smtp_server_want hello(struct smtp_server *s, struct str args, struct buf *out,
                                   bool esmtp)
{
    if (!s->options->trusted && !smtp_domain_valid(args, esmtp && !s->options->no_smtputf8))
        return refuse(s, out, "501 5.5.4 a domain or address literal is needed");
    buf_clear(&s->helo_copy);
    buf_put_str(&s->helo_copy, args);
    s->helo = buf_str(&s->helo_copy);
    s->esmtp = esmtp;
    return end_transaction(s, SMTP_SERVER_HELO);
}

static enum smtp_server_want verb_ehlo(struct smtp_server *s, struct str args, struct buf *out)
{
    return s->options->lmtp ? refuse(s, out, "500 5.5.1 this is LMTP: send LHLO")
                            : hello(s, args, out, true);
}

static enum smtp_server_want verb_helo(struct smtp_server *s, struct str args, struct buf *out)
{
    return s->options->lmtp ? refuse(s, out, "500 5.5.1 this is LMTP: send LHLO")
                            : hello(s, args, out, false);
}

static enum smtp_server_want verb_lhlo(struct smtp_server *s, struct str args, struct buf *out)
{
    return s->options->lmtp ? hello(s, args, out, true)
                            : refuse(s, out, "500 5.5.1 this is SMTP: send EHLO");
}

static enum smtp_server_want verb_missing(struct smtp_server *s, struct str args, struct buf *out)
{
    (void)args;
    return refuse(s, out, "502 5.5.1 command not implemented");
}

static enum smtp_server_want verb_starttls(struct smtp_server *s, struct str args, struct buf *out)
{
    if (!s->options->starttls && !s->tls)
        return verb_missing(s, args, out);
    if (args.len != 0)
        return refuse(s, out, "501 5.5.4 STARTTLS takes no parameter");
    if (s->tls)
        return refuse(s, out, "503 5.5.1 the session is encrypted already");
    if (s->state == SERVER_NEW || !s->esmtp)
        return refuse(s, out, "503 5.5.1 send EHLO first");
    if (s->state != SERVER_READY)
        return refuse(s, out, "503 5.5.1 a transaction is open");
    return SMTP_SERVER_TLS;
}

static enum smtp_server_want verb_rset(struct smtp_server *s, struct str args, struct buf *out)
{
    if (args.len != 0)
        return refuse(s, out, "501 5.5.4 RSET takes no parameter");
    server_reply(s, out, STR("250 2.0.0 OK"));
    return end_transaction(s, SMTP_SERVER_INPUT);
}

static enum smtp_server_want verb_noop(struct smtp_server *s, struct str args, struct buf *out)
{
    (void)args;
    server_reply(s, out, STR("250 2.0.0 OK"));
    return SMTP_SERVER_INPUT;
}

static enum smtp_server_want verb_vrfy(struct smtp_server *s, struct str args, struct buf *out)
{
    if (args.len == 0)
        return refuse(s, out, "501 5.5.4 VRFY needs a name");
    server_reply(s, out, STR("252 2.5.2 not verified; send mail and see"));
    return SMTP_SERVER_INPUT;
}

static enum smtp_server_want verb_help(struct smtp_server *s, struct str args, struct buf *out)
{
    (void)args;
    server_reply(s, out, STR("214 2.0.0 commands as in RFC 5321"));
    return SMTP_SERVER_INPUT;
}

static enum smtp_server_want verb_quit(struct smtp_server *s, struct str args, struct buf *out)
{
    if (args.len != 0)
        return refuse(s, out, "501 5.5.4 QUIT takes no parameter");
    server_bye(s, out, "221 2.0.0 bye");
    return SMTP_SERVER_INPUT;
}

static enum smtp_server_want verb_auth(struct smtp_server *s, struct str args, struct buf *out)
{
    return s->options->auth == 0 ? verb_missing(s, args, out) : server_auth(s, args, out);
}

static enum smtp_server_want verb_xclient(struct smtp_server *s, struct str args, struct buf *out)
{
    return s->options->xclient ? server_xclient(s, args, out) : verb_missing(s, args, out);
}

/* A browser was made to talk to us; its next lines may be commands. */
static enum smtp_server_want verb_http(struct smtp_server *s, struct str args, struct buf *out)
{
    (void)args;
    server_bye(s, out, "421 4.7.0 this is not HTTP");
    return SMTP_SERVER_INPUT;
}

static const struct verb {
    struct str name;
    enum verb_class class;
    verb_fn *run;
    bool
        plain; /* taken before TLS where that is required (RFC 3207 4); a chunk needs MAIL anyway */
} verbs[] = {
    {{"RCPT", 4}, VERB_RCPT, verb_rcpt, false},
    {{"MAIL", 4}, VERB_MAIL, verb_mail, false},
    {{"DATA", 4}, VERB_MAIL, verb_data, false},
    {{"BDAT", 4}, VERB_MAIL, verb_bdat, true},
    {{"RSET", 4}, VERB_OTHER, verb_rset, false},
    {{"EHLO", 4}, VERB_OTHER, verb_ehlo, true},
    {{"HELO", 4}, VERB_OTHER, verb_helo, true},
    {{"LHLO", 4}, VERB_OTHER, verb_lhlo, true},
    {{"QUIT", 4}, VERB_OTHER, verb_quit, true},
    {{"NOOP", 4}, VERB_OTHER, verb_noop, true},
    {{"VRFY", 4}, VERB_OTHER, verb_vrfy, false},
    {{"HELP", 4}, VERB_OTHER, verb_help, false},
    {{"EXPN", 4}, VERB_OTHER, verb_missing, false},
    {{"TURN", 4}, VERB_OTHER, verb_missing, false},
    {{"ETRN", 4}, VERB_OTHER, verb_missing, false},
    {{"AUTH", 4}, VERB_OTHER, verb_auth, false},
    {{"STARTTLS", 8}, VERB_OTHER, verb_starttls, true},
    {{"XCLIENT", 7}, VERB_OTHER, verb_xclient, true},
    {{"SEND", 4}, VERB_OTHER, verb_missing, false},
    {{"SOML", 4}, VERB_OTHER, verb_missing, false},
    {{"SAML", 4}, VERB_OTHER, verb_missing, false},
    {{"GET", 3}, VERB_OTHER, verb_http, true},
    {{"POST", 4}, VERB_OTHER, verb_http, true},
    {{"HEAD", 4}, VERB_OTHER, verb_http, true},
    {{"PUT", 3}, VERB_OTHER, verb_http, true},
    {{"OPTIONS", 7}, VERB_OTHER, verb_http, true},
    {{"CONNECT", 7}, VERB_OTHER, verb_http, true},
};

/* Whether line is a field of a header. */
static bool is_field(struct str line)
{
    size_t n = 0;

    while (n < line.len && line.ptr[n] > ' ' && line.ptr[n] < 0x7f && line.ptr[n] != ':')
        n++;
    return n > 0 && n < line.len && line.ptr[n] == ':';
}

enum smtp_server_want server_command(struct smtp_server *s, struct str line, struct buf *out)
{
    ptrdiff_t space;
    struct str name = line;

    ASSERT(s->mode == MODE_COMMAND && s->pending == SMTP_SERVER_INPUT && !s->closing);
    while (line.len != 0 && (line.ptr[line.len - 1] == ' ' || line.ptr[line.len - 1] == '\t'))
        line.len--;
    space = str_find(line, ' ');
    name.len = space < 0 ? line.len : (size_t)space;
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        const struct verb *v = &verbs[i];

        if (!str_eq_nocase(name, v->name))
            continue;
        s->verb = (uint8_t)v->class;
        s->command = v->name.ptr;
        if (v->class == VERB_OTHER && !server_count_command(s, out))
            return SMTP_SERVER_INPUT;
        if (s->options->tls_required && !s->tls && !v->plain)
            return refuse(s, out, "530 5.7.0 must issue a STARTTLS command first");
        return v->run(s, skip_spaces(str_from(line, name.len)), out);
    }
    /* A client that sends its message whatever DATA was answered. Who wrote that may have meant its
     * lines for commands. */
    if (is_field(line)) {
        server_bye(s, out, "421 4.7.0 this is a message and no command");
        return SMTP_SERVER_INPUT;
    }
    return refuse(s, out, "500 5.5.1 command not recognised");
}
