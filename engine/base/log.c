#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_BYTES_MAX 2048

/* Relaxed: a level change is seen soon, and orders nothing else. */
static _Atomic int level_now = LOG_LEVEL_INFO;

static const struct {
    const char *name;
    int priority; /* sd-daemon(3) */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", 3},
    [LOG_LEVEL_WARN] = {"warn", 4},
    [LOG_LEVEL_INFO] = {"info", 6},
    [LOG_LEVEL_DEBUG] = {"debug", 7},
};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_now, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&level_now, memory_order_relaxed);
}

/* Control bytes, DEL and the C1 controls (U+0080..9F, which terminals obey) become \xNN. Stops
 * before an escape that does not fit. Returns the new length of out. */
static size_t escape(char *out, size_t at, size_t limit, const char *text)
{
    static const char hex[] = "0123456789abcdef";

    for (const uint8_t *p = (const uint8_t *)text; *p != '\0'; p++) {
        bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f;

        if (*p >= 0x20 && *p != 0x7f && !c1) {
            if (at + 1 > limit)
                break;
            out[at++] = (char)*p;
            continue;
        }
        if (at + 4 > limit)
            break;
        p += c1;
        memcpy(out + at, "\\x", 2);
        out[at + 2] = hex[*p >> 4];
        out[at + 3] = hex[*p & 15];
        at += 4;
    }
    return at;
}

void log_write(enum log_level level, const char *event, const char *fmt, ...)
{
    char line[LINE_BYTES_MAX], text[LINE_BYTES_MAX], when[CLOCK_RFC3339_BYTES];
    va_list args;
    size_t n;
    ssize_t written;

    if (!log_enabled(level))
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (getenv("JOURNAL_STREAM") != NULL) { /* the journal keeps the time itself */
        n = (size_t)snprintf(line, 256, "<%d>event=%.100s", levels[level].priority, event);
    } else {
        clock_rfc3339(clock_wall_ms(), when);
        n = (size_t)snprintf(line, 256, "time=%s level=%s event=%.100s", when, levels[level].name,
                             event);
    }
    if (text[0] != '\0')
        line[n++] = ' ';
    n = escape(line, n, sizeof(line) - 1, text);
    line[n++] = '\n';
    /* One write, so that lines of threads do not mix; where stderr is gone there is nobody to
     * tell. */
    written = write(STDERR_FILENO, line, n);
    (void)written;
}
