/* Replies: the same result whatever the pieces, and text that cannot break a line. First byte: size
 * of the pieces. */
#include <stdlib.h>

#include "base/assert.h"
#include "smtp/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum smtp_reply_status feed(struct smtp_reply_parser *p, const uint8_t *in, size_t len,
                                   size_t piece, size_t *used)
{
    enum smtp_reply_status status = SMTP_REPLY_MORE;

    smtp_reply_parser_reset(p);
    *used = 0;
    for (size_t end = 0; status == SMTP_REPLY_MORE && end < len;) {
        size_t taken;

        end = len - end < piece ? len : end + piece;
        status = smtp_reply_parse(p, in + *used, end - *used, &taken);
        *used += taken;
    }
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct smtp_reply_parser whole, pieces;
    enum smtp_reply_status status;
    size_t used, used_pieces;

    if (size == 0)
        return 0;
    status = feed(&whole, data + 1, size - 1, size, &used);
    ASSERT(feed(&pieces, data + 1, size - 1, (size_t)data[0] + 1, &used_pieces) == status);
    if (status != SMTP_REPLY_DONE)
        return 0;
    ASSERT(used == used_pieces && whole.reply.code == pieces.reply.code);
    ASSERT(whole.reply.code >= 200 && whole.reply.code <= 599);
    ASSERT(whole.reply.text_len == pieces.reply.text_len);
    ASSERT(memcmp(whole.reply.text, pieces.reply.text, whole.reply.text_len) == 0);
    for (size_t i = 0; i < whole.reply.text_len; i++)
        ASSERT((uint8_t)whole.reply.text[i] >= ' ' && whole.reply.text[i] != 0x7f);
    return 0;
}
