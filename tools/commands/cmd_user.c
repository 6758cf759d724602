/* hayauma user: who may log in to submit mail, in the file that auth.users_file names. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include <jansson.h>

#include "base/password.h"
#include "base/suggest.h"
#include "config/config_secret.h"
#include "config/config_value.h"
#include "tls/scram.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/users_file.h"

static const char help[] =
    "usage: hayauma user add NAME [options]      a new user\n"
    "       hayauma user passwd NAME [options]   another password\n"
    "       hayauma user remove NAME [options]\n"
    "       hayauma user list [--json] [options]\n"
    "\n"
    "Users log in to listeners with 'auth' (SMTP AUTH) and may then send mail\n"
    "anywhere. The password is asked for, or is the first line of stdin. 'hayauma\n"
    "reload' makes the engine read the file.\n"
    "\n"
    "  -c, --config FILE   whose auth.users_file it is\n"
    "                      (default " CONFIG_FILE ")\n"
    "      --file FILE     the file of users itself\n"
    "      --method NAME   of the hash: yescrypt, bcrypt, sha512, or scram-sha-256,\n"
    "                      with whose keys clients log in without showing the\n"
    "                      password (AUTH SCRAM-SHA-256) once every user has them;\n"
    "                      default: as before, and for a new user scram-sha-256 where\n"
    "                      all have it, else yescrypt\n"
    "  -h, --help          this text\n"
    "\n"
    "What a new user may; each can be changed in the file later:\n"
    "      --senders LIST  envelope senders: example.com, *.example.com,\n"
    "                      a@example.com, <> (the null sender), with commas between;\n"
    "                      default: any\n"
    "      --from LIST     addresses of the From field, written likewise; default: as\n"
    "                      --senders\n"
    "      --tenant NAME   all its mail is this tenant's\n"
    "      --pool NAME     all its mail goes by this pool\n"
    "      --priority N    the best that its mail gets, 0 (first) to 9\n"
    "      --rate RATE     messages, such as 1000/h\n"
    "      --certificate LIST\n"
    "                      certificates by which it logs in (AUTH EXTERNAL):\n"
    "                      fingerprints (SHA-256), or names that they bear\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage.\n";

struct options {
    const char *name, *config, *file, *method;
    const char *senders, *from, *tenant, *pool, *priority, *rate, *certificate;
    bool json;
};

/* --- the password --- */

#define LINE_BYTES (PASSWORD_BYTES_MAX + 2)

/* A line with its end, as far as there is room; how long it is. fgets() does not say it of one with
 * a NUL, and would make a short password of it. */
static size_t read_line(FILE *from, char line[static LINE_BYTES])
{
    size_t len = 0;
    int c = 0;

    while (len < LINE_BYTES - 1 && c != '\n' && (c = getc(from)) != EOF)
        line[len++] = (char)c;
    line[len] = '\0';
    return len;
}

/* Without echo, from the terminal. */
static bool ask(const char *prompt, char line[static LINE_BYTES], size_t *len)
{
    struct termios before, silent;
    FILE *tty = fopen("/dev/tty", "r+e");

    if (tty == NULL)
        return false;
    setvbuf(tty, NULL, _IONBF, 0);
    if (tcgetattr(fileno(tty), &before) < 0) {
        fclose(tty);
        return false;
    }
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    (void)tcsetattr(fileno(tty), TCSAFLUSH, &silent);
    fputs(prompt, tty);
    *len = read_line(tty, line);
    (void)tcsetattr(fileno(tty), TCSAFLUSH, &before);
    fputc('\n', tty);
    fclose(tty);
    return true;
}

/* The line without its end. False, with a line on stderr, when it is no password. A control byte is
 * in none (RFC 8265 4.2): it would be a NUL, or the CR of a file whose lines end in CRLF, and
 * nobody could log in. */
static bool is_password(char line[static LINE_BYTES], size_t len)
{
    size_t i = 0;

    if (len == LINE_BYTES - 1 && line[len - 1] != '\n') {
        fprintf(stderr, "hayauma user: the password is longer than %d bytes\n", PASSWORD_BYTES_MAX);
        return false;
    }
    if (len > 0 && line[len - 1] == '\n')
        line[--len] = '\0';
    while (i < len && !ascii_is_control(line[i]))
        i++;
    if (len == 0)
        fputs("hayauma user: no password was given\n", stderr);
    else if (i < len)
        fprintf(stderr, "hayauma user: byte %zu of the password is a control byte (0x%02x)%s\n",
                i + 1, (unsigned)(uint8_t)line[i],
                line[i] == '\r' ? ": lines are to end in LF alone" : "");
    return len != 0 && i == len;
}

