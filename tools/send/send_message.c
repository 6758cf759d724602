#include "tools/send/send_message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gmime/gmime.h>

#include "base/clock.h"
#include "mail/encode.h"
#include "mail/trace.h"
#include "smtp/address.h"
#include "smtp/scan.h"
#include "tools/send/send_list.h"
#include "tools/send/send_type.h"

#define WORD_BYTES_MAX 39 /* of text in an encoded-word: a line with "Subject: " holds one */
#define LINE_BYTES_MAX 76

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

/* CRLF wherever the file has LF, CR or CRLF, and at its end. */
static void copy_lines(struct str in, struct buf *out)
{
    size_t from = 0;

    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] != '\n' && in.ptr[i] != '\r')
            continue;
        buf_put(out, in.ptr + from, i - from);
        buf_put(out, "\r\n", 2);
        if (in.ptr[i] == '\r' && i + 1 < in.len && in.ptr[i + 1] == '\n')
            i++;
        from = i + 1;
    }
    buf_put(out, in.ptr + from, in.len - from);
    if (from < in.len)
        buf_put(out, "\r\n", 2);
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
    struct send_message m = {0};
    struct buf raw = {0};
    struct str text;
    int err = send_read_file(file, &raw);

    text = buf_str(&raw);
    if (err == 0) {
        size_t lead = trace_lead((const uint8_t *)text.ptr, text.len);

        text = (struct str){text.ptr + lead, text.len - lead};
    }
    if (err == 0)
        err = check_header(file, text);
    if (err == 0) {
        copy_lines(text, &m.content);
        drop_bcc(&m.content);
        err = take_facts(file, &m);
    }
    buf_done(&raw);
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

static GMimeObject *text_part(const char *file, const char *subtype)
{
    struct buf raw = {0}, text = {0};
    GMimeTextPart *part = NULL;
    GMimeContentEncoding encoding;
    int err = send_read_file(file, &raw);

    if (err == 0 && (!smtp_utf8_valid(buf_str(&raw)) || memchr(raw.data, '\0', raw.len) != NULL))
        err = wrong(file, 1, "not UTF-8 text");
    copy_lines(buf_str(&raw), &text); /* base64 encodes what there is (RFC 2045 6.8) */
    buf_done(&raw);
    if (err < 0) {
        buf_done(&text);
        return NULL;
    }
    buf_putc(&text, '\0');
    part = g_mime_text_part_new_with_subtype(subtype);
    g_mime_text_part_set_charset(part, "utf-8");
    g_mime_text_part_set_text(part, (const char *)text.data);
    encoding =
        g_mime_part_get_best_content_encoding(GMIME_PART(part), GMIME_ENCODING_CONSTRAINT_7BIT);
    g_mime_part_set_content_encoding(GMIME_PART(part), encoding);
    buf_done(&text);
    return GMIME_OBJECT(part);
}

const char *send_file_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

static GMimeObject *attachment_part(const char *file)
{
    struct buf bytes = {0};
    const char *type = send_type_of(send_file_name(file));
    GMimeContentType *content_type;
    GMimeStream *stream;
    GMimeDataWrapper *wrapper;
    GMimePart *part;

    if (send_read_file(file, &bytes) < 0) {
        buf_done(&bytes);
        return NULL;
    }
    content_type = g_mime_content_type_parse(NULL, type);
    if (g_mime_content_type_is_type(content_type, "text", "*") && smtp_utf8_valid(buf_str(&bytes)))
        g_mime_content_type_set_parameter(content_type, "charset", "utf-8");
    part = g_mime_part_new();
    g_mime_object_set_content_type(GMIME_OBJECT(part), content_type);
    stream = g_mime_stream_mem_new_with_buffer((const char *)bytes.data, bytes.len);
    wrapper = g_mime_data_wrapper_new_with_stream(stream, GMIME_CONTENT_ENCODING_DEFAULT);
    g_mime_part_set_content(part, wrapper);
    g_mime_part_set_filename(part, send_file_name(file));
    g_mime_object_set_disposition(GMIME_OBJECT(part), "attachment");
    g_mime_part_set_content_encoding(part, GMIME_CONTENT_ENCODING_BASE64);
    g_object_unref(wrapper);
    g_object_unref(stream);
    g_object_unref(content_type);
    buf_done(&bytes);
    return GMIME_OBJECT(part);
}

/* Wraps root, which may be NULL, and part into a multipart of this subtype, root's own if it is
 * one. */
static GMimeObject *join(GMimeObject *root, const char *subtype, GMimeObject *part)
{
    GMimeMultipart *both;

    if (root == NULL)
        return part;
    if (GMIME_IS_MULTIPART(root) &&
        g_mime_content_type_is_type(g_mime_object_get_content_type(root), "multipart", subtype)) {
        both = GMIME_MULTIPART(root);
    } else {
        both = g_mime_multipart_new_with_subtype(subtype);
        g_mime_multipart_add(both, root);
        g_object_unref(root);
    }
    g_mime_multipart_add(both, part);
    g_object_unref(part);
    return GMIME_OBJECT(both);
}

