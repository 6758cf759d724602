#include "tools/send/send_message.h"
#include "tools/commands/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gmime/gmime.h>

#include "base/clock.h"
#include "base/rng.h"
#include "mail/mime.h"
#include "mail/trace.h"
#include "mail/words.h"
#include "smtp/address.h"
#include "smtp/scan.h"
#include "tools/send/send_list.h"
#include "tools/send/send_type.h"

/* GMime's list of what text names, or NULL. GMime wants quotes around a local part with dots at its
 * ends or in a row, and people write none. */
static InternetAddressList *parse_mailboxes(const char *text)
{
    struct str given = str_trim(str_of(text)), name = STR(""), address = given;
    ptrdiff_t open = str_rfind(given, '<');
    struct smtp_address parsed;
    InternetAddressList *list;
    struct buf quoted = {0};
    char room[SMTP_PATH_MAX];
    size_t quotes;

    g_mime_init();
    if (open >= 0 && given.ptr[given.len - 1] == '>') {
        name = (struct str){given.ptr, (size_t)open};
        address = (struct str){given.ptr + open + 1, given.len - (size_t)open - 2};
    }
    if (smtp_address_parse(address, true, &parsed) < 0)
        return internet_address_list_parse(NULL, text);
    smtp_address_local(parsed.text, room, &quotes);
    if (quotes == 0)
        return internet_address_list_parse(NULL, text);
    buf_put_str(&quoted, name);
    buf_putc(&quoted, '<');
    smtp_address_put(&quoted, parsed.text);
    buf_put(&quoted, ">", sizeof(">"));
    list = internet_address_list_parse(NULL, (const char *)quoted.data);
    buf_done(&quoted);
    return list;
}

int send_mailbox_parse(const char *text, char **out)
{
    InternetAddressList *list = parse_mailboxes(text);
    InternetAddress *first;
    struct smtp_address address;
    const char *found = NULL;
    struct buf wire = {0};
    int err = -EINVAL;

    if (list == NULL)
        return -EINVAL;
    first =
        internet_address_list_length(list) == 1 ? internet_address_list_get_address(list, 0) : NULL;
    if (first != NULL && INTERNET_ADDRESS_IS_MAILBOX(first))
        found = internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(first));
    if (found != NULL && smtp_address_parse(str_of(found), true, &address) == 0) {
        send_put_wire(&wire, address.text);
        buf_putc(&wire, '\0');
        *out = (char *)wire.data;
        err = 0;
    }
    g_object_unref(list);
    return err;
}

static int wrong(const char *file, uint64_t line, const char *what)
{
    fprintf(stderr, "hayauma send: %s:%lu: %s\n", file, line, what);
    return -EINVAL;
}

/* Whether the header block is one (RFC 5322 2.2): says where it is not. */
static int check_header(const char *file, struct str content)
{
    uint64_t line = 0;

    while (content.len > 0) {
        ptrdiff_t end = str_find(content, '\n');
        struct str one = {content.ptr, end < 0 ? content.len : (size_t)end};
        ptrdiff_t colon = str_find(one, ':');

        line++;
        content.ptr += one.len + (end >= 0);
        content.len -= one.len + (end >= 0);
        if (one.len == 0 || *one.ptr == '\r')
            return line > 1 ? 0 : wrong(file, line, "not a message (RFC 5322): no header");
        if (*one.ptr == ' ' || *one.ptr == '\t') {
            if (line == 1)
                return wrong(file, line, "not a message (RFC 5322): begins with a folded line");
            continue;
        }
        for (ptrdiff_t i = 0; i < colon; i++)
            if (one.ptr[i] <= ' ' || one.ptr[i] == 0x7f)
                colon = -1;
        if (colon <= 0)
            return wrong(file, line,
                         "not a message (RFC 5322): this line of its header is no \"Name: value\"");
    }
    return line > 0 ? 0 : wrong(file, 1, "empty");
}