static bool read_password(const char *name, char line[LINE_BYTES])
{
    char again[LINE_BYTES] = "", prompt[200];
    size_t len = 0;
    bool same;

    if (!isatty(STDIN_FILENO))
        return is_password(line, read_line(stdin, line));
    snprintf(prompt, sizeof(prompt), "Password of %s: ", name);
    if (!ask(prompt, line, &len) || !is_password(line, len))
        return false;
    same = ask("Once more: ", again, &len) && is_password(again, len) && strcmp(line, again) == 0;
    explicit_bzero(again, sizeof(again));
    if (!same)
        fputs("hayauma user: the two differ\n", stderr);
    return same;
}

static int make_hash(struct buf *out, const char *method, const char *password)
{
    if (strcmp(method, PASSWORD_SCRAM) != 0)
        return password_hash(out, method, password);
    if (!scram_password_suits(password))
        return -EILSEQ;
    scram_keys_make(out, password);
    return 0;
}

/* Appends the hash of the password that is asked for. */
static bool put_hash(struct buf *out, const struct options *o)
{
    char password[LINE_BYTES];
    int err;

    if (!read_password(o->name, password))
        return false;
    err = make_hash(out, o->method, password);
    explicit_bzero(password, sizeof(password));
    if (err == -EMSGSIZE)
        fprintf(stderr, "hayauma user: %s does not take a password of that length\n", o->method);
    else if (err == -EINVAL)
        fprintf(stderr,
                "hayauma user: --method is yescrypt, bcrypt, sha512 or scram-sha-256, not '%s'\n",
                o->method);
    else if (err == -EILSEQ)
        fprintf(stderr,
                "hayauma user: a password for %s is of printable ASCII: what clients make "
                "of other letters differs\n",
                o->method);
    else if (err < 0)
        fprintf(stderr, "hayauma user: no hash: %s\n", strerror(-err));
    return err == 0;
}

/* --- the file --- */

/* The file of users, and whom it should belong to, from the options. */
static int open_file(struct users_file *f, const struct options *o)
{
    struct config *c = NULL;
    struct buf errors = {0};
    int err;

    if (o->file != NULL)
        return users_open(f, "user", o->file, NULL);
    if (config_load_file(o->config, &c, &errors) < 0) {
        fprintf(stderr, "%.*shayauma user: name the file of users with --file\n",
                STR_FMT(buf_str(&errors)));
        err = -1;
    } else if (c->auth.users_file == NULL) {
        fprintf(stderr, "hayauma user: %s has no auth.users_file: set it, or use --file\n",
                o->config);
        err = -1;
    } else {
        err = users_open(f, "user", c->auth.users_file, c->user);
    }
    config_unref(c);
    buf_done(&errors);
    return err;
}

/* Whether the engine would take the line. */
static bool is_line(struct str line)
{
    struct config *c = config_default();
    struct config_user user;
    struct buf why = {0};
    bool good = config_user_parse(c, line, &user, &why) == 0;

    if (!good)
        fprintf(stderr, "hayauma user: %.*s\n", STR_FMT(buf_str(&why)));
    buf_done(&why);
    config_unref(c);
    return good;
}

static void put_fields(struct buf *out, const struct options *o)
{
    const struct {
        const char *name, *value;
    } fields[] = {{"senders", o->senders},        {"from", o->from},
                  {"tenant", o->tenant},          {"pool", o->pool},
                  {"priority", o->priority},      {"rate", o->rate},
                  {"certificate", o->certificate}};
    char separator = ':';

    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (fields[i].value == NULL)
            continue;
        buf_printf(out, "%c%s=%s", separator, fields[i].name, fields[i].value);
        separator = ' ';
    }
}

static bool save(struct users_file *f, size_t at, size_t old_len, const struct buf *line,
                 const char *done, const char *name)
{
    users_replace(f, at, old_len, buf_str(line));
    if (users_write(f, "user") < 0)
        return false;
    printf("%s %s in %s; 'hayauma reload' makes the engine read it\n", name, done, f->path);
    return true;
}

/* SCRAM is offered as long as each user has keys for it: a new one keeps it so. */
static bool all_have_keys(const struct users_file *f)
{
    struct str entry;
    unsigned number = 0;
    size_t at = 0;
    bool any = false;

    while (config_secret_next(buf_str(&f->text), &at, &number, &entry)) {
        const char *method;

        (void)str_take(&entry, ':');
        method = password_method(str_take(&entry, ':'));
        if (method == NULL || strcmp(method, PASSWORD_SCRAM) != 0)
            return false;
        any = true;
    }
    return any;
}

