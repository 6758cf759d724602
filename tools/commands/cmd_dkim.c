/* hayauma dkim: keys for signatures, made, compared with DNS, tried. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/suggest.h"
#include "dns/name.h"
#include "dns/txt.h"
#include "mail/author.h"
#include "tools/commands/commands.h"
#include "tools/commands/dkim_record.h"
#include "tools/commands/options.h"
#include "worker/keyring.h"

#define DIRECTORY         "/etc/hayauma/dkim"
#define MESSAGE_BYTES_MAX ((size_t)64 << 20)
#define SELECTOR_MAX      50

static const char help[] =
    "usage: hayauma dkim keygen DOMAIN [options]   make an RSA and an Ed25519 key\n"
    "       hayauma dkim check [DOMAIN] [options]  compare our keys with DNS\n"
    "       hayauma dkim sign [options] <MESSAGE   print a message as it would go out\n"
    "\n"
    "keygen writes both private keys, for the configuration's `user` alone, where\n"
    "the configuration names their files, and prints what goes into DNS, as lines of\n"
    "a zone file, and into the configuration. It changes neither. check says of each\n"
    "key whether receivers will find it, and what to do. sign changes and sends\n"
    "nothing.\n"
    "\n"
    "  -c, --config FILE     the configuration (" CONFIG_FILE ")\n"
    "      --selector NAME   keygen: the keys are NAME-rsa and NAME-ed25519 (today's\n"
    "                        date)\n"
    "      --directory DIR   keygen: where the keys go (where dkim.keys has them,\n"
    "                        else " DIRECTORY ")\n"
    "  -h, --help            this text\n"
    "\n"
    "Exit codes: 0 done, 1 failed, or check has found something to do, 2 wrong usage.\n";

struct options {
    const char *file, *selector, *directory; /* directory: NULL where none was given */
    bool has_file;
    const char *domain; /* or NULL */
};

static void print_buf(const struct buf *b, FILE *to)
{
    if (b->len > 0)
        fwrite(b->data, 1, b->len, to);
}

static struct config *load(const struct options *o)
{
    struct config *c = NULL;
    struct buf errors = {0};

    if (config_load(o->file, &c, &errors) == 0 && keyring_open(c, &errors) != 0) {
        config_unref(c);
        c = NULL;
    }
    print_buf(&errors, stderr);
    buf_done(&errors);
    if (c != NULL && c->keyring == NULL) {
        fprintf(stderr, "hayauma dkim: %s has no keys (dkim.keys); see 'hayauma dkim keygen'\n",
                o->file);
        config_unref(c);
        c = NULL;
    }
    return c;
}

/* --- keygen --- */

/* The configuration that says whose keys are made, and where; *c is NULL where there is none. False
 * with the error printed. */
static bool open_config(const struct options *o, struct config **c)
{
    struct buf errors = {0};
    int err;

    *c = NULL;
    if (!o->has_file && access(o->file, R_OK) != 0)
        return true;
    err = config_load_file(o->file, c, &errors);
    print_buf(&errors, stderr);
    buf_done(&errors);
    return err == 0;
}

struct owner {
    uid_t uid;
    gid_t gid;
};

/* Whom the keys are to belong to: root makes them for the engine's user. */
static struct owner owner_of(const struct config *c)
{
    const struct passwd *pw =
        c == NULL || c->user == NULL || geteuid() != 0 ? NULL : getpwnam(c->user);

    return pw == NULL ? (struct owner){(uid_t)-1, (gid_t)-1}
                      : (struct owner){pw->pw_uid, pw->pw_gid};
}

/* 0 or -errno. Never over a key that is there. */
static int write_file(const char *path, const struct buf *text, const struct owner *owner)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int err = 0;

    if (fd < 0)
        return -errno;
    if (owner->uid != (uid_t)-1 && fchown(fd, owner->uid, owner->gid) != 0)
        err = -errno;
    if (err == 0 && write(fd, text->data, text->len) != (ssize_t)text->len)
        err = -EIO;
    if (err == 0 && fsync(fd) != 0)
        err = -errno;
    close(fd);
    if (err != 0)
        unlink(path);
    return err;
}

