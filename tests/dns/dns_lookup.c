/* The production resolver driven by lines on standard input, for the tests in this folder:
 *
 *   domain NAME   host NAME   starts a lookup; its answer is printed as one line of JSON
 *   wait                      turns until no lookup is open
 *   sleep MS                  turns for so long
 *   counters                  prints them
 *
 * usage: dns_lookup [-s server]... [-t timeout_ms] [-r tries] [-m ttl_min_s] [-f in_flight_max]
 *                   [-o own_name] [-a]; -a: the AD bit of the servers is believed */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "dns/dns.h"
#include "io/io.h"

#define SERVERS_MAX 8

struct lookup {
    struct dns_query query;
    struct list_node node; /* in open_lookups */
    uint64_t started_ms;
    char name[];
};

static struct io *io;
static struct dns *dns;
static struct list open_lookups;

static const char *status_name(enum dns_status status)
{
    static const char *const names[] = {
        [DNS_OK] = "ok",           [DNS_NULL_MX] = "null_mx",   [DNS_NO_DOMAIN] = "no_domain",
        [DNS_NO_HOST] = "no_host", [DNS_BAD_NAME] = "bad_name", [DNS_TEMPORARY] = "temporary",
    };

    return names[status];
}

/* Nothing, the error, or the base with the records' lengths. */
static void put_tlsa(struct buf *out, const struct dns_tlsa *tlsa)
{
    struct buf text = {0};

    if (tlsa == NULL)
        return;
    buf_puts(&text, tlsa->error != NULL ? tlsa->error : tlsa->base);
    for (uint16_t i = 0; i < tlsa->records_len; i++)
        buf_printf(&text, " %zu", tlsa->records[i].len);
    buf_putc(out, ',');
    buf_put_json(out, buf_str(&text));
    buf_done(&text);
}

static void put_hosts(struct buf *out, const struct dns_route *route)
{
    for (uint16_t i = 0; i < route->hosts_len; i++) {
        buf_puts(out, i > 0 ? ",[" : "[");
        buf_printf(out, "%u,", route->hosts[i].preference);
        buf_put_json(out, str_of(route->hosts[i].name));
        put_tlsa(out, route->hosts[i].tlsa);
        buf_putc(out, ']');
    }
}

static void put_addresses(struct buf *out, const struct dns_route *route)
{
    for (uint16_t i = 0; i < route->addresses_len; i++) {
        const struct dns_address *a = &route->addresses[i];
        bool v6 = a->sa.sa_family == AF_INET6;
        char text[INET6_ADDRSTRLEN];

        inet_ntop(a->sa.sa_family,
                  v6 ? (const void *)&a->in6.sin6_addr : (const void *)&a->in.sin_addr, text,
                  sizeof(text));
        buf_printf(out, "%s[\"%s\",\"%s\"]", i > 0 ? "," : "", text, route->hosts[a->host].name);
    }
}

/* No socket gets the number of one that the kernel has an operation on: io_close_fd() would not
 * have it. */
static void check_numbers(void)
{
    int fd = io_stream(io, AF_INET, NULL, 0);

    ASSERT(fd >= 0);
    io_close_fd(io, fd, false);
}

static void on_route(struct dns_query *query, struct dns_route *route)
{
    struct lookup *lookup = CONTAINER_OF(query, struct lookup, query);
    struct buf out = {0};

    buf_puts(&out, "{\"name\":");
    buf_put_json(&out, str_of(lookup->name));
    buf_printf(&out,
               ",\"status\":\"%s\",\"implicit\":%s,\"secure\":%s,\"ttl_ms\":%lld,"
               "\"took_ms\":%llu",
               status_name(route->status), route->implicit_mx ? "true" : "false",
               route->secure ? "true" : "false", (long long)(route->expires_ms - io_now_ms(io)),
               (unsigned long long)(io_now_ms(io) - lookup->started_ms));
    buf_puts(&out, ",\"error\":");
    buf_put_json(&out, str_of(route->error == NULL ? "" : route->error));
    buf_puts(&out, ",\"site\":");
    buf_put_json(&out, str_of(route->site_name));
    buf_puts(&out, ",\"hosts\":[");
    put_hosts(&out, route);
    buf_puts(&out, "],\"addresses\":[");
    put_addresses(&out, route);
    buf_puts(&out, "]}\n");
    fwrite(out.data, 1, out.len, stdout);
    fflush(stdout);
    buf_done(&out);
    list_remove(&lookup->node);
    free(lookup);
    check_numbers();
}

