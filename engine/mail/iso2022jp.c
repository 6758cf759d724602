#include "mail/iso2022jp.h"

#include <errno.h>
#include <iconv.h>
#include <pthread.h>

#define ROWS     94
#define TO_KANJI "\x1b$B" /* JIS X 0208-1983 */
#define TO_ASCII "\x1b(B"

#define HALF_FIRST  0xff61 /* half-width kana */
#define HALF_LAST   0xff9f
#define HALF_VOICED 0xff9e
#define HALF_SEMI   0xff9f

static uint16_t codes[65536]; /* by character: two bytes, or 0 */
static bool known;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Signs that others write with another character than the C library knows for the code. */
static const struct {
    uint16_t character, code;
} forms[] = {{0xff3c, 0x2140}, {0x2014, 0x213d}, {0x2015, 0x213d}, {0x301c, 0x2141},
             {0xff5e, 0x2141}, {0x2016, 0x2142}, {0x2225, 0x2142}, {0x2212, 0x215d},
             {0xff0d, 0x215d}, {0x00a5, 0x216f}, {0xffe5, 0x216f}, {0x00a2, 0x2171},
             {0xffe0, 0x2171}, {0x00a3, 0x2172}, {0xffe1, 0x2172}, {0x00ac, 0x224c},
             {0xffe2, 0x224c}, {0x203e, 0x2131}, {0xffe3, 0x2131}};

/* Full-width kana by half-width ones from U+FF61 on. */
static const uint16_t full[] = {
    0x3002, 0x300c, 0x300d, 0x3001, 0x30fb, 0x30f2, 0x30a1, 0x30a3, 0x30a5, 0x30a7, 0x30a9,
    0x30e3, 0x30e5, 0x30e7, 0x30c3, 0x30fc, 0x30a2, 0x30a4, 0x30a6, 0x30a8, 0x30aa, 0x30ab,
    0x30ad, 0x30af, 0x30b1, 0x30b3, 0x30b5, 0x30b7, 0x30b9, 0x30bb, 0x30bd, 0x30bf, 0x30c1,
    0x30c4, 0x30c6, 0x30c8, 0x30ca, 0x30cb, 0x30cc, 0x30cd, 0x30ce, 0x30cf, 0x30d2, 0x30d5,
    0x30d8, 0x30db, 0x30de, 0x30df, 0x30e0, 0x30e1, 0x30e2, 0x30e4, 0x30e6, 0x30e8, 0x30e9,
    0x30ea, 0x30eb, 0x30ec, 0x30ed, 0x30ef, 0x30f3, 0x309b, 0x309c};

_Static_assert(ARRAY_LEN(full) == HALF_LAST - HALF_FIRST + 1, "one for each");

/* --- the codes --- */

static void read_code(iconv_t cd, unsigned row, unsigned column)
{
    char in[] = {0x1b, '$', 'B', (char)(0x20 + row), (char)(0x20 + column)};
    uint8_t wide[8];
    char *from = in, *to = (char *)wide;
    size_t in_left = sizeof(in), out_left = sizeof(wide);
    uint16_t character;

    (void)iconv(cd, NULL, NULL, NULL, NULL);
    if (iconv(cd, &from, &in_left, &to, &out_left) == (size_t)-1 || out_left != sizeof(wide) - 2)
        return;
    character = (uint16_t)(wide[0] << 8 | wide[1]);
    if (character > 0x7f)
        codes[character] = (uint16_t)((0x20 + row) << 8 | (0x20 + column));
}

static void read_codes(void)
{
    iconv_t cd = iconv_open("UTF-16BE", "ISO-2022-JP");

    if (cd == (iconv_t)-1)
        return;
    for (unsigned row = 1; row <= ROWS; row++)
        for (unsigned column = 1; column <= ROWS; column++)
            read_code(cd, row, column);
    (void)iconv_close(cd);
    for (size_t i = 0; i < ARRAY_LEN(forms); i++)
        codes[forms[i].character] = forms[i].code;
    known = codes[0x4e00] != 0 && codes[0x3042] != 0;
}

