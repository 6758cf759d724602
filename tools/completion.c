#include "tools/completion.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "tools/commands/commands.h"

static const char help_text[] =
    "usage: hayauma completion bash|zsh\n"
    "\n"
    "Prints a script by which the shell completes commands, actions and options. The\n"
    "script asks the program, so it stays right when the program is upgraded.\n"
    "\n"
    "For all users (the second where zsh is installed), or for one shell alone:\n"
    "  hayauma completion bash | sudo tee /etc/bash_completion.d/hayauma\n"
    "  hayauma completion zsh | sudo tee /usr/share/zsh/vendor-completions/_hayauma\n"
    "  source <(hayauma completion bash)\n"
    "\n"
    "Exit codes: 0 done, 2 wrong usage.\n";

/* Where the program has nothing to offer, a name of a file is wanted, or a value that only the user
 * knows: names of files are offered then. */
static const char bash_script[] =
    "# hayauma completion bash\n"
    "_hayauma()\n"
    "{\n"
    "    local IFS=$'\\n' program=${COMP_WORDS[0]/#\\~/$HOME} word=${COMP_WORDS[COMP_CWORD]}\n"
    "    local found=$(\"$program\" completion words \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null "
    "|\n"
    "        cut -f 1)\n"
    "    COMPREPLY=($(compgen -W \"$found\" -- \"$word\"))\n"
    "}\n"
    "complete -o bashdefault -o default -F _hayauma hayauma\n";

static const char zsh_script[] =
    "#compdef hayauma\n"
    "_hayauma()\n"
    "{\n"
    "    local -a found\n"
    "    found=(\"${(@f)$(${~words[1]} completion words \"${(@)words[2,CURRENT]}\" "
    "2>/dev/null)}\")\n"
    "    if [[ -z $found[1] ]]; then\n"
    "        _files\n"
    "    else\n"
    "        found=(\"${(@)found//:/\\\\:}\")\n"
    "        found=(\"${(@)found/$'\\t'/:}\")\n"
    "        _describe hayauma found\n"
    "    fi\n"
    "}\n"
    "if [[ $funcstack[1] = _hayauma ]]; then _hayauma \"$@\"; else compdef _hayauma hayauma; fi\n";

/* What completes a word is printed one a line, with what it means behind a TAB. */
static void offer(struct str word, struct str meaning)
{
    printf("%.*s%s%.*s\n", STR_FMT(word), meaning.len > 0 ? "\t" : "", STR_FMT(meaning));
}

/* Commands with a second help text, and what asks for it. */
static const char *const more_help[][2] = {{"send", "--template"}, {"source", "list"}};

static void help_print(const struct command *command, const char *more)
{
    char title[64], option[] = "--help", word[16];
    char *argv[] = {title, more != NULL ? word : option, more != NULL ? option : NULL, NULL};

    snprintf(title, sizeof(title), "hayauma %s", command->name);
    snprintf(word, sizeof(word), "%s", more != NULL ? more : "");
    optind = 0; /* getopt begins anew */
    command->run(more != NULL ? 3 : 2, argv);
}

/* What the command prints as its help. NULL without memory. */
static char *help_of(const struct command *command)
{
    char *text = NULL;
    size_t len = 0;
    FILE *real = stdout, *memory = open_memstream(&text, &len);

    if (memory == NULL)
        return NULL;
    stdout = memory;
    help_print(command, NULL);
    for (size_t i = 0; i < sizeof(more_help) / sizeof(more_help[0]); i++)
        if (strcmp(command->name, more_help[i][0]) == 0)
            help_print(command, more_help[i][1]);
    stdout = real;
    fclose(memory);
    return text;
}

static bool is_of_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

/* Takes a word of lower case, as actions and options are, off *text. Empty: none stands there. */
static struct str word_take(struct str *text)
{
    struct str word = {text->ptr, 0};

    while (word.len < text->len && is_of_name(text->ptr[word.len]))
        word.len++;
    *text = (struct str){text->ptr + word.len, text->len - word.len};
    return word;
}

/* What stands behind the gap of a line such as "  -n, --limit N       show at most N". */
static struct str meaning_of(struct str line)
{
    for (size_t i = 0; i + 1 < line.len; i++)
        if (line.ptr[i] == ' ' && line.ptr[i + 1] == ' ')
            return str_trim((struct str){line.ptr + i, line.len - i});
    return (struct str){NULL, 0};
}

/* The action that a line is about: "  show ID      a message". Empty: none so far to the right. */
static struct str listed_action(struct str line, size_t depth, struct str *meaning)
{
    struct str word, none = {NULL, 0};

    if (line.len <= depth || strspn(line.ptr, " ") != depth)
        return none;
    line = (struct str){line.ptr + depth, line.len - depth};
    word = word_take(&line);
    *meaning = meaning_of(line);
    return word.len > 0 && word.ptr[0] != '-' && meaning->len > 0 ? word : none;
}

