/* What GMime finds in the message on stdin, as JSON: {"subject", "from", "to", "parts": [[type,
 * text, name], ...]}. Texts as a reader sees them, in UTF-8; of what is no text the bytes' base64.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <gmime/gmime.h>
#include <jansson.h>

static json_t *text_json(const char *text)
{
    return text == NULL ? json_null() : json_string(text);
}

static json_t *bytes_json(GMimePart *part)
{
    GMimeStream *memory = g_mime_stream_mem_new();
    GByteArray *bytes;
    json_t *out;
    char *coded;

    g_mime_data_wrapper_write_to_stream(g_mime_part_get_content(part), memory);
    bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(memory));
    coded = g_base64_encode(bytes->data, bytes->len);
    out = json_string(coded);
    g_free(coded);
    g_object_unref(memory);
    return out;
}

static void on_part(GMimeObject *parent, GMimeObject *one, gpointer arg)
{
    GMimeContentType *type = g_mime_object_get_content_type(one);
    json_t *parts = arg, *row = json_array();
    char *name;

    (void)parent;
    if (!GMIME_IS_PART(one)) {
        json_decref(row);
        return;
    }
    name = g_mime_content_type_get_mime_type(type);
    json_array_append_new(row, text_json(name));
    g_free(name);
    if (GMIME_IS_TEXT_PART(one)) {
        char *text = g_mime_text_part_get_text(GMIME_TEXT_PART(one));

        json_array_append_new(row, text_json(text));
        g_free(text);
    } else {
        json_array_append_new(row, bytes_json(GMIME_PART(one)));
    }
    json_array_append_new(row, text_json(g_mime_part_get_filename(GMIME_PART(one))));
    json_array_append_new(parts, row);
}

static json_t *addresses(GMimeMessage *m, GMimeAddressType type)
{
    InternetAddressList *list = g_mime_message_get_addresses(m, type);
    json_t *out = json_array();

    for (int i = 0; i < internet_address_list_length(list); i++) {
        InternetAddress *one = internet_address_list_get_address(list, i);

        json_array_append_new(out, text_json(internet_address_get_name(one)));
        json_array_append_new(
            out, text_json(internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(one))));
    }
    return out;
}

int main(void)
{
    GMimeStream *stream;
    GMimeParser *parser;
    GMimeMessage *m;
    json_t *out = json_object(), *parts = json_array();
    GMimeObject *root;

    g_mime_init();
    stream = g_mime_stream_pipe_new(STDIN_FILENO);
    parser = g_mime_parser_new_with_stream(stream);
    m = g_mime_parser_construct_message(parser, NULL);
    if (m == NULL)
        return 1;
    json_object_set_new(out, "subject", text_json(g_mime_message_get_subject(m)));
    json_object_set_new(out, "from", addresses(m, GMIME_ADDRESS_TYPE_FROM));
    json_object_set_new(out, "to", addresses(m, GMIME_ADDRESS_TYPE_TO));
    root = g_mime_message_get_mime_part(m);
    if (GMIME_IS_MULTIPART(root))
        g_mime_multipart_foreach(GMIME_MULTIPART(root), on_part, parts);
    else
        on_part(NULL, root, parts);
    json_object_set_new(out, "parts", parts);
    json_dumpf(out, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(out);
    return 0;
}
