#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "tools/commands/commands.h"

#ifdef __clang__
#define COMPILER "" /* clang's version has its name */
#else
#define COMPILER "gcc "
#endif

int cmd_version(int argc, char **argv)
{
    struct utsname os;

    if (argc > 1 && strcmp(argv[1], "--json") == 0) {
        puts("{\"version\":\"" HAYAUMA_VERSION "\"}");
        return EXIT_OK;
    }
    if (argc > 1) {
        int help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;

        fputs("usage: hayauma version [--json]\n"
              "\n"
              "Prints the version, the system it runs on, and the compiler that built it; with\n"
              "--json the version alone.\n",
              help ? stdout : stderr);
        return help ? EXIT_OK : EXIT_USAGE;
    }
    printf("hayauma %s\n", HAYAUMA_VERSION);
    if (uname(&os) == 0)
        printf("%s %s, %s, built by %s%s\n", os.sysname, os.release, os.machine, COMPILER,
               __VERSION__);
    return EXIT_OK;
}
