/* Any value in a header field, a mailbox's name, a text and an attachment: each field is one field,
 * lines end in CRLF alone and are short enough, and nothing but ASCII is written. */
#include "mail/header.h"
#include "mail/iso2022jp.h"
#include "mail/mime.h"
#include "smtp/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LINE_BYTES_MAX 998

static void check_lines(struct str out)
{
    size_t line = 0;

    for (size_t i = 0; i < out.len; i++) {
        ASSERT((uint8_t)out.ptr[i] < 0x80 && out.ptr[i] != '\0');
        ASSERT(out.ptr[i] != '\n' || (i > 0 && out.ptr[i - 1] == '\r'));
        ASSERT(out.ptr[i] != '\r' || (i + 1 < out.len && out.ptr[i + 1] == '\n'));
        line = out.ptr[i] == '\n' ? 0 : line + 1;
        ASSERT(line <= LINE_BYTES_MAX + 1); /* with the CR */
    }
    ASSERT(out.len == 0 || out.ptr[out.len - 1] == '\n');
}

/* out is nothing, or one field of that name; "Downgraded-" is in front of it where its syntax has
 * no place for what is not ASCII (RFC 6857). */
static void check_field(const struct buf *out, const char *name)
{
    static const char prefix[] = "Downgraded-";
    struct header_field field;
    struct str found;

    check_lines(buf_str(out));
    if (out->len == 0)
        return;
    ASSERT(header_field_next(out->data, out->len, 0, &field));
    found = field.name;
    if (found.len > sizeof(prefix) - 1 && memcmp(found.ptr, prefix, sizeof(prefix) - 1) == 0)
        found = (struct str){found.ptr + sizeof(prefix) - 1, found.len - (sizeof(prefix) - 1)};
    ASSERT(str_eq(found, str_of(name)));
    ASSERT(!header_field_next(out->data, out->len, field.end, &field));
}

static void check_fields(struct str value, enum mime_charset charset)
{
    static const char *const names[] = {"Subject", "To", "X-Any", "Message-ID", "List-Unsubscribe"};
    struct buf out = {0};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        buf_clear(&out);
        if (mime_put_field(&out, str_of(names[i]), value, charset) == 0)
            check_field(&out, names[i]);
        else
            ASSERT(out.len == 0);
    }
    buf_clear(&out);
    if (mime_put_mailbox(&out, STR("From"), value, STR("a@b.example"), charset) == 0)
        check_field(&out, "From");
    buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct mime_attachment a = {.type = STR("text/plain"), .bytes = text};
    struct buf out = {0};

    if (size > 0 && (!smtp_utf8_valid(text) || memchr(data, 0, size) != NULL))
        return 0;
    for (enum mime_charset c = MIME_UTF8; c <= MIME_ISO_2022_JP; c++) {
        uint32_t missing;

        if (c == MIME_ISO_2022_JP && !(iso2022jp_known() && iso2022jp_can(text, &missing)))
            continue;
        check_fields(text, c);
        mime_put_text(&out, STR("plain"), text, c);
        check_lines(buf_str(&out));
        buf_clear(&out);
    }
    a.file_name = text;
    if (mime_type_valid(text))
        a.type = text;
    if (mime_id_valid(text))
        a.content_id = text;
    mime_put_attachment(&out, &a);
    check_lines(buf_str(&out));
    buf_done(&out);
    return 0;
}
