/* Sources and pools, as the status shows them. */
#include <string.h>

#include "control/control_private.h"
#include "worker/sources.h"

static void put_error(const struct control_source *state, enum source_part part, struct buf *out)
{
    char error[SOCKS5_TEXT];

    ASSERT(part < SOURCE_PARTS);
    source_error_text(state->part[part].error, error);
    json_number(out, "since_ms", state->part[part].since_ms);
    json_text(out, "error", str_of(error));
}

static void put_missing(const struct config_address *address, const struct control_source *state,
                        enum source_part part, struct buf *out)
{
    if (!state->part[part].away)
        return;
    buf_putc(out, '{');
    json_text(out, "address", str_of(address->text));
    put_error(state, part, out);
    json_end(out);
    buf_putc(out, ',');
}

static void put_no_route(const struct control_source *state, struct buf *out)
{
    static const char *const names[] = {[SOURCE_IPV4] = "ipv4", [SOURCE_IPV6] = "ipv6"};

    buf_puts(out, "\"no_route\":[");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (state->no_route_ms[i] == 0)
            continue;
        buf_putc(out, '{');
        json_text(out, "family", str_of(names[i]));
        json_text(out, "address", str_of(state->unrouted[i]));
        json_number(out, "since_ms", state->no_route_ms[i]);
        json_end(out);
        buf_putc(out, ',');
    }
    json_end_list(out);
}

static void put_proxy(const struct config_source *s, const struct control_source *state,
                      struct buf *out)
{
    const struct config_address *proxy = config_source_proxy(s);
    bool down = state->part[SOURCE_PROXY].away;

    if (proxy == NULL)
        return;
    buf_puts(out, "\"proxy\":{");
    json_text(out, "protocol", str_of(config_proxy_word(s)));
    json_text(out, "server", str_of(proxy->text));
    json_text(out, "state", down ? STR("down") : STR("ok"));
    if (down)
        put_error(state, SOURCE_PROXY, out);
    json_end(out);
    buf_putc(out, ',');
}

/* Of two addresses one may be missing, or have no route: the source sends over the other. */
static const char *state_of(const struct config_source *s, const struct control_source *state)
{
    bool any = s->ipv4.len == 0 && s->ipv6.len == 0; /* the kernel chooses */
    bool v4 = (any || s->ipv4.len != 0) && !state->part[SOURCE_IPV4].away;
    bool v6 = (any || s->ipv6.len != 0) && !state->part[SOURCE_IPV6].away;

    if (state->suspended)
        return "suspended";
    if (state->part[SOURCE_PROXY].away)
        return "proxy_down";
    if (!v4 && !v6)
        return "missing";
    return (v4 && state->no_route_ms[SOURCE_IPV4] == 0) ||
                   (v6 && state->no_route_ms[SOURCE_IPV6] == 0)
               ? "ok"
               : "no_route";
}

static void put_limit(void *arg, const char *key, struct str value, struct str set)
{
    struct buf *out = arg;

    if (str_eq(set, STR("default")))
        return;
    buf_putc(out, '{');
    json_text(out, "name", str_of(key));
    json_text(out, "value", value);
    json_text(out, "set", set);
    json_end(out);
    buf_putc(out, ',');
}

void control_put_source(struct control *c, const struct config_source *s, struct buf *out)
{
    const struct config *config = c->backend->config(c->arg);
    struct control_source state;

    c->backend->source(c->arg, s, &state);
    buf_putc(out, '{');
    json_text(out, "name", str_of(s->name));
    if (s->ipv4.len != 0)
        json_text(out, "ipv4", str_of(s->ipv4.text));
    if (s->ipv6.len != 0)
        json_text(out, "ipv6", str_of(s->ipv6.text));
    json_text(out, "ehlo_name", str_of(s->ehlo_name));
    json_text(out, "state", str_of(state_of(s, &state)));
    buf_puts(out, "\"missing\":[");
    put_missing(&s->ipv4, &state, SOURCE_IPV4, out);
    put_missing(&s->ipv6, &state, SOURCE_IPV6, out);
    json_end_list(out);
    put_no_route(&state, out);
    put_proxy(s, &state, out);
    buf_puts(out, "\"limits\":[");
    config_source_limits_visit(config, s, put_limit, out);
    json_end_list(out);
    json_number(out, "sessions", state.sessions);
    json_number(out, "messages", (int64_t)state.messages);
    json_number(out, "connects", (int64_t)state.connects);
    json_number(out, "connect_failures", (int64_t)state.connect_failures);
    buf_puts(out, "\"pools\":[");
    for (size_t i = 0; i < config->pools_len; i++) {
        const struct config_pool *pool = &config->pools[i];

        for (size_t j = 0; j < pool->sources_len; j++) {
            if (pool->sources[j].source != s)
                continue;
            buf_put_json(out, str_of(pool->name));
            buf_putc(out, ',');
        }
    }
    json_end_list(out);
    json_end(out);
}

static void put_pool(const struct config *config, const struct config_pool *pool, struct buf *out)
{
    buf_putc(out, '{');
    json_text(out, "name", str_of(pool->name));
    json_text(out, "selection", str_of(pool->selection_word));
    if (pool->overflow != NULL)
        json_text(out, "overflow", str_of(pool->overflow->name));
    if (pool->engaged_name != NULL)
        json_text(out, "engaged", str_of(pool->engaged_name));
    if (pool->attempts_max != 0)
        json_number(out, "attempts_max", pool->attempts_max);
    json_bool(out, "default", pool == config->default_pool);
    buf_puts(out, "\"sources\":[");
    for (size_t i = 0; i < pool->sources_len; i++) {
        buf_putc(out, '{');
        json_text(out, "name", str_of(pool->sources[i].name));
        json_number(out, "weight", pool->sources[i].weight);
        json_end(out);
        buf_putc(out, ',');
    }
    json_end_list(out);
    json_end(out);
    buf_putc(out, ',');
}

void control_put_egress(struct control *c, struct buf *out)
{
    const struct config *config = c->backend->config(c->arg);

    buf_puts(out, "\"sources\":[");
    for (size_t i = 0; i < config->sources_len; i++) {
        control_put_source(c, &config->sources[i], out);
        buf_putc(out, ',');
    }
    json_end_list(out);
    buf_puts(out, "\"pools\":[");
    for (size_t i = 0; i < config->pools_len; i++)
        put_pool(config, &config->pools[i], out);
    json_end_list(out);
}
