/* hayauma config: what is in a file, what it means, and what could be in it. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <libgen.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/sockaddr.h"
#include "base/suggest.h"
#include "config/config.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/screen.h"
#include "worker/keyring.h"
#include "worker/trust.h"

#define STATE_DIRECTORY "/var/lib/hayauma" /* the unit of docs/examples makes it */

static const char help[] =
    "usage: hayauma config check [FILE]   say what is wrong with a file\n"
    "       hayauma config show [FILE]    every value in force, as YAML\n"
    "       hayauma config docs           the reference of all keys, as Markdown\n"
    "\n"
    "FILE is " CONFIG_FILE " unless given; 'show --defaults' needs none.\n"
    "\n"
    "  -c, --config FILE   the same as FILE, as other commands have it\n"
    "      --defaults      show: all defaults, no file\n"
    "  -q, --quiet         check: say nothing but warnings when the file is good\n"
    "  -h, --help          this text\n"
    "\n"
    "As root, 'check' also reads all files that FILE names as the engine's user.\n"
    "Exit codes: 0 good, 1 the file has mistakes, or it or a file that it names\n"
    "cannot be read, 2 wrong usage.\n";

struct options {
    const char *file;
    bool defaults, quiet;
};

/* The configuration, or NULL with its mistakes printed. The files that it names are not read, of
 * which some are only for the engine's user. */
static struct config *load(const struct options *o)
{
    struct config *c = NULL;
    struct buf errors = {0};

    if (o->defaults)
        return config_default();
    if (config_load_file(o->file, &c, &errors) != 0)
        c = NULL;
    fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
    buf_done(&errors);
    return c;
}

/* Whether the files that c names are of use; else all that are not are named, so that whoever mends
 * them need not come again for the next. Of certificates that are, warns when they are not valid
 * for long. */
static bool files_good(struct config *c)
{
    struct buf errors = {0}, warnings = {0};
    struct trust *trust = NULL;
    bool good = config_load_secrets(c, &errors) == 0;

    good = keyring_open(c, &errors) == 0 && good;
    if (trust_load(&trust, c, NULL, &errors) == 0) {
        buf_put_str(&errors, buf_str(&trust->certificates->complaints));
        trust_warnings(trust, (int64_t)time(NULL), &warnings);
        certificates_loose_keys(trust->certificates, &warnings);
    }
    good = good && errors.len == 0;
    fprintf(stderr, "%.*s%.*s", STR_FMT(buf_str(&errors)), STR_FMT(buf_str(&warnings)));
    buf_done(&errors);
    buf_done(&warnings);
    trust_unref(trust);
    return good;
}

/* True: user cannot. */
static bool is_unreadable(const char *key, const char *file, const char *user)
{
    int fd = file == NULL ? -1 : open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (file != NULL && fd < 0)
        fprintf(stderr,
                "%s: %s: root can read it, but not the engine as user %s (%s); let its group read "
                "the file and the directories above it\n",
                key, file, user, strerror(errno));
    if (fd >= 0)
        close(fd);
    return file != NULL && fd < 0;
}

/* What servers are shown; destinations have it of the default, mostly. */
static bool shown_unreadable(const struct config *c)
{
    const char *last = NULL;
    bool any = false;

    for (size_t i = 0; i < c->destinations_len + c->providers_all; i++) {
        const char *file = i < c->destinations_len
                               ? c->destinations[i].tls_certificate
                               : c->providers[i - c->destinations_len].dest.tls_certificate;

        if (last == NULL || file == NULL || strcmp(last, file) != 0)
            any |= is_unreadable("tls_certificate", file, c->user);
        last = file;
    }
    for (size_t i = 0; i < c->sources_len; i++)
        any |= is_unreadable("tls_certificate", c->sources[i].tls_certificate, c->user);
    return any;
}

static bool some_unreadable(const struct config *c)
{
    bool any = is_unreadable("the configuration", c->file, c->user);

    for (size_t i = 0; i < c->certificates_len; i++) {
        any |= is_unreadable("certificates", c->certificates[i].chain_file, c->user);
        any |= is_unreadable("certificates", c->certificates[i].key_file, c->user);
    }
    for (size_t i = 0; i < c->dkim.keys_len; i++)
        any |= is_unreadable("dkim.keys", c->dkim.keys[i].file, c->user);
    for (size_t i = 0; i < c->listeners_len; i++) {
        any |= is_unreadable("client_ca_file", c->listeners[i].client_ca_file, c->user);
        any |= is_unreadable("client_crl_file", c->listeners[i].client_crl_file, c->user);
    }
    any |= shown_unreadable(c);
    for (size_t i = 0; i < c->sources_len; i++)
        any |= is_unreadable("password_file", c->sources[i].proxy.password_file, c->user);
    any |= is_unreadable("tls_ca_file", c->tls_ca_file, c->user);
    any |= is_unreadable("users_file", c->auth.users_file, c->user);
    any |= is_unreadable("credentials_file", c->credentials_file, c->user);
    return is_unreadable("letter_keys", c->letter_keys_file, c->user) || any;
}

/* What root reads here and the engine, as `user`, does not, such as files in certbot's directories:
 * started as that user it does not start, and else each reload is refused. A child that has become
 * the user looks, so groups and directories count as they will. */
