/* hayauma reload: the running engine reads its configuration again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands/channel.h"
#include "tools/commands/commands.h"

static const char help[] =
    "usage: hayauma reload [options]\n"
    "\n"
    "Makes the running engine read its configuration file again. Limits, weights and\n"
    "routes apply to mail that waits too, all else to what begins from now on; what\n"
    "needs a restart is listed. A file with a mistake changes nothing.\n"
    "\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "Exit codes: 0 applied, 1 the file has mistakes or a certificate cannot be\n"
    "loaded, 2 wrong usage, 3 the engine does not answer.\n";

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

/* The exit code. What needs a restart is no failure: the operator has asked for it. */
static int print_result(const struct channel_options *o, const json_t *done)
{
    const json_t *cannot = json_object_get(done, "cannot"), *line;
    const json_t *failed = json_object_get(done, "failed");
    size_t i;

    if (o->json) {
        reply_print(done);
        return json_array_size(failed) > 0 ? EXIT_FAILED : EXIT_OK;
    }
    puts("configuration applied");
    warn_of_file(o, reply_text(done, "file"));
    json_array_foreach(cannot, i, line)
    {
        printf("  not applied: %s\n", json_string_value(line));
    }
    fflush(stdout);
    json_array_foreach(failed, i, line)
    {
        fprintf(stderr, "hayauma reload: not applied: %s\n", json_string_value(line));
    }
    return json_array_size(failed) > 0 ? EXIT_FAILED : EXIT_OK;
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
        code = print_result(&o, done);
    json_decref(done);
    channel_close(&ch);
    return code;
}
