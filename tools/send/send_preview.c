#include "tools/send/send_preview.h"

#include <gmime/gmime.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands/screen.h"

static void put_lines(struct buf *out, struct str text)
{
    while (text.len > 0) {
        struct str line = str_take(&text, '\n');
        char *copy;

        if (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        copy = strndup(line.ptr, line.len);
        put_text(out, copy == NULL ? "" : copy, 0, false);
        free(copy);
        buf_putc(out, '\n');
    }
}

/* How its parts are coded is nothing that a reader sees. */
static bool is_of_coding(const char *name)
{
    return strncasecmp(name, "Content-", 8) == 0 || strcasecmp(name, "MIME-Version") == 0;
}

static void put_fields(struct buf *out, GMimeMessage *message)
{
    GMimeHeaderList *fields = g_mime_object_get_header_list(GMIME_OBJECT(message));

    for (int i = 0; i < g_mime_header_list_get_count(fields); i++) {
        GMimeHeader *field = g_mime_header_list_get_header_at(fields, i);
        const char *value = g_mime_header_get_value(field);

        if (is_of_coding(g_mime_header_get_name(field)))
            continue;
        buf_printf(out, "%s: ", g_mime_header_get_name(field));
        put_text(out, value == NULL ? "" : value, 0, false);
        buf_putc(out, '\n');
    }
}

static void put_part(GMimeObject *parent, GMimeObject *part, gpointer arg)
{
    struct buf *out = arg;
    GMimeContentType *type = g_mime_object_get_content_type(part);
    char *text = NULL, *word;

    (void)parent;
    if (!GMIME_IS_PART(part))
        return;
    word = g_mime_content_type_get_mime_type(type);
    if (GMIME_IS_TEXT_PART(part))
        text = g_mime_text_part_get_text(GMIME_TEXT_PART(part));
    buf_printf(out, "\n[%s", word);
    if (g_mime_part_get_filename(GMIME_PART(part)) != NULL) {
        buf_puts(out, ": ");
        put_text(out, g_mime_part_get_filename(GMIME_PART(part)), 0, false);
    }
    buf_puts(out, "]\n");
    put_lines(out, str_of(text));
    g_free(word);
    g_free(text);
}

void send_preview_put(struct buf *out, struct str letter)
{
    GMimeStream *stream;
    GMimeParser *parser;
    GMimeMessage *message;

    g_mime_init();
    stream = g_mime_stream_mem_new_with_buffer(letter.ptr, letter.len);
    parser = g_mime_parser_new_with_stream(stream);
    message = g_mime_parser_construct_message(parser, NULL);
    if (message == NULL) {
        put_lines(out, letter);
    } else {
        put_fields(out, message);
        g_mime_message_foreach(message, put_part, out);
        g_object_unref(message);
    }
    g_object_unref(parser);
    g_object_unref(stream);
}