/* Actions of a line of usage: "usage: hayauma campaign show|report CAMPAIGN [options]". */
static void usage_actions_put(struct str line, const char *command)
{
    char call[64];
    size_t begin = 7; /* the length of "usage: "; further lines are as far to the right */
    struct str word;

    snprintf(call, sizeof(call), "hayauma %s ", command);
    if (line.len < begin + strlen(call) || memcmp(line.ptr + begin, call, strlen(call)) != 0)
        return;
    line = (struct str){line.ptr + begin + strlen(call), line.len - begin - strlen(call)};
    for (; (word = word_take(&line)).len > 0 && word.ptr[0] != '-'; str_take(&line, '|')) {
        offer(word, meaning_of(line));
        if (line.len == 0 || line.ptr[0] != '|')
            return;
    }
}

/* Actions of the command, or what may follow the action below: `queue quarantine show`. Where the
 * help has no list of them, they stand in its usage. */
static void actions_put(const char *command, struct str text, struct str below)
{
    bool inside = below.len == 0, any = false;
    struct str rest = text, line, word, meaning;

    while (rest.len > 0) {
        line = str_take(&rest, '\n');
        word = listed_action(line, 2, &meaning);
        if (below.len > 0 && word.len > 0)
            inside = str_eq(word, below);
        if (below.len > 0)
            word = listed_action(line, 4, &meaning);
        if (inside && word.len > 0)
            offer(word, meaning);
        any = any || (inside && word.len > 0);
    }
    for (rest = text; !any && below.len == 0 && rest.len > 0;)
        usage_actions_put(str_take(&rest, '\n'), command);
}

/* Whether the option stands in text in front of a place for its value: "--for TIME". */
static bool takes_value(struct str text, struct str option)
{
    const char *at = text.ptr, *end = text.ptr + text.len;

    while ((at = memmem(at, (size_t)(end - at), option.ptr, option.len)) != NULL) {
        at += option.len;
        if (end - at > 1 && at[0] == ' ' && at[1] >= 'A' && at[1] <= 'Z')
            return true;
    }
    return false;
}

static bool is_offered(const struct str *offered, size_t len, struct str option)
{
    for (size_t i = 0; i < len; i++)
        if (str_eq(offered[i], option))
            return true;
    return false;
}

#define OPTIONS_MAX 64 /* of a command */

static void options_put(struct str text)
{
    struct str offered[OPTIONS_MAX], rest = text, line, option;
    size_t len = 0;

    while (rest.len > 0) {
        line = str_take(&rest, '\n');
        for (size_t i = 0; i + 2 < line.len && len < OPTIONS_MAX; i++) {
            struct str from = {line.ptr + i, line.len - i};

            if (memcmp(from.ptr, "--", 2) != 0 || (i > 0 && is_of_name(from.ptr[-1])))
                continue;
            option = word_take(&from);
            if (option.len == 2 || is_offered(offered, len, option))
                continue;
            offered[len++] = option;
            offer(option, str_trim(line).ptr[0] == '-' ? meaning_of(from) : (struct str){NULL, 0});
        }
    }
}

/* words: those behind `hayauma COMMAND`; the last one is to be completed. */
static void word_put(const char *command, struct str text, char **words, int len)
{
    struct str before = str_of(len > 1 ? words[len - 2] : NULL);

    if (before.len > 1 && before.ptr[0] == '-' && takes_value(text, before))
        return;
    if (words[len - 1][0] == '-')
        options_put(text);
    else if (len == 1)
        actions_put(command, text, (struct str){NULL, 0});
    else if (len == 2)
        actions_put(command, text, before);
}

/* `hayauma completion words WORD...`: what may stand in place of the last word. */
static void words_put(const struct command *commands, size_t len, int argc, char **argv)
{
    for (size_t i = 0; i < len; i++) {
        char *text;

        if (argc < 2 || (argc == 2 && strcmp(argv[0], "help") == 0)) {
            offer(str_of(commands[i].name), str_of(commands[i].help));
            continue;
        }
        if (strcmp(argv[0], commands[i].name) != 0)
            continue;
        text = help_of(&commands[i]);
        if (text != NULL)
            word_put(commands[i].name, str_of(text), argv + 1, argc - 1);
        free(text);
    }
}

int completion(const struct command *commands, size_t len, int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "words") == 0)
        words_put(commands, len, argc - 2, argv + 2);
    else if (argc == 2 && strcmp(what, "bash") == 0)
        fputs(bash_script, stdout);
    else if (argc == 2 && strcmp(what, "zsh") == 0)
        fputs(zsh_script, stdout);
    else if (argc == 2 && (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0))
        fputs(help_text, stdout);
    else {
        fputs(help_text, stderr);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}
