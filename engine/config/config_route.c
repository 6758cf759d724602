/* The next hop of a route: its text into a struct config_route and back. */
#include <errno.h>

#include "config/config_private.h"
#include "config/config_value.h"

#define LMTP_PORT 24

static const struct str lmtp_prefix = {"lmtp:", 5};

static int complain(struct buf *why, struct str text, const char *what)
{
    buf_printf(why, "'%.*s' %s", STR_FMT(text), what);
    return -EINVAL;
}

static int set_lmtp(struct config *c, struct config_route *route, struct str text, struct buf *why)
{
    struct str where = {text.ptr + lmtp_prefix.len, text.len - lmtp_prefix.len};

    if (config_parse_address(where, LMTP_PORT, &route->socket) != 0)
        return complain(why, text,
                        "is not an LMTP server; write lmtp:unix:/path, "
                        "lmtp:192.0.2.1:24 or \"lmtp:[2001:db8::1]:24\"");
    route->socket.text = config_dup(c, where);
    route->kind = CONFIG_ROUTE_LMTP;
    return 0;
}

/* Splits "host[:port]" or "[host][:port]"; port 0 when there is none. */
static int split_port(struct str text, bool bracketed, struct str *host, uint64_t *port)
{
    ptrdiff_t end = bracketed ? str_find(text, ']') : str_find(text, ':');
    struct str rest;

    *port = 0;
    if (end < 0) {
        *host = text;
        return bracketed ? -EINVAL : 0;
    }
    *host = bracketed ? (struct str){text.ptr + 1, (size_t)end - 1}
                      : (struct str){text.ptr, (size_t)end};
    end += bracketed;
    rest = (struct str){text.ptr + end, text.len - (size_t)end};
    if (rest.len == 0)
        return 0;
    if (rest.ptr[0] != ':' ||
        str_to_u64((struct str){rest.ptr + 1, rest.len - 1}, 65535, port) != 0)
        return -EINVAL;
    return *port == 0 ? -EINVAL : 0;
}

int config_set_route(struct config *c, struct config_route *route, struct str text, struct buf *why)
{
    bool bracketed = text.len != 0 && text.ptr[0] == '[';
    struct config_address address;
    struct str host;
    uint64_t port;
    bool literal;

    if (str_eq_nocase(text, STR("mx")) || str_eq_nocase(text, STR("reject"))) {
        route->kind = text.len == 2 ? CONFIG_ROUTE_MX : CONFIG_ROUTE_REJECT;
        return 0;
    }
    if (str_starts_nocase(text, lmtp_prefix))
        return set_lmtp(c, route, text, why);
    if (split_port(text, bracketed, &host, &port) != 0)
        return complain(why, text,
                        "is not a next hop; write host, host:port, \"[host]:port\", "
                        "lmtp:unix:/path, mx or reject");
    if (str_starts_nocase(host, STR("IPv6:")))
        host = (struct str){host.ptr + 5, host.len - 5};
    literal = config_parse_ip(host, &address) == 0;
    if (!literal && !config_host_name_valid(host))
        return complain(why, text,
                        str_find(text, '/') == 0 ? "is a path; write lmtp:unix:/path"
                                                 : "has no host name or address before its port");
    route->kind = CONFIG_ROUTE_HOST;
    route->mx_lookup = !bracketed && !literal;
    route->host = config_dup(c, host);
    route->port = (uint16_t)port;
    route->port_given = port != 0;
    return 0;
}

/* A path may hold quotes. */
static void print_quoted(struct buf *out, const char *prefix, const char *text)
{
    struct buf whole = {0};

    buf_puts(&whole, prefix);
    buf_puts(&whole, text);
    buf_put_json(out, buf_str(&whole));
    buf_done(&whole);
}

void config_print_route(const struct config_route *route, struct buf *out)
{
    switch (route->kind) {
    case CONFIG_ROUTE_MX:
        buf_puts(out, "mx");
        break;
    case CONFIG_ROUTE_REJECT:
        buf_puts(out, "reject");
        break;
    case CONFIG_ROUTE_LMTP:
        print_quoted(out, "lmtp:", route->socket.text);
        break;
    case CONFIG_ROUTE_HOST:
        buf_printf(out, route->mx_lookup ? "\"%s:%u\"" : "\"[%s]:%u\"", route->host, route->port);
        break;
    }
}
