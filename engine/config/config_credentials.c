/* The file of credentials (credentials_file): how the engine logs in at next hops of static routes.
 * A line each, with white space between: next hop, user, and the password, which is the rest.
 *
 *   [smtp.example.net]:587  shop@example.net  the password
 */
#include <errno.h>

#include "config/config_private.h"
#include "config/config_secret.h"

#define USER_BYTES_MAX     255
#define PASSWORD_BYTES_MAX 511

/* Takes a word off *rest, and the white space behind it. */
static struct str next_word(struct str *rest)
{
    size_t n = 0;
    struct str word;

    while (n < rest->len && rest->ptr[n] != ' ' && rest->ptr[n] != '\t')
        n++;
    word = (struct str){rest->ptr, n};
    *rest = str_trim((struct str){rest->ptr + n, rest->len - n});
    return word;
}

static bool is_plain_text(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (ascii_is_control(s.ptr[i]))
            return false;
    return s.len > 0;
}

static bool same_hop(const struct config_route *a, const struct config_route *b)
{
    return a->kind == CONFIG_ROUTE_HOST && b->kind == CONFIG_ROUTE_HOST &&
           a->mx_lookup == b->mx_lookup && a->port == b->port &&
           str_eq_nocase(str_of(a->host), str_of(b->host));
}

/* Gives the credentials to the routes that lead to hop. */
static int attach(struct config *c, struct str text, const struct config_route *hop,
                  const struct config_credentials *credentials, struct buf *why)
{
    bool any = false;

    for (size_t i = 0; i < c->routes_len; i++) {
        struct config_route *route = &c->routes[i];

        if (!same_hop(route, hop))
            continue;
        if (route->credentials != NULL) {
            buf_printf(why, "%.*s is there twice", STR_FMT(text));
            return -EINVAL;
        }
        route->credentials = credentials;
        any = true;
    }
    if (any)
        return 0;
    buf_printf(why, "no route leads to %.*s; write the next hop as routes has it", STR_FMT(text));
    return -EINVAL;
}

/* why never has the password in it. */
static int load_entry(struct config *c, struct str entry, struct buf *why)
{
    struct str rest = entry, text = next_word(&rest), user = next_word(&rest);
    struct config_credentials *credentials = config_alloc(c, sizeof(*credentials));
    struct config_route hop = {0};

    if (!is_plain_text(user) || user.len > USER_BYTES_MAX || !is_plain_text(rest) ||
        rest.len > PASSWORD_BYTES_MAX) {
        buf_puts(why, "is not \"next hop, user, password\"; write [smtp.example.net]:587 USER "
                      "PASSWORD");
        return -EINVAL;
    }
    if (config_set_route(c, &hop, text, why) < 0)
        return -EINVAL;
    if (hop.kind != CONFIG_ROUTE_HOST) {
        buf_printf(why, "'%.*s' is no host to log in at", STR_FMT(text));
        return -EINVAL;
    }
    if (!hop.port_given)
        hop.port = c->dns.port;
    credentials->user = config_dup(c, user);
    credentials->password = config_dup(c, rest);
    return attach(c, text, &hop, credentials, why);
}

int config_load_credentials(struct config *c, struct buf *errors)
{
    struct buf text = {0};
    struct str entry;
    unsigned line = 0;
    size_t at = 0;
    int err;

    if (c->credentials_file == NULL)
        return 0;
    err = config_secret_read(c, c->credentials_file, &text, errors);
    while (err == 0 && config_secret_next(buf_str(&text), &at, &line, &entry)) {
        struct buf why = {0};

        err = load_entry(c, entry, &why);
        if (err < 0)
            buf_printf(errors, "%s:%u: %.*s\n", c->credentials_file, line, STR_FMT(buf_str(&why)));
        buf_done(&why);
    }
    config_secret_done(&text);
    return err;
}

void config_wipe_credentials(struct config *c)
{
    for (size_t i = 0; i < c->routes_len; i++) {
        const struct config_credentials *credentials = c->routes[i].credentials;

        if (credentials != NULL)
            explicit_bzero(credentials->password, strlen(credentials->password));
    }
}
