/* convert_to_7bit over any message: what succeeds is 7-bit, converting again changes nothing, and
 * 7-bit mail comes out as it went in. */
#include "base/assert.h"
#include "engine/convert.h"
#include "engine/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf once = {0}, twice = {0};
    bool seven_bit = !header_eight_bit(data, size);
    bool ends_crlf = size >= 2 && data[size - 2] == '\r' && data[size - 1] == '\n';

    if (convert_to_7bit(data, size, &once) == 0) {
        ASSERT(!header_eight_bit(once.data, once.len));
        ASSERT(once.len >= 2 && once.data[once.len - 1] == '\n');
        ASSERT(!seven_bit || !ends_crlf ||
               (once.len == size && memcmp(once.data, data, size) == 0));
        ASSERT(convert_to_7bit(once.data, once.len, &twice) == 0);
        ASSERT(twice.len == once.len && memcmp(twice.data, once.data, once.len) == 0);
    } else {
        ASSERT(!seven_bit && once.len == 0);
    }
    buf_done(&once);
    buf_done(&twice);
    return 0;
}