struct made {
    const char *suffix;
    enum dkim_algorithm algorithm;
    struct dkim_key *key;
    char selector[SELECTOR_MAX + 16];
    char path[1024];
    bool configured, written;
};

/* The file that the configuration names for this key; NULL where it names none. */
static const char *configured_file(const struct config *c, const char *domain, const char *selector)
{
    for (size_t i = 0; c != NULL && i < c->dkim.keys_len; i++)
        if (str_eq_nocase(str_of(c->dkim.keys[i].domain), str_of(domain)) &&
            str_eq_nocase(str_of(c->dkim.keys[i].selector), str_of(selector)))
            return c->dkim.keys[i].file;
    return NULL;
}

static int name_one(const struct options *o, const struct config *c, const char *domain,
                    const char *base, struct made *m)
{
    const char *file, *directory = o->directory != NULL ? o->directory : DIRECTORY;
    int len;

    snprintf(m->selector, sizeof(m->selector), "%s-%s", base, m->suffix);
    file = o->directory != NULL ? NULL : configured_file(c, domain, m->selector);
    m->configured = file != NULL;
    len = file != NULL
              ? snprintf(m->path, sizeof(m->path), "%s", file)
              : snprintf(m->path, sizeof(m->path), "%s/%s.%s.pem", directory, domain, m->selector);
    return (size_t)len >= sizeof(m->path) ? -ENAMETOOLONG : 0;
}

/* The directory of the keys, if only this last part of its path is missing. */
static int make_directory(const char *path, const struct owner *owner)
{
    char copy[1024];
    const char *directory;

    snprintf(copy, sizeof(copy), "%s", path);
    directory = dirname(copy);
    if (mkdir(directory, 0700) == 0 && owner->uid != (uid_t)-1 &&
        chown(directory, owner->uid, owner->gid) != 0)
        return -errno;
    return 0; /* opening the file says what is wrong with the directory */
}

static int make_one(const struct options *o, const struct config *c, const char *domain,
                    const char *base, const struct owner *owner, struct made *m)
{
    struct buf text = {0};
    int err = name_one(o, c, domain, base, m);

    if (err == 0)
        err = make_directory(m->path, owner);
    if (err == 0)
        err = dkim_key_generate(&m->key, m->algorithm);
    if (err == 0)
        err = dkim_key_write(m->key, &text);
    if (err == 0)
        err = write_file(m->path, &text, owner);
    m->written = err == 0;
    dkim_wipe(text.data, text.len);
    buf_done(&text);
    return err;
}

static void print_made(const struct options *o, const char *domain, const struct made *made,
                       size_t len)
{
    struct buf out = {0};

    buf_printf(&out, "; In the zone of %s:\n", domain);
    for (size_t i = 0; i < len; i++) {
        int err = dkim_record_zone(made[i].key, made[i].selector, domain, &out);

        ASSERT(err == 0);
    }
    for (size_t i = 0; i < len; i++) {
        if (made[i].configured) {
            buf_printf(&out, "; %s has this key already (dkim.keys): %s\n", o->file, made[i].path);
            continue;
        }
        if (i == 0 || made[i - 1].configured)
            buf_printf(&out, "; In %s:\n;   dkim:\n;     keys:\n", o->file);
        buf_printf(&out, ";       - {domain: %s, selector: %s, file: %s}\n", domain,
                   made[i].selector, made[i].path);
    }
    buf_printf(&out, "; When the zone is out: hayauma dkim check %s && hayauma reload\n", domain);
    print_buf(&out, stdout);
    buf_done(&out);
}

/* The date, so that keys can be told by age and the next ones have other names. */
static void default_selector(char out[SELECTOR_MAX])
{
    time_t now = time(NULL);
    struct tm tm;

    strftime(out, SELECTOR_MAX, "s%Y%m%d", gmtime_r(&now, &tm));
}

