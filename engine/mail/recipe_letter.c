/* A recipient's letter: templates rendered with what is known of the recipient, and put together.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mail/convert.h"
#include "mail/header.h"
#include "mail/iso2022jp.h"
#include "mail/mime.h"
#include "mail/recipe_private.h"
#include "mail/trace.h"
#include "smtp/address.h"

#define LINE_BYTES_MAX 998 /* RFC 5322 2.1.1 */

struct letter {
    const struct recipe *in;
    const json_t *recipient; /* or NULL */
    json_t *variables;
    struct str email, name, token;
    struct recipe_marks marks;
    struct template_budget *budget;
    char id[MSGID_TEXT_BYTES];
    struct buf *out;
    struct json_mistake *error;
};

static int render(struct letter *l, const struct template *t, const char *field, struct buf *out)
{
    struct template_error why;
    int err = template_render(t, l->variables, l->budget, out, &why);

    if (err < 0)
        recipe_mistake(l->error, field, &why);
    return err;
}

static void set_unsubscribe_url(struct letter *l)
{
    struct buf url = {0};

    if (l->marks.unsubscribe.len == 0)
        return;
    buf_put_str(&url, l->marks.unsubscribe);
    buf_put_str(&url, l->token);
    json_object_set_new(l->variables, "unsubscribe_url", json_stringn((char *)url.data, url.len));
    buf_done(&url);
}

/* The global substitutions, then what the recipient is, then the recipient's own: the last wins. */
static void gather_variables(struct letter *l)
{
    json_t *own = json_object_get(l->recipient, "substitutions");
    struct buf to = {0};

    l->variables = l->in->substitutions == NULL ? json_object() : json_copy(l->in->substitutions);
    ASSERT(l->variables != NULL);
    json_object_set_new(l->variables, "email", json_stringn(l->email.ptr, l->email.len));
    if (l->name.len > 0) {
        json_object_set_new(l->variables, "name", json_stringn(l->name.ptr, l->name.len));
        buf_putc(&to, '"');
        for (size_t i = 0; i < l->name.len; i++) {
            if (l->name.ptr[i] == '"' || l->name.ptr[i] == '\\')
                buf_putc(&to, '\\');
            buf_putc(&to, l->name.ptr[i]);
        }
        buf_puts(&to, "\" ");
    }
    buf_putc(&to, '<');
    buf_put_str(&to, l->email);
    buf_putc(&to, '>');
    json_object_set_new(l->variables, "to_header", json_stringn((char *)to.data, to.len));
    buf_done(&to);
    set_unsubscribe_url(l);
    if (json_is_object(own))
        json_object_update(l->variables, own);
}

/* The charset of text. -EINVAL: it has a character that the charset wanted does not have. */
static int charset_of(struct letter *l, struct str text, const char *field, enum mime_charset *out)
{
    uint32_t missing = 0;

    *out = MIME_UTF8;
    if (!l->in->iso2022jp || str_is_ascii(text))
        return 0;
    if (iso2022jp_can(text, &missing)) {
        *out = MIME_ISO_2022_JP;
        return 0;
    }
    if (!l->in->must_fit)
        return 0;
    json_mistake(l->error, 422, field, "has U+%04X, which ISO-2022-JP does not have", missing);
    return -EINVAL;
}

/* --- header --- */

static int too_long(struct letter *l, const char *field)
{
    json_mistake(l->error, 422, field, "is too long for a header field: no place to fold it");
    return -EINVAL;
}

static int put_mailbox(struct letter *l, const char *name, const char *field,
                       const struct letter_mailbox *box)
{
    struct buf email = {0}, display = {0};
    struct smtp_address address;
    enum mime_charset charset = MIME_UTF8;
    int err;

    if (box->email == NULL)
        return 0;
    err = render(l, box->email, field, &email);
    if (err == 0 && box->name != NULL)
        err = render(l, box->name, field, &display);
    if (err == 0 &&
        (smtp_address_parse(buf_str(&email), true, &address) < 0 || address.domain.len == 0)) {
        json_mistake(l->error, 422, field, "email is no mail address");
        err = -EINVAL;
    }
    if (err == 0)
        err = charset_of(l, buf_str(&display), field, &charset);
    if (err == 0 &&
        mime_put_mailbox(l->out, str_of(name), buf_str(&display), address.text, charset) < 0)
        err = too_long(l, field);
    buf_done(&email);
    buf_done(&display);
    return err;
}

