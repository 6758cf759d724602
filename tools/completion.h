/* Completion of command lines in shells. The scripts that are printed know nothing of the commands:
 * they ask the program, which reads its own help texts. So a new command or option needs nothing
 * here, and a script that was installed once stays right behind an upgrade. */
#ifndef HAYAUMA_TOOLS_COMPLETION_H
#define HAYAUMA_TOOLS_COMPLETION_H

#include <stdbool.h>
#include <stddef.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
    bool asks; /* the engine, in JSON: its arguments are texts */
};

/* `hayauma completion`: commands are all that there are. An exit code. */
int completion(const struct command *commands, size_t len, int argc, char **argv);

#endif
