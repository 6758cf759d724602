#include "smtp/address.h"

#include <arpa/inet.h>
#include <errno.h>

#define LABEL_MAX 63

/* What a byte may be part of. */
enum byte_class { ATEXT = 1, LETTER_DIGIT = 2, QTEXT = 4 };

static const uint8_t byte_classes[256] = {
    [' '] = QTEXT,
    ['!'] = ATEXT | QTEXT,
    ['#'] = ATEXT | QTEXT,
    ['$'] = ATEXT | QTEXT,
    ['%'] = ATEXT | QTEXT,
    ['&'] = ATEXT | QTEXT,
    ['\''] = ATEXT | QTEXT,
    ['('] = QTEXT,
    [')'] = QTEXT,
    ['*'] = ATEXT | QTEXT,
    ['+'] = ATEXT | QTEXT,
    [','] = QTEXT,
    ['-'] = ATEXT | QTEXT,
    ['.'] = QTEXT,
    ['/'] = ATEXT | QTEXT,
    ['0' ... '9'] = ATEXT | QTEXT | LETTER_DIGIT,
    [':' ... '<'] = QTEXT,
    ['='] = ATEXT | QTEXT,
    ['>'] = QTEXT,
    ['?'] = ATEXT | QTEXT,
    ['@'] = QTEXT,
    ['A' ... 'Z'] = ATEXT | QTEXT | LETTER_DIGIT,
    ['['] = QTEXT,
    [']'] = QTEXT,
    ['^' ... '`'] = ATEXT | QTEXT,
    ['a' ... 'z'] = ATEXT | QTEXT | LETTER_DIGIT,
    ['{' ... '~'] = ATEXT | QTEXT,
};

static bool is_class(char c, uint8_t class)
{
    return (byte_classes[(uint8_t)c] & class) != 0;
}

static struct str str_from(struct str s, size_t at)
{
    return (struct str){s.ptr + at, s.len - at};
}

