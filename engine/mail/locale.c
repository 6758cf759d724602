#include "mail/locale.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

/* Of dates: d, m the numbers, D, M the same with two digits, y the year, N the month's name, W the
 * day's; all else stands for itself, and so does what is between ' and '. */
struct locale {
    const char *name;
    const char *dates[LOCALE_STYLES];
    const char *const *months, *const *days; /* days from Sunday */
    const char *group, *point;
    uint8_t group_min; /* digits in front of the first separator, for there to be one */
};

#define NAMES static const char *const
NAMES months_de[] = {"Januar", "Februar", "März",      "April",   "Mai",      "Juni",
                     "Juli",   "August",  "September", "Oktober", "November", "Dezember"};
NAMES months_en[] = {"January", "February", "March",     "April",   "May",      "June",
                     "July",    "August",   "September", "October", "November", "December"};
NAMES months_es[] = {"enero", "febrero", "marzo",      "abril",   "mayo",      "junio",
                     "julio", "agosto",  "septiembre", "octubre", "noviembre", "diciembre"};
NAMES months_fr[] = {"janvier", "février", "mars",      "avril",   "mai",      "juin",
                     "juillet", "août",    "septembre", "octobre", "novembre", "décembre"};
NAMES months_it[] = {"gennaio", "febbraio", "marzo",     "aprile",  "maggio",   "giugno",
                     "luglio",  "agosto",   "settembre", "ottobre", "novembre", "dicembre"};
NAMES months_nl[] = {"januari", "februari", "maart",     "april",   "mei",      "juni",
                     "juli",    "augustus", "september", "oktober", "november", "december"};
NAMES months_pl[] = {"stycznia", "lutego",   "marca",    "kwietnia",     "maja",      "czerwca",
                     "lipca",    "sierpnia", "września", "października", "listopada", "grudnia"};
NAMES months_pt[] = {"janeiro", "fevereiro", "março",    "abril",   "maio",     "junho",
                     "julho",   "agosto",    "setembro", "outubro", "novembro", "dezembro"};
NAMES months_sv[] = {"januari", "februari", "mars",      "april",   "maj",      "juni",
                     "juli",    "augusti",  "september", "oktober", "november", "december"};

NAMES days_de[] = {"Sonntag", "Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag"};
NAMES days_en[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
NAMES days_es[] = {"domingo", "lunes", "martes", "miércoles", "jueves", "viernes", "sábado"};
NAMES days_fr[] = {"dimanche", "lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi"};
NAMES days_it[] = {"domenica", "lunedì", "martedì", "mercoledì", "giovedì", "venerdì", "sabato"};
NAMES days_ja[] = {"日曜日", "月曜日", "火曜日", "水曜日", "木曜日", "金曜日", "土曜日"};
NAMES days_ko[] = {"일요일", "월요일", "화요일", "수요일", "목요일", "금요일", "토요일"};
NAMES days_nl[] = {"zondag", "maandag", "dinsdag", "woensdag", "donderdag", "vrijdag", "zaterdag"};
NAMES days_pl[] = {"niedziela", "poniedziałek", "wtorek", "środa", "czwartek", "piątek", "sobota"};
NAMES days_pt[] = {"domingo",      "segunda-feira", "terça-feira", "quarta-feira",
                   "quinta-feira", "sexta-feira",   "sábado"};
NAMES days_sv[] = {"söndag", "måndag", "tisdag", "onsdag", "torsdag", "fredag", "lördag"};
NAMES days_zh[] = {"星期日", "星期一", "星期二", "星期三", "星期四", "星期五", "星期六"};

#define NBSP        "\u00a0"
#define NARROW_NBSP "\u202f"

static const struct locale locales[] = {
    {"de", {"D.M.y", "d. N y", "W, d. N y"}, months_de, days_de, ".", ",", 1},
    {"en", {"m/d/y", "N d, y", "W, N d, y"}, months_en, days_en, ",", ".", 1},
    {"en-AU", {"D/M/y", "d N y", "W, d N y"}, months_en, days_en, ",", ".", 1},
    {"en-GB", {"D/M/y", "d N y", "W, d N y"}, months_en, days_en, ",", ".", 1},
    {"es", {"d/m/y", "d 'de' N 'de' y", "W, d 'de' N 'de' y"}, months_es, days_es, ".", ",", 2},
    {"fr", {"D/M/y", "d N y", "W d N y"}, months_fr, days_fr, NARROW_NBSP, ",", 1},
    {"it", {"D/M/y", "d N y", "W d N y"}, months_it, days_it, ".", ",", 1},
    {"ja", {"y/M/D", "y年m月d日", "y年m月d日W"}, NULL, days_ja, ",", ".", 1},
    {"ko", {"y. m. d.", "y년 m월 d일", "y년 m월 d일 W"}, NULL, days_ko, ",", ".", 1},
    {"nl", {"D-M-y", "d N y", "W d N y"}, months_nl, days_nl, ".", ",", 1},
    {"pl", {"D.M.y", "d N y", "W, d N y"}, months_pl, days_pl, NBSP, ",", 2},
    {"pt", {"D/M/y", "d 'de' N 'de' y", "W, d 'de' N 'de' y"}, months_pt, days_pt, ".", ",", 1},
    {"sv", {"y-M-D", "d N y", "W d N y"}, months_sv, days_sv, NBSP, ",", 1},
    {"zh", {"y/m/d", "y年m月d日", "y年m月d日W"}, NULL, days_zh, ",", ".", 1},
};

static bool same_name(struct str asked, struct str name)
{
    if (asked.len != name.len)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = asked.ptr[i] == '_' ? '-' : asked.ptr[i];

        if (!str_eq_nocase((struct str){&c, 1}, (struct str){name.ptr + i, 1}))
            return false;
    }
    return true;
}

