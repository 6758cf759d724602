/* hayauma token: who may use the HTTP API. Works on the file that the configuration names, whether
 * an engine runs or not; one that runs takes the change with the next request. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "config/config.h"
#include "config/config_value.h"
#include "http/tokens.h"
#include "tools/commands/commands.h"

static const char help[] =
    "usage: hayauma token add NAME [--scopes LIST] [--tenant NAME] [--rate RATE]\n"
    "                         [options]\n"
    "       hayauma token list [--json] [options]\n"
    "       hayauma token remove NAME [options]\n"
    "\n"
    "Tokens of the HTTP API. 'add' prints a new one, once: only its hash is kept. A\n"
    "running engine takes changes with the next request.\n"
    "\n"
    "  --scopes LIST      what it may do: inject (send mail), read (metrics), admin\n"
    "                     (all), with commas (default: inject)\n"
    "  --tenant NAME      mail sent with it is this tenant's\n"
    "  --rate RATE        at most so many requests and recipients, e.g. 100/s or\n"
    "                     50000/h; what is beyond is refused (429)\n"
    "  --json             a JSON object a line\n"
    "  --file FILE        the file of tokens (default: http.tokens of the\n"
    "                     configuration)\n"
    "  -c, --config FILE  configuration (default " CONFIG_FILE ")\n"
    "  -h, --help         this text\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage.\n";

struct options {
    const char *config, *file, *scopes, *tenant, *rate;
    char *path; /* of the tokens */
    char *user; /* whose a new file is; NULL: its directory's owner's */
    struct token_list list;
    bool json;
};

static int failed(const char *what, const char *why)
{
    fprintf(stderr, "hayauma token: %s: %s\n", what, why);
    return EXIT_FAILED;
}

static int usage_error(const char *what, const char *why)
{
    fprintf(stderr, "hayauma token: '%s' %s\n", what, why);
    return EXIT_USAGE;
}

static int find_file(struct options *o)
{
    struct config *c = NULL;
    struct buf errors = {0};

    if (o->file == NULL && config_load_file(o->config, &c, &errors) < 0) {
        fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
        buf_done(&errors);
        return EXIT_FAILED;
    }
    o->path = strdup(o->file != NULL ? o->file : c->http.tokens);
    o->user = c == NULL || c->user == NULL ? NULL : strdup(c->user);
    config_unref(c);
    buf_done(&errors);
    return 0;
}

/* Held until the program ends: two who write at once would each forget what the other did. */
static int lock(const struct options *o)
{
    char *copy = strdup(o->path), *dir = dirname(copy);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), code = 0;

    if (fd < 0 && errno == ENOENT) {
        fprintf(stderr,
                "hayauma token: there is no directory %s: make it, set http.tokens to another "
                "file, or name one with --file\n",
                dir);
        code = EXIT_FAILED;
    } else if (fd < 0 || flock(fd, LOCK_EX) < 0) {
        code = failed(dir, strerror(errno));
    }
    free(copy);
    return code;
}

static int load(struct options *o)
{
    struct buf error = {0};
    int err = token_list_load(o->path, &o->list, &error), code = 0;

    if (err == -ENOENT) {
        o->list.tokens = calloc(TOKENS_MAX, sizeof(*o->list.tokens));
        code = o->list.tokens == NULL ? failed(o->path, "out of memory") : 0;
    } else if (err < 0) {
        fprintf(stderr, "hayauma token: %.*s\n", STR_FMT(buf_str(&error)));
        code = EXIT_FAILED;
    }
    buf_done(&error);
    return code;
}

static int store(const struct options *o)
{
    int err = token_list_store(o->path, &o->list, o->user);

    return err < 0 ? failed(o->path, strerror(-err)) : EXIT_OK;
}

static int add(struct options *o, const char *name)
{
    char text[TOKEN_TEXT_BYTES];
    uint64_t rate = 0;
    uint32_t period_ms = 0;
    struct token *t;
    int code;

    if (!token_name_valid(str_of(name)))
        return usage_error(name, "is not a name of 1 to 64 letters, digits, '.', '_', '-'");
    if (o->tenant != NULL && !token_name_valid(str_of(o->tenant)))
        return usage_error(o->tenant, "is not a name of 1 to 64 letters, digits, '.', '_', '-'");
    if (token_scopes_parse(str_of(o->scopes)) == 0)
        return usage_error(o->scopes, "is not of inject, read and admin, with commas");
    if (o->rate != NULL && (config_parse_rate(str_of(o->rate), &rate, &period_ms) < 0 || rate == 0))
        return usage_error(o->rate, "is no rate, such as 100/s or 50000/h");
    if (token_list_find(&o->list, name) != NULL)
        return failed(name, "there is a token of this name; remove it first");
    if (o->list.len == TOKENS_MAX)
        return failed(o->path, "has as many tokens as may be");
    t = &o->list.tokens[o->list.len++];
    *t = (struct token){.scopes = token_scopes_parse(str_of(o->scopes)),
                        .created_s = (int64_t)time(NULL),
                        .rate = rate,
                        .rate_period_ms = period_ms};
    snprintf(t->name, sizeof(t->name), "%s", name);
    snprintf(t->tenant, sizeof(t->tenant), "%s", o->tenant != NULL ? o->tenant : "");
    token_make(text, t->hash);
    code = store(o);
    if (code == EXIT_OK)
        puts(text);
    return code;
}