/* Bcc names people whom the others must not see (RFC 5322 3.6.3): off with it. */
static void drop_bcc(struct buf *content)
{
    size_t at = 0, kept = 0;
    bool dropped = false;

    while (at < content->len && content->data[at] != '\r') {
        struct str rest = {(const char *)content->data + at, content->len - at};
        size_t len = (size_t)str_find(rest, '\n') + 1;

        if (*rest.ptr != ' ' && *rest.ptr != '\t')
            dropped = str_starts_nocase(rest, STR("Bcc:"));
        if (!dropped)
            memmove(content->data + kept, rest.ptr, len);
        kept += dropped ? 0 : len;
        at += len;
    }
    memmove(content->data + kept, content->data + at, content->len - at);
    content->len -= at - kept;
}

/* Fills in what the fields say about content. */
static int take_facts(const char *file, struct send_message *m)
{
    static const struct str names[] = {STR("To"), STR("From")};
    struct trace_facts facts;
    struct str all = buf_str(&m->content);
    char *from;

    trace_scan(m->content.data, m->content.len, names, ARRAY_LEN(names), &facts);
    if (memchr(all.ptr, '\0', all.len) != NULL)
        return wrong(file, 1, "has a NUL byte: not a message");
    m->has_date = facts.has_date;
    m->has_message_id = facts.has_message_id;
    m->has_to = facts.wanted[0].len > 0;
    m->smtputf8 = facts.eight_bit;
    for (size_t i = 0; i < all.len && !m->eight_bit; i++)
        m->eight_bit = (unsigned char)all.ptr[i] > 127;
    m->dot_lines = smtp_find_dot_line(m->content.data, m->content.len, 0) < m->content.len;
    if (facts.wanted[1].len == 0)
        return wrong(file, 1, "no From field (RFC 5322 3.6 wants one)");
    from = strndup(facts.wanted[1].ptr, facts.wanted[1].len);
    ASSERT(from != NULL);
    if (send_mailbox_parse(from, &m->from) < 0)
        m->from = NULL; /* a group or several: --from must say */
    free(from);
    return 0;
}

int send_message_read(const char *file, struct send_message *out)
{
    struct buf raw = {0};
    int err = input_read("send", file, &raw);

    if (err == 0)
        err = send_message_take(file, buf_str(&raw), out);
    buf_done(&raw);
    return err;
}

int send_message_take(const char *file, struct str text, struct send_message *out)
{
    struct send_message m = {0};
    size_t lead = trace_lead((const uint8_t *)text.ptr, text.len);
    int err;

    text = (struct str){text.ptr + lead, text.len - lead};
    err = check_header(file, text);
    if (err == 0) {
        mime_put_lines(&m.content, text);
        drop_bcc(&m.content);
        err = take_facts(file, &m);
    }
    if (err < 0) {
        send_message_done(&m);
        return err;
    }
    *out = m;
    return 0;
}

void send_message_done(struct send_message *m)
{
    buf_done(&m->content);
    free(m->from);
}

/* --- built from parts --- */

static int text_part(const char *file, const char *subtype, struct buf *out)
{
    struct buf raw = {0};
    int err = input_read("send", file, &raw);

    if (err == 0 && (!smtp_utf8_valid(buf_str(&raw)) || memchr(raw.data, '\0', raw.len) != NULL))
        err =
            wrong(file, 1, "is no text in UTF-8; of Shift_JIS 'iconv -f CP932 -t UTF-8' makes it");
    if (err == 0)
        mime_put_text(out, str_of(subtype), buf_str(&raw), MIME_UTF8);
    buf_done(&raw);
    return err;
}

const char *send_file_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

static int attachment_part(const char *file, struct buf *out)
{
    struct buf bytes = {0}, type = {0};
    int err = input_read("send", file, &bytes);

    buf_puts(&type, send_type_of(send_file_name(file)));
    if (str_starts_nocase(buf_str(&type), STR("text/")) && smtp_utf8_valid(buf_str(&bytes)))
        buf_puts(&type, "; charset=utf-8");
    if (err == 0)
        mime_put_attachment(out,
                            &(struct mime_attachment){.type = buf_str(&type),
                                                      .file_name = str_of(send_file_name(file)),
                                                      .bytes = buf_str(&bytes)});
    buf_done(&type);
    buf_done(&bytes);
    return err;
}

