#include "base/msgid.h"

#include <errno.h>
#include <stdbool.h>

#include "base/assert.h"

/* Layout: 48 bits of milliseconds, version, 32 bits of sequence around the variant, 42 random bits.
 * The sequence starts at a random 31-bit number each millisecond (RFC 9562 6.2 method 1), so ids of
 * other threads and nodes differ in 73 bits, and there is always room to count up. */

#define BACK_MS 1000 /* a clock that steps back further was set: ids say the time that it has */

void msgid_source_init(struct msgid_source *s, uint64_t seed)
{
    *s = (struct msgid_source){0};
    rng_seed(&s->rng, seed);
}

static void put_sequence(struct msgid *id, uint32_t q)
{
    id->bytes[6] = (uint8_t)(0x70 | q >> 28);
    id->bytes[7] = (uint8_t)(q >> 20);
    id->bytes[8] = (uint8_t)(0x80 | (q >> 14 & 0x3f));
    id->bytes[9] = (uint8_t)(q >> 6);
    id->bytes[10] = (uint8_t)(q << 2 | (id->bytes[10] & 3));
}

static uint32_t sequence_of(const struct msgid *id)
{
    return (uint32_t)(id->bytes[6] & 0x0f) << 28 | (uint32_t)id->bytes[7] << 20 |
           (uint32_t)(id->bytes[8] & 0x3f) << 14 | (uint32_t)id->bytes[9] << 6 |
           (uint32_t)id->bytes[10] >> 2;
}

struct msgid msgid_next(struct msgid_source *s, int64_t wall_ms)
{
    uint64_t now_ms = wall_ms < 0 ? 0 : (uint64_t)wall_ms, random = rng_next(&s->rng);
    bool later = now_ms > s->last_ms || s->last_ms == 0 || now_ms + BACK_MS < s->last_ms;
    struct msgid id;

    if (later || s->sequence == UINT32_MAX) {
        s->last_ms = later ? now_ms : s->last_ms + 1;
        s->sequence = (uint32_t)(rng_next(&s->rng) >> 33);
    } else {
        s->sequence++; /* same millisecond, or the clock stepped back a little */
    }
    for (int i = 0; i < 6; i++)
        id.bytes[i] = (uint8_t)(s->last_ms >> (40 - 8 * i));
    id.bytes[10] = random >> 40 & 3;
    put_sequence(&id, s->sequence);
    for (int i = 0; i < 5; i++)
        id.bytes[11 + i] = (uint8_t)(random >> (8 * i));
    return id;
}

struct msgid msgid_after(const struct msgid *first, uint32_t n)
{
    struct msgid id = *first;

    ASSERT(n < UINT32_C(1) << 31); /* as much room as a sequence begins with */
    put_sequence(&id, sequence_of(first) + n);
    return id;
}

void msgid_text(const struct msgid *id, char out[MSGID_TEXT_BYTES])
{
    static const char hex[] = "0123456789abcdef";

    _Static_assert(MSGID_TEXT_BYTES == 2 * MSGID_BYTES + 1, "two digits a byte, and a NUL");
    for (size_t i = 0; i < MSGID_BYTES; i++) {
        out[2 * i] = hex[id->bytes[i] >> 4];
        out[2 * i + 1] = hex[id->bytes[i] & 15];
    }
    out[MSGID_TEXT_BYTES - 1] = '\0';
}

int64_t msgid_ms(const struct msgid *id)
{
    int64_t ms = 0;

    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id->bytes[i];
    return ms;
}

int msgid_parse(struct str text, struct msgid *out)
{
    bool dashed = text.len == 36;
    struct msgid id;
    size_t at = 0;

    if (text.len != 32 && !dashed)
        return -EINVAL;
    for (size_t i = 0; i < MSGID_BYTES; i++) {
        int high, low;

        if (dashed && (i == 4 || i == 6 || i == 8 || i == 10) && text.ptr[at++] != '-')
            return -EINVAL;
        high = ascii_hex_value(text.ptr[at++]);
        low = ascii_hex_value(text.ptr[at++]);
        if (high < 0 || low < 0)
            return -EINVAL;
        id.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *out = id;
    return 0;
}
