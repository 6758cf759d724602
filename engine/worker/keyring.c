#include "worker/keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/map.h"
#include "config/config_secret.h"
#include "mail/author.h"

#define SIGNERS_OF_DOMAIN_MAX (DKIM_SIGNERS_MAX / 2)

struct entry {
    struct map_node node; /* by domain */
    struct dkim_signer signer;
    struct dkim_key *key;
    bool subdomains;
};

struct keyring {
    struct dkim_options options;
    const char *fallback, *platform;
    struct map domains;
    size_t len;
    struct entry entries[];
};

/* --- key files --- */

static void complain(const struct config *c, const struct config_dkim_key *key, struct buf *errors,
                     const char *what, const char *more)
{
    buf_printf(errors, "%s:%u: dkim.keys: %s %s%s\n", c->file, key->line, key->file, what, more);
}

/* keygen makes the keys NAME-rsa and NAME-ed25519 of a selector NAME. */
static void complain_missing(const struct config *c, const struct config_dkim_key *key,
                             struct buf *errors)
{
    const char *dash = strrchr(key->selector, '-');
    bool ours = dash != NULL && (strcmp(dash, "-rsa") == 0 || strcmp(dash, "-ed25519") == 0);
    char how[600];

    snprintf(how, sizeof(how), "'hayauma dkim keygen %s --selector %.*s' makes it", key->domain,
             (int)(ours ? dash - key->selector : 0), key->selector);
    complain(c, key, errors, "is not there; ",
             ours ? how : "'hayauma dkim keygen' makes keys with the names that it prints");
}

/* Whoever reads the file can sign in the domain's name; whoever writes it can stop the mail. A
 * group may read what is root's: so a service reads a key that it cannot change. */
static bool is_private(const struct stat *st)
{
    mode_t others = st->st_mode & 0077;

    return others == 0 || (others == S_IRGRP && st->st_uid == 0);
}

