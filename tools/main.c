/* The program: finds the sub-command and calls it. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/suggest.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/completion.h"

/* `hayauma source list` and its like are about the engine's sources. */
static int source(int argc, char **argv)
{
    static const char *const actions[] = {"list", "show", "suspend", "resume"};

    for (size_t i = 0; argc > 1 && i < sizeof(actions) / sizeof(actions[0]); i++)
        if (strcmp(argv[1], actions[i]) == 0)
            return cmd_sources(argc, argv);
    return cmd_source(argc, argv);
}

static int complete(int argc, char **argv);

/* In the order in which the help shows them. */
static const struct command commands[] = {
    {"serve", cmd_serve, "run the engine", false},
    {"send", cmd_send, "send a message to one recipient or to a list", false},
    {"sendmail", cmd_sendmail, "send a message from stdin, as sendmail does; mailq too", false},
    {"queue", cmd_queue, "look at the queue; hold, release, flush, cancel, export", true},
    {"campaign", cmd_campaign, "campaigns: list, show, report, start, pause, resume, cancel, set",
     true},
    {"suppress", cmd_suppress, "addresses that get no mail: add, remove, list, import", true},
    {"why", cmd_why, "what holds mail back, in a sentence or two", true},
    {"route", cmd_route, "where mail for an address would go, without sending", true},
    {"trace", cmd_trace, "the dialogue of sessions, live", true},
    {"status", cmd_status, "what the engine is doing, live", true},
    {"token", cmd_token, "tokens of the HTTP API: add, list, remove", false},
    {"pool", cmd_pool, "the pools and what is in them: list, show", true},
    {"site", cmd_site, "where mail goes, and the limits there: list, show", true},
    {"warmup", cmd_warmup, "new sources earn their volume: stages, history, plan", true},
    {"feedback", cmd_feedback, "tell the engine of complaints", true},
    {"rules", cmd_rules, "how refusals are read that say more than their code", false},
    {"config", cmd_config, "check a configuration, show it, print the reference", false},
    {"user", cmd_user, "who may log in to submit: add, passwd, remove, list", false},
    {"dkim", cmd_dkim, "make keys for signatures, compare them with DNS, try them", false},
    {"letters", cmd_letters, "make keys for return paths and unsubscribing, read what comes back",
     false},
    {"reload", cmd_reload, "make the engine read its configuration again", false},
    {"stop", cmd_stop, "make the engine finish what is under way, then exit", false},
    {"sink", cmd_sink, "a receiving server for tests, with DNS for its domains", false},
    {"source", source, "the addresses that mail is sent from; and a load generator", true},
    {"completion", complete, "a script for bash or zsh that completes command lines", false},
    {"version", cmd_version, "print the version", false},
};
#define COMMANDS_LEN (sizeof(commands) / sizeof(commands[0]))

static int complete(int argc, char **argv)
{
    return completion(commands, COMMANDS_LEN, argc, argv);
}

static void print_help(FILE *to)
{
    fputs("Hayauma, a bulk-delivery mail engine.\n"
          "\n"
          "usage: hayauma <command> [options]\n"
          "\n",
          to);
    for (size_t i = 0; i < COMMANDS_LEN; i++)
        fprintf(to, "  %-11s %s\n", commands[i].name, commands[i].help);
    fputs("\n"
          "'hayauma <command> --help' says more about one.\n"
          "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the engine does not answer.\n",
          to);
}

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMANDS_LEN; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

/* What is a part of another command here, or is called otherwise by other mail servers. */
static const char *const elsewhere[][2] = {
    {"cancel", "queue cancel"},   {"check", "config check"},
    {"delete", "queue cancel"},   {"drain", "stop"},
    {"export", "queue export"},   {"flush", "queue flush"},
    {"hold", "queue hold"},       {"keygen", "dkim keygen"},
    {"list", "queue list"},       {"mailq", "queue list"},
    {"pause", "queue suspend"},   {"release", "queue release"},
    {"resume", "queue resume"},   {"run", "serve"},
    {"show", "queue show"},       {"shutdown", "stop"},
    {"start", "serve"},           {"summary", "queue summary"},
    {"suspend", "queue suspend"}, {"top", "status"}};