/* Adds a part that could not be made: NULL ends it all. */
static bool add_part(GMimeObject **root, const char *subtype, GMimeObject *part)
{
    if (part == NULL)
        return false;
    *root = join(*root, subtype, part);
    return true;
}

static bool add_parts(const struct send_parts *parts, GMimeObject **root)
{
    if (parts->text_file != NULL &&
        !add_part(root, "alternative", text_part(parts->text_file, "plain")))
        return false;
    if (parts->html_file != NULL &&
        !add_part(root, "alternative", text_part(parts->html_file, "html")))
        return false;
    for (size_t i = 0; i < parts->attachments_len; i++)
        if (!add_part(root, "mixed", attachment_part(parts->attachments[i])))
            return false;
    return true;
}

/* Whether text may stand in a header as it is, also between quotes. */
static bool is_plain(struct str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < ' ' || text.ptr[i] > '~' || strchr("\"\\?", text.ptr[i]) != NULL)
            return false;
    return true;
}

/* Encoded-words (RFC 2047 2) in lines of at most 76 bytes. Not GMime's: it counts characters, and
 * Japanese ones have three bytes. */
static void put_encoded(struct buf *out, struct str text)
{
    for (size_t from = 0, n; from < text.len; from += n) {
        n = text.len - from < WORD_BYTES_MAX ? text.len - from : WORD_BYTES_MAX;
        while (from + n < text.len && ((unsigned char)text.ptr[from + n] & 0xc0) == 0x80)
            n--; /* cut between characters */
        buf_puts(out, from > 0 ? "\r\n =?UTF-8?B?" : "=?UTF-8?B?");
        ASSERT(encode_base64((const uint8_t *)text.ptr + from, n, out) == 0);
        buf_puts(out, "?=");
    }
}

/* Folds at spaces. */
static void put_subject(struct buf *out, struct str text)
{
    size_t column = sizeof("Subject: ") - 1;

    if (!is_plain(text)) {
        put_encoded(out, text);
        return;
    }
    while (text.len > 0) {
        struct str rest = {text.ptr + 1, text.len - 1};
        ptrdiff_t space = str_find(rest, ' ');
        struct str word = {text.ptr, space < 0 ? text.len : (size_t)space + 1};

        if (column + word.len > LINE_BYTES_MAX && *word.ptr == ' ') {
            buf_puts(out, "\r\n");
            column = 0;
        }
        buf_put_str(out, word);
        column += word.len;
        text.ptr += word.len;
        text.len -= word.len;
    }
}

static void put_from(struct buf *out, const char *mailbox)
{
    InternetAddressList *list = parse_mailboxes(mailbox);
    InternetAddress *address = internet_address_list_get_address(list, 0);
    const char *name = internet_address_get_name(address);
    bool named = name != NULL && *name != '\0';

    buf_puts(out, "From: ");
    if (named && is_plain(str_of(name))) {
        buf_putc(out, '"');
        buf_puts(out, name);
        buf_putc(out, '"');
    } else if (named) {
        put_encoded(out, str_of(name));
    }
    buf_puts(out, named ? "\r\n <" : "");
    send_put_wire(out,
                  str_of(internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(address))));
    buf_puts(out, named ? ">\r\n" : "\r\n");
    g_object_unref(list);
}

static void write_message(const struct send_parts *parts, GMimeObject *root, struct buf *out)
{
    GMimeFormatOptions *format = g_mime_format_options_new();
    GMimeStream *stream = g_mime_stream_mem_new();
    GByteArray *bytes;

    put_from(out, parts->from);
    buf_puts(out, "Subject: ");
    put_subject(out, str_of(parts->subject));
    buf_puts(out, "\r\nMIME-Version: 1.0\r\n");
    g_mime_format_options_set_newline_format(format, GMIME_NEWLINE_FORMAT_DOS);
    g_mime_object_write_to_stream(root, format, stream);
    bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(stream));
    copy_lines((struct str){(const char *)bytes->data, bytes->len}, out);
    g_object_unref(stream);
    g_mime_format_options_free(format);
}

int send_message_build(const struct send_parts *parts, struct send_message *out)
{
    struct send_message m = {0};
    GMimeObject *root = NULL;
    int err = 0;

    g_mime_init();
    if (!add_parts(parts, &root)) {
        if (root != NULL)
            g_object_unref(root);
        return -EINVAL;
    }
    write_message(parts, root, &m.content);
    g_object_unref(root);
    err = take_facts("(the message)", &m);
    if (err < 0) {
        send_message_done(&m);
        return err;
    }
    *out = m;
    return 0;
}

/* --- a copy for sending --- */

void send_message_copy(const struct send_message *m, struct str to, struct str id_domain,
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
    buf_put(out, m->content.data, m->content.len);
}
