#include "mail/header.h"

#include <string.h>

#include "base/assert.h"

static bool is_name_byte(uint8_t c)
{
    return c > ' ' && c < 0x7f && c != ':';
}

size_t header_line_end(const uint8_t *content, size_t len, size_t at)
{
    const uint8_t *newline;

    ASSERT(at <= len);
    newline = memchr(content + at, '\n', len - at);
    return newline == NULL ? len : (size_t)(newline - content) + 1;
}

bool header_field_next(const uint8_t *content, size_t len, size_t at, struct header_field *field)
{
    size_t i = at, name_len;

    while (i < len && is_name_byte(content[i]))
        i++;
    name_len = i - at;
    while (i < len && (content[i] == ' ' || content[i] == '\t'))
        i++;
    if (name_len == 0 || i == len || content[i] != ':')
        return false;
    field->name = (struct str){(const char *)content + at, name_len};
    field->start = at;
    do {
        i = header_line_end(content, len, i);
    } while (i < len && (content[i] == ' ' || content[i] == '\t'));
    field->end = i;
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct str header_field_value(const uint8_t *content, const struct header_field *field)
{
    const char *start = (const char *)content + field->start + field->name.len;
    const char *end = (const char *)content + field->end;

    ASSERT(start < end); /* the colon at least */
    start = (const char *)memchr(start, ':', (size_t)(end - start)) + 1;
    while (start < end && is_space(*start))
        start++;
    while (start < end && is_space(end[-1]))
        end--;
    return (struct str){start, (size_t)(end - start)};
}
