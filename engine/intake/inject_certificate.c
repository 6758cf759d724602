/* Certificates of clients: whose they are, and what they are good for. A certificate is known by
 * its fingerprint, by that of its public key, or, where an authority of the listener vouches for
 * it, by a name that it bears. Thread: the session's worker. */
#include <stdlib.h>

#include "base/log.h"
#include "intake/inject_message.h"

/* The next name of the certificate; begins with *at 0. Empty: that was all. A certificate that was
 * taken back has no name, not even its fingerprint: somebody else may have its key. */
static struct str next_id(const struct tls_shown *shown, size_t *at)
{
    size_t n = (*at)++;
    const char *name = (const char *)shown->names.data;

    if (shown->revoked)
        return STR("");
    if (n == 0)
        return str_of(shown->fingerprint);
    if (n == 1)
        return str_of(shown->key_fingerprint);
    if (n - 2 >= shown->names_len)
        return STR("");
    for (; n > 2; n--)
        name += strlen(name) + 1;
    return str_of(name);
}

const struct config_user *inject_certificate_user(const struct inject *s, const struct config *c)
{
    const struct config_user *user = NULL;
    struct str id;
    size_t at = 0;

    while (s->shown != NULL && user == NULL && (id = next_id(s->shown, &at)).len > 0)
        user = config_certificate_user(c, id);
    return user;
}

static bool relays(const struct inject *s)
{
    const struct config_listener *l = s->settings;
    bool found = s->shown->verified && config_relays_certificate(l, STR(CONFIG_ANY_CERTIFICATE));
    struct str id;
    size_t at = 0;

    while (!found && (id = next_id(s->shown, &at)).len > 0)
        found = config_relays_certificate(l, id);
    return found;
}

void inject_certificate_drop(struct inject *s)
{
    if (s->shown != NULL)
        buf_done(&s->shown->names);
    free(s->shown);
    s->shown = NULL;
    s->vouched = false;
}

static void look(struct inject *s)
{
    s->shown = calloc(1, sizeof(*s->shown));
    if (s->shown == NULL || !tls_shown(stream_tls_of(&s->stream), s->shown)) {
        inject_certificate_drop(s);
        return;
    }
    s->vouched = relays(s);
    log_debug("smtp.certificate", "session=%s peer=%s fingerprint=%s verified=\"%s\" name=\"%s\"",
              s->id, s->peer_text, s->shown->fingerprint, s->shown->verify,
              s->shown->names_len > 0 ? (const char *)s->shown->names.data : "");
}

const char *inject_certificate_take(struct inject *s)
{
    const struct config_user *user;

    if (!config_asks_certificate(s->settings))
        return NULL;
    look(s);
    user = inject_certificate_user(s, s->worker->config);
    if (user != NULL && s->options.auth != 0)
        s->options.auth |= SMTP_AUTH_EXTERNAL;
    if (strcmp(s->settings->client_certificates, "require") != 0 || s->vouched || user != NULL ||
        (s->shown != NULL && s->shown->verified))
        return NULL;
    if (s->shown == NULL)
        return "554 5.7.1 this port is for clients that show a certificate";
    return inject_refusal(s, "554 5.7.1 your certificate is not known here: %s", s->shown->verify);
}
