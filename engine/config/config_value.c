#include "config/config_value.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <sys/un.h>

#include "base/sockaddr.h"

#define MINUTE_MS UINT64_C(60000)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit count_units[] = {
    {"", 1}, {"k", 1000}, {"K", 1000}, {"M", 1000000}, {"G", 1000000000}, {NULL, 0},
};

static const struct unit byte_units[] = {
    {"", 1},
    {"B", 1},
    {"KiB", UINT64_C(1) << 10},
    {"MiB", UINT64_C(1) << 20},
    {"GiB", UINT64_C(1) << 30},
    {"TiB", UINT64_C(1) << 40},
    {"kB", 1000},
    {"KB", 1000},
    {"MB", 1000000},
    {"GB", 1000000000},
    {"TB", UINT64_C(1000000000000)},
    {NULL, 0},
};

static const struct unit time_units[] = {
    {"ms", 1},          {"s", 1000},           {"sec", 1000},  {"second", 1000},  {"m", MINUTE_MS},
    {"min", MINUTE_MS}, {"minute", MINUTE_MS}, {"h", HOUR_MS}, {"hour", HOUR_MS}, {"d", DAY_MS},
    {"day", DAY_MS},    {"w", 7 * DAY_MS},     {NULL, 0},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Takes digits off the front of s. 0, -EINVAL when there are none, -ERANGE. */
static int take_digits(struct str *s, uint64_t *out)
{
    uint64_t v = 0;
    size_t n = 0;

    for (; n < s->len && is_digit(s->ptr[n]); n++)
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s->ptr[n] - '0'), &v))
            return -ERANGE;
    if (n == 0)
        return -EINVAL;
    *s = (struct str){s->ptr + n, s->len - n};
    *out = v;
    return 0;
}

/* Takes ".5" off the front of s: at most three digits, in thousandths. */
static int take_fraction(struct str *s, uint64_t *thousandths)
{
    struct str digits = {s->ptr + 1, s->len - 1};
    uint64_t v = 0;
    size_t before;
    int err;

    *thousandths = 0;
    if (s->len == 0 || s->ptr[0] != '.')
        return 0;
    before = digits.len;
    err = take_digits(&digits, &v);
    if (err != 0)
        return err;
    if (before - digits.len > 3)
        return -EINVAL;
    for (size_t n = before - digits.len; n < 3; n++)
        v *= 10;
    *s = digits;
    *thousandths = v;
    return 0;
}

/* The unit that s starts with: letters up to the next digit or the end. NULL when there is none. */
static const struct unit *take_unit(struct str *s, const struct unit *units)
{
    size_t n = 0;

    while (n < s->len && !is_digit(s->ptr[n]))
        n++;
    for (const struct unit *u = units; u->name != NULL; u++) {
        if (!str_eq((struct str){s->ptr, n}, str_of(u->name)))
            continue;
        *s = (struct str){s->ptr + n, s->len - n};
        return u;
    }
    return NULL;
}

/* One "<number>[.<fraction>][ ]<unit>" off the front of s. */
static int take_quantity(struct str *s, const struct unit *units, uint64_t *out)
{
    uint64_t whole, thousandths, part;
    const struct unit *u;
    int err = take_digits(s, &whole);

    if (err == 0)
        err = take_fraction(s, &thousandths);
    if (err != 0)
        return err;
    *s = str_trim(*s);
    u = take_unit(s, units);
    if (u == NULL)
        return -EINVAL;
    if (__builtin_mul_overflow(whole, u->factor, &whole) ||
        __builtin_mul_overflow(thousandths, u->factor, &part) ||
        __builtin_add_overflow(whole, part / 1000, &whole))
        return -ERANGE;
    if (part % 1000 != 0)
        return -EINVAL; /* 1.5 bytes */
    *out = whole;
    return 0;
}

static int parse_quantity(struct str s, const struct unit *units, uint64_t *out)
{
    uint64_t v;
    int err = take_quantity(&s, units, &v);

    if (err == 0 && s.len != 0)
        err = -EINVAL;
    if (err == 0)
        *out = v;
    return err;
}

int config_parse_count(struct str s, uint64_t *out)
{
    return parse_quantity(s, count_units, out);
}

int config_parse_bytes(struct str s, uint64_t *out)
{
    return parse_quantity(s, byte_units, out);
}