bool iso2022jp_known(void)
{
    (void)pthread_once(&once, read_codes);
    return known;
}

/* --- characters --- */

/* The character at the start of text, which is valid UTF-8, and its length. */
static uint32_t character_of(struct str text, size_t *len)
{
    const uint8_t *p = (const uint8_t *)text.ptr;

    *len = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    ASSERT(*len <= text.len);
    switch (*len) {
    case 1:
        return p[0];
    case 2:
        return (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    case 3:
        return (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    default:
        return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 |
               (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    }
}

/* What mark makes of the full-width kana, or 0: it is no mark, or not of this kana. */
static uint32_t voiced(uint32_t kana, uint32_t mark)
{
    bool ha = kana >= 0x30cf && kana <= 0x30db; /* ha, hi, fu, he, ho */
    bool ka = kana >= 0x30ab && kana <= 0x30c8; /* ka to to */

    if (mark == HALF_VOICED)
        return kana == 0x30a6 ? 0x30f4 : ka || ha ? kana + 1 : 0;
    return mark == HALF_SEMI && ha ? kana + 2 : 0;
}

/* The character at the start of text as it is written, and how much of text it is. */
static uint32_t take(struct str text, size_t *len)
{
    uint32_t c = character_of(text, len), mark, both;
    size_t more;

    if (c < HALF_FIRST || c > HALF_LAST)
        return c;
    /* The small tsu stands amid those that take a mark. */
    both = 0;
    if (*len < text.len && c != 0xff6f) {
        mark = character_of((struct str){text.ptr + *len, text.len - *len}, &more);
        both = voiced(full[c - HALF_FIRST], mark);
        *len += both != 0 ? more : 0;
    }
    return both != 0 ? both : full[c - HALF_FIRST];
}

/* 0: it has none. ASCII stands for itself, but for the characters that change the charset. */
static uint16_t code_of(uint32_t c)
{
    if (c < 0x80)
        return c == 0x1b || c == 0x0e || c == 0x0f ? 0 : (uint16_t)c;
    return c < ARRAY_LEN(codes) ? codes[c] : 0;
}

bool iso2022jp_can(struct str text, uint32_t *missing)
{
    ASSERT(known);
    while (text.len > 0) {
        size_t len;
        uint32_t c = take(text, &len);

        if (code_of(c) == 0 && c != 0) {
            *missing = c;
            return false;
        }
        text.ptr += len;
        text.len -= len;
    }
    return true;
}

void iso2022jp_put(struct buf *out, struct str text)
{
    bool kanji = false;

    ASSERT(known);
    buf_room(out, text.len + 16);
    while (text.len > 0) {
        size_t len;
        uint16_t code = code_of(take(text, &len));

        ASSERT(code != 0 || *text.ptr == '\0'); /* iso2022jp_can() */
        if ((code > 0x7f) != kanji) {
            buf_puts(out, kanji ? TO_ASCII : TO_KANJI);
            kanji = !kanji;
        }
        if (kanji)
            buf_putc(out, (char)(code >> 8));
        buf_putc(out, (char)(code & 0xff));
        text.ptr += len;
        text.len -= len;
    }
    if (kanji)
        buf_puts(out, TO_ASCII);
}

struct str iso2022jp_fitting(struct str text, size_t bytes_max)
{
    struct str head = {text.ptr, 0}, unpadded = {text.ptr, 0};
    bool kanji = false;
    size_t bytes = 0;

    ASSERT(known);
    while (text.len > 0) {
        size_t len;
        bool is_kanji = code_of(take(text, &len)) > 0x7f;

        bytes += (is_kanji ? 2U : 1U) + (is_kanji != kanji ? 3U : 0U);
        kanji = is_kanji;
        if (bytes + (kanji ? 3U : 0U) > bytes_max)
            break;
        head.len += len;
        if ((bytes + (kanji ? 3U : 0U)) % 3 == 0)
            unpadded = head;
        text.ptr += len;
        text.len -= len;
    }
    return text.len > 0 && unpadded.len > 0 ? unpadded : head;
}
