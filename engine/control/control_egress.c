/* Sources and pools, as the status shows them. */
#include <string.h>

#include "control/control_private.h"

static void put_missing(const struct config_address *address, const struct control_source *state,
                        int family, struct buf *out)
{
    if (!state->family[family].away)
        return;
    buf_putc(out, '{');
    json_text(out, "address", str_of(address->text));
    json_number(out, "since_ms", state->family[family].since_ms);
    json_text(out, "error", str_of(strerror(-state->family[family].error)));
    json_end(out);
    buf_putc(out, ',');
}

/* Of two addresses one may be missing: the source sends over the other. */
static const char *state_of(const struct config_source *s, const struct control_source *state)
{
    bool v4 = s->ipv4.len != 0 && !state->family[0].away;
    bool v6 = s->ipv6.len != 0 && !state->family[1].away;

    if (state->suspended)
        return "suspended";
    return v4 || v6 || (s->ipv4.len == 0 && s->ipv6.len == 0) ? "ok" : "missing";
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
    put_missing(&s->ipv4, &state, 0, out);
    put_missing(&s->ipv6, &state, 1, out);
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