static void start(const char *name, bool host_only)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup) + strlen(name) + 1);

    ASSERT(lookup != NULL);
    strcpy(lookup->name, name);
    lookup->query.on_route = on_route;
    lookup->started_ms = io_now_ms(io);
    list_push_back(&open_lookups, &lookup->node);
    dns_lookup(dns, &lookup->query, str_of(lookup->name), host_only);
}

static void turn(uint32_t wait_ms_max)
{
    int rc = io_turn(io, wait_ms_max);

    ASSERT(rc == 0);
}

static void sleep_ms(uint64_t ms)
{
    uint64_t end_ms;

    turn(0);
    for (end_ms = io_now_ms(io) + ms; io_now_ms(io) < end_ms;)
        turn((uint32_t)(end_ms - io_now_ms(io)));
}

static void put_counters(void)
{
    struct dns_counters c;

    dns_counters(dns, &c);
    printf("{\"lookups\":%llu,\"hits\":%llu,\"upstream\":%llu,\"failures\":%llu,\"stale\":%llu,"
           "\"entries\":%u,\"in_flight\":%u}\n",
           (unsigned long long)c.lookups, (unsigned long long)c.hits,
           (unsigned long long)c.upstream, (unsigned long long)c.failures,
           (unsigned long long)c.stale, c.entries, c.in_flight);
    fflush(stdout);
}

static void command(char *line)
{
    char *argument = strchr(line, ' ');

    line[strcspn(line, "\n")] = '\0';
    if (argument != NULL)
        *argument++ = '\0';
    else
        argument = line + strlen(line);
    if (strcmp(line, "domain") == 0)
        start(argument, false);
    else if (strcmp(line, "host") == 0)
        start(argument, true);
    else if (strcmp(line, "sleep") == 0)
        sleep_ms(strtoull(argument, NULL, 10));
    else if (strcmp(line, "counters") == 0)
        put_counters();
    while (strcmp(line, "wait") == 0 && !list_empty(&open_lookups))
        turn(1000);
}

int main(int argc, char **argv)
{
    const char *servers[SERVERS_MAX];
    struct dns_options options = {.servers = servers, .negative_ttl_max_s = 300, .seed = 1};
    struct list_node *node;
    char line[1024];
    int c, rc;

    while ((c = getopt(argc, argv, "s:t:r:m:f:o:a")) != -1) {
        uint32_t number = optarg == NULL ? 0 : (uint32_t)strtoul(optarg, NULL, 10);

        if (c == 's' && options.servers_len < SERVERS_MAX)
            servers[options.servers_len++] = optarg;
        else if (c == 't')
            options.timeout_ms = number;
        else if (c == 'r')
            options.tries = number;
        else if (c == 'm')
            options.ttl_min_s = number;
        else if (c == 'f')
            options.in_flight_max = number;
        else if (c == 'o')
            options.own_name = optarg;
        else if (c == 'a')
            options.validating = true;
        else
            return 2;
    }
    if (options.servers_len == 0)
        options.servers = NULL;
    rc = io_open(&io, &(struct io_options){0});
    if (rc < 0) {
        fprintf(stderr, "%s\n", io_why_unavailable(rc));
        return 77;
    }
    rc = dns_open(&dns, io, &options);
    if (rc < 0) {
        fprintf(stderr, "dns_open: %s\n", strerror(-rc));
        return 1;
    }
    list_init(&open_lookups);
    turn(0);
    while (fgets(line, sizeof(line), stdin) != NULL)
        command(line);
    /* What is still open gets no answer. */
    dns_close(dns);
    while ((node = list_pop_front(&open_lookups)) != NULL)
        free(LIST_ENTRY(node, struct lookup, node));
    sleep_ms(10);
    io_close(io);
    return 0;
}
