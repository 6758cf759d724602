/* What is shown of warm-up. */
#include "limits/warmup_private.h"

int64_t warmup_opens_ms(const struct warmup *w, const struct warmup_stream *s,
                        const struct warmup_state *state, const struct warmup_hour *now)
{
    bool is_used = state->used >= warmup_cap(&s->policy, state);
    struct warmup_hour next = *now;

    if (s->policy.from != 0 && now->day < (int32_t)s->policy.from)
        return warmup_day_begins_ms(&w->calendar, (int32_t)s->policy.from);
    do /* the state may be ahead of the clock: see warmup_lease() */
        warmup_hour_after(&w->calendar, &next, &next);
    while (next.day < state->day ||
           (next.day == state->day && (is_used || next.hour < state->hour)));
    return next.begins_ms + s->policy.top_of_hour_s * INT64_C(1000);
}

static void stream_view(struct warmup *w, const struct warmup_stream *s, int64_t wall_ms,
                        struct warmup_view *out)
{
    int64_t left = atomic_load(&s->shared.budget);
    struct warmup_state state = s->state;
    struct warmup_past past;
    struct warmup_hour now;

    *out = (struct warmup_view){
        .source = s->source, .provider = s->provider, .configured = s->configured};
    if (!s->configured)
        return;
    warmup_hour_at(&w->calendar, wall_ms, &now);
    if (!s->begun)
        warmup_begin(&state, &s->policy, &now);
    if (s->lost && !state.warm)
        state.used = warmup_cap(&s->policy, &state);
    if (left > 0)
        warmup_unlease(&state, (uint32_t)left);
    for (int i = 0; i < WARMUP_EVENTS; i++)
        state.events[i] += atomic_load_explicit(&s->shared.events[i], memory_order_relaxed);
    (void)warmup_turn(&state, &s->policy, &now, &past);
    out->stage = state.warm ? (uint32_t)s->policy.steps_len : state.stage + 1;
    out->stages = (uint32_t)s->policy.steps_len;
    out->cap = warmup_cap(&s->policy, &state);
    out->used = state.used;
    out->share = warmup_share(&state, &s->policy, &now);
    out->hour_used = state.hour_used;
    memcpy(out->events, state.events, sizeof(out->events));
    out->paused = state.paused;
    out->verdict = state.verdict;
    out->day = state.day;
    out->since = state.since;
    out->day_ends_ms = now.day_ends_ms;
    if (s->policy.from != 0 && now.day < (int32_t)s->policy.from)
        out->begins = (int32_t)s->policy.from;
    if (!state.warm && out->hour_used >= out->share)
        out->next_ms = warmup_opens_ms(w, s, &state, &now);
    if (s->policy.promote && !state.paused) {
        state.warm = state.stage + 1 >= s->policy.steps_len;
        state.stage += !state.warm;
    }
    out->next_cap = warmup_cap(&s->policy, &state);
}

void warmup_view(struct warmup *w, struct warmup_stream *s, int64_t wall_ms,
                 struct warmup_view *out)
{
    pthread_mutex_lock(&w->lock);
    stream_view(w, s, wall_ms, out);
    pthread_mutex_unlock(&w->lock);
}

bool warmup_view_of(struct warmup *w, struct str source, struct str provider, int64_t wall_ms,
                    struct warmup_view *out)
{
    const struct warmup_stream *s;

    pthread_mutex_lock(&w->lock);
    s = warmup_stream_find(w, source, provider);
    if (s != NULL)
        stream_view(w, s, wall_ms, out);
    pthread_mutex_unlock(&w->lock);
    return s != NULL;
}

void warmup_visit(struct warmup *w, int64_t wall_ms,
                  void (*visit)(void *arg, const struct warmup_view *view), void *arg)
{
    struct map_node *n = NULL;
    struct warmup_view view;
    size_t bucket = 0;

    pthread_mutex_lock(&w->lock);
    while ((n = map_walk(&w->streams, &bucket, n)) != NULL) {
        stream_view(w, CONTAINER_OF(n, struct warmup_stream, node), wall_ms, &view);
        visit(arg, &view);
    }
    pthread_mutex_unlock(&w->lock);
}

static void put_grouped(struct buf *out, uint32_t v)
{
    if (v >= 1000) {
        put_grouped(out, v / 1000);
        buf_printf(out, ",%03u", v % 1000);
    } else {
        buf_printf(out, "%u", v);
    }
}

void warmup_put_words(struct warmup *w, const struct warmup_view *v, struct buf *out)
{
    const char *plain;
    enum config_warmup_kind kind = config_warmup_kind(v->source, &plain);
    char day[DAY_TEXT_BYTES];
    int64_t local_s;

    if (kind != CONFIG_WARMUP_SOURCE) /* that one is told apart */
        buf_printf(out, "%s %s: ", kind == CONFIG_WARMUP_SIGNER ? "signing domain" : "campaign",
                   plain);
    if (v->begins != 0) {
        buf_printf(out, "begins on %s", day_text(v->begins, day));
        return;
    }
    put_grouped(out, v->used);
    buf_puts(out, " of ");
    put_grouped(out, v->cap);
    buf_puts(out, " today");
    if (v->next_ms == 0)
        return;
    pthread_mutex_lock(&w->lock);
    local_s = v->next_ms / 1000 + zone_offset_s(w->zone, v->next_ms / 1000);
    pthread_mutex_unlock(&w->lock);
    buf_printf(out, ", next hour's share at %02d:%02d", (int)(local_s / 3600 % 24),
               (int)(local_s / 60 % 60));
}
