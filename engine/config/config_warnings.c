/* Warnings: what a configuration may say, but hardly means. */
#include <arpa/inet.h>

#include "base/sockaddr.h"
#include "config/config_private.h"
#include "config/config_value.h"

/* 0.0.0.0/0 or ::/0. */
static bool is_everybody(const struct config_network *n)
{
    return n->prefix == 0 || (n->prefix == 96 && n->bytes[10] == 0xff && n->bytes[11] == 0xff);
}

/* Begins a warning about what stands on this line of the file; 0: on none. */
static void begin_warning(struct buf *out, const struct config *c, unsigned line)
{
    buf_puts(out, "warning: ");
    if (line != 0)
        buf_printf(out, "%s:%u: ", c->file != NULL ? c->file : "-", line);
}

static unsigned line_of_listener(const struct config *c, const struct config_listener *l)
{
    return config_line_of(c, l, config_key_in("listeners", "listen"));
}

static bool is_loopback_server(const char *text)
{
    struct config_address address;

    return config_parse_address(str_of(text), 53, &address) == 0 &&
           sockaddr_is_loopback((const struct sockaddr *)&address.addr);
}

/* Ports 587 and 465 are for users (RFC 6409, RFC 8314): whoever opens one to the world may have
 * forgotten that an address proves little. */
static void warn_of_submission(const struct config *c, const struct config_listener *l,
                               struct buf *out)
{
    uint16_t port = sockaddr_port((const struct sockaddr *)&l->address.addr);

    if ((port == 587 || port == 465) && strcmp(l->auth, "required") != 0) {
        begin_warning(out, c, line_of_listener(c, l));
        buf_printf(out,
                   "listener %s: takes mail without a login, and port %u is for users: "
                   "write auth: required\n",
                   l->address.text, port);
    }
    if (port == 465 && strcmp(l->tls, "implicit") != 0) {
        begin_warning(out, c, line_of_listener(c, l));
        buf_printf(out,
                   "listener %s: clients begin with TLS at port 465, and here they cannot: "
                   "set 'certificates', and tls: implicit\n",
                   l->address.text);
    }
}

/* A provider's name among domains means the domain of that name, which nobody has. */
static void warn_of_destinations(const struct config *c, struct buf *out)
{
    for (size_t i = 0; i < c->destinations_len; i++) {
        const char *pattern = c->destinations[i].pattern;

        if (config_provider_find(c, str_of(pattern)) == NULL)
            continue;
        begin_warning(
            out, c,
            config_line_of(c, &c->destinations[i], config_key(&config_schema, "destinations")));
        buf_printf(out,
                   "destinations['%s'] is for the domain '%s'; what holds at the "
                   "provider stands in providers['%s']\n",
                   pattern, pattern, pattern);
    }
}

/* What holds for the domains of a route's pattern, unless a line says more of some of them. */
static const struct config_destination *destination_of_route(const struct config *c,
                                                             const struct config_route *r)
{
    const struct config_destination *found;
    struct buf site = {0};

    for (size_t i = 0; i < c->destinations_len; i++)
        if (strcmp(c->destinations[i].pattern, r->pattern) == 0)
            return &c->destinations[i];
    config_print_route(r, &site);
    found = config_destination_for(c, str_of(r->pattern), buf_str(&site));
    buf_done(&site);
    return found;
}

/* A name without a dot is mostly one of /etc/hosts, which nobody reads here. */
static void warn_of_route(const struct config *c, const struct config_route *r, struct buf *out)
{
    struct config_address address;

    if (r->kind != CONFIG_ROUTE_HOST || r->host == NULL)
        return;
    if (strpbrk(r->host, ".:") == NULL) {
        begin_warning(out, c, r->line);
        buf_printf(out,
                   "routes: '%s' has no dot: names are looked up in DNS alone, not in "
                   "/etc/hosts; if DNS does not have it, write its address\n",
                   r->host);
    }
    if (config_parse_ip(str_of(r->host), &address) == 0 &&
        config_tls_of(destination_of_route(c, r)) == CONFIG_TLS_VERIFY) {
        begin_warning(out, c, r->line);
        buf_printf(out,
                   "routes['%s']: with tls: verify mail waits: no certificate bears the "
                   "address '%s'; write the next hop's name\n",
                   r->pattern, r->host);
    }
}

/* A client that may be a proxy may claim to speak for a client that may relay. */
static void warn_of_everybody(const struct config *c, const struct config_listener *l,
                              const char *key, const struct config_network *networks, size_t len,
                              struct buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (!is_everybody(&networks[i]))
            continue;
        begin_warning(out, c, line_of_listener(c, l));
        buf_printf(out, "listener %s: with ", l->address.text);
        config_format_network(out, &networks[i]);
        buf_printf(out, " in %s anybody may relay\n", key);
    }
}