/* Reads the whole of a key's file into text. 0 or -EINVAL with a line in errors. */
static int read_file(const struct config *c, const struct config_dkim_key *key,
                     uint8_t text[KEYRING_FILE_BYTES_MAX], size_t *len, struct buf *errors)
{
    int fd = open(key->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    ssize_t n = -1;

    if (fd < 0 && errno == ENOENT) {
        complain_missing(c, key, errors);
    } else if (fd < 0 || fstat(fd, &st) < 0) {
        complain(c, key, errors, "cannot be read: ", strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        complain(c, key, errors, "is no file", "");
    } else if (!is_private(&st)) {
        complain(c, key, errors, "can be used by others than its owner; chmod 600 it", "");
    } else if (!config_user_may_read(c, &st)) {
        complain(c, key, errors, "can be read by root, but not by 'user'; chown it to that user",
                 "");
    } else if (st.st_size > KEYRING_FILE_BYTES_MAX) {
        complain(c, key, errors, "is too large for a key", "");
    } else {
        n = read(fd, text, KEYRING_FILE_BYTES_MAX);
        if (n < 0)
            complain(c, key, errors, "cannot be read: ", strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    *len = n < 0 ? 0 : (size_t)n;
    return n < 0 ? -EINVAL : 0;
}

static int read_key(const struct config *c, const struct config_dkim_key *key,
                    struct dkim_key **out, struct buf *errors)
{
    uint8_t text[KEYRING_FILE_BYTES_MAX];
    const char *why = "out of memory";
    size_t len;
    int err = read_file(c, key, text, &len, errors);

    if (err != 0)
        return err;
    err = dkim_key_parse(out, text, len, &why);
    dkim_wipe(text, len);
    if (err != 0)
        complain(c, key, errors, "is no key to sign with: ", why);
    return err == 0 ? 0 : -EINVAL;
}

/* --- opening --- */

static uint64_t domain_hash(struct str domain)
{
    return hash_bytes(domain.ptr, domain.len, 0);
}

static struct map_node *domain_first(const struct keyring *k, struct str domain)
{
    return map_find(&k->domains, domain_hash(domain));
}

/* The entries of domain, one after the other: NULL after the last. */
static const struct entry *entry_of(struct map_node *n, struct str domain)
{
    for (; n != NULL; n = map_find_next(n)) {
        const struct entry *e = CONTAINER_OF(n, struct entry, node);

        if (str_eq_nocase(str_of(e->signer.domain), domain))
            return e;
    }
    return NULL;
}

static const struct entry *entry_first(const struct keyring *k, struct str domain)
{
    return entry_of(domain_first(k, domain), domain);
}

static const struct entry *entry_next(const struct entry *e)
{
    return entry_of(map_find_next(&e->node), str_of(e->signer.domain));
}

static void keyring_free(struct keyring *k)
{
    if (k == NULL)
        return;
    for (size_t i = 0; i < k->len; i++)
        dkim_key_free(k->entries[i].key);
    map_done(&k->domains);
    free(k);
}

/* Domain names compare in lower case. */
static void lower(char *name)
{
    for (; *name != 0; name++)
        *name = ascii_lower(*name);
}

static int add_key(struct keyring *k, const struct config *c, const struct config_dkim_key *key,
                   struct buf *errors)
{
    struct entry *e = &k->entries[k->len];
    size_t same = 0;
    int err;

    lower(key->domain);
    if (strstr(key->selector, "_domainkey") != NULL) {
        complain(c, key, errors, "has a selector with '_domainkey' in it",
                 "; write what stands in front of that in DNS");
        return -EINVAL;
    }
    for (const struct entry *o = entry_first(k, str_of(key->domain)); o != NULL;
         o = entry_next(o)) {
        same++;
        if (str_eq_nocase(str_of(o->signer.selector), str_of(key->selector))) {
            complain(c, key, errors, "is of a domain and selector that another key has", "");
            return -EINVAL;
        }
    }
    if (same == SIGNERS_OF_DOMAIN_MAX) {
        complain(c, key, errors, "is the fifth key of its domain",
                 "; each signs: two are enough, an RSA and an Ed25519 key");
        return -EINVAL;
    }
    err = read_key(c, key, &e->key, errors);
    if (err != 0)
        return err;
    e->signer = (struct dkim_signer){key->domain, key->selector, e->key};
    e->subdomains = key->subdomains;
    k->len++;
    map_insert(&k->domains, &e->node, domain_hash(str_of(key->domain)));
    return 0;
}

/* dkim.default and dkim.platform must have keys. */
static int check_named(const struct keyring *k, const struct config *c, char *domain,
                       const char *name, struct buf *errors)
{
    if (domain == NULL)
        return 0;
    lower(domain);
    if (entry_first(k, str_of(domain)) != NULL)
        return 0;
    config_place_put(c, name, errors);
    buf_printf(errors, ": no key of dkim.keys is of the domain %s\n", domain);
    return -EINVAL;
}

static int check_headers(const struct config *c, struct buf *errors)
{
    int err = 0;

    for (size_t i = 0; i < c->dkim.headers_len; i++) {
        if (dkim_name_valid(str_of(c->dkim.headers[i])))
            continue;
        config_place_put(c, "dkim.headers", errors);
        buf_printf(errors, ": '%s' is no name of a header field\n", c->dkim.headers[i]);
        err = -EINVAL;
    }
    return err;
}

int keyring_open(struct config *c, struct buf *errors)
{
    size_t n = c->dkim.keys_len;
    struct keyring *k = calloc(1, sizeof(*k) + n * sizeof(k->entries[0]));
    int err = k == NULL ? -ENOMEM : map_init(&k->domains, 64);

    ASSERT(err == 0);
    k->options = (struct dkim_options){
        .header_relaxed = strncmp(c->dkim.canonicalization, "relaxed/", 8) == 0,
        .body_relaxed = strstr(c->dkim.canonicalization, "/relaxed") != NULL,
        .headers = (const char *const *)c->dkim.headers,
        .headers_len = c->dkim.headers_len,
        .expires_s = c->dkim.expires_s};
    k->fallback = c->dkim.fallback;
    k->platform = c->dkim.platform;
    for (size_t i = 0; i < n; i++)
        if (add_key(k, c, &c->dkim.keys[i], errors) != 0)
            err = -EINVAL;
    if (err == 0 && check_named(k, c, c->dkim.fallback, "dkim.default", errors) != 0)
        err = -EINVAL;
    if (err == 0 && check_named(k, c, c->dkim.platform, "dkim.platform", errors) != 0)
        err = -EINVAL;
    if (check_headers(c, errors) != 0)
        err = -EINVAL;
    if (err != 0 || n == 0) {
        keyring_free(k);
        return err;
    }
    ASSERT(c->keyring == NULL);
    c->keyring = k;
    c->keyring_free = keyring_free;
    return 0;
}

/* --- who signs --- */

/* The first entry of the nearest domain that signs mail of domain, or NULL. */
static const struct entry *nearest(const struct keyring *k, struct str domain, bool *below)
{
    *below = false;
    while (domain.len > 0) {
        ptrdiff_t dot;

        for (const struct entry *e = entry_first(k, domain); e != NULL; e = entry_next(e))
            if (!*below || e->subdomains)
                return e;
        dot = str_find(domain, '.');
        if (dot < 0)
            break;
        domain = (struct str){domain.ptr + dot + 1, domain.len - (size_t)dot - 1};
        *below = true;
    }
    return NULL;
}

/* Adds the keys from e on, but none that signs already. */
static size_t add_signers(const struct entry *e, bool below, struct dkim_signer *out, size_t len)
{
    for (; e != NULL; e = entry_next(e)) {
        bool is_there = below && !e->subdomains;

        for (size_t i = 0; i < len && !is_there; i++)
            is_there = out[i].key == e->key;
        if (!is_there) {
            ASSERT(len < DKIM_SIGNERS_MAX);
            out[len++] = e->signer;
        }
    }
    return len;
}

/* Of several signatures many receivers look at the first they can verify: that is RSA. */
static void order_by_algorithm(struct dkim_signer *signers, size_t len)
{
    for (size_t i = 1; i < len; i++) {
        struct dkim_signer s = signers[i];
        size_t at = i;

        if (dkim_key_algorithm(s.key) != DKIM_RSA_SHA256)
            continue;
        for (; at > 0 && dkim_key_algorithm(signers[at - 1].key) != DKIM_RSA_SHA256; at--)
            signers[at] = signers[at - 1];
        signers[at] = s;
    }
}

bool keyring_has(const struct keyring *k, struct str domain)
{
    return k != NULL && domain.len > 0 && entry_first(k, domain) != NULL;
}

/* The first entry of the chosen domain, or of whoever signs for the author of content, or NULL. */
static const struct entry *of_author(const struct keyring *k, struct str chosen,
                                     const uint8_t *content, size_t len, bool *below)
{
    const struct entry *e = NULL;
    struct dns_name author;

    *below = false;
    if (keyring_has(k, chosen))
        return entry_first(k, chosen);
    if (author_domain(content, len, &author))
        e = nearest(k, (struct str){author.text, author.len}, below);
    if (e == NULL && k->fallback != NULL) {
        e = entry_first(k, str_of(k->fallback));
        *below = false;
    }
    return e;
}

struct str keyring_signing_domain(const struct keyring *k, struct str chosen,
                                  const uint8_t *content, size_t len)
{
    bool below;
    const struct entry *e = of_author(k, chosen, content, len, &below);

    if (e == NULL && k->platform != NULL)
        e = entry_first(k, str_of(k->platform));
    return e == NULL ? STR("") : str_of(e->signer.domain);
}

struct str keyring_platform(const struct keyring *k)
{
    return k->platform == NULL ? STR("") : str_of(k->platform);
}

size_t keyring_signers(const struct keyring *k, struct str chosen, const uint8_t *content,
                       size_t len, struct dkim_signer out[DKIM_SIGNERS_MAX])
{
    bool below;
    const struct entry *e = of_author(k, chosen, content, len, &below);
    size_t n;

    n = add_signers(e, below, out, 0);
    if (k->platform != NULL)
        n = add_signers(entry_first(k, str_of(k->platform)), false, out, n);
    order_by_algorithm(out, n);
    return n;
}

const struct dkim_options *keyring_options(const struct keyring *k)
{
    return &k->options;
}

size_t keyring_len(const struct keyring *k)
{
    return k->len;
}

const struct dkim_signer *keyring_at(const struct keyring *k, size_t i)
{
    return &k->entries[i].signer;
}