static bool add(struct users_file *f, struct options *o)
{
    struct buf line = {0}, trial = {0};
    struct str old;
    size_t at;
    bool good;

    if (users_find(f, str_of(o->name), &at, &old)) {
        fprintf(stderr,
                "hayauma user: %s is there already; 'hayauma user passwd' changes the "
                "password\n",
                o->name);
        return false;
    }
    /* Before a password is asked for: what is wrong with the rest. */
    buf_printf(&trial, "%s:%s", o->name, password_nobody);
    put_fields(&trial, o);
    good = strpbrk(o->name, ": \t\r\n") == NULL && is_line(buf_str(&trial));
    if (!good && strpbrk(o->name, ": \t\r\n") != NULL)
        fputs("hayauma user: NAME is not 1 to 128 visible ASCII characters without ':'\n", stderr);
    buf_printf(&line, "%s:", o->name);
    if (o->method == NULL)
        o->method = all_have_keys(f) ? PASSWORD_SCRAM : "yescrypt";
    good = good && put_hash(&line, o);
    if (good) {
        put_fields(&line, o);
        buf_putc(&line, '\n');
        good = save(f, f->text.len, 0, &line, "is", o->name);
    }
    buf_done(&trial);
    buf_done(&line);
    return good;
}

/* The line of the user that must be there. */
static bool find(const struct users_file *f, const struct options *o, size_t *at, struct str *line)
{
    if (users_find(f, str_of(o->name), at, line))
        return true;
    fprintf(stderr, "hayauma user: there is no %s in %s\n", o->name, f->path);
    return false;
}

/* Whether new hashes of that method are made. */
static bool is_made(const char *method)
{
    static const char *const made[] = {"yescrypt", "bcrypt", "sha512", PASSWORD_SCRAM};

    for (size_t i = 0; i < ARRAY_LEN(made); i++)
        if (strcmp(method, made[i]) == 0)
            return true;
    return false;
}

static bool passwd(struct users_file *f, struct options *o)
{
    size_t at, begin = strlen(o->name) + 1;
    struct buf hash = {0};
    struct str line, rest, old;
    bool good;

    if (!find(f, o, &at, &line))
        return false;
    rest = (struct str){line.ptr + begin, line.len - begin};
    old = str_take(&rest, ':');
    if (o->method == NULL)
        o->method = password_method(old);
    if (o->method == NULL || !is_made(o->method))
        o->method = "yescrypt";
    good =
        put_hash(&hash, o) && save(f, at + begin, old.len, &hash, "has another password", o->name);
    buf_done(&hash);
    return good;
}

static bool remove_user(struct users_file *f, struct options *o)
{
    struct buf nothing = {0};
    size_t at, end;
    struct str line;

    if (!find(f, o, &at, &line))
        return false;
    end = at + line.len;
    while (end < f->text.len && f->text.data[end] != '\n')
        end++;
    return save(f, at, end - at + (end < f->text.len), &nothing, "is no more", o->name);
}

static json_t *list_json(char *const *list, size_t len)
{
    json_t *out = json_array();

    for (size_t i = 0; i < len; i++)
        json_array_append_new(out, json_string(list[i]));
    return out;
}

