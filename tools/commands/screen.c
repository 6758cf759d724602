#include "tools/commands/screen.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool window(struct winsize *size)
{
    return isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, size) == 0 &&
           size->ws_col != 0;
}

unsigned screen_width(void)
{
    struct winsize size;

    if (window(&size))
        return size.ws_col;
    return isatty(STDOUT_FILENO) != 0 ? 80 : 0;
}

unsigned screen_height(void)
{
    struct winsize size;

    return window(&size) && size.ws_row != 0 ? size.ws_row : 24;
}

void put_count(struct buf *out, uint64_t v)
{
    char digits[24];
    int n = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)v);

    for (int i = 0; i < n; i++) {
        buf_putc(out, digits[i]);
        if (i + 1 < n && (n - 1 - i) % 3 == 0)
            buf_putc(out, ',');
    }
}

/* Three significant digits of v / unit. */
static void put_scaled(struct buf *out, double v, const char *unit)
{
    buf_printf(out, "%.*f%s", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, unit);
}

void put_counted(struct buf *out, uint64_t n, const char *noun)
{
    put_count(out, n);
    buf_printf(out, " %s%s", noun, PLURAL(n));
}

void put_short_count(struct buf *out, uint64_t v)
{
    if (v < 10000)
        put_count(out, v);
    else if (v < 1000000)
        put_scaled(out, (double)v / 1e3, "k");
    else if (v < UINT64_C(1000000000))
        put_scaled(out, (double)v / 1e6, "M");
    else
        put_scaled(out, (double)v / 1e9, "G");
}

void put_size(struct buf *out, uint64_t bytes)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB"};
    double v = (double)bytes;
    size_t i = 0;

    for (; v >= 1000 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
        v /= 1024;
    if (i == 0)
        buf_printf(out, "%.0f%s", v, units[i]);
    else
        put_scaled(out, v, units[i]);
}

void put_age(struct buf *out, int64_t ms)
{
    long long s = ms < 0 ? 0 : (long long)ms / 1000;

    if (s < 60)
        buf_printf(out, "%llds", s);
    else if (s < 3600)
        buf_printf(out, "%lldm", s / 60);
    else if (s < 86400)
        buf_printf(out, "%lldh%02lldm", s / 3600, s % 3600 / 60);
    else
        buf_printf(out, "%lldd%02lldh", s / 86400, s % 86400 / 3600);
}

/* U+200E, U+200F, U+2028 to U+202E and U+2066 to U+2069: the rest of the line would read otherwise
 * than it is. */
static bool turns_text(const char *p)
{
    unsigned char second = (unsigned char)p[1], third = (unsigned char)p[2];

    if ((unsigned char)p[0] != 0xe2)
        return false;
    if (second == 0x80)
        return third == 0x8e || third == 0x8f || (third >= 0xa8 && third <= 0xae);
    return second == 0x81 && third >= 0xa6 && third <= 0xa9;
}

/* The length of the well-formed character at p, 0 when there is none or it is not for a screen. */
static size_t character(const char *p)
{
    unsigned char c = (unsigned char)*p;
    size_t n = c < 0x80                ? 1
               : c >= 0xc2 && c < 0xe0 ? 2
               : c >= 0xe0 && c < 0xf0 ? 3
               : c >= 0xf0 && c < 0xf5 ? 4
                                       : 0;

    /* C0 controls, DEL; C1 controls are c2 80..9f. */
    if (c < ' ' || c == 0x7f || (c == 0xc2 && (unsigned char)p[1] < 0xa0))
        return 0;
    for (size_t i = 1; i < n; i++)
        if (((unsigned char)p[i] & 0xc0) != 0x80)
            return 0;
    return n == 3 && turns_text(p) ? 0 : n;
}

/* Of the well-formed character at p (Unicode's East_Asian_Width, in blocks): wcwidth() would want a
 * locale. */