/* Whether the recipe's fields, or those of a whole message, have this one. */
static bool has_field(const struct letter *l, const struct buf *lines, struct str name)
{
    struct header_field field;

    for (size_t i = 0; i < l->in->fields_len; i++)
        if (str_eq_nocase(l->in->fields[i].name, name))
            return true;
    for (size_t at = 0; lines != NULL && header_field_next(lines->data, lines->len, at, &field);
         at = field.end)
        if (str_eq_nocase(field.name, name))
            return true;
    return false;
}

/* Each address is shorter than a line may be, and has no place to fold: the configuration saw to
 * it.
 */
static void put_unsubscribe(struct letter *l)
{
    bool one_click = l->marks.unsubscribe.len > 0;

    ASSERT(one_click || l->marks.unsubscribe_mailto.len > 0); /* there is a token */
    buf_puts(l->out, "List-Unsubscribe: ");
    if (one_click)
        buf_printf(l->out, "<%.*s%.*s>", STR_FMT(l->marks.unsubscribe), STR_FMT(l->token));
    if (l->marks.unsubscribe_mailto.len > 0)
        buf_printf(l->out, "%s<mailto:%.*s?subject=%.*s>", one_click ? ",\r\n " : "",
                   STR_FMT(l->marks.unsubscribe_mailto), STR_FMT(l->token));
    buf_puts(l->out, "\r\n");
    if (one_click) /* RFC 8058 3.1 */
        buf_puts(l->out, "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n");
}

/* What the sender's own fields do not say already. */
static void put_marks(struct letter *l, const struct buf *lines)
{
    if (l->token.len > 0 && !has_field(l, lines, STR("List-Unsubscribe")) &&
        !has_field(l, lines, STR("List-Unsubscribe-Post")))
        put_unsubscribe(l);
    if (l->marks.feedback_id.len > 0 && !has_field(l, lines, STR("Feedback-ID"))) {
        int err = mime_put_field(l->out, STR("Feedback-ID"), l->marks.feedback_id, MIME_UTF8);

        ASSERT(err == 0);
    }
}

static int put_to(struct letter *l)
{
    enum mime_charset charset = MIME_UTF8;
    int err = charset_of(l, l->name, "name", &charset);

    if (err == 0 && mime_put_mailbox(l->out, STR("To"), l->name, l->email, charset) < 0)
        err = too_long(l, "name");
    return err;
}

static int put_field(struct letter *l, const struct letter_field *f, struct buf *value)
{
    enum mime_charset charset = MIME_UTF8;
    char field[100];
    int err;

    if (f->path != NULL)
        snprintf(field, sizeof(field), "%s", f->path);
    else
        snprintf(field, sizeof(field), "content.headers.%.*s", STR_FMT(f->name));
    buf_clear(value);
    err = render(l, f->value, field, value);
    if (err == 0)
        err = charset_of(l, buf_str(value), field, &charset);
    if (err == 0 && mime_put_field(l->out, f->name, buf_str(value), charset) < 0)
        err = too_long(l, field);
    return err;
}

static int put_header(struct letter *l)
{
    const struct recipe *in = l->in;
    struct buf value = {0};
    int err = put_mailbox(l, "From", "content.from", &in->from);

    if (err == 0)
        err = put_mailbox(l, "Reply-To", "content.reply_to", &in->reply_to);
    if (err == 0 && !in->has_to)
        err = put_to(l);
    for (size_t i = 0; err == 0 && i < in->fields_len; i++)
        err = put_field(l, &in->fields[i], &value);
    buf_done(&value);
    if (err == 0)
        put_marks(l, NULL);
    return err;
}

/* --- parts --- */

/* Makes one part of several: as it is, when there is one. part takes the result. */
static void combine(const struct letter *l, const char *subtype, struct buf *part,
                    const struct buf *more, size_t more_len)
{
    struct str parts[1 + ATTACHED_MAX];
    char seed[MSGID_TEXT_BYTES + 2];
    struct buf out = {0};
    size_t len = 0;

    if (more_len == 0)
        return;
    ASSERT(part->len > 0 && more_len < ARRAY_LEN(parts));
    parts[len++] = buf_str(part);
    for (size_t i = 0; i < more_len; i++)
        parts[len++] = buf_str(&more[i]);
    snprintf(seed, sizeof(seed), "%s%c", l->id, subtype[0]);
    mime_put_multipart(&out, subtype, parts, len, str_of(seed));
    buf_done(part);
    *part = out;
}

