/* Any chunk: refused at a line, or rows of text. A row's variables are one JSON object of a
 * recipient's members, lines never count down, and the reader ends. The first byte is the format.
 */
#include <string.h>

#include <jansson.h>

#include "http/chunk.h"
#include "mail/recipe.h"
#include "smtp/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_row(const struct chunk_row *row)
{
    const char *name;
    json_t *root, *value;

    ASSERT(smtp_utf8_valid(row->email));
    if (row->variables.len == 0)
        return;
    ASSERT(row->variables.len <= RECIPE_RECIPIENT_MAX);
    root = json_loadb(row->variables.ptr, row->variables.len, JSON_REJECT_DUPLICATES, NULL);
    ASSERT(json_is_object(root) && json_object_size(root) > 0);
    json_object_foreach(root, name, value)
    {
        ASSERT(strcmp(name, "name") == 0
                   ? json_is_string(value)
                   : (strcmp(name, "substitutions") == 0 || strcmp(name, "metadata") == 0) &&
                         json_is_object(value));
    }
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct chunk_error error = {0};
    struct chunk_row row;
    uint64_t line = 0;
    struct chunk *c;
    int got;

    if (size == 0)
        return 0;
    if (chunk_open(&c, data[0] % 2 == 0 ? CHUNK_NDJSON : CHUNK_CSV,
                   (struct str){(const char *)data + 1, size - 1}, &error) < 0) {
        ASSERT(error.line > 0 && error.text[0] != '\0');
        return 0;
    }
    while ((got = chunk_next(c, &row, &error)) != 0) {
        if (got == 1)
            check_row(&row);
        ASSERT(chunk_line(c) > line && (got == 1 || error.line == chunk_line(c)));
        line = chunk_line(c);
    }
    ASSERT(chunk_read_bytes(c) == size - 1);
    chunk_close(c);
    return 0;
}
