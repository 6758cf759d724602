/* The program's log: one line per event, key=value, to stderr (systemd's journal reads it; lines
 * get the <N> priority prefix when JOURNAL_STREAM is set). Any thread; a line is one write().
 * Only engine/ and tools/ log. Message bodies, credentials and keys are never logged. */
#ifndef HAYAUMA_BASE_LOG_H
#define HAYAUMA_BASE_LOG_H

#include <stdbool.h>

enum log_level {
    LOG_LEVEL_NONE = -1,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};

void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* event: a short dotted name ("queue.commit_failed"); fmt: the key=value pairs, values with spaces
 * quoted by the caller. Control bytes in the result are escaped. At most 2,048 bytes. */
void log_write(enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(event, ...) log_write(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...)  log_write(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_info(event, ...)  log_write(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_debug(event, ...)                                                                      \
    (log_enabled(LOG_LEVEL_DEBUG) ? log_write(LOG_LEVEL_DEBUG, event, __VA_ARGS__) : (void)0)

#endif