static bool readable_as_user(const struct config *c)
{
    const struct passwd *pw = c->user == NULL || geteuid() != 0 ? NULL : getpwnam(c->user);
    const struct group *gr = c->group == NULL ? NULL : getgrnam(c->group);
    int status = 0;
    pid_t child;
    gid_t gid;

    if (pw == NULL || pw->pw_uid == 0)
        return true;
    fflush(NULL);
    child = fork();
    if (child != 0) {
        if (child > 0)
            waitpid(child, &status, 0);
        return !WIFEXITED(status) || WEXITSTATUS(status) == EXIT_OK;
    }
    gid = gr != NULL ? gr->gr_gid : pw->pw_gid;
    /* A root that may not become others (a container's) cannot look. */
    if (initgroups(c->user, gid) < 0 || setgid(gid) < 0 || setuid(pw->pw_uid) < 0)
        _exit(EXIT_OK);
    _exit(some_unreadable(c) ? EXIT_FAILED : EXIT_OK);
}

/* --- what serve would find missing on this machine --- */

/* Only warnings, as the file may be another machine's, or the address a floating one. */
static void warn_of_address(const struct config_address *a, const char *what)
{
    struct sockaddr_storage addr = a->addr;
    int fd;

    if (a->len == 0 || addr.ss_family == AF_UNIX)
        return;
    sockaddr_set_port((struct sockaddr *)&addr, 0);
    fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (bind(fd, (const struct sockaddr *)&addr, a->len) < 0 && errno == EADDRNOTAVAIL)
        fprintf(
            stderr,
            "warning: %s %s: this machine has no such address, and serve would not start here\n",
            what, a->text);
    close(fd);
}

/* serve makes the last part of a path, and no more. */
static void warn_of_directory(const struct config *c, const char *key, const char *path)
{
    char *copy = strdup(path);
    const char *parent = copy == NULL ? "/" : dirname(copy);
    bool there = access(path, F_OK) == 0;
    struct buf out = {0};
    struct stat st;

    buf_puts(&out, "warning: ");
    config_place_put(c, key, &out);
    if (there && stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        fprintf(stderr, "%.*s: %s is no directory, and serve would not start here\n",
                STR_FMT(buf_str(&out)), path);
    else if (!there && strcmp(parent, STATE_DIRECTORY) != 0 &&
             (stat(parent, &st) < 0 ? errno == ENOENT : !S_ISDIR(st.st_mode)))
        fprintf(stderr,
                "%.*s: there is no directory %s, and serve would not start here; make it, or have "
                "the unit do so\n",
                STR_FMT(buf_str(&out)), parent);
    buf_done(&out);
    free(copy);
}

static void warn_of_machine(const struct config *c)
{
    for (size_t i = 0; i < c->listeners_len; i++)
        warn_of_address(&c->listeners[i].address, "listener");
    warn_of_address(&c->http.listen, "http.listen");
    warn_of_directory(c, "queue.path", c->queue.path);
    if (c->records.path != NULL) /* none */
        warn_of_directory(c, "records.path", c->records.path);
}

static int check(const struct options *o)
{
    struct config *c = load(o);
    struct buf warnings = {0};

    if (c == NULL)
        return EXIT_FAILED;
    if (!files_good(c) || !readable_as_user(c)) {
        config_unref(c);
        return EXIT_FAILED;
    }
    warn_of_machine(c);
    config_warnings(c, geteuid() == 0, &warnings);
    fprintf(stderr, "%.*s", STR_FMT(buf_str(&warnings)));
    buf_done(&warnings);
    if (!o->quiet)
        printf("%s: good (%zu listener%s, %zu route%s, %zu destination%s)\n",
               o->defaults ? "the defaults" : o->file, c->listeners_len, PLURAL(c->listeners_len),
               c->routes_len, PLURAL(c->routes_len), c->destinations_len,
               PLURAL(c->destinations_len));
    config_unref(c);
    return EXIT_OK;
}

static int print(struct buf *text)
{
    fwrite(text->data, 1, text->len, stdout);
    buf_done(text);
    return EXIT_OK;
}

static int show(const struct options *o)
{
    struct config *c = load(o);
    struct buf text = {0};

    if (c == NULL)
        return EXIT_FAILED;
    config_print(c, &text);
    config_unref(c);
    return print(&text);
}

static int docs(const struct options *o)
{
    struct buf text = {0};

    (void)o;
    config_print_docs(&text);
    return print(&text);
}

static const struct {
    const char *name;
    int (*run)(const struct options *o);
    bool takes_file;
} actions[] = {{"check", check, true}, {"show", show, true}, {"docs", docs, false}};

static int run(const char *name, const struct options *o, bool has_file)
{
    struct suggest s;

    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        suggest_offer(&s, actions[i].name);
        if (strcmp(name, actions[i].name) != 0)
            continue;
        if (!has_file || actions[i].takes_file)
            return actions[i].run(o);
        fprintf(stderr, "hayauma config %s: takes no file\n", name);
        return EXIT_USAGE;
    }
    return action_unknown("config", &s);
}

int cmd_config(int argc, char **argv)
{
    static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                          {"defaults", no_argument, NULL, 'd'},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct options o = {.file = CONFIG_FILE};
    bool has_file = false;
    int c;

    while ((c = getopt_long(argc, argv, "c:qh", longs, NULL)) != -1) {
        if (c == 'c') {
            o.file = optarg;
            has_file = true;
        } else if (c == 'd') {
            o.defaults = true;
        } else if (c == 'q') {
            o.quiet = true;
        } else {
            fputs(help, c == 'h' ? stdout : stderr);
            return c == 'h' ? EXIT_OK : EXIT_USAGE;
        }
    }
    if (optind == argc || argc - optind > 2 - has_file) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    if (optind + 1 < argc) {
        o.file = argv[optind + 1];
        has_file = true;
    }
    return run(argv[optind], &o, has_file);
}
