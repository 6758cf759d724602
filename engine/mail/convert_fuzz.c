/* convert_message() over any message: what comes out is 7-bit but for parts that stay (in its
 * headers, for CONVERT_HEADERS), converting again changes nothing, and 7-bit mail comes out as it
 * went in. */
#include "base/assert.h"
#include "mail/convert.h"
#include "mail/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of the message; a part may be seen only after a field that could not be read has become one that
 * can. */
static bool header_is_ascii(const uint8_t *p, size_t len)
{
    struct header_field f;
    size_t at = 0;

    while (at < len && header_field_next(p, len, at, &f))
        at = f.end;
    return !header_eight_bit(p, at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf once = {0}, twice = {0};
    bool seven_bit = !header_eight_bit(data, size);
    bool ends_crlf = size >= 2 && data[size - 2] == '\r' && data[size - 1] == '\n';

    if (convert_message(data, size, CONVERT_ALL, &once) == 0) {
        struct convert_facts facts;

        ASSERT(convert_examine(data, size, &facts) == 0);
        ASSERT(facts.eight_bit_stays == header_eight_bit(once.data, once.len));
        ASSERT(once.len >= 2 && once.data[once.len - 1] == '\n');
        ASSERT(!seven_bit || !ends_crlf ||
               (once.len == size && memcmp(once.data, data, size) == 0));
        ASSERT(convert_message(once.data, once.len, CONVERT_ALL, &twice) == 0);
        ASSERT(facts.eight_bit_stays ||
               (twice.len == once.len && memcmp(twice.data, once.data, once.len) == 0));
    } else {
        ASSERT(!seven_bit && once.len == 0);
    }
    buf_clear(&once);
    if (convert_message(data, size, CONVERT_HEADERS, &once) == 0) {
        struct convert_facts facts;

        ASSERT(header_is_ascii(once.data, once.len));
        ASSERT(convert_examine(data, size, &facts) == 0);
        ASSERT(facts.header_eight_bit || !ends_crlf ||
               (once.len == size && memcmp(once.data, data, size) == 0));
    }
    buf_done(&once);
    buf_done(&twice);
    return 0;
}
