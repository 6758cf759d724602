#include "worker/trust.h"

#include <errno.h>
#include <stdlib.h>

static int load_client(struct trust *t, const struct config *config, struct buf *errors)
{
    struct tls_client_options options = {.ca_file = config->tls_ca_file};
    struct buf why = {0};
    int err = tls_client_new(&t->client, &options, &why);

    if (err < 0)
        buf_printf(errors, "%s: tls_ca_file: %.*s\n", config->file == NULL ? "-" : config->file,
                   STR_FMT(why.len > 0 ? buf_str(&why) : str_of(strerror(-err))));
    buf_done(&why);
    return err;
}

struct tls_authorities *trust_authorities(const struct trust *t, const char *file)
{
    for (size_t i = 0; file != NULL && i < t->authorities_len; i++)
        if (strcmp(t->authorities[i].file, file) == 0)
            return t->authorities[i].authorities;
    return NULL;
}

static int load_authorities(struct trust *t, const struct config *config, struct buf *errors)
{
    int err = 0;

    t->authorities = calloc(config->listeners_len + 1, sizeof(t->authorities[0]));
    if (t->authorities == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < config->listeners_len; i++) {
        const char *file = config->listeners[i].client_ca_file;
        struct trust_authorities *a = &t->authorities[t->authorities_len];
        struct buf why = {0};

        if (file == NULL || trust_authorities(t, file) != NULL)
            continue;
        a->file = strdup(file);
        err = a->file == NULL ? -ENOMEM : tls_authorities_load(&a->authorities, file, &why);
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
    tls_client_unref(t->client);
    certificates_free(t->certificates);
    for (size_t i = 0; i < t->authorities_len; i++) {
        tls_authorities_unref(t->authorities[i].authorities);
        free(t->authorities[i].file);
    }
    free(t->authorities);
    free(t);
}
