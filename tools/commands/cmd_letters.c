/* hayauma letters: the keys of return paths and unsubscribe tokens, and what comes back with them.
 * Works on the file that the configuration names, whether an engine runs or not. */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "config/config.h"
#include "config/config_secret.h"
#include "mail/letter_mark.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"

#define KEYS_FILE       "/etc/hayauma/letter.keys" /* where none is named */
#define SOON_S          3600                       /* until a further key counts: time to reload */
#define KEY_LINES_BYTES 256

static const char help[] =
    "usage: hayauma letters keygen [options]          make a key, or a further one\n"
    "       hayauma letters verify [options] TEXT...  what such marks say\n"
    "\n"
    "Letters of campaigns may have return paths and unsubscribe tokens that others\n"
    "cannot make up (senders in the configuration). keygen adds a key to the file\n"
    "(letter_keys), and makes that for the configuration's `user` alone. The first\n"
    "key counts at once; a further one for campaigns that are made from an hour on,\n"
    "so that each node has it by then (hayauma reload). Letters of earlier campaigns\n"
    "keep the older key, which stays.\n"
    "\n"
    "verify takes addresses to which bounces came, unsubscribe URLs, and bare tokens,\n"
    "and says of which campaign and recipient each is.\n"
    "\n"
    "  -c, --config FILE  the configuration (" CONFIG_FILE ")\n"
    "      --file FILE    the keys, instead of the configuration's letter_keys\n"
    "  -h, --help         this text\n"
    "\n"
    "Exit codes: 0 done, each is ours; 1 failed, or one is not; 2 wrong usage.\n";

struct options {
    const char *config, *file;
    char **texts;
    int texts_len;
};

/* What the configuration says of the keys; NULL with the error printed. */
static struct config *load(const struct options *o)
{
    struct config *c = NULL;
    struct buf errors = {0};

    if (o->file != NULL) {
        c = config_default();
        c->letter_keys_file = (char *)(uintptr_t)o->file; /* of argv, which outlives it */
    } else if (config_load_file(o->config, &c, &errors) < 0) {
        fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
    }
    buf_done(&errors);
    return c;
}

/* --- keygen --- */

static void failed(const char *file, int err)
{
    fprintf(stderr, "hayauma letters keygen: %s: %s%s\n", file, strerror(-err),
            err == -ENOENT ? "; is its directory there?" : "");
}

/* What the file has, with room for a further key: a buffer that grew would leave copies behind. */
static int read_keys(const char *file, struct buf *text)
{
    struct buf present = {0}, errors = {0};
    int err = config_secret_read(NULL, file, &present, &errors);

    if (err == 0 || err == -ENOENT)
        err = buf_reserve(text, present.len + KEY_LINES_BYTES);
    else
        fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
    if (err == 0)
        buf_put_str(text, buf_str(&present));
    config_secret_done(&present);
    buf_done(&errors);
    return err;
}

/* Whose the file is to be: its owner, else the configuration's user, else who calls. */
static const struct stat *find_owner(const struct config *c, const char *file, struct stat *owner)
{
    const struct passwd *pw = c->user == NULL ? NULL : getpwnam(c->user);

    if (geteuid() != 0)
        return NULL;
    if (stat(file, owner) == 0)
        return owner;
    if (pw == NULL)
        return NULL;
    owner->st_uid = pw->pw_uid;
    owner->st_gid = pw->pw_gid;
    return owner;
}

/* The time from which the newest key of text counts; -1: there is none. */
static int64_t newest_of(struct str text)
{
    struct config_letter_key key;
    int64_t newest = -1;
    struct str entry;
    unsigned line = 0;
    size_t at = 0;

    while (config_secret_next(text, &at, &line, &entry))
        if (config_letter_key_parse(entry, &key) && key.from_s > newest)
            newest = key.from_s;
    explicit_bzero(&key, sizeof(key));
    return newest;
}

static int64_t put_key(struct buf *text)
{
    int64_t newest = newest_of(buf_str(text)), from_s = clock_wall_ms() / 1000 + SOON_S;
    uint8_t bytes[CONFIG_LETTER_KEY_BYTES];
    char date[CLOCK_RFC3339_BYTES];
    ssize_t got = getrandom(bytes, sizeof(bytes), 0);

    ASSERT(got == (ssize_t)sizeof(bytes));
    from_s = newest < 0 ? 0 : from_s > newest ? from_s : newest + 1;
    clock_rfc3339(clock_wall_ms(), date);
    if (text->len > 0 && text->data[text->len - 1] != '\n')
        buf_putc(text, '\n');
    buf_printf(text, "# made %s\n%lld ", date, (long long)from_s);
    for (size_t i = 0; i < sizeof(bytes); i++)
        buf_printf(text, "%02x", bytes[i]);
    buf_putc(text, '\n');
    explicit_bzero(bytes, sizeof(bytes));
    return from_s;
}