/* The parts as one: as it is, when there is one. The parts are dropped. */
static void combine(struct buf *parts, size_t len, const char *subtype, struct buf *out)
{
    struct str all[2 + SEND_ATTACHMENTS_MAX];
    char seed[40];

    ASSERT(len > 0 && len <= ARRAY_LEN(all));
    for (size_t i = 0; i < len; i++)
        all[i] = buf_str(&parts[i]);
    snprintf(seed, sizeof(seed), "%016lx%016lx", rng_entropy(), rng_entropy());
    if (len == 1)
        buf_put_str(out, all[0]);
    else
        mime_put_multipart(out, subtype, all, len, str_of(seed));
    for (size_t i = 0; i < len; i++)
        buf_done(&parts[i]);
}

static int build_parts(const struct send_parts *parts, struct buf *out)
{
    struct buf texts[2] = {0}, all[1 + SEND_ATTACHMENTS_MAX] = {0};
    size_t texts_len = 0, len = 0;
    int err = 0;

    if (parts->text_file != NULL)
        err = text_part(parts->text_file, "plain", &texts[texts_len++]);
    if (err == 0 && parts->html_file != NULL)
        err = text_part(parts->html_file, "html", &texts[texts_len++]);
    if (texts_len > 0)
        combine(texts, texts_len, "alternative", &all[len++]);
    for (size_t i = 0; err == 0 && i < parts->attachments_len; i++)
        err = attachment_part(parts->attachments[i], &all[len++]);
    combine(all, len, "mixed", out);
    return err;
}

/* A subject that looks like an encoded word is text all the same. */
static int put_subject(struct buf *out, struct str subject)
{
    struct words w = {.out = out};

    if (subject.len == 0 || memmem(subject.ptr, subject.len, "=?", 2) == NULL)
        return mime_put_field(out, STR("Subject"), subject, MIME_UTF8);
    words_put_raw(&w, STR("Subject:"));
    words_put_gap(&w, STR(" "));
    words_put_encoded(&w, str_trim(subject), false);
    words_end(&w);
    buf_puts(out, "\r\n");
    return 0;
}

static int put_from(struct buf *out, const char *mailbox)
{
    InternetAddressList *list = parse_mailboxes(mailbox);
    InternetAddress *address = internet_address_list_get_address(list, 0);
    struct buf wire = {0};
    int err;

    send_put_wire(&wire,
                  str_of(internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(address))));
    err = mime_put_mailbox(out, STR("From"), str_of(internet_address_get_name(address)),
                           buf_str(&wire), MIME_UTF8);
    buf_done(&wire);
    g_object_unref(list);
    return err;
}

int send_message_build(const struct send_parts *parts, struct send_message *out)
{
    struct send_message m = {0};
    int err;

    g_mime_init();
    if (put_from(&m.content, parts->from) < 0 ||
        put_subject(&m.content, str_of(parts->subject)) < 0) {
        send_message_done(&m);
        return wrong("--from, --subject", 1, "a word of more than 900 bytes");
    }
    buf_puts(&m.content, "MIME-Version: 1.0\r\n");
    err = build_parts(parts, &m.content);
    if (err == 0)
        err = take_facts("(the message)", &m);
    if (err < 0) {
        send_message_done(&m);
        return err;
    }
    *out = m;
    return 0;
}

/* --- a copy for sending --- */

void send_message_head(const struct send_message *m, struct str to, struct str id_domain,
                       struct msgid_source *ids, int64_t wall_ms, struct buf *out)
{
    char date[CLOCK_RFC5322_BYTES], id_text[MSGID_TEXT_BYTES];
    struct msgid id;

    if (!m->has_message_id) {
        id = msgid_next(ids, wall_ms);
        msgid_text(&id, id_text);
        buf_puts(out, "Message-ID: <");
        buf_puts(out, id_text);
        buf_putc(out, '@');
        buf_put_str(out, id_domain);
        buf_puts(out, ">\r\n");
    }
    if (!m->has_date) {
        clock_rfc5322(wall_ms, date);
        buf_puts(out, "Date: ");
        buf_puts(out, date);
        buf_puts(out, "\r\n");
    }
    if (!m->has_to && to.len > 0) {
        buf_puts(out, "To: <");
        smtp_address_put(out, to);
        buf_puts(out, ">\r\n");
    } else if (!m->has_to) {
        buf_puts(out, "To: undisclosed-recipients:;\r\n");
    }
}
