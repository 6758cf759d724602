#include "mail/letter_mark.h"

#include <errno.h>

#include "base/base64.h"
#include "base/packed.h"

#define RETURN_CODE_BYTES 8 /* of the code; who guesses needs 2^63 messages */
#define TOKEN_CODE_BYTES  16
#define NAMED_BYTES       (MSGID_BYTES + 4) /* campaign and index */
#define RETURN_BYTES      (NAMED_BYTES + RETURN_CODE_BYTES)

_Static_assert(LETTER_MARK_RETURN_CHARS == (RETURN_BYTES * 8 + 4) / 5, "five bits a character");
_Static_assert(RETURN_CODE_BYTES <= MAC_BYTES && TOKEN_CODE_BYTES <= MAC_BYTES, "parts of a code");

static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";

static void put_named(struct buf *out, const struct msgid *campaign, uint32_t index)
{
    uint8_t number[4];

    packed_set_key(number, index, sizeof(number));
    buf_put(out, campaign->bytes, MSGID_BYTES);
    buf_put(out, number, sizeof(number));
}

/* The code of a mark. The word in front keeps one kind from being taken for the other. */
static void code_of(const uint8_t key[MAC_KEY_BYTES], enum letter_mark_kind kind,
                    const struct msgid *campaign, uint32_t index, struct str address,
                    uint8_t out[MAC_BYTES])
{
    struct buf text = {0};

    ASSERT(kind == LETTER_MARK_TOKEN || (kind == LETTER_MARK_RETURN && address.len == 0));
    buf_puts(&text, kind == LETTER_MARK_RETURN ? "bounce" : "unsubscribe");
    put_named(&text, campaign, index);
    buf_put_str(&text, address);
    mac_sha256(key, buf_str(&text), out);
    buf_done(&text);
}

/* --- return paths: base32 (RFC 4648 6) in lower case, since servers may change the case --- */

static void put_base32(struct buf *out, const uint8_t *bytes, size_t len)
{
    uint32_t held = 0;
    unsigned bits = 0;

    for (size_t i = 0; i < len; i++) {
        held = (held << 8 | bytes[i]) & 0xfff;
        for (bits += 8; bits >= 5; bits -= 5)
            buf_putc(out, base32[held >> (bits - 5) & 31]);
    }
    if (bits > 0)
        buf_putc(out, base32[held << (5 - bits) & 31]);
}

/* len characters to bytes. False: they are not all of the alphabet, or not of one that ends so. */
static bool take_base32(const char *text, size_t len, uint8_t *out)
{
    uint32_t held = 0;
    unsigned bits = 0;

    for (size_t i = 0; i < len; i++) {
        const char *at = memchr(base32, ascii_lower(text[i]), sizeof(base32) - 1);

        if (at == NULL)
            return false;
        held = (held << 5 | (uint32_t)(at - base32)) & 0xfff;
        bits += 5;
        if (bits >= 8) {
            bits -= 8;
            *out++ = (uint8_t)(held >> bits);
        }
    }
    return (held & ((1U << bits) - 1)) == 0;
}

void letter_mark_put_return(struct buf *out, const uint8_t key[MAC_KEY_BYTES],
                            const struct msgid *campaign, uint32_t index)
{
    uint8_t code[MAC_BYTES];
    struct buf bytes = {0};
    size_t began = out->len;

    code_of(key, LETTER_MARK_RETURN, campaign, index, STR(""), code);
    put_named(&bytes, campaign, index);
    buf_put(&bytes, code, RETURN_CODE_BYTES);
    ASSERT(bytes.len == RETURN_BYTES);
    put_base32(out, bytes.data, bytes.len);
    ASSERT(out->len - began == LETTER_MARK_RETURN_CHARS);
    buf_done(&bytes);
}

/* --- tokens: base64 for URLs (RFC 4648 5), without padding --- */

