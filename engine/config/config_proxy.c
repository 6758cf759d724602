/* Proxies of sources: what is wrong with them, and their passwords. */
#include <errno.h>

#include "base/socks5.h"
#include "config/config_private.h"
#include "config/config_secret.h"

/* The line of key in the proxy of s. */
static unsigned line_of(const struct config_checker *k, const struct config_source *s,
                        const char *key)
{
    const struct config_field *sources = config_key(&config_schema, "sources"),
                              *proxy = config_key(sources->section, "proxy");

    return config_line_of(k->c, s, config_key(proxy->section, key));
}

static void check_login(const struct config_checker *k, const struct config_source *s)
{
    const struct config_proxy *p = &s->proxy;

    if (p->user == NULL && p->password_file != NULL)
        config_mistake(k, line_of(k, s, "password_file"),
                       "sources['%s'].proxy has a password_file and no user; write user", s->name);
    if (p->user == NULL)
        return;
    if (p->socks5.len == 0)
        config_mistake(k, line_of(k, s, "user"),
                       "sources['%s'].proxy.user is for socks5 alone; leave it out", s->name);
    if (p->password_file == NULL)
        config_mistake(k, line_of(k, s, "user"),
                       "sources['%s'].proxy has a user and no password_file; write "
                       "password_file: /etc/hayauma/proxy.secret",
                       s->name);
    if (strlen(p->user) == 0 || strlen(p->user) > SOCKS5_LOGIN_MAX)
        config_mistake(k, line_of(k, s, "user"),
                       "sources['%s'].proxy.user has no or more than %d bytes", s->name,
                       SOCKS5_LOGIN_MAX);
}

void config_check_proxies(const struct config_checker *k)
{
    for (size_t i = 0; i < k->c->sources_len; i++) {
        const struct config_source *s = &k->c->sources[i];
        const struct config_proxy *p = &s->proxy;

        if (p->socks5.len != 0 && p->haproxy.len != 0)
            config_mistake(k, line_of(k, s, "haproxy"),
                           "sources['%s'].proxy has socks5 and haproxy; leave one out", s->name);
        if (p->haproxy.len != 0 && s->ipv4.len == 0 && s->ipv6.len == 0)
            config_mistake(k, line_of(k, s, "haproxy"),
                           "sources['%s'] has no address, and haproxy is to be told which one to "
                           "send from; write ipv4 or ipv6",
                           s->name);
        check_login(k, s);
    }
}

static int load_password(struct config *c, struct config_proxy *p, struct buf *errors)
{
    struct buf text = {0};
    struct str password = {0};
    unsigned line = 0;
    size_t at = 0;
    int err = config_secret_read(c, p->password_file, &text, errors);

    if (err == 0 && (!config_secret_next(buf_str(&text), &at, &line, &password) ||
                     password.len > SOCKS5_LOGIN_MAX)) {
        buf_printf(errors, "%s: has no password of 1 to %d bytes in its first line\n",
                   p->password_file, SOCKS5_LOGIN_MAX);
        err = -EINVAL;
    }
    if (err == 0)
        p->password = config_dup(c, password);
    config_secret_done(&text);
    return err;
}

int config_load_proxies(struct config *c, struct buf *errors)
{
    int err = 0;

    for (size_t i = 0; i < c->sources_len && err == 0; i++)
        if (c->sources[i].proxy.password_file != NULL)
            err = load_password(c, &c->sources[i].proxy, errors);
    return err;
}

void config_wipe_proxies(struct config *c)
{
    for (size_t i = 0; i < c->sources_len; i++)
        if (c->sources[i].proxy.password != NULL)
            explicit_bzero(c->sources[i].proxy.password, strlen(c->sources[i].proxy.password));
}
