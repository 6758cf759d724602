/* hayauma reload: the running engine reads its configuration again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands/channel.h"
#include "tools/commands/commands.h"

static const char help[] =
    "usage: hayauma reload [options]\n"
    "\n"
    "Makes the running engine read its configuration file again. Limits, weights and routes apply "
    "to\n"
    "mail that waits too, all else to what begins from now on; what needs a restart is listed. A "
    "file\n"
    "with a mistake changes nothing.\n"
    "\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "Exit codes: 0 applied, 1 the file has mistakes, 2 wrong usage, 3 the engine does not "
    "answer.\n";

/* --config says where the engine's socket is; the engine reads the file that it was started with.
 */
static void warn_of_file(const struct channel_options *o, const char *read)
{
    char *asked = o->config == NULL ? NULL : realpath(o->config, NULL);

    if (asked != NULL && *read != 0 && strcmp(asked, read) != 0)
        fprintf(stderr,
                "hayauma reload: the engine has read %s, with which it was started, not %s\n", read,
                o->config);
    free(asked);
}

static void print_result(const struct channel_options *o, const json_t *done)
{
    const json_t *cannot = json_object_get(done, "cannot"), *line;
    size_t i;

    if (o->json) {
        reply_print(done);
        return;
    }
    puts("configuration applied");
    warn_of_file(o, reply_text(done, "file"));
    json_array_foreach(cannot, i, line)
    {
        printf("  not applied: %s\n", json_string_value(line));
    }
}

int cmd_reload(int argc, char **argv)
{
    static const struct option longs[] = {
        CHANNEL_LONG_OPTIONS, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    struct channel_options o = {.command = "reload"};
    struct channel ch;
    json_t *done = NULL;
    int c, code;

    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (channel_option(&o, c))
            continue;
        fputs(help, c == 'h' ? stdout : stderr);
        return c == 'h' ? EXIT_OK : EXIT_USAGE;
    }
    if (optind < argc) {
        fprintf(stderr, "hayauma reload: unexpected '%s'\n", argv[optind]);
        return EXIT_USAGE;
    }
    code = channel_open(&ch, &o);
    if (code == 0)
        code = channel_ask(&ch, json_pack("{s:s}", "op", "reload"), &done);
    if (code == 0)
        print_result(&o, done);
    json_decref(done);
    channel_close(&ch);
    return code;
}