static int put_parts(struct letter *l)
{
    const struct recipe *in = l->in;
    struct buf texts[LETTER_TEXTS_MAX] = {0}, rendered = {0};
    int err = 0;

    ASSERT(in->texts_len > 0 && in->texts_len <= LETTER_TEXTS_MAX);
    for (size_t i = 0; err == 0 && i < in->texts_len; i++) {
        enum mime_charset charset = MIME_UTF8;

        buf_clear(&rendered);
        err = render(l, in->texts[i].text, in->texts[i].path, &rendered);
        if (err == 0)
            err = charset_of(l, buf_str(&rendered), in->texts[i].path, &charset);
        if (err == 0)
            mime_put_text(&texts[i], in->texts[i].subtype, buf_str(&rendered), charset);
    }
    buf_done(&rendered);
    if (err == 0) {
        combine(l, "alternative", &texts[0], texts + 1, in->texts_len - 1);
        combine(l, "related", &texts[0], in->inlined, in->inlined_len);
        combine(l, "mixed", &texts[0], in->attached, in->attached_len);
        buf_puts(l->out, "MIME-Version: 1.0\r\n");
        buf_put(l->out, texts[0].data, texts[0].len);
    }
    for (size_t i = 0; i < LETTER_TEXTS_MAX; i++)
        buf_done(&texts[i]);
    return err;
}

/* --- a whole message --- */

static int check_lines(struct letter *l, struct str text)
{
    size_t from = 0;

    for (size_t i = 0; i < text.len; i++) {
        from = text.ptr[i] == '\n' ? i + 1 : from;
        if (i < from + LINE_BYTES_MAX + 1) /* with the CR */
            continue;
        json_mistake(l->error, 422, "content",
                     "a line of more than %d bytes: encode it, or give text_body or html_body",
                     LINE_BYTES_MAX);
        return -EINVAL;
    }
    return 0;
}

static int put_message(struct letter *l)
{
    struct buf text = {0}, lines = {0};
    int err = render(l, l->in->message, "content", &text);
    size_t began = l->out->len;
    struct header_field field;

    mime_put_lines(&lines, buf_str(&text));
    buf_done(&text);
    if (err == 0) {
        size_t lead = trace_lead(lines.data, lines.len);

        ASSERT(lead <= lines.len);
        buf_consume(&lines, lead);
        if (!header_field_next(lines.data, lines.len, 0, &field)) {
            json_mistake(l->error, 422, "content", "does not begin with a header field");
            err = -EINVAL;
        }
    }
    if (err == 0)
        put_marks(l, &lines);
    if (err == 0 && convert_message(lines.data, lines.len, CONVERT_HEADERS, l->out) < 0) {
        json_mistake(l->error, 422, "content", "has more parts than are looked at");
        err = -EINVAL;
    }
    if (err == 0)
        err = check_lines(l, (struct str){(const char *)l->out->data + began, l->out->len - began});
    buf_done(&lines);
    return err;
}

int recipe_letter(const struct recipe *r, const struct recipe_order *order, struct buf *out,
                  struct json_mistake *mistake)
{
    struct letter l = {.in = r,
                       .recipient = order->one,
                       .email = order->email,
                       .token = order->token,
                       .marks = recipe_marks(r),
                       .budget = order->budget,
                       .out = out,
                       .error = mistake};
    json_t *name = json_object_get(order->one, "name");
    size_t began = out->len;
    int err;

    ASSERT((order->token.len > 0) == recipe_wants_token(r));
    l.name = json_is_string(name) ? json_str(name) : STR("");
    msgid_text(order->id, l.id);
    gather_variables(&l);
    if (r->message != NULL) {
        err = put_message(&l);
    } else {
        err = put_header(&l);
        if (err == 0)
            err = put_parts(&l);
    }
    json_decref(l.variables);
    ASSERT(err < 0 || (out->len > began + 2 && memcmp(out->data + out->len - 2, "\r\n", 2) == 0));
    return err;
}