static void print_json(const struct config_user *u)
{
    const struct config_senders *s = &u->senders;
    json_t *row = json_pack("{s:s,s:s,s:o,s:o,s:s*,s:s*}", "name", u->name, "method",
                            password_method(str_of(u->hash)), "senders",
                            list_json(s->envelope, s->envelope_len), "from",
                            list_json(s->from, s->from_len), "tenant", u->tenant, "pool", u->pool);

    if (u->certificates_len > 0)
        json_object_set_new(row, "certificate", list_json(u->certificates, u->certificates_len));
    if (u->priority >= 0)
        json_object_set_new(row, "priority", json_integer(u->priority));
    if (u->rate_messages != 0) {
        struct buf rate = {0};

        config_format_rate(&rate, u->rate_messages, u->rate_period_ms);
        json_object_set_new(row, "rate", json_stringn((char *)rate.data, rate.len));
        buf_done(&rate);
    }
    json_dumpf(row, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(row);
}

static bool list(struct users_file *f, struct options *o)
{
    struct config *c = config_default();
    struct str entry;
    unsigned number = 0;
    size_t at = 0;
    bool good = true;

    if (!o->json)
        printf("%-20s %-13s %s\n", "USER", "HASH", "WHAT ITS MAIL MAY BE");
    while (config_secret_next(buf_str(&f->text), &at, &number, &entry)) {
        struct config_user user;
        struct buf why = {0};

        if (config_user_parse(c, entry, &user, &why) < 0) {
            fprintf(stderr, "%s:%u: %.*s\n", f->path, number, STR_FMT(buf_str(&why)));
            good = false;
        } else if (o->json) {
            print_json(&user);
        } else {
            size_t used = strlen(user.name) + 1 + strlen(user.hash);
            struct str rest = {entry.ptr + used, entry.len - used};

            printf("%-20s %-13s %.*s\n", user.name, password_method(str_of(user.hash)),
                   (int)(rest.len > 0 ? rest.len - 1 : 0), rest.ptr + (rest.len > 0));
        }
        buf_done(&why);
    }
    config_unref(c);
    return good;
}

/* --- the command line --- */

static const struct action {
    const char *name;
    bool (*run)(struct users_file *f, struct options *o);
    bool named; /* takes a NAME */
} actions[] = {{"add", add, true},
               {"passwd", passwd, true},
               {"remove", remove_user, true},
               {"list", list, false}};

static const struct action *action_find(const char *name)
{
    struct suggest s;

    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        suggest_offer(&s, actions[i].name);
        if (strcmp(name, actions[i].name) == 0)
            return &actions[i];
    }
    (void)action_unknown("user", &s);
    return NULL;
}

static int run(const struct action *action, struct options *o)
{
    struct users_file f = {.directory = -1};
    bool done = open_file(&f, o) == 0 && action->run(&f, o);

    users_close(&f);
    return done ? EXIT_OK : EXIT_FAILED;
}

enum {
    OPTION_FILE = 256,
    OPTION_METHOD,
    OPTION_SENDERS,
    OPTION_FROM,
    OPTION_TENANT,
    OPTION_POOL,
    OPTION_PRIORITY,
    OPTION_RATE,
    OPTION_CERTIFICATE,
    OPTION_JSON
};

static bool take_option(struct options *o, int option)
{
    switch (option) {
    case 'c':
        o->config = optarg;
        return true;
    case OPTION_FILE:
        o->file = optarg;
        return true;
    case OPTION_METHOD:
        o->method = optarg;
        return true;
    case OPTION_SENDERS:
        o->senders = optarg;
        return true;
    case OPTION_FROM:
        o->from = optarg;
        return true;
    case OPTION_TENANT:
        o->tenant = optarg;
        return true;
    case OPTION_POOL:
        o->pool = optarg;
        return true;
    case OPTION_PRIORITY:
        o->priority = optarg;
        return true;
    case OPTION_RATE:
        o->rate = optarg;
        return true;
    case OPTION_CERTIFICATE:
        o->certificate = optarg;
        return true;
    case OPTION_JSON:
        o->json = true;
        return true;
    default:
        return false;
    }
}

int cmd_user(int argc, char **argv)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"file", required_argument, NULL, OPTION_FILE},
        {"method", required_argument, NULL, OPTION_METHOD},
        {"senders", required_argument, NULL, OPTION_SENDERS},
        {"from", required_argument, NULL, OPTION_FROM},
        {"tenant", required_argument, NULL, OPTION_TENANT},
        {"pool", required_argument, NULL, OPTION_POOL},
        {"priority", required_argument, NULL, OPTION_PRIORITY},
        {"rate", required_argument, NULL, OPTION_RATE},
        {"certificate", required_argument, NULL, OPTION_CERTIFICATE},
        {"json", no_argument, NULL, OPTION_JSON},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    struct options o = {.config = CONFIG_FILE};
    const struct action *action;
    int c;

    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (take_option(&o, c))
            continue;
        fputs(help, c == 'h' ? stdout : stderr);
        return c == 'h' ? EXIT_OK : EXIT_USAGE;
    }
    if (optind == argc) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    action = action_find(argv[optind]);
    if (action == NULL)
        return EXIT_USAGE;
    if (argc - optind != (action->named ? 2 : 1)) {
        fprintf(stderr, "hayauma user %s: takes %s\n", action->name,
                action->named ? "one NAME; a password is never an argument" : "no NAME");
        return EXIT_USAGE;
    }
    o.name = argv[optind + 1];
    return run(action, &o);
}
