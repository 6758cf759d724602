#include "worker/certificates.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#define SOON_S (14 * 86400) /* until then somebody should have made a new one */

/* Of items from on, so many. */
static struct tls_certificate *find(const struct certificates *c, size_t from, size_t len,
                                    const char *chain_file)
{
    for (size_t i = from; i < from + len; i++)
        if (strcmp(c->items[i].chain_file, chain_file) == 0)
            return c->items[i].certificate;
    return NULL;
}

static struct tls_certificate *find_shown(const struct certificates *c, const char *chain_file)
{
    return c == NULL ? NULL : find(c, 0, c->len, chain_file);
}

struct tls_certificate *certificates_own(const struct certificates *c, const char *file)
{
    return c == NULL || file == NULL ? NULL : find(c, c->len, c->own_len, file);
}

static void item_done(struct certificates_item *item)
{
    tls_certificate_unref(item->certificate);
    free(item->chain_file);
    free(item->key_file);
}

/* Behind the items that are there; kept: what stays where the files are of no use, or NULL. 0 or
 * -ENOMEM. */
static int load_one(struct certificates *c, struct str key, const char *chain_file,
                    const char *key_file, struct tls_certificate *kept, size_t *len)
{
    struct certificates_item item = {.chain_file = strdup(chain_file),
                                     .key_file = strdup(key_file)};
    struct buf why = {0};
    int err = tls_certificate_load(&item.certificate, chain_file, key_file, &why);

    if (item.chain_file == NULL || item.key_file == NULL || err == -ENOMEM) {
        item_done(&item);
        buf_done(&why);
        return -ENOMEM;
    }
    if (err < 0) {
        buf_printf(&c->complaints, "%.*s: %.*s; %s\n", STR_FMT(key), STR_FMT(buf_str(&why)),
                   kept != NULL ? "the one loaded before stays" : "it is left out");
        item.certificate = kept == NULL ? NULL : tls_certificate_ref(kept);
    }
    if (item.certificate != NULL) {
        ASSERT(c->len + c->own_len < c->max);
        c->items[c->len + c->own_len] = item;
        ++*len;
    } else {
        item_done(&item);
    }
    buf_done(&why);
    return 0;
}

/* One that a destination or a source names, unless another did. */
static int load_own(struct certificates *c, const char *file, const struct certificates *old)
{
    if (file == NULL || certificates_own(c, file) != NULL)
        return 0;
    return load_one(c, STR("tls_certificate"), file, file, certificates_own(old, file),
                    &c->own_len);
}

/* A file of no use is looked at, and complained of, once. */
static int load_all_own(struct certificates *c, const struct config *config,
                        const struct certificates *old)
{
    const char *last = NULL;
    int err = 0;

    for (size_t i = 0; i < config->destinations_len + config->providers_all && err == 0; i++) {
        const struct config_destination *d =
            i < config->destinations_len ? &config->destinations[i]
                                         : &config->providers[i - config->destinations_len].dest;

        if (last == NULL || d->tls_certificate == NULL || strcmp(last, d->tls_certificate) != 0)
            err = load_own(c, d->tls_certificate, old);
        last = d->tls_certificate;
    }
    for (size_t i = 0; i < config->sources_len && err == 0; i++)
        err = load_own(c, config->sources[i].tls_certificate, old);
    return err;
}

static int make_server(struct certificates *c)
{
    struct tls_certificate **all = calloc(c->len, sizeof(struct tls_certificate *));
    int err = -ENOMEM;

    for (size_t i = 0; all != NULL && i < c->len; i++)
        all[i] = c->items[i].certificate;
    if (all != NULL && c->tickets != NULL)
        err = tls_server_new(&c->server, all, c->len, c->tickets);
    free(all);
    return err;
}

int certificates_load(struct certificates **out, const struct config *config,
                      const struct certificates *old)
{
    size_t max = config->certificates_len + config->destinations_len + config->providers_all +
                 config->sources_len;
    struct certificates *c = calloc(1, sizeof(*c) + max * sizeof(c->items[0]));
    struct buf where = {0};
    int err = 0;

    if (c == NULL)
        return -ENOMEM;
    c->max = max;
    config_place_put(config, "certificates", &where);
    for (size_t i = 0; i < config->certificates_len && err == 0; i++)
        err = load_one(c, buf_str(&where), config->certificates[i].chain_file,
                       config->certificates[i].key_file,
                       find_shown(old, config->certificates[i].chain_file), &c->len);
    buf_done(&where);
    if (err == 0)
        err = load_all_own(c, config, old);
    if (old != NULL && old->tickets != NULL)
        c->tickets = tls_tickets_ref(old->tickets);
    else if (config->certificates_len > 0)
        c->tickets = tls_tickets_new();
    if (err == 0 && c->len > 0)
        err = make_server(c);
    if (err < 0)
        certificates_free(c);
    else
        *out = c;
    return err;
}

void certificates_free(struct certificates *c)
{
    if (c == NULL)
        return;
    tls_server_unref(c->server);
    tls_tickets_unref(c->tickets);
    for (size_t i = 0; i < c->len + c->own_len; i++)
        item_done(&c->items[i]);
    buf_done(&c->complaints);
    free(c);
}

void certificates_warnings(const struct certificates *c, int64_t now_s, struct buf *out)
{
    for (size_t i = 0; i < c->len + c->own_len; i++) {
        struct tls_certificate_facts f;
        const char *how = NULL;
        char date[32];
        struct tm tm;
        time_t at;

        tls_certificate_facts(c->items[i].certificate, &f);
        at = (time_t)f.until_s;
        if (f.until_s <= now_s) {
            how = "has expired";
        } else if (f.from_s > now_s) {
            how = "is not valid before";
            at = (time_t)f.from_s;
        } else if (f.until_s <= now_s + SOON_S) {
            how = "expires";
        }
        if (how == NULL || gmtime_r(&at, &tm) == NULL ||
            strftime(date, sizeof(date), "%F %R UTC", &tm) == 0)
            continue;
        buf_printf(out, "warning: %s: %s (%s) %s: %s\n",
                   i < c->len ? "certificates" : "tls_certificate", c->items[i].chain_file, f.names,
                   how, date);
    }
}

void certificates_loose_keys(const struct certificates *c, struct buf *out)
{
    for (size_t i = 0; i < c->len + c->own_len; i++) {
        const char *file = c->items[i].key_file;
        struct stat st;

        if (stat(file, &st) == 0 && (st.st_mode & (S_IRWXO | S_IWGRP)) != 0)
            buf_printf(out,
                       "warning: %s: %s has a key, and can be used by others than its owner and "
                       "its group; chmod 640 it\n",
                       i < c->len ? "certificates" : "tls_certificate", file);
    }
}