/* rate NULL: there is none. */
static void print_json(const struct token *t, struct str scopes, const char *rate, const char *made)
{
    json_t *names = json_array(), *row;

    while (scopes.len > 0) {
        struct str one = str_take(&scopes, ',');

        json_array_append_new(names, json_stringn(one.ptr, one.len));
    }
    row = json_pack("{s:s,s:o,s:s*,s:s*,s:s}", "name", t->name, "scopes", names, "tenant",
                    t->tenant[0] == '\0' ? NULL : t->tenant, "rate", rate, "created", made);
    json_dumpf(row, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(row);
}

static int list_all(const struct options *o)
{
    struct buf scopes = {0}, rate = {0};

    if (o->list.len == 0 && !o->json)
        fputs("no tokens\n", stderr);
    else if (!o->json)
        printf("%-24s %-18s %-16s %-10s %s\n", "TOKEN", "SCOPES", "TENANT", "MADE", "RATE");
    for (size_t i = 0; i < o->list.len; i++) {
        const struct token *t = &o->list.tokens[i];
        char made[32];
        time_t created = (time_t)t->created_s;
        struct tm tm;

        buf_clear(&scopes);
        token_scopes_put(&scopes, t->scopes);
        buf_clear(&rate);
        if (t->rate > 0)
            config_format_rate(&rate, t->rate, t->rate_period_ms);
        buf_putc(&rate, '\0');
        strftime(made, sizeof(made), "%Y-%m-%d", gmtime_r(&created, &tm));
        if (o->json)
            print_json(t, buf_str(&scopes), t->rate > 0 ? (char *)rate.data : NULL, made);
        else
            printf("%-24s %-18.*s %-16s %s%s%s\n", t->name, STR_FMT(buf_str(&scopes)),
                   t->tenant[0] == '\0' ? "-" : t->tenant, made, t->rate > 0 ? " " : "",
                   (char *)rate.data);
    }
    buf_done(&scopes);
    buf_done(&rate);
    return EXIT_OK;
}

static int remove_one(struct options *o, const char *name)
{
    struct token *t = token_list_find(&o->list, name);

    if (t == NULL)
        return failed(name, "there is no such token");
    *t = o->list.tokens[--o->list.len];
    return store(o);
}

static int run(struct options *o, const char *what, const char *name)
{
    bool lists = strcmp(what, "list") == 0, adds = strcmp(what, "add") == 0;
    int code;

    if (!lists && !adds && strcmp(what, "remove") != 0)
        return usage_error(what, "is none of add, list, remove");
    if (o->json && !lists)
        return usage_error("--json", "is for list");
    if (lists != (name == NULL))
        return usage_error(what, lists ? "takes no name" : "takes a name");
    code = find_file(o);
    if (code == 0 && !lists)
        code = lock(o);
    if (code == 0)
        code = load(o);
    if (code == 0)
        code = lists ? list_all(o) : adds ? add(o, name) : remove_one(o, name);
    token_list_done(&o->list);
    free(o->path);
    free(o->user);
    return code;
}

int cmd_token(int argc, char **argv)
{
    static const struct option longs[] = {
        {"scopes", required_argument, NULL, 's'}, {"tenant", required_argument, NULL, 't'},
        {"rate", required_argument, NULL, 'r'},   {"json", no_argument, NULL, 'j'},
        {"file", required_argument, NULL, 'f'},   {"config", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    struct options o = {.config = CONFIG_FILE, .scopes = "inject"};
    int c;

    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (c) {
        case 's':
            o.scopes = optarg;
            break;
        case 't':
            o.tenant = optarg;
            break;
        case 'r':
            o.rate = optarg;
            break;
        case 'j':
            o.json = true;
            break;
        case 'f':
            o.file = optarg;
            break;
        case 'c':
            o.config = optarg;
            break;
        default:
            fputs(help, c == 'h' ? stdout : stderr);
            return c == 'h' ? EXIT_OK : EXIT_USAGE;
        }
    }
    if (optind >= argc || argc - optind > 2) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    return run(&o, argv[optind], argc - optind > 1 ? argv[optind + 1] : NULL);
}
