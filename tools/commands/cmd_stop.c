/* hayauma stop: the running engine finishes what is under way and exits. */
#include <stdio.h>

#include "tools/commands/channel.h"
#include "tools/commands/commands.h"

static const char help[] =
    "usage: hayauma stop [options]\n"
    "\n"
    "Makes the running engine drain: it takes no new sessions, finishes what is past\n"
    "the end of a message, settles and exits, within drain_timeout of its\n"
    "configuration. The queue stays. Returns when the engine has gone.\n"
    "\n"
    "      --no-wait           return at once\n" CHANNEL_HELP
    "  -h, --help              this text\n"
    "\n"
    "Exit codes: 0 stopped, 1 failed, 2 wrong usage, 3 the engine does not answer.\n";

int cmd_stop(int argc, char **argv)
{
    static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                          {"no-wait", no_argument, NULL, 'n'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct channel_options o = {.command = "stop"};
    bool wait = true;
    struct channel ch;
    int c, code;

    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (channel_option(&o, c))
            continue;
        if (c != 'n') {
            fputs(help, c == 'h' ? stdout : stderr);
            return c == 'h' ? EXIT_OK : EXIT_USAGE;
        }
        wait = false;
    }
    if (optind < argc) {
        fprintf(stderr, "hayauma stop: unexpected '%s'\n", argv[optind]);
        return EXIT_USAGE;
    }
    code = channel_open(&ch, &o);
    if (code == 0)
        code = channel_ask(&ch, json_pack("{s:s}", "op", "drain"), NULL);
    if (code == 0 && wait)
        channel_wait_closed(&ch); /* the engine closes it last */
    if (code == 0 && !o.json)
        puts(wait ? "stopped" : "stopping");
    else if (code == 0)
        puts("{\"done\":true}");
    channel_close(&ch);
    return code;
}