int config_parse_duration(struct str s, uint64_t *out_ms)
{
    uint64_t sum = 0, part;
    int err;

    if (str_eq(s, STR("0"))) {
        *out_ms = 0;
        return 0;
    }
    if (s.len == 0)
        return -EINVAL;
    while (s.len != 0) {
        err = take_quantity(&s, time_units, &part);
        if (err != 0)
            return err;
        if (__builtin_add_overflow(sum, part, &sum))
            return -ERANGE;
    }
    *out_ms = sum;
    return 0;
}

static int parse_rate(struct str s, int (*parse)(struct str s, uint64_t *out), uint64_t *count,
                      uint32_t *period_ms)
{
    ptrdiff_t slash = str_find(s, '/');
    struct str left, right;
    uint64_t n, period;
    int err;

    if (slash < 0)
        return -EINVAL;
    left = str_trim((struct str){s.ptr, (size_t)slash});
    right = str_trim((struct str){s.ptr + slash + 1, s.len - (size_t)slash - 1});
    err = parse(left, &n);
    if (err != 0)
        return err;
    if (right.len == 0)
        return -EINVAL;
    if (is_digit(right.ptr[0])) {
        err = config_parse_duration(right, &period);
    } else {
        const struct unit *u = take_unit(&right, time_units);

        period = u == NULL ? 0 : u->factor;
        err = u == NULL || right.len != 0 ? -EINVAL : 0;
    }
    if (err != 0)
        return err;
    if (period == 0 || period > 31 * DAY_MS)
        return -ERANGE;
    *count = n;
    *period_ms = (uint32_t)period;
    return 0;
}

int config_parse_rate(struct str s, uint64_t *messages, uint32_t *period_ms)
{
    return parse_rate(s, config_parse_count, messages, period_ms);
}

int config_parse_byte_rate(struct str s, uint64_t *bytes, uint32_t *period_ms)
{
    return parse_rate(s, config_parse_bytes, bytes, period_ms);
}

int config_parse_percent(struct str s, uint64_t *out)
{
    if (s.len != 0 && s.ptr[s.len - 1] == '%')
        s = str_trim((struct str){s.ptr, s.len - 1});
    return str_to_u64(s, UINT32_MAX, out);
}

int config_parse_bool(struct str s, bool *out)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"yes", true},    {"no", false}, {"true", true},
                 {"false", false}, {"on", true},  {"off", false}};

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!str_eq_nocase(s, str_of(words[i].word)))
            continue;
        *out = words[i].value;
        return 0;
    }
    return -EINVAL;
}

/* A NUL-terminated copy for inet_pton(), which wants one. */
static bool copy_text(struct str s, char *out, size_t cap)
{
    if (s.len == 0 || s.len >= cap || memchr(s.ptr, 0, s.len) != NULL)
        return false;
    memcpy(out, s.ptr, s.len);
    out[s.len] = 0;
    return true;
}

static void map_ipv4(uint8_t out[16], const struct in_addr *in)
{
    memset(out, 0, 10);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, in, 4);
}

int config_parse_network(struct str s, struct config_network *out)
{
    ptrdiff_t slash = str_find(s, '/');
    struct str host = slash < 0 ? s : (struct str){s.ptr, (size_t)slash};
    struct config_network n = {.prefix = 128};
    bool behind = false;
    char text[INET6_ADDRSTRLEN + 8];
    struct in_addr v4;
    uint64_t prefix, bits = 128;

    if (!copy_text(host, text, sizeof(text)))
        return -EINVAL;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        map_ipv4(n.bytes, &v4);
        bits = 32;
    } else if (inet_pton(AF_INET6, text, n.bytes) != 1) {
        return -EINVAL;
    }
    if (slash >= 0) {
        struct str rest = {s.ptr + slash + 1, s.len - (size_t)slash - 1};
        int err = str_to_u64(rest, bits, &prefix);

        if (err != 0)
            return err;
        n.prefix = (uint8_t)(128 - bits + prefix);
    }
    for (unsigned bit = n.prefix; bit < 128; bit++) {
        uint8_t mask = (uint8_t)(0x80 >> (bit % 8));

        behind |= (n.bytes[bit / 8] & mask) != 0;
        n.bytes[bit / 8] &= (uint8_t)~mask;
    }
    *out = n;
    return behind ? -EDOM : 0;
}

