/* Long options of the commands that send and receive, as tables: where each value goes. */
#ifndef HAYAUMA_TOOLS_OPTIONS_H
#define HAYAUMA_TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/suggest.h"

struct option_row {
    const char *name;
    bool flag;                                       /* without value: a bool at offset */
    bool utf8;                                       /* a text that must be UTF-8 */
    int (*take)(void *of, const char *text);         /* or: this takes it; 0 or -errno */
    int (*parse)(const char *text, uint64_t *value); /* or: a number from min to max ... */
    uint64_t min, max;
    size_t offset, bytes; /* ... of so many bytes; without any of these the text itself */
};

#define OPTION_FLAG(name_, type, member)                                                           \
    {                                                                                              \
        .name = (name_), .flag = true, .offset = offsetof(type, member)                            \
    }
#define OPTION_TEXT(name_, type, member)                                                           \
    {                                                                                              \
        .name = (name_), .offset = offsetof(type, member)                                          \
    }
#define OPTION_UTF8(name_, type, member)                                                           \
    {                                                                                              \
        .name = (name_), .utf8 = true, .offset = offsetof(type, member)                            \
    }
#define OPTION_NUMBER(name_, type, member, parse_, min_, max_)                                     \
    {                                                                                              \
        .name = (name_), .parse = (parse_), .min = (min_), .max = (max_),                          \
        .offset = offsetof(type, member), .bytes = sizeof(((type *)0)->member)                     \
    }
#define OPTION_TAKE(name_, take_)                                                                  \
    {                                                                                              \
        .name = (name_), .take = (take_)                                                           \
    }

/* Reads argv into *of; -h is --help, and -c, where there is such an option, --config, as in all
 * commands. 0, with optind at the first argument; 1 when --help was printed; or -EINVAL,
 * said on stderr. command: "send". */
int options_read(const struct option_row *rows, size_t len, void *of, const char *command,
                 const char *usage, int argc, char **argv);

/* Whether all are UTF-8. JSON has no other texts: a name that it cannot have would be left out of a
 * request, which would then be about everything. EXIT_OK, or EXIT_USAGE with a line on stderr. */
int arguments_check(const char *command, int argc, char **argv) MUST_USE;
/* Says that near's word is no action of the command, and which one is like it. EXIT_USAGE. */
int action_unknown(const char *command, const struct suggest *near);

#endif