void letter_mark_put_token(struct buf *out, const uint8_t key[MAC_KEY_BYTES],
                           const struct msgid *campaign, uint32_t index, struct str address)
{
    uint8_t code[MAC_BYTES];
    struct buf bytes = {0};
    size_t began = out->len;

    code_of(key, LETTER_MARK_TOKEN, campaign, index, address, code);
    put_named(&bytes, campaign, index);
    buf_put(&bytes, code, TOKEN_CODE_BYTES);
    buf_put_str(&bytes, address);
    base64_put(out, buf_str(&bytes));
    buf_done(&bytes);
    while (out->data[out->len - 1] == '=')
        out->len--;
    ASSERT(out->len > began);
    for (size_t i = began; i < out->len; i++)
        out->data[i] = out->data[i] == '+' ? '-' : out->data[i] == '/' ? '_' : out->data[i];
}

static bool is_token_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
           c == '_';
}

/* The bytes that text stands for; nothing: it stands for none. */
static void take_token(struct str text, struct buf *out)
{
    struct buf padded = {0};

    for (size_t i = 0; i < text.len; i++)
        buf_putc(&padded, text.ptr[i] == '-' ? '+' : text.ptr[i] == '_' ? '/' : text.ptr[i]);
    while (padded.len % 4 != 0 && padded.len < text.len + 2)
        buf_putc(&padded, '=');
    if (base64_decode(out, buf_str(&padded)) < 0)
        buf_clear(out);
    buf_done(&padded);
}

/* --- both --- */

static void take_named(const uint8_t *bytes, struct letter_mark *out)
{
    const uint8_t *n = bytes + MSGID_BYTES;

    memcpy(out->campaign.bytes, bytes, MSGID_BYTES);
    out->index = (uint32_t)packed_key_at(n, 4);
}

static bool parse_return(struct str text, struct letter_mark *out)
{
    ptrdiff_t at = str_rfind(text, '@');
    uint8_t bytes[RETURN_BYTES];

    if (at < LETTER_MARK_RETURN_CHARS ||
        !take_base32(text.ptr + at - LETTER_MARK_RETURN_CHARS, LETTER_MARK_RETURN_CHARS, bytes))
        return false;
    out->kind = LETTER_MARK_RETURN;
    take_named(bytes, out);
    memcpy(out->code, bytes + NAMED_BYTES, RETURN_CODE_BYTES);
    return true;
}

static bool parse_token(struct str text, struct letter_mark *out)
{
    struct buf bytes = {0};
    size_t from = text.len;
    bool whole;

    while (from > 0 && is_token_char(text.ptr[from - 1]))
        from--;
    take_token((struct str){text.ptr + from, text.len - from}, &bytes);
    whole = bytes.len > NAMED_BYTES + TOKEN_CODE_BYTES;
    if (whole) {
        out->kind = LETTER_MARK_TOKEN;
        take_named(bytes.data, out);
        memcpy(out->code, bytes.data + NAMED_BYTES, TOKEN_CODE_BYTES);
        buf_put(&out->address, bytes.data + NAMED_BYTES + TOKEN_CODE_BYTES,
                bytes.len - NAMED_BYTES - TOKEN_CODE_BYTES);
    }
    buf_done(&bytes);
    return whole;
}

int letter_mark_parse(struct str text, struct letter_mark *out)
{
    *out = (struct letter_mark){0};
    text = str_trim(text);
    if (text.len > 2 && text.ptr[0] == '<' && text.ptr[text.len - 1] == '>')
        text = (struct str){text.ptr + 1, text.len - 2};
    return parse_return(text, out) || parse_token(text, out) ? 0 : -EINVAL;
}

bool letter_mark_is_of(const struct letter_mark *m, const uint8_t key[MAC_KEY_BYTES])
{
    uint8_t code[MAC_BYTES];

    code_of(key, m->kind, &m->campaign, m->index, buf_str(&m->address), code);
    return mac_equal(code, m->code,
                     m->kind == LETTER_MARK_RETURN ? RETURN_CODE_BYTES : TOKEN_CODE_BYTES);
}

void letter_mark_done(struct letter_mark *m)
{
    buf_done(&m->address);
}