/* Length of the UTF-8 sequence at the start of s (RFC 3629 4), 0 if it is not valid. ASCII: 1. */
static size_t utf8_sequence(struct str s)
{
    const uint8_t *p = (const uint8_t *)s.ptr;
    uint8_t low = 0x80, high = 0xbf;
    size_t n;

    if (s.len == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (s.len < n)
        return 0;
    /* The second byte excludes overlong forms, surrogates and what is above U+10FFFF. */
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

bool smtp_utf8_valid(struct str s)
{
    size_t at = 0;

    while (at < s.len) {
        size_t n = utf8_sequence(str_from(s, at));

        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

/* Length of a non-ASCII character at s that an address may contain, 0 otherwise. U+0080..U+009F are
 * controls too. */
static size_t utf8_char(struct str s)
{
    size_t n = (uint8_t)s.ptr[0] < 0x80 ? 0 : utf8_sequence(s);

    return n == 2 && (uint8_t)s.ptr[0] == 0xc2 && (uint8_t)s.ptr[1] < 0xa0 ? 0 : n;
}

/* Length of a run of bytes of class, and of non-ASCII characters when *utf8_ok, at s[at]. Sets
 * *utf8 when there was one of the latter. */
static size_t skip_run(struct str s, size_t at, uint8_t class, bool utf8_ok, bool *utf8)
{
    size_t start = at;

    while (at < s.len) {
        size_t n = 1;

        if (!is_class(s.ptr[at], class)) {
            n = utf8_ok ? utf8_char(str_from(s, at)) : 0;
            if (n == 0)
                break;
            *utf8 = true;
        }
        at += n;
    }
    return at - start;
}

/* Quoted-string (RFC 5321 4.1.2) at the start of s; its length with the quotes, 0 if it is none. */
static size_t skip_quoted(struct str s, bool utf8_ok, bool *utf8)
{
    size_t at = 1;

    ASSERT(s.len > 0 && *s.ptr == '"');
    for (;;) {
        at += skip_run(s, at, QTEXT, utf8_ok, utf8);
        if (at >= s.len)
            return 0;
        if (s.ptr[at] == '"')
            return at + 1;
        if (s.ptr[at] != '\\' || at + 1 >= s.len || s.ptr[at + 1] < ' ' || s.ptr[at + 1] > '~')
            return 0;
        at += 2;
    }
}

/* Atoms and dots; their length, 0 if there is none. */
static size_t skip_dot_string(struct str s, bool utf8_ok, bool *utf8)
{
    size_t at = 0, n;

    do {
        n = skip_run(s, at, ATEXT, utf8_ok, utf8);
        if (at + n < s.len && s.ptr[at + n] == '.')
            n++;
        at += n;
    } while (n != 0);
    return at;
}

/* Domain of labels at the start of s, without a final dot; its length, 0 if it is none. '_' is not
 * a host name's, but names with it exist in the DNS and in EHLO of real clients, so it counts as a
 * letter here. How long a label of UTF-8 may be is for its A-label to say (RFC 5890 2.3.2.1). */
static size_t skip_labels(struct str s, bool utf8_ok, bool *utf8)
{
    size_t at = 0, label = 0;
    bool label_utf8 = false;

    for (;;) {
        size_t n = skip_run(s, at, LETTER_DIGIT, utf8_ok, &label_utf8);

        if (n == 0 && at < s.len && (s.ptr[at] == '_' || (s.ptr[at] == '-' && at > label)))
            n = 1;
        at += n;
        if (n != 0)
            continue;
        if (at == label && label > 0)
            return label - 1;
        if (at == label || (at - label > LABEL_MAX && !label_utf8) || s.ptr[at - 1] == '-')
            return 0;
        *utf8 |= label_utf8;
        if (at >= s.len || s.ptr[at] != '.')
            return at <= SMTP_DOMAIN_MAX ? at : 0;
        label = ++at;
        label_utf8 = false;
    }
}

/* Address literal at the start of s: "[192.0.2.1]" or "[IPv6:...]"; its length, 0 if it is none.
 * No other tag is registered (RFC 5321 4.1.3), so none is accepted. */
static size_t skip_literal(struct str s)
{
    ptrdiff_t end = str_find(s, ']');
    struct str inner;
    char text[INET6_ADDRSTRLEN];
    uint8_t binary[16];
    int family = AF_INET;

    if (end < 2)
        return 0;
    inner = (struct str){s.ptr + 1, (size_t)end - 1};
    if (str_starts_nocase(inner, STR("IPv6:"))) {
        family = AF_INET6;
        inner = str_from(inner, 5);
    }
    if (inner.len >= sizeof(text) || memchr(inner.ptr, '\0', inner.len) != NULL)
        return 0;
    memcpy(text, inner.ptr, inner.len);
    text[inner.len] = '\0';
    return inet_pton(family, text, binary) == 1 ? (size_t)end + 1 : 0;
}

static size_t skip_domain(struct str s, bool utf8_ok, bool *utf8)
{
    if (s.len == 0)
        return 0;
    return s.ptr[0] == '[' ? skip_literal(s) : skip_labels(s, utf8_ok, utf8);
}

bool smtp_domain_valid(struct str s, bool utf8_ok)
{
    bool utf8 = false;

    return s.len != 0 && skip_domain(s, utf8_ok, &utf8) == s.len;
}

/* The length of a local part without quotes that must have them before others see it, since it has
 * dots at its ends or in a row; 0: it is written as it is, as is what no parser of ours let in. */
static size_t lacks_quotes(struct str address)
{
    bool dot = true; /* where one more is one too many */
    bool dots = false;

    for (size_t i = 0; i < address.len; i++) {
        char c = address.ptr[i];

        if (c == '"' || c == '\\')
            return 0;
        if (c == '@')
            return dots || (dot && i > 0) ? i : 0;
        dots |= dot && c == '.';
        dot = c == '.';
    }
    return 0;
}

/* Of a quoted local part at the start of address what it stands for, written to room; its length,
 * and with *given that of the quoted form. 0 when nothing is quoted, or not by the book. */
static size_t unquote(struct str address, char room[static SMTP_PATH_MAX], size_t *given)
{
    size_t len = 0;

    if (address.len == 0 || address.ptr[0] != '"')
        return 0;
    for (size_t i = 1; i < address.len && len < SMTP_PATH_MAX; i++) {
        if (address.ptr[i] == '"') {
            *given = i + 1;
            return len;
        }
        if (address.ptr[i] == '\\' && ++i == address.len)
            return 0;
        room[len++] = address.ptr[i];
    }
    return 0;
}

/* Atoms with one dot between each two. */
static bool is_dot_string(struct str s)
{
    bool utf8;
    size_t at = 0;

    for (;;) {
        size_t n = skip_run(s, at, ATEXT, true, &utf8);

        at += n;
        if (n == 0 || at == s.len)
            return n != 0;
        if (s.ptr[at++] != '.')
            return false;
    }
}

struct str smtp_address_local(struct str address, char room[static SMTP_PATH_MAX], size_t *given)
{
    char plain[SMTP_PATH_MAX];
    size_t len = lacks_quotes(address), n = 0;

    *given = len;
    if (len != 0 && len <= SMTP_PATH_MAX - 2)
        memcpy(plain, address.ptr, len);
    else
        len = unquote(address, plain, given);
    if (len == 0 || *given > SMTP_PATH_MAX) {
        *given = 0;
        return STR("");
    }
    if (is_dot_string((struct str){plain, len})) {
        memcpy(room, plain, len);
        return (struct str){room, len};
    }
    room[n++] = '"';
    for (size_t i = 0; i < len; i++) {
        if (plain[i] == '"' || plain[i] == '\\')
            room[n++] = '\\';
        room[n++] = plain[i];
    }
    room[n++] = '"';
    ASSERT(n <= SMTP_PATH_MAX && *given <= address.len); /* each backslash was one there, too */
    return (struct str){room, n};
}

void smtp_address_put(struct buf *out, struct str address)
{
    char room[SMTP_PATH_MAX];
    size_t given;

    buf_put_str(out, smtp_address_local(address, room, &given));
    buf_put_str(out, str_from(address, given));
}

/* Mailbox at the start of s; its length, with a final dot that out does not have, 0 if it is none.
 */
static size_t skip_mailbox(struct str s, bool postmaster_ok, bool utf8_ok, struct smtp_address *out)
{
    size_t local, domain, quotes;
    bool final_dot;

    *out = (struct smtp_address){0};
    if (s.len == 0)
        return 0;
    local = s.ptr[0] == '"' ? skip_quoted(s, utf8_ok, &out->utf8)
                            : skip_dot_string(s, utf8_ok, &out->utf8);
    if (local == 0)
        return 0;
    out->local_part = (struct str){s.ptr, local};
    out->text = out->local_part;
    out->domain = (struct str){s.ptr + local, 0};
    if (local == s.len || s.ptr[local] != '@')
        return postmaster_ok && str_eq_nocase(out->local_part, STR("postmaster")) ? local : 0;
    domain = skip_domain(str_from(s, local + 1), utf8_ok, &out->utf8);
    if (domain == 0)
        return 0;
    out->domain = (struct str){s.ptr + local + 1, domain};
    out->text.len = local + 1 + domain;
    quotes = lacks_quotes(out->text) != 0 ? 2 : 0;
    if (out->text.len + quotes + 2 > SMTP_PATH_MAX)
        return 0;
    final_dot = out->text.len < s.len && s.ptr[out->text.len] == '.' && out->domain.ptr[0] != '[';
    return out->text.len + (final_dot ? 1 : 0);
}

/* Source route "@a,@b:" at s[at]; its length, 0 when there is none or it is broken. */
static size_t skip_source_route(struct str s, size_t at)
{
    size_t start = at;
    bool utf8 = false;

    while (at < s.len && s.ptr[at] == '@') {
        size_t n = skip_domain(str_from(s, at + 1), false, &utf8);

        if (n == 0)
            return 0;
        at += 1 + n;
        if (at < s.len && s.ptr[at] == ':')
            return at + 1 - start;
        if (at >= s.len || s.ptr[at] != ',')
            return 0;
        at++;
    }
    return 0;
}

int smtp_path_parse(struct str in, bool null_ok, bool utf8_ok, struct smtp_address *out,
                    size_t *used)
{
    struct smtp_address address = {0};
    size_t at = 1, mailbox;

    if (in.len < 2 || in.ptr[0] != '<')
        return -EINVAL;
    if (in.ptr[1] == '>') {
        if (!null_ok)
            return -EINVAL;
        address.text = address.local_part = address.domain = (struct str){in.ptr + 1, 0};
        *out = address;
        *used = 2;
        return 0;
    }
    at += skip_source_route(in, at);
    mailbox = skip_mailbox(str_from(in, at), !null_ok, utf8_ok, &address);
    at += mailbox;
    if (mailbox == 0 || at >= in.len || in.ptr[at] != '>')
        return -EINVAL;
    ASSERT(address.text.len > 0 && address.text.len + 2 <= SMTP_PATH_MAX);
    *out = address;
    *used = at + 1;
    return 0;
}

#define FAULT(more)                                                                                \
    {                                                                                              \
        "is no mail address" more, "553 5.1.3 is no mail address" more                             \
    }

const struct smtp_address_fault *smtp_address_fault(struct str text)
{
    static const struct {
        const char *part;
        struct smtp_address_fault fault;
    } seen[] = {{"\xef\xbc\xa0", FAULT(": its \xef\xbc\xa0 is full-width; write @")},
                {"\xe3\x80\x80", FAULT(": there is a full-width blank in it")},
                {"<", FAULT(": write it alone, without a name and < >")},
                {" ", FAULT(": there is a blank in it")},
                {"\t", FAULT(": there is a blank in it")}};
    static const struct smtp_address_fault other = FAULT(""), none = FAULT(": it has no @");

    for (size_t i = 0; i < ARRAY_LEN(seen); i++)
        if (memmem(text.ptr, text.len, seen[i].part, strlen(seen[i].part)) != NULL)
            return &seen[i].fault;
    return str_find(text, '@') < 0 ? &none : &other;
}

int smtp_address_parse(struct str in, bool utf8_ok, struct smtp_address *out)
{
    struct smtp_address address;

    if (in.len == 0 || skip_mailbox(in, false, utf8_ok, &address) != in.len)
        return -EINVAL;
    ASSERT(address.domain.len > 0 && address.text.len + 2 <= SMTP_PATH_MAX);
    *out = address;
    return 0;
}

int smtp_bare_path_parse(struct str in, bool utf8_ok, struct smtp_address *out, size_t *used)
{
    ptrdiff_t space = str_find(in, ' ');

    *used = space < 0 ? in.len : (size_t)space;
    return smtp_address_parse((struct str){in.ptr, *used}, utf8_ok, out);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

ptrdiff_t smtp_xtext_decode(struct str in, char *out, size_t cap)
{
    size_t len = 0;

    for (size_t i = 0; i < in.len; i++) {
        int c = (uint8_t)in.ptr[i];

        if (c < '!' || c > '~' || c == '=')
            return -EINVAL;
        if (c == '+') {
            int high = i + 2 < in.len ? hex(in.ptr[i + 1]) : -1;
            int low = high >= 0 ? hex(in.ptr[i + 2]) : -1;

            if (low < 0)
                return -EINVAL;
            c = high * 16 + low;
            i += 2;
            /* RFC 3461 4.2 and 4.4: what is encoded is printable; a CR here would be somebody's
             * attempt to write into a notice. */
            if (c < ' ' || c > '~')
                return -EINVAL;
        }
        if (len == cap)
            return -EINVAL;
        out[len++] = (char)c;
    }
    return (ptrdiff_t)len;
}

int smtp_xtext_put(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < ' ' || text.ptr[i] > '~')
            return -EINVAL;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (c == ' ' || c == '+' || c == '=')
            buf_printf(out, "+%02X", (unsigned)c);
        else
            buf_putc(out, c);
    }
    return 0;
}