static bool selector_valid(const char *s)
{
    size_t len = strlen(s);

    return len > 0 && len < SELECTOR_MAX && s[0] != '-' &&
           strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static int make_keys(const struct options *o, const char *domain, const char *base)
{
    struct made made[] = {{.suffix = "rsa", .algorithm = DKIM_RSA_SHA256},
                          {.suffix = "ed25519", .algorithm = DKIM_ED25519_SHA256}};
    struct config *c;
    struct owner owner;
    int err = 0;

    if (!open_config(o, &c))
        return EXIT_FAILED;
    owner = owner_of(c);
    for (size_t i = 0; i < ARRAY_LEN(made) && err == 0; i++) {
        err = make_one(o, c, domain, base, &owner, &made[i]);
        if (err != 0)
            fprintf(stderr, "hayauma dkim keygen: %s: %s%s\n", made[i].path, strerror(-err),
                    err == -EEXIST   ? "; choose another --selector"
                    : err == -ENOENT ? "; make its directory first, or name one with --directory"
                                     : "");
    }
    config_unref(c);
    if (err == 0)
        print_made(o, domain, made, ARRAY_LEN(made));
    for (size_t i = 0; i < ARRAY_LEN(made); i++) {
        if (err != 0 && made[i].written) /* half a pair is of no use */
            unlink(made[i].path);
        dkim_key_free(made[i].key);
    }
    return err == 0 ? EXIT_OK : EXIT_FAILED;
}

static int keygen(const struct options *o)
{
    char dated[SELECTOR_MAX];
    const char *base = o->selector;
    struct dns_name domain;

    if (o->domain == NULL) {
        fprintf(stderr, "hayauma dkim keygen: which DOMAIN?\n");
        return EXIT_USAGE;
    }
    if (dns_name_parse(&domain, str_of(o->domain)) != 0) {
        fprintf(stderr, "hayauma dkim keygen: '%s' is no domain\n", o->domain);
        return EXIT_USAGE;
    }
    if (base == NULL) {
        default_selector(dated);
        base = dated;
    }
    if (!selector_valid(base)) {
        fprintf(stderr, "hayauma dkim keygen: --selector takes lower-case letters, digits and "
                        "'-', at most 49\n");
        return EXIT_USAGE;
    }
    return make_keys(o, domain.text, base);
}

/* --- check --- */

static void print_publish(const struct dkim_signer *s)
{
    struct buf zone = {0};

    if (dkim_record_zone(s->key, s->selector, s->domain, &zone) == 0)
        printf("  publish:\n%.*s", STR_FMT(buf_str(&zone)));
    buf_done(&zone);
}

/* The records found, a NUL behind each. True: receivers will find the key. */
static bool judge_records(const struct dkim_signer *s, const char *name, struct str records)
{
    enum dkim_record_fault fault = DKIM_RECORD_NOT_DKIM;
    size_t n = 0;

    for (size_t at = 0; at < records.len; n++) {
        struct str one = {records.ptr + at, strnlen(records.ptr + at, records.len - at)};

        fault = dkim_record_check(one, s->key);
        at += one.len + 1;
    }
    if (n > 1) {
        printf("%s: %zu TXT records: receivers take any one of them, or none; keep one\n", name, n);
        print_publish(s);
        return false;
    }
    printf("%s: %s\n", name, dkim_record_fault_text(fault));
    if (fault == DKIM_RECORD_GOOD || fault == DKIM_RECORD_TESTING)
        return true;
    print_publish(s);
    return false;
}

static bool check_one(const struct config *c, const struct dkim_signer *s)
{
    char name[2 * DNS_NAME_MAX];
    struct buf records = {0};
    const char *error = NULL;
    enum dns_answer_status status;
    bool good = false;

    snprintf(name, sizeof(name), "%s._domainkey.%s", s->selector, s->domain);
    status = dns_txt((const char *const *)c->dns.servers, c->dns.servers_len, c->dns.timeout_ms,
                     c->dns.tries, name, &records, &error);
    switch (status) {
    case DNS_ANSWER_RECORDS:
        good = judge_records(s, name, buf_str(&records));
        break;
    case DNS_ANSWER_NO_DATA:
    case DNS_ANSWER_NO_DOMAIN:
        printf("%s: not in DNS\n", name);
        print_publish(s);
        break;
    case DNS_ANSWER_FAILED:
        printf("%s: could not be looked up: %s; see dns.servers\n", name, error);
        break;
    }
    buf_done(&records);
    if (dkim_key_algorithm(s->key) == DKIM_RSA_SHA256 && dkim_key_bits(s->key) < DKIM_RSA_BITS)
        printf("  %u bits are few: make a new key, of 2048 bits (RFC 8301)\n",
               dkim_key_bits(s->key));
    return good;
}

static int check(const struct options *o)
{
    struct config *c = load(o);
    struct dns_name domain;
    bool good = true;
    size_t n = 0;

    if (c == NULL)
        return EXIT_FAILED;
    if (o->domain != NULL && dns_name_parse(&domain, str_of(o->domain)) != 0) {
        fprintf(stderr, "hayauma dkim check: '%s' is no domain\n", o->domain);
        config_unref(c);
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < keyring_len(c->keyring); i++) {
        const struct dkim_signer *s = keyring_at(c->keyring, i);

        if (o->domain != NULL && strcmp(s->domain, domain.text) != 0)
            continue;
        n++;
        good &= check_one(c, s);
    }
    if (n == 0)
        fprintf(stderr, "hayauma dkim check: %s has no key of %s\n", o->file, domain.text);
    config_unref(c);
    return good && n > 0 ? EXIT_OK : EXIT_FAILED;
}

/* --- sign --- */

/* Standard input with CRLF line ends. */
static void read_message(struct buf *out)
{
    int c, last = 0;

    while ((c = getchar()) != EOF && out->len < MESSAGE_BYTES_MAX) {
        if (c == '\n' && last != '\r')
            buf_putc(out, '\r');
        buf_putc(out, (char)c);
        last = c;
    }
}

static void say_unsigned(const struct buf *message)
{
    struct dns_name author;

    if (author_domain(message->data, message->len, &author))
        fprintf(stderr,
                "hayauma dkim sign: no key signs mail from %s: dkim.keys and dkim.default do not "
                "name it\n",
                author.text);
    else
        fputs("hayauma dkim sign: stdin is no message with an address in From\n", stderr);
}

static int sign(const struct options *o)
{
    struct config *c = load(o);
    struct dkim_signer signers[DKIM_SIGNERS_MAX];
    struct buf message = {0}, fields = {0};
    size_t n;
    int err = 0;

    if (c == NULL)
        return EXIT_FAILED;
    read_message(&message);
    n = keyring_signers(c->keyring, STR(""), message.data, message.len, signers);
    if (n > 0)
        err = dkim_sign(message.data, message.len, STR(""), keyring_options(c->keyring), signers, n,
                        time(NULL), &fields);
    if (n == 0)
        say_unsigned(&message);
    else if (err != 0)
        fprintf(stderr, "hayauma dkim sign: %s\n", strerror(-err));
    print_buf(&fields, stdout);
    print_buf(&message, stdout);
    buf_done(&message);
    buf_done(&fields);
    config_unref(c);
    return n > 0 && err == 0 ? EXIT_OK : EXIT_FAILED;
}

/* --- the command --- */

static const struct {
    const char *name;
    int (*run)(const struct options *o);
    bool takes_domain;
} actions[] = {{"keygen", keygen, true}, {"check", check, true}, {"sign", sign, false}};

static int run(const char *name, const struct options *o)
{
    struct suggest s;

    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        suggest_offer(&s, actions[i].name);
        if (strcmp(name, actions[i].name) != 0)
            continue;
        if (o->domain == NULL || actions[i].takes_domain)
            return actions[i].run(o);
        fprintf(stderr, "hayauma dkim %s: unexpected '%s'\n", name, o->domain);
        return EXIT_USAGE;
    }
    return action_unknown("dkim", &s);
}

enum { OPT_SELECTOR = 256, OPT_DIRECTORY };

int cmd_dkim(int argc, char **argv)
{
    static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                          {"selector", required_argument, NULL, OPT_SELECTOR},
                                          {"directory", required_argument, NULL, OPT_DIRECTORY},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct options o = {.file = CONFIG_FILE};
    int c;

    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (c == 'c') {
            o.file = optarg;
            o.has_file = true;
        } else if (c == OPT_SELECTOR) {
            o.selector = optarg;
        } else if (c == OPT_DIRECTORY) {
            o.directory = optarg;
        } else {
            fputs(help, c == 'h' ? stdout : stderr);
            return c == 'h' ? EXIT_OK : EXIT_USAGE;
        }
    }
    if (optind == argc || argc - optind > 2) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    o.domain = optind + 1 < argc ? argv[optind + 1] : NULL;
    return run(argv[optind], &o);
}
