#include "worker/trust.h"

#include <errno.h>
#include <stdlib.h>

static int load_client(struct trust *t, const struct config *config, struct buf *errors)
{
    struct tls_client_options options = {.ca_file = config->tls_ca_file};
    struct buf why = {0};
    int err = tls_client_new(&t->client, &options, &why);

    if (err < 0) {
        config_place_put(config, "tls_ca_file", errors);
        buf_printf(errors, ": %.*s\n",
                   STR_FMT(why.len > 0 ? buf_str(&why) : str_of(strerror(-err))));
    }
    buf_done(&why);
    return err;
}

static bool same_file(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

struct tls_authorities *trust_authorities(const struct trust *t, const struct config_listener *l)
{
    for (size_t i = 0; l->client_ca_file != NULL && i < t->authorities_len; i++)
        if (same_file(t->authorities[i].file, l->client_ca_file) &&
            same_file(t->authorities[i].crl_file, l->client_crl_file))
            return t->authorities[i].authorities;
    return NULL;
}

#define SOON_S (12 * 3600) /* before the end of a list: there should be a new one */

void trust_warnings(const struct trust *t, int64_t now_s, struct buf *out)
{
    certificates_warnings(t->certificates, now_s, out);
    for (size_t i = 0; i < t->authorities_len; i++) {
        int64_t until_s = tls_authorities_until_s(t->authorities[i].authorities);

        if (until_s != 0 && until_s < now_s + SOON_S)
            buf_printf(out, "warning: client_crl_file: %s: a list of revoked certificates %s; %s\n",
                       t->authorities[i].crl_file,
                       until_s < now_s ? "is older than it says to be good"
                                       : "is good for less than 12 hours",
                       until_s < now_s
                           ? "no client's certificate is believed until there is a new one"
                           : "put a new one there, and reload");
    }
}

static int load_authorities(struct trust *t, const struct config *config, struct buf *errors)
{
    int err = 0;

    t->authorities = calloc(config->listeners_len + 1, sizeof(t->authorities[0]));
    if (t->authorities == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < config->listeners_len; i++) {
        const struct config_listener *l = &config->listeners[i];
        struct trust_authorities *a = &t->authorities[t->authorities_len];
        struct buf why = {0};

        if (l->client_ca_file == NULL || trust_authorities(t, l) != NULL)
            continue;
        a->file = strdup(l->client_ca_file);
        a->crl_file = l->client_crl_file == NULL ? NULL : strdup(l->client_crl_file);
        err = tls_authorities_load(&a->authorities, l->client_ca_file, l->client_crl_file, &why);
        ASSERT(a->file != NULL && (a->crl_file != NULL || l->client_crl_file == NULL));
        t->authorities_len++;
        if (err < 0)
            buf_printf(errors, "%s: listeners[%zu].client_ca_file: %.*s\n",
                       config->file == NULL ? "-" : config->file, i,
                       STR_FMT(why.len > 0 ? buf_str(&why) : str_of(strerror(-err))));
        buf_done(&why);
        if (err < 0)
            break;
    }
    return err;
}

int trust_load(struct trust **out, const struct config *config, const struct trust *old,
               struct buf *errors)
{
    struct trust *t = calloc(1, sizeof(*t));
    int err;

    if (t == NULL)
        return -ENOMEM;
    t->refs = 1;
    err = load_client(t, config, errors);
    if (err == 0)
        err = load_authorities(t, config, errors);
    if (err == 0)
        err = certificates_load(&t->certificates, config, old == NULL ? NULL : old->certificates);
    if (err < 0)
        trust_unref(t);
    else
        *out = t;
    return err;
}

struct trust *trust_ref(struct trust *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void trust_unref(struct trust *t)
{
    if (t == NULL || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    tls_client_free(t->client);
    certificates_free(t->certificates);
    for (size_t i = 0; i < t->authorities_len; i++) {
        tls_authorities_unref(t->authorities[i].authorities);
        free(t->authorities[i].file);
        free(t->authorities[i].crl_file);
    }
    free(t->authorities);
    free(t);
}
