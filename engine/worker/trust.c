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
    free(t);
}
