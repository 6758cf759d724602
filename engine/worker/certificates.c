#include "worker/certificates.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define SOON_S (14 * 86400) /* until then somebody should have made a new one */

static struct tls_certificate *find(const struct certificates *c, const char *chain_file)
{
    for (size_t i = 0; c != NULL && i < c->len; i++)
        if (strcmp(c->items[i].chain_file, chain_file) == 0)
            return c->items[i].certificate;
    return NULL;
}

/* 0 or -ENOMEM. */
static int load_one(struct certificates *c, const struct config_certificate *files,
                    const struct certificates *old)
{
    struct certificates_item item = {.chain_file = strdup(files->chain_file)};
    struct buf why = {0};
    int err = tls_certificate_load(&item.certificate, files->chain_file, files->key_file, &why);

    if (item.chain_file == NULL || err == -ENOMEM) {
        tls_certificate_unref(item.certificate);
        free(item.chain_file);
        buf_done(&why);
        return -ENOMEM;
    }
    if (err < 0) {
        struct tls_certificate *kept = find(old, files->chain_file);

        buf_printf(&c->complaints, "certificates: %.*s; %s\n", STR_FMT(buf_str(&why)),
                   kept != NULL ? "the one loaded before stays" : "it is left out");
        item.certificate = kept == NULL ? NULL : tls_certificate_ref(kept);
    }
    if (item.certificate != NULL)
        c->items[c->len++] = item;
    else
        free(item.chain_file);
    buf_done(&why);
    return 0;
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
    struct certificates *c = calloc(1, sizeof(*c) + config->certificates_len * sizeof(c->items[0]));
    int err = 0;

    if (c == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < config->certificates_len && err == 0; i++)
        err = load_one(c, &config->certificates[i], old);
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
    for (size_t i = 0; i < c->len; i++) {
        tls_certificate_unref(c->items[i].certificate);
        free(c->items[i].chain_file);
    }
    buf_done(&c->complaints);
    free(c);
}

void certificates_warnings(const struct certificates *c, int64_t now_s, struct buf *out)
{
    for (size_t i = 0; i < c->len; i++) {
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
        buf_printf(out, "warning: certificates: %s (%s) %s: %s\n", c->items[i].chain_file, f.names,
                   how, date);
    }
}