static unsigned columns_of_character(const char *p, size_t len)
{
    static const struct {
        uint32_t first, last;
        unsigned columns;
    } blocks[] = {{0x0300, 0x036f, 0},   {0x1100, 0x115f, 2},  {0x200b, 0x200f, 0},
                  {0x2e80, 0x3098, 2},   {0x3099, 0x309a, 0},  {0x309b, 0xa4cf, 2},
                  {0xac00, 0xd7a3, 2},   {0xf900, 0xfaff, 2},  {0xfe00, 0xfe0f, 0},
                  {0xfe30, 0xfe6f, 2},   {0xff00, 0xff60, 2},  {0xffe0, 0xffe6, 2},
                  {0x1f300, 0x1faff, 2}, {0x20000, 0x3fffd, 2}};
    uint32_t c = len < 2 ? (unsigned char)*p : (unsigned char)*p & (0xffu >> (len + 1));

    for (size_t i = 1; i < len; i++)
        c = c << 6 | ((unsigned char)p[i] & 0x3f);
    for (size_t i = 0; i < ARRAY_LEN(blocks) && c >= blocks[i].first; i++)
        if (c <= blocks[i].last)
            return blocks[i].columns;
    return 1;
}

static size_t columns_of(const char *text, size_t len)
{
    size_t columns = 0;

    for (size_t i = 0, n; i < len; i += n) {
        n = character(text + i);
        columns += n == 0 ? 1 : columns_of_character(text + i, n);
        n = n == 0 ? 1 : n;
    }
    return columns;
}

void put_text(struct buf *out, const char *text, unsigned columns, bool pad)
{
    size_t from = out->len, last = from;

    for (unsigned used = 0; *text != 0;) {
        size_t len = character(text);
        unsigned more = len == 0 ? 1 : columns_of_character(text, len);

        if (used < columns)
            last = out->len; /* room for the last one */
        if (columns != 0 && used + more > columns) {
            out->len = last;
            buf_puts(out, "…");
            break;
        }
        used += more;
        if (len == 0)
            buf_putc(out, *text == '\t' ? ' ' : '?');
        else
            buf_put(out, text, len);
        text += len == 0 ? 1 : len;
    }
    if (pad)
        pad_from(out, from, columns, false);
}

static void insert_blanks(struct buf *text, size_t at, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        buf_putc(text, ' ');
    memmove(text->data + at + n, text->data + at, text->len - n - at);
    memset(text->data + at, ' ', n);
}

void fold_text(struct buf *text, unsigned columns, unsigned indent)
{
    size_t line = 0,
           blank = 0; /* where the line begins, and its last blank behind a word; 0: none */

    if (indent > columns / 2)
        indent = 0;
    for (size_t i = 0; columns != 0 && i < text->len; i++) {
        char *p = (char *)text->data;
        bool ends = i + 1 == text->len || p[i + 1] == ' ' || p[i + 1] == '\n';

        if (p[i] == '\n') {
            line = i + 1;
            blank = 0;
        } else if (p[i] == ' ' && i > line && p[i - 1] != ' ') {
            blank = i;
        } else if (ends && blank != 0 && columns_of(p + line, i + 1 - line) > columns) {
            p[blank] = '\n';
            line = blank + 1;
            blank = 0;
            insert_blanks(text, line, indent);
            i += indent;
        }
    }
}

void pad_from(struct buf *out, size_t from, unsigned columns, bool right)
{
    size_t have = columns_of((const char *)out->data + from, out->len - from);
    size_t lacks = have < columns ? columns - have : 0;
    size_t len = out->len - from;

    for (size_t i = 0; i < lacks; i++)
        buf_putc(out, ' ');
    if (right && lacks != 0) {
        memmove(out->data + from + lacks, out->data + from, len);
        memset(out->data + from, ' ', lacks);
    }
}

void put_column(struct buf *out, const char *text, unsigned columns)
{
    size_t from = out->len;

    put_text(out, text, screen_width() != 0 ? columns : 0, false);
    pad_from(out, from, columns, false);
}

void put_last(struct buf *line, const char *text)
{
    size_t used = columns_of((const char *)line->data, line->len), width = screen_width();

    if (width == 0 || width > used)
        put_text(line, text, width == 0 ? 0 : (unsigned)(width - used), false);
}

unsigned name_room(unsigned narrow)
{
    unsigned width = screen_width();

    return width > 80 ? narrow + (width - 80) / 3 : narrow;
}

void flush_text(struct buf *out, FILE *to)
{
    if (out->len != 0)
        fwrite(out->data, 1, out->len, to);
    buf_clear(out);
}