const struct locale *locale_find(struct str name)
{
    size_t len = 0;

    for (size_t i = 0; i < ARRAY_LEN(locales); i++)
        if (same_name(name, str_of(locales[i].name)))
            return &locales[i];
    while (len < name.len && name.ptr[len] != '-' && name.ptr[len] != '_')
        len++;
    return len == name.len ? NULL : locale_find((struct str){name.ptr, len});
}

void locale_put_names(struct buf *out)
{
    for (size_t i = 0; i < ARRAY_LEN(locales); i++)
        buf_printf(out, "%s%s", i > 0 ? ", " : "", locales[i].name);
}

/* --- dates --- */

static bool is_leap(int64_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

bool locale_date_valid(const struct locale_date *d)
{
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return d->year >= 1 && d->year <= 9999 && d->month >= 1 && d->month <= 12 && d->day >= 1 &&
           d->day <= lengths[d->month - 1] + (unsigned)(d->month == 2 && is_leap(d->year));
}

static bool digits(struct str text, size_t at, size_t len, uint64_t *out)
{
    *out = 0;
    for (size_t i = at; i < at + len; i++) {
        if (i >= text.len || text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        *out = *out * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    return true;
}

int locale_date_parse(struct str text, struct locale_date *out)
{
    uint64_t year, month, day;
    struct locale_date date;

    if (text.len < 10 || !digits(text, 0, 4, &year) || text.ptr[4] != '-' ||
        !digits(text, 5, 2, &month) || text.ptr[7] != '-' || !digits(text, 8, 2, &day) ||
        (text.len > 10 && text.ptr[10] != 'T' && text.ptr[10] != 't' && text.ptr[10] != ' '))
        return -EINVAL;
    date = (struct locale_date){(int64_t)year, (unsigned)month, (unsigned)day};
    if (!locale_date_valid(&date))
        return -EINVAL;
    *out = date;
    return 0;
}

/* Days since 1970-01-01 to a date and back: months from March on, so that a leap day is a year's
 * last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"). */
static int64_t day_number(const struct locale_date *d)
{
    int64_t year = d->year - (d->month <= 2), of_era = year % 400, era = year / 400;
    int64_t month = (d->month + 9) % 12, of_year = (153 * month + 2) / 5 + d->day - 1;

    ASSERT(year >= 0 && month < 12); /* a division rounds down */
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

struct locale_date locale_date_of(int64_t unix_s)
{
    int64_t days = unix_s / 86400 - (unix_s % 86400 < 0) + 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100),
            month = (5 * of_year + 2) / 153;
    struct locale_date d = {.year = year + era * 400,
                            .month = (unsigned)(month < 10 ? month + 3 : month - 9),
                            .day = (unsigned)(of_year - (153 * month + 2) / 5 + 1)};

    ASSERT(of_era >= 0 && of_era < 146097 && d.month >= 1 && d.month <= 12);
    d.year += d.month <= 2;
    return d;
}

void locale_put_date(struct buf *out, const struct locale *l, const struct locale_date *date,
                     enum locale_style style)
{
    ASSERT(locale_date_valid(date) && style < LOCALE_STYLES);
    for (const char *p = l->dates[style]; *p != '\0'; p++) {
        switch (*p) {
        case 'd':
        case 'D':
            buf_printf(out, *p == 'D' ? "%02u" : "%u", date->day);
            break;
        case 'm':
        case 'M':
            buf_printf(out, *p == 'M' ? "%02u" : "%u", date->month);
            break;
        case 'y':
            buf_printf(out, "%lld", (long long)date->year);
            break;
        case 'N':
            buf_puts(out, l->months[date->month - 1]);
            break;
        case 'W': /* 1970-01-01 was a Thursday; a multiple of 7 makes what is before positive */
            buf_puts(out, l->days[(day_number(date) + 4 + 7 * 200000) % 7]);
            break;
        case '\'':
            while (*++p != '\'') {
                ASSERT(*p != '\0');
                buf_putc(out, *p);
            }
            break;
        default:
            buf_putc(out, *p);
        }
    }
}

/* --- numbers --- */

static size_t count_digits(struct str *rest)
{
    size_t n = 0;

    while (n < rest->len && rest->ptr[n] >= '0' && rest->ptr[n] <= '9')
        n++;
    *rest = (struct str){rest->ptr + n, rest->len - n};
    return n;
}

/* Adds one to the number that text is; where it has a digit more then, that is put in front. */
static void add_one(struct buf *text)
{
    size_t at = text->len;

    ASSERT(at > 0);
    while (at > 0 && text->data[at - 1] == '9')
        text->data[--at] = '0';
    if (at > 0) {
        text->data[at - 1]++;
        return;
    }
    buf_putc(text, '0');
    text->data[0] = '1'; /* 999 is 1000 */
}

static bool is_zero(const struct buf *text)
{
    for (size_t i = 0; i < text->len; i++)
        if (text->data[i] != '0')
            return false;
    return true;
}

static void put_grouped(struct buf *out, const struct locale *l, const char *whole, size_t len)
{
    bool groups = len >= 3 + (size_t)l->group_min;

    for (size_t i = 0; i < len; i++) {
        if (groups && i > 0 && (len - i) % 3 == 0)
            buf_puts(out, l->group);
        buf_putc(out, whole[i]);
    }
}

int locale_put_number(struct buf *out, const struct locale *l, struct str number, int decimals)
{
    bool negative = number.len > 0 && number.ptr[0] == '-';
    struct str rest = {number.ptr + negative, number.len - negative}, whole = rest, part = STR("");
    struct buf text = {0};
    size_t kept, wanted;

    ASSERT(decimals >= -1 && decimals <= LOCALE_DECIMALS_MAX);
    whole.len = count_digits(&rest);
    if (rest.len > 1 && rest.ptr[0] == '.') {
        rest = (struct str){rest.ptr + 1, rest.len - 1};
        part.ptr = rest.ptr;
        part.len = count_digits(&rest);
    }
    if (whole.len == 0 || rest.len > 0)
        return -EINVAL;
    for (; whole.len > 1 && whole.ptr[0] == '0'; whole.len--)
        whole.ptr++;
    wanted = decimals < 0 ? part.len : (size_t)decimals;
    kept = wanted < part.len ? wanted : part.len;
    buf_put_str(&text, whole);
    buf_put(&text, part.ptr, kept);
    if (kept < part.len && part.ptr[kept] >= '5')
        add_one(&text);
    if (negative && !is_zero(&text))
        buf_putc(out, '-');
    ASSERT(text.len > kept && kept <= wanted); /* a digit stands in front of the point */
    put_grouped(out, l, (char *)text.data, text.len - kept);
    if (wanted > 0)
        buf_puts(out, l->point);
    buf_put(out, text.data + text.len - kept, kept);
    for (; kept < wanted; kept++)
        buf_putc(out, '0');
    buf_done(&text);
    return 0;
}