int config_parse_ip(struct str s, struct config_address *out)
{
    struct config_address a = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&a.addr;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a.addr;
    char text[INET6_ADDRSTRLEN + 8];

    if (s.len >= 2 && s.ptr[0] == '[' && s.ptr[s.len - 1] == ']')
        s = (struct str){s.ptr + 1, s.len - 2};
    if (!copy_text(s, text, sizeof(text)))
        return -EINVAL;
    if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        a.len = sizeof(*in);
    } else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        a.len = sizeof(*in6);
    } else {
        return -EINVAL;
    }
    *out = a;
    return 0;
}

static int parse_unix(struct str path, struct config_address *out)
{
    struct config_address a = {0};
    struct sockaddr_un *un = (struct sockaddr_un *)&a.addr;

    if (path.len == 0 || path.ptr[0] != '/')
        return -EINVAL;
    if (!copy_text(path, un->sun_path, sizeof(un->sun_path)))
        return path.len >= sizeof(un->sun_path) ? -ERANGE : -EINVAL;
    un->sun_family = AF_UNIX;
    a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
    *out = a;
    return 0;
}

int config_parse_address(struct str s, uint16_t default_port, struct config_address *out)
{
    static const struct str unix_prefix = {"unix:", 5};
    struct config_address a = {0};
    struct str host = s, port = {NULL, 0};
    ptrdiff_t colon = str_rfind(s, ':');
    uint64_t number = default_port;
    int err;

    if (str_starts_nocase(s, unix_prefix))
        return parse_unix((struct str){s.ptr + 5, s.len - 5}, out);
    /* The last colon ends the host when the host is bracketed or has no other colon. */
    if (colon > 0 && (s.ptr[colon - 1] == ']' || str_find(s, ':') == colon)) {
        host.len = (size_t)colon;
        port = (struct str){s.ptr + colon + 1, s.len - (size_t)colon - 1};
        err = str_to_u64(port, 65535, &number);
        if (err != 0)
            return err;
    }
    if (number == 0)
        return -EINVAL;
    err = config_parse_ip(host, &a);
    if (err != 0)
        return err;
    sockaddr_set_port((struct sockaddr *)&a.addr, (uint16_t)number);
    *out = a;
    return 0;
}

void config_format_count(struct buf *out, uint64_t v)
{
    if (v >= 1000000 && v % 1000000 == 0)
        buf_printf(out, "%lluM", (unsigned long long)(v / 1000000));
    else if (v >= 10000 && v % 1000 == 0)
        buf_printf(out, "%lluk", (unsigned long long)(v / 1000));
    else
        buf_put_u64(out, v);
}

void config_format_bytes(struct buf *out, uint64_t v)
{
    static const char *const names[] = {"", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;

    while (i + 1 < ARRAY_LEN(names) && v != 0 && v % 1024 == 0) {
        v /= 1024;
        i++;
    }
    buf_put_u64(out, v);
    buf_puts(out, names[i]);
}

void config_format_duration(struct buf *out, uint64_t ms)
{
    static const struct unit units[] = {
        {"d", DAY_MS}, {"h", HOUR_MS}, {"m", MINUTE_MS}, {"s", 1000}, {"ms", 1}};
    size_t i = 0;

    while (ms % units[i].factor != 0)
        i++;
    buf_put_u64(out, ms / units[i].factor);
    if (ms != 0)
        buf_puts(out, units[i].name);
}

static void format_period(struct buf *out, uint32_t period_ms)
{
    buf_putc(out, '/');
    if (period_ms == 1000)
        buf_puts(out, "s");
    else if (period_ms == MINUTE_MS)
        buf_puts(out, "min");
    else if (period_ms == HOUR_MS)
        buf_puts(out, "h");
    else if (period_ms == DAY_MS)
        buf_puts(out, "d");
    else
        config_format_duration(out, period_ms);
}

void config_format_rate(struct buf *out, uint64_t messages, uint32_t period_ms)
{
    config_format_count(out, messages);
    format_period(out, period_ms);
}

void config_format_byte_rate(struct buf *out, uint64_t bytes, uint32_t period_ms)
{
    config_format_bytes(out, bytes);
    format_period(out, period_ms);
}

void config_format_network(struct buf *out, const struct config_network *n)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    bool v4 = n->prefix >= 96 && memcmp(n->bytes, mapped, sizeof(mapped)) == 0;
    unsigned prefix = v4 ? n->prefix - 96U : n->prefix;
    char text[INET6_ADDRSTRLEN];

    ASSERT(n->prefix <= 128);
    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? n->bytes + 12 : n->bytes, text, sizeof(text));
    buf_puts(out, text);
    if (prefix != (v4 ? 32 : 128))
        buf_printf(out, "/%u", prefix);
}
