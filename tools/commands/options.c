#include "tools/commands/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "smtp/address.h"
#include "tools/commands/commands.h"
#include "tools/commands/quantity.h"

#define ROWS_MAX 40
#define FIRST    256 /* getopt's value of the first row: no character */

static int take_number(const struct option_row *row, void *member, const char *text)
{
    uint64_t value;
    int err = row->parse(text, &value);

    if (err == 0 && (value < row->min || value > row->max))
        err = -ERANGE;
    if (err == 0)
        memcpy(member, &value, row->bytes); /* little-endian, as all targets are */
    return err;
}

static int option_take(const struct option_row *row, void *of, const char *text)
{
    char *member = (char *)of + row->offset;

    if (row->take != NULL)
        return row->take(of, text);
    if (row->parse != NULL)
        return take_number(row, member, text);
    if (row->utf8 && !smtp_utf8_valid(str_of(text)))
        return -EILSEQ;
    if (row->flag)
        *(bool *)member = true;
    else
        memcpy(member, &text, sizeof(text));
    return 0;
}

int options_read(const struct option_row *rows, size_t len, void *of, const char *command,
                 const char *usage, int argc, char **argv)
{
    struct option longs[ROWS_MAX] = {{0}};
    int option, config = '?', err = 0;

    ASSERT(len + 2 <= ROWS_MAX);
    for (size_t i = 0; i < len; i++) {
        longs[i] = (struct option){rows[i].name, rows[i].flag ? no_argument : required_argument,
                                   NULL, FIRST + (int)i};
        if (strcmp(rows[i].name, "config") == 0)
            config = FIRST + (int)i;
    }
    longs[len] = (struct option){"help", no_argument, NULL, FIRST + (int)len};
    while (err == 0 &&
           (option = getopt_long(argc, argv, config == '?' ? "h" : "c:h", longs, NULL)) != -1) {
        if (option == 'h' || option == FIRST + (int)len) {
            fputs(usage, stdout);
            return 1;
        }
        if (option == 'c')
            option = config;
        err = option == '?' ? -EINVAL : option_take(&rows[option - FIRST], of, optarg);
        if (err < 0 && option != '?') /* getopt has said what is wrong */
            fprintf(stderr, "hayauma %s: --%s: cannot use '%s': %s\n", command,
                    rows[option - FIRST].name, optarg, quantity_why(err));
    }
    if (err < 0)
        fprintf(stderr, "Try 'hayauma %s --help'.\n", command);
    return err < 0 ? -EINVAL : 0;
}

int arguments_check(const char *command, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (smtp_utf8_valid(str_of(argv[i])))
            continue;
        fprintf(stderr, "%s: argument %d is not UTF-8\n", command, i);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

int action_unknown(const char *command, const struct suggest *near)
{
    fprintf(stderr, "hayauma %s: no such action: '%.*s'", command, STR_FMT(near->word));
    if (near->best != NULL)
        fprintf(stderr, "; did you mean '%s'?", near->best);
    fprintf(stderr, "\n'hayauma %s --help' lists them.\n", command);
    return EXIT_USAGE;
}
