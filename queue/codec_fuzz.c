/* Decoders of stored records on arbitrary bytes. The first byte picks the decoder and whether the
 * record is sealed first, so that what lies behind the checksum is reached; the second how much of
 * the rest is key. */
#include <stdlib.h>

#include "base/crc32c.h"
#include "queue/codec.h"
#include "queue/sheet.h"

#define SEALED 0x80

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(uint8_t which, struct str key, struct str value)
{
    struct msgid id = {{0}};
    struct outbox_entry entry;
    struct content_record record;
    struct queue_format format;
    struct message fields;
    struct row_state state;
    struct queue_flow flow;
    struct sheet sheet;
    struct row_key row;
    struct str stored;
    uint64_t count;

    memcpy(id.bytes, key.ptr, key.len < MSGID_BYTES ? key.len : MSGID_BYTES);
    switch (which % 8) {
    case 0:
        if (codec_row_key_parse(key, &row))
            ASSERT(row.queue.len <= QUEUE_NAME_MAX && row.due_ms <= QUEUE_DUE_HELD);
        break;
    case 1:
        if (codec_row_decode(key, value, &state) == 0)
            ASSERT(state.address.len <= value.len && state.unknown.len < value.len);
        break;
    case 2:
        if (codec_content_decode(&id, value, &fields, &record) == 0)
            ASSERT(record.tail.len <= fields.content_len && record.tail.len <= value.len);
        break;
    case 3:
        if (codec_refs_decode(&id, value, &count) == 0)
            ASSERT(value.len == REFS_BYTES);
        break;
    case 4:
        if (codec_outbox_decode(key, value, &entry) == 0)
            ASSERT(entry.lines.len < value.len);
        break;
    case 5:
        if (codec_format_decode(value, &format) == 0)
            ASSERT(value.len >= FORMAT_BYTES && (format.needs & ~FORMAT_NEEDS_KNOWN) == 0);
        break;
    case 6:
        if (codec_state_decode(key, value, &stored) < 0)
            break;
        ASSERT(stored.len == value.len - STATE_HEAD_BYTES);
        if (sheet_decode(stored, &sheet) == 0)
            sheet_count(&sheet, &(struct queue_note){.at_ms = 1000}, TALLY_DELIVERED, 0);
        break;
    default:
        if (codec_flow_decode(key, value, &flow) == 0)
            ASSERT(flow.priority < FLOW_PRIORITIES && flow.tenant.len < value.len);
    }
}

/* The checksum as the encoders put it. A content header ends where it says, and is keyed by its id.
 */
static void reseal(uint8_t which, struct str key, uint8_t *value, size_t len)
{
    uint8_t id[MSGID_BYTES] = {0};
    uint32_t crc, head;

    memcpy(id, key.ptr, key.len < MSGID_BYTES ? key.len : MSGID_BYTES);
    if (len < 9)
        return;
    memcpy(&head, value + 5, sizeof(head));
    if (which % 8 == 2 && head > 4 && head <= len)
        len = head;
    if (which % 8 == 2 || which % 8 == 3)
        crc = crc32c(0, id, sizeof(id));
    else
        crc = which % 8 == 5 ? crc32c(0, "format", 6) : crc32c(0, key.ptr, key.len);
    crc = crc32c(crc, value + 4, len - 4);
    memcpy(value, &crc, sizeof(crc));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str key;
    uint8_t *value;
    size_t len;

    if (size < 2)
        return 0;
    key = (struct str){(const char *)data + 2, data[1] < size - 2 ? data[1] : size - 2};
    len = size - 2 - key.len;
    value = malloc(len > 0 ? len : 1); /* of its own, so that a read behind it is seen */
    if (value == NULL)
        return 0;
    memcpy(value, key.ptr + key.len, len);
    if ((data[0] & SEALED) != 0)
        reseal(data[0] & (uint8_t)~SEALED, key, value, len);
    decode(data[0] & (uint8_t)~SEALED, key, (struct str){(char *)value, len});
    free(value);
    return 0;
}
