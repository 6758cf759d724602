/* The types of the schema: how a value of each is read, written and named. */
#include <errno.h>

#include "base/zone.h"
#include "config/config_schema.h"
#include "config/config_value.h"

static int parse_seconds(struct str s, uint64_t *out)
{
    uint64_t ms;
    int err = config_parse_duration(s, &ms);

    /* 500ms for a member in seconds is no such value, rather than silently 0. */
    if (err == 0 && ms % 1000 != 0)
        err = -EINVAL;
    if (err == 0)
        *out = ms / 1000;
    return err;
}

static void format_seconds(struct buf *out, uint64_t v)
{
    config_format_duration(out, v * 1000);
}

/* Octal, as chmod takes it. */
static int parse_mode(struct str s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.len == 0 || s.len > 4)
        return -EINVAL;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '7')
            return -EINVAL;
        v = v << 3 | (uint64_t)(s.ptr[i] - '0');
    }
    *out = v;
    return 0;
}

static void format_mode(struct buf *out, uint64_t v)
{
    buf_printf(out, "%04llo", (unsigned long long)v);
}

static void format_percent(struct buf *out, uint64_t v)
{
    buf_put_u64(out, v);
    buf_putc(out, '%');
}

/* "0.5%", to a hundredth of a percent. */
static int parse_hundredths(struct str s, uint64_t *out)
{
    uint64_t whole, part = 0;
    ptrdiff_t dot;
    int err;

    if (s.len > 0 && s.ptr[s.len - 1] == '%')
        s.len--;
    dot = str_find(s, '.');
    if (dot >= 0) {
        struct str digits = {s.ptr + dot + 1, s.len - (size_t)dot - 1};

        if (digits.len == 0 || digits.len > 2)
            return -EINVAL;
        for (size_t i = 0; i < 2; i++) {
            char c = i < digits.len ? digits.ptr[i] : '0';

            if (c < '0' || c > '9')
                return -EINVAL;
            part = part * 10 + (uint64_t)(c - '0');
        }
        s.len = (size_t)dot;
    }
    err = str_to_u64(str_trim(s), UINT32_MAX, &whole);
    if (err == 0 && whole > 1000)
        err = -ERANGE;
    if (err == 0)
        *out = whole * 100 + part;
    return err;
}

static void format_hundredths(struct buf *out, uint64_t v)
{
    buf_put_u64(out, v / 100);
    if (v % 100 != 0)
        buf_printf(out, v % 10 == 0 ? ".%u" : ".%02u",
                   (unsigned)(v % 10 == 0 ? v % 100 / 10 : v % 100));
    buf_putc(out, '%');
}