/* Who moves, restores or removes a queue means its mail, and not the records of what was sent. */
static void warn_of_records(const struct config *c, struct buf *out)
{
    const char *queue = c->queue.path, *records = c->records.path;
    size_t len = strlen(queue);

    while (len > 1 && queue[len - 1] == '/')
        len--;
    if (records == NULL || strncmp(records, queue, len) != 0 ||
        (records[len] != '/' && records[len] != 0))
        return;
    begin_warning(out, c, config_line_of(c, c, config_key_in("records", "path")));
    buf_printf(out,
               "records.path: %s is within queue.path: who moves or removes the queue takes the "
               "records along; give them a directory of their own\n",
               records);
}

static void warn_of_listener(const struct config *c, const struct config_listener *l,
                             struct buf *out)
{
    const struct sockaddr *addr = (const struct sockaddr *)&l->address.addr;

    if (addr->sa_family == AF_UNIX && l->xclient_from_len > 0 && l->proxy_from_len == 0) {
        begin_warning(out, c, line_of_listener(c, l));
        buf_printf(out,
                   "listener %s: xclient_from does nothing here: clients of a Unix socket "
                   "have no address\n",
                   l->address.text);
    }
    if (addr->sa_family == AF_UNIX || sockaddr_is_loopback(addr))
        return;
    warn_of_submission(c, l, out);
    warn_of_everybody(c, l, "relay_networks", l->relay_networks, l->relay_networks_len, out);
    warn_of_everybody(c, l, "proxy_from", l->proxy_from, l->proxy_from_len, out);
    warn_of_everybody(c, l, "xclient_from", l->xclient_from, l->xclient_from_len, out);
}

/* What is said in EHLO, on this line. */
static void warn_of_name(const struct config *c, unsigned line, const char *key, const char *name,
                         struct buf *out)
{
    struct config_address address;
    bool is_address = config_parse_ip(str_of(name), &address) == 0;

    if (!is_address && strchr(name, '.') != NULL)
        return;
    begin_warning(out, c, line);
    buf_printf(out,
               "%s: '%s' %s: many receivers refuse whoever says it in EHLO; write the name in DNS, "
               "such as mx1.example.com\n",
               key, name, is_address ? "is an address" : "has no dot");
}

static void warn_of_names(const struct config *c, struct buf *out)
{
    const struct config_field *own = config_key_in("sources", "ehlo_name");
    unsigned line = config_line_given(c, c, config_key(&config_schema, "host_name"));

    if (line != 0)
        warn_of_name(c, line, "host_name", c->host_name, out);
    for (size_t i = 0; i < c->sources_len; i++) {
        line = config_line_given(c, &c->sources[i], own);
        if (line != 0)
            warn_of_name(c, line, "ehlo_name", c->sources[i].ehlo_name, out);
    }
}

static bool may_get_password(const struct config_destination *d)
{
    enum config_tls tls = config_tls_of(d);

    return d->auth_without_tls || tls == CONFIG_TLS_VERIFY || config_tls_has_dane(tls) ||
           config_tls_has_sts(tls);
}

/* Where no destination lets passwords go out, all mail that needs one would wait. */
static void warn_of_credentials(const struct config *c, struct buf *out)
{
    bool some = false, may = false;

    for (size_t i = 0; i < c->routes_len; i++)
        some = some || c->routes[i].credentials != NULL;
    for (size_t i = 0; i < c->destinations_len; i++)
        may = may || may_get_password(&c->destinations[i]);
    for (size_t i = 0; i < c->providers_len; i++)
        may = may || may_get_password(&c->providers[i].dest);
    if (!some || may)
        return;
    begin_warning(out, c, config_line_of(c, c, config_key(&config_schema, "credentials_file")));
    buf_puts(out, "credentials_file: no password goes to a next hop that was not "
                  "verified, and mail waits; write destinations: {\"*\": {tls: verify}}\n");
}

void config_warnings(const struct config *c, bool as_root, struct buf *out)
{
    if (as_root && c->user == NULL)
        buf_puts(out, "warning: no 'user': started by root, the engine stays root\n");
    if (c->is_empty)
        buf_puts(out, "warning: there is no key in the file, so all is default; a reload refuses "
                      "such a file\n");
    warn_of_names(c, out);
    warn_of_records(c, out);
    warn_of_credentials(c, out);
    if (!c->dns.ipv4 && !c->dns.ipv6) {
        begin_warning(out, c, config_line_of(c, c, config_key_in("dns", "ipv6")));
        buf_puts(out, "dns: with neither ipv4 nor ipv6 no name leads to an address; say yes "
                      "to one\n");
    }
    for (size_t i = 0; i < c->routes_len; i++)
        warn_of_route(c, &c->routes[i], out);
    warn_of_destinations(c, out);
    for (size_t i = 0; i < c->dns.servers_len; i++)
        if (!is_loopback_server(c->dns.servers[i])) {
            begin_warning(out, c, config_line_of(c, c, config_key_in("dns", "servers")));
            buf_printf(
                out,
                "dns.servers: %s is beyond loopback: its answers say where mail goes, "
                "and nothing proves on the way that they are its own; a validating resolver on "
                "this machine is safer\n",
                c->dns.servers[i]);
        }
    for (size_t i = 0; i < c->listeners_len; i++)
        warn_of_listener(c, &c->listeners[i], out);
    config_warmup_warnings(c, out);
}
