/* The ledger's view of a message is the same however its bytes are cut, and a line has eight fields
 * whatever they hold. */
#include <string.h>

#include "base/assert.h"
#include "tools/sink/sink_ledger.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(const struct ledger_content *c, struct str any)
{
    struct buf line = {0};
    size_t tabs = 0;

    ledger_line(&line, 1, 2, any, any, c);
    for (size_t i = 0; i < line.len; i++) {
        tabs += line.data[i] == '\t';
        ASSERT((line.data[i] > ' ' && line.data[i] != 0x7f) || line.data[i] == '\t' ||
               i + 1 == line.len);
    }
    ASSERT(tabs == 7 && line.data[line.len - 1] == '\n');
    buf_done(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ledger_content whole = {0}, cut = {0};
    const char *bytes = (const char *)data;
    size_t at = 0, step;

    if (size < 1 || size > LEDGER_HEAD_BYTES_MAX)
        return 0; /* a longer header may be cut off elsewhere */
    step = (size_t)data[0] % 64 + 1;
    ledger_content_reset(&whole);
    ledger_content_add(&whole, bytes, size);
    ledger_content_end(&whole);
    ledger_content_reset(&cut);
    for (; at + step < size; at += step)
        ledger_content_add(&cut, bytes + at, step);
    ledger_content_add(&cut, bytes + at, size - at);
    ledger_content_end(&cut);
    ASSERT(cut.crc == whole.crc && cut.bytes == whole.bytes);
    ASSERT(cut.seq_len == whole.seq_len && memcmp(cut.seq, whole.seq, cut.seq_len) == 0);
    ASSERT(cut.message_id_len == whole.message_id_len &&
           memcmp(cut.message_id, whole.message_id, cut.message_id_len) == 0);
    check_line(&whole, (struct str){bytes, size});
    ledger_content_done(&whole);
    ledger_content_done(&cut);
    return 0;
}