static int keygen(const struct options *o)
{
    struct config *c = load(o);
    const char *file = c == NULL || c->letter_keys_file == NULL ? KEYS_FILE : c->letter_keys_file;
    char date[CLOCK_RFC3339_BYTES];
    struct buf text = {0};
    struct stat owner;
    int64_t from_s = 0;
    int err;

    if (c == NULL)
        return EXIT_FAILED;
    err = read_keys(file, &text);
    if (err == 0) {
        from_s = put_key(&text);
        err = file_replace(file, 0600, find_owner(c, file, &owner), buf_str(&text));
    }
    config_secret_done(&text);
    if (err < 0) {
        failed(file, err);
    } else if (from_s == 0) {
        char *whole = realpath(file, NULL); /* the configuration takes no other */

        printf("%s: made. In the configuration: letter_keys: %s\n", file,
               whole != NULL ? whole : file);
        free(whole);
    } else {
        clock_rfc3339(from_s * 1000, date);
        printf("%s: a further key, for campaigns made from %s on: let each node have the file, and "
               "run 'hayauma reload' there before\n",
               file, date);
    }
    config_unref(c);
    return err < 0 ? EXIT_FAILED : EXIT_OK;
}

/* --- verify --- */

static bool is_ours(const struct config *c, const struct letter_mark *m)
{
    for (size_t i = 0; i < c->letter_keys_len; i++)
        if (letter_mark_is_of(m, c->letter_keys[i].bytes))
            return true;
    return false;
}

static bool verify_one(const struct config *c, const char *text)
{
    struct letter_mark m;
    char id[MSGID_TEXT_BYTES];
    bool ours = false;

    if (letter_mark_parse(str_of(text), &m) < 0) {
        printf("%s: neither a return path of ours nor a token\n", text);
    } else if (!is_ours(c, &m)) {
        printf("%s: forged, changed, or of a key that is gone\n", text);
    } else {
        ours = true;
        msgid_text(&m.campaign, id);
        printf("%s: %s, campaign %s, ", text,
               m.kind == LETTER_MARK_RETURN ? "return path" : "unsubscribe", id);
        if (m.index == LETTER_MARK_PREVIEW)
            printf("a preview");
        else
            printf("recipient %u", m.index);
        if (m.kind == LETTER_MARK_TOKEN)
            printf(", %.*s", STR_FMT(buf_str(&m.address)));
        putchar('\n');
    }
    letter_mark_done(&m);
    return ours;
}

static int verify(const struct options *o)
{
    struct config *c = load(o);
    struct buf errors = {0};
    bool ours = true;
    int err = c == NULL ? -EINVAL : config_load_letter_keys(c, &errors);

    if (err == 0 && c->letter_keys_file == NULL) {
        buf_printf(&errors, "hayauma letters verify: %s has no letter_keys\n", o->config);
        err = -EINVAL;
    }
    fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
    for (int i = 0; err == 0 && i < o->texts_len; i++)
        ours &= verify_one(c, o->texts[i]);
    buf_done(&errors);
    config_unref(c);
    return err == 0 && ours ? EXIT_OK : EXIT_FAILED;
}

int cmd_letters(int argc, char **argv)
{
    enum { OPT_FILE = 256 };
    static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                          {"file", required_argument, NULL, OPT_FILE},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct options o = {.config = CONFIG_FILE};
    int c;

    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (c == 'c') {
            o.config = optarg;
        } else if (c == OPT_FILE) {
            o.file = optarg;
        } else {
            fputs(help, c == 'h' ? stdout : stderr);
            return c == 'h' ? EXIT_OK : EXIT_USAGE;
        }
    }
    if (optind + 1 == argc && strcmp(argv[optind], "keygen") == 0)
        return keygen(&o);
    if (optind + 1 < argc && strcmp(argv[optind], "verify") == 0) {
        o.texts = argv + optind + 1;
        o.texts_len = argc - optind - 1;
        return verify(&o);
    }
    if (optind < argc) {
        struct suggest near;

        suggest_init(&near, str_of(argv[optind]));
        suggest_offer(&near, "keygen");
        suggest_offer(&near, "verify");
        if (strcmp(argv[optind], "keygen") != 0 && strcmp(argv[optind], "verify") != 0)
            return action_unknown("letters", &near);
        fprintf(stderr, "hayauma letters %s: %s\n", argv[optind],
                optind + 1 < argc ? "it takes no argument"
                                  : "say what: return paths, URLs, tokens");
        return EXIT_USAGE;
    }
    fputs(help, stderr);
    return EXIT_USAGE;
}