static int unknown(const char *name)
{
    struct suggest s;

    for (size_t i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++) {
        if (strcmp(elsewhere[i][0], name) != 0)
            continue;
        fprintf(stderr, "hayauma: no such command: '%s'; here it is 'hayauma %s'\n", name,
                elsewhere[i][1]);
        return EXIT_USAGE;
    }
    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < COMMANDS_LEN; i++)
        suggest_offer(&s, commands[i].name);
    fprintf(stderr, "hayauma: no such command: '%s'", name);
    if (s.best != NULL)
        fprintf(stderr, "; did you mean '%s'?", s.best);
    fputs("\n'hayauma --help' lists the commands.\n", stderr);
    return EXIT_USAGE;
}

/* A caller that reads an exit code of 0 believes that the output is all there: on a full disk it is
 * not. */
static int finish(int code)
{
    bool lost = ferror(stdout) != 0;

    errno = 0;
    if (fflush(stdout) == 0 && !lost)
        return code;
    if (errno != EPIPE)
        fprintf(stderr, "hayauma: the output could not be written%s%s\n", errno != 0 ? ": " : "",
                errno != 0 ? strerror(errno) : "");
    return code == EXIT_OK ? EXIT_FAILED : code;
}

/* Calls it with "hayauma <name>" as its argv[0], which getopt's own errors begin with. */
static int run(const struct command *command, int argc, char **argv)
{
    char title[64];

    snprintf(title, sizeof(title), "hayauma %s", command->name);
    argv[0] = title;
    if (command->asks && arguments_check(title, argc, argv) != EXIT_OK)
        return EXIT_USAGE;
    return finish(command->run(argc, argv));
}

/* The names under which programs of Unix know it: links to this program. */
static const struct {
    const char *name, *option; /* option: of sendmail, that the name stands for */
} other_names[] = {{"sendmail", NULL}, {"mailq", "-bp"}, {"newaliases", "-bi"}};

/* False: it was called by its own name. */
static bool run_as_sendmail(int argc, char **argv, int *code)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash != NULL ? slash + 1 : argv[0];
    char title[] = "sendmail", option[8];

    for (size_t i = 0; i < sizeof(other_names) / sizeof(other_names[0]); i++) {
        if (strcmp(name, other_names[i].name) != 0)
            continue;
        snprintf(option, sizeof(option), "%s",
                 other_names[i].option != NULL ? other_names[i].option : "");
        *code = finish(other_names[i].option == NULL
                           ? cmd_sendmail(argc, argv)
                           : cmd_sendmail(2, (char *[]){title, option, NULL}));
        return true;
    }
    return false;
}

/* jemalloc's settings; MALLOC_CONF in the environment comes after them. What is free goes back to
 * the system after ten seconds. With one second, mail that comes and goes has pages given back and
 * faulted in again all the time, and each time the other cores are interrupted: 73 us of CPU a
 * message in the main row of bench/run where ten seconds take 51, and 70 where they take 61 (two
 * sets of interleaved runs, loaded machine); on a machine with nothing else to do 39.6 and 37.5,
 * the means of seven pairs. Encrypted sessions that wait take the same memory with
 * both, 18 KiB in and 26 KiB out each of 3,000. */
const char *malloc_conf = "dirty_decay_ms:10000,muzzy_decay_ms:0";

int main(int argc, char **argv)
{
    const struct command *command;
    const char *name = argc > 1 ? argv[1] : NULL;
    int code;

    if (argc > 0 && run_as_sendmail(argc, argv, &code))
        return code;
    if (name == NULL) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        command = argc > 2 ? command_find(argv[2]) : NULL;
        if (command != NULL)
            return run(command, 2, (char *[]){NULL, (char[]){"--help"}, NULL});
        if (argc > 2)
            return unknown(argv[2]);
        print_help(stdout);
        return finish(EXIT_OK);
    }
    if (strcmp(name, "--version") == 0)
        name = "version";
    command = command_find(name);
    return command == NULL ? unknown(name) : run(command, argc - 1, argv + 1);
}