static bool take_hour(struct str *s, unsigned *out)
{
    unsigned v = 0;
    size_t n = 0;

    while (n < s->len && n < 2 && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        v = v * 10 + (unsigned)(s->ptr[n++] - '0');
    *s = (struct str){s->ptr + n, s->len - n};
    *out = v;
    return n > 0 && v <= 24;
}

/* "22-7, 12-13": from the first hour up to, and without, the second. */
static int parse_hours(struct str s, uint64_t *out)
{
    uint64_t hours = 0;

    do {
        unsigned from, to;

        s = str_trim(s);
        if (!take_hour(&s, &from) || s.len == 0 || s.ptr[0] != '-')
            return -EINVAL;
        s = (struct str){s.ptr + 1, s.len - 1};
        if (!take_hour(&s, &to) || from == to || from == 24)
            return -EINVAL;
        for (unsigned h = from; h % 24 != to % 24 || h == from; h++)
            hours |= UINT64_C(1) << h % 24;
        s = str_trim(s);
        if (s.len != 0 && s.ptr[0] != ',')
            return -EINVAL;
        s = (struct str){s.ptr + (s.len != 0), s.len - (s.len != 0)};
    } while (s.len != 0);
    ASSERT(hours != 0 && hours >> 24 == 0); /* no range is empty */
    *out = hours;
    return 0;
}

static void format_hours(struct buf *out, uint64_t v)
{
    const char *between = "";

    ASSERT(v >> 24 == 0);
    if (v == 0xFFFFFF)
        buf_puts(out, "0-24");
    for (unsigned h = 0; h < 24 && v != 0xFFFFFF; h++) {
        unsigned end = h;

        if ((v >> h & 1) == 0 || (v >> (h + 23) % 24 & 1) != 0)
            continue; /* no range begins here */
        while ((v >> end % 24 & 1) != 0)
            end++;
        buf_printf(out, "%s%u-%u", between, h, end > 24 ? end - 24 : end);
        between = ", ";
    }
}

static int parse_date(struct str s, uint64_t *out)
{
    int32_t day;
    int err = day_parse(s, &day);

    if (err == 0 && day < 0)
        err = -ERANGE;
    if (err == 0)
        *out = (uint64_t)day;
    return err;
}

static void format_date(struct buf *out, uint64_t v)
{
    char text[DAY_TEXT_BYTES];

    ASSERT(v <= INT32_MAX);
    buf_puts(out, day_text((int32_t)v, text));
}

#define NUMBER(name_, wrong_, member, parse_, format_)                                             \
    {                                                                                              \
        .name = (name_), .wrong = (wrong_), .class = CONFIG_CLASS_NUMBER, .bytes = sizeof(member), \
        .parse = (parse_), .format = (format_)                                                     \
    }
#define TEXT(name_, wrong_)                                                                        \
    {                                                                                              \
        .name = (name_), .wrong = (wrong_), .class = CONFIG_CLASS_TEXT                             \
    }
#define ADDRESS(name_, wrong_)                                                                     \
    {                                                                                              \
        .name = (name_), .wrong = (wrong_), .class = CONFIG_CLASS_ADDRESS                          \
    }
#define LIST(name_, wrong_, item)                                                                  \
    {                                                                                              \
        .name = (name_), .wrong = (wrong_), .class = CONFIG_CLASS_LIST, .bytes = sizeof(item)      \
    }
#define SECTION()                                                                                  \
    {                                                                                              \
        .name = "section", .wrong = "", .class = CONFIG_CLASS_SECTION                              \
    }

#define NOT_NUMBER   "is not a number; write 100, 10k or 2M"
#define NOT_SIZE     "is not a size; write 64KiB, 5MiB, 1GB, or a number of bytes"
#define NOT_DURATION "is not a duration; write 500ms, 30s, 5m, 2h, 3d or 1h30m"
#define NOT_SECONDS  "is not a duration in whole seconds; write 30s, 5m, 2h, 3d or 1h30m"
#define NOT_TEXT     "is not a text of printable characters"

const struct config_type_info config_types[] = {
    [CONFIG_BOOL] = {.name = "yes or no", .wrong = "is not yes or no", .class = CONFIG_CLASS_BOOL},
    [CONFIG_NOT] = {.name = "yes or no", .wrong = "is not yes or no", .class = CONFIG_CLASS_BOOL},
    [CONFIG_COUNT] =
        NUMBER("number", NOT_NUMBER, uint32_t, config_parse_count, config_format_count),
    [CONFIG_PORT] = NUMBER("number", NOT_NUMBER, uint16_t, config_parse_count, config_format_count),
    [CONFIG_PERCENT] = NUMBER("percentage", "is not a percentage; write 10%", uint32_t,
                              config_parse_percent, format_percent),
    [CONFIG_HUNDREDTHS] = NUMBER("percentage", "is not a percentage; write 0.5%", uint32_t,
                                 parse_hundredths, format_hundredths),
    [CONFIG_HOURS] = NUMBER("hours", "is no range of hours; write 22-7, or \"0-6, 12-13\"",
                            uint32_t, parse_hours, format_hours),
    [CONFIG_DATE] =
        NUMBER("date", "is not a date; write 2026-12-01", uint32_t, parse_date, format_date),
    [CONFIG_BYTES] = NUMBER("size", NOT_SIZE, uint64_t, config_parse_bytes, config_format_bytes),
    [CONFIG_BYTES32] = NUMBER("size", NOT_SIZE, uint32_t, config_parse_bytes, config_format_bytes),
    [CONFIG_MS] =
        NUMBER("duration", NOT_DURATION, uint32_t, config_parse_duration, config_format_duration),
    [CONFIG_SECONDS] = NUMBER("duration", NOT_SECONDS, uint32_t, parse_seconds, format_seconds),
    [CONFIG_MODE] = NUMBER("file mode", "is not a file mode; write 0660 or 0600", uint32_t,
                           parse_mode, format_mode),
    [CONFIG_TEXT] = TEXT("text", NOT_TEXT),
    [CONFIG_NAME] = TEXT("host name", "is not a host name; write mail.example.com"),
    [CONFIG_MAILBOX] = TEXT("mail address", "is not a mail address; write postmaster@example.com"),
    [CONFIG_PATH] = TEXT("path", "is not an absolute path"),
    [CONFIG_ZONE] = TEXT("time zone", "is no time zone of this machine (package tzdata); write "
                                      "Asia/Tokyo, Europe/Berlin or UTC"),
    [CONFIG_USER] = TEXT("user", "is no user of this machine; create it, or write another"),
    [CONFIG_GROUP] = TEXT("group", "is no group of this machine; create it, or write another"),
    [CONFIG_CHOICE] = TEXT("one of", NOT_TEXT),
    [CONFIG_ADDRESS] = ADDRESS(
        "address", "is not an address with a port; write 192.0.2.1:25, \"[::]:25\" or unix:/path"),
    [CONFIG_IPV4] = ADDRESS("IPv4 address", "is not an IPv4 address; write 192.0.2.1"),
    [CONFIG_IPV6] = ADDRESS("IPv6 address", "is not an IPv6 address; write \"2001:db8::1\""),
    [CONFIG_RATE] = {.name = "rate",
                     .wrong = "is not a rate; write 5/s, 100/min, 10k/h, 20000/d or none",
                     .class = CONFIG_CLASS_RATE},
    [CONFIG_BYTE_RATE] = {.name = "rate of bytes",
                          .wrong = "is not a rate of bytes; write 2MiB/s, 500kB/min or none",
                          .class = CONFIG_CLASS_RATE},
    [CONFIG_TEXT_LIST] = LIST("list of texts", NOT_TEXT, char *),
    [CONFIG_SERVER_LIST] =
        LIST("list of addresses",
             "is not a name server; write 192.0.2.53, \"2001:db8::53\" or \"[2001:db8::53]:5353\"",
             char *),
    [CONFIG_SENDER_LIST] =
        LIST("list of senders",
             "is no sender; write example.com, \"*.example.com\", a@example.com or \"<>\"", char *),
    [CONFIG_NETWORK_LIST] = LIST(
        "list of networks", "is not a network; write 192.0.2.0/24, \"2001:db8::/32\" or an address",
        struct config_network),
    [CONFIG_SECONDS_LIST] = {.name = "list of durations",
                             .wrong = NOT_SECONDS,
                             .class = CONFIG_CLASS_LIST,
                             .bytes = sizeof(uint32_t),
                             .parse = parse_seconds,
                             .format = format_seconds},
    [CONFIG_COUNT_LIST] = {.name = "list of numbers",
                           .wrong = NOT_NUMBER,
                           .class = CONFIG_CLASS_LIST,
                           .bytes = sizeof(uint32_t),
                           .parse = config_parse_count,
                           .format = config_format_count},
    [CONFIG_SECTION] = SECTION(),
    [CONFIG_RETRY] = SECTION(),
    [CONFIG_ITEMS] = {.name = "list of sections", .wrong = "", .class = CONFIG_CLASS_ITEMS},
    [CONFIG_MAP] = {.name = "map", .wrong = "", .class = CONFIG_CLASS_ITEMS},
    [CONFIG_ROUTES] = SECTION(),
    [CONFIG_DESTINATIONS] = SECTION(),
};
