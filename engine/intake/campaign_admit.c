/* Which orders a campaign takes, and what each makes of it. */
#include <errno.h>
#include <string.h>

#include "base/rng.h"
#include "intake/campaign_private.h"
#include "intake/campaign_view.h"

/* How many places are taken by those that are not over, of a tenant and of all. Under the lock. */
static void count_places(struct campaigns *all, const char *tenant, size_t *own, size_t *taken)
{
    *own = *taken = 0;
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n)) {
        const struct campaign_entry *e = LIST_ENTRY(n, struct campaign_entry, order);

        *taken += !e->over;
        *own += !e->over && strcmp(e->one.tenant, tenant) == 0;
    }
}

bool campaign_has_its_places(struct campaigns *all, const char *tenant)
{
    size_t own, taken;

    count_places(all, tenant, &own, &taken);
    return taken >= CAMPAIGNS_MAX || own >= CAMPAIGNS_MAX - taken;
}

struct campaign_entry *campaign_oldest_over(struct campaigns *all)
{
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n)) {
        struct campaign_entry *e = LIST_ENTRY(n, struct campaign_entry, order);

        if (e->over && !e->changing)
            return e;
    }
    return NULL;
}

/* One upload makes one campaign, although its client, or two of them, sent it twice at a time. */
static bool same_upload(const struct campaign *a, const struct campaign *b)
{
    static const uint8_t none[CAMPAIGN_UPLOAD_BYTES];

    return memcmp(a->upload_key, b->upload_key, sizeof(none)) == 0 &&
           memcmp(a->upload_key, none, sizeof(none)) != 0;
}

int campaign_admit_new(struct worker *w, const struct campaign_order *order, struct campaign *out)
{
    struct campaigns *all = &w->shared->campaigns;
    const struct campaign *what = &order->what;

    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n)) {
        const struct campaign_entry *e = LIST_ENTRY(n, struct campaign_entry, order);

        if (strcmp(e->one.tenant, what->tenant) == 0 &&
            ((!e->over && strcmp(e->one.name, what->name) == 0) || same_upload(&e->one, what)))
            return -EEXIST;
    }
    if (campaign_flow(w->shared->queue, what) == NULL)
        return -ENOSPC;
    *out = *what;
    out->state = CAMPAIGN_DRAFT;
    out->created_ms = out->changed_ms = worker_wall_ms(w);
    out->starts_ms = 0;
    out->seed = rng_next(&w->rng);
    out->set = (struct campaign_set){0};
    campaign_set_apply(out, order);
    return 0;
}

/* The state that a campaign gets by a verb. 0: it does not take it. */
static enum campaign_state state_after(const struct campaign_entry *e, enum campaign_verb verb)
{
    enum campaign_state now = e->one.state;

    switch (verb) {
    case CAMPAIGN_START:
        return now == CAMPAIGN_DRAFT ? CAMPAIGN_RUNNING : 0;
    case CAMPAIGN_PAUSE:
        return now == CAMPAIGN_RUNNING && !e->over ? CAMPAIGN_PAUSED : 0;
    case CAMPAIGN_RESUME:
        return now == CAMPAIGN_PAUSED ? CAMPAIGN_RUNNING : 0;
    case CAMPAIGN_CANCEL:
        return now != CAMPAIGN_CANCELLED && !e->over ? CAMPAIGN_CANCELLED : 0;
    case CAMPAIGN_SET:
        return now != CAMPAIGN_CANCELLED && !e->over ? now : 0;
    case CAMPAIGN_CLOSE:
        return now != CAMPAIGN_CANCELLED && e->one.open ? now : 0;
    case CAMPAIGN_FORGET:
        return e->over ? now : 0;
    case CAMPAIGN_CREATE:
    case CAMPAIGN_VERBS:
        break;
    }
    return 0;
}

int campaign_admit_change(struct worker *w, const struct campaign_order *order,
                          struct campaign *out)
{
    struct campaigns *all = &w->shared->campaigns;
    struct campaign_entry *e = campaigns_entry(all, &order->what.id);
    enum campaign_verb verb = order->verb;
    enum campaign_state state = e == NULL ? 0 : state_after(e, verb);
    int64_t now_ms = worker_wall_ms(w);

    if (e == NULL || state == 0)
        return e == NULL ? -ENOENT : -EINVAL;
    if (campaign_upload_busy(e))
        return -EBUSY;
    if (verb == CAMPAIGN_START && e->one.expires_ms != 0 &&
        e->one.expires_ms <= (order->starts_ms > now_ms ? order->starts_ms : now_ms))
        return -ERANGE;
    *out = e->one;
    out->state = state;
    out->changed_ms = verb == CAMPAIGN_START ? now_ms : campaign_changes_ms(&e->one, now_ms);
    if (verb == CAMPAIGN_SET)
        campaign_set_apply(out, order);
    out->open = verb == CAMPAIGN_START
                    ? order->open
                    : e->one.open && verb != CAMPAIGN_CLOSE && verb != CAMPAIGN_CANCEL;
    if (verb == CAMPAIGN_START)
        out->starts_ms = order->starts_ms > now_ms ? order->starts_ms : now_ms;
    e->changing = true;
    campaign_upload_drop(all, e);
    return 0;
}

/* --- which are over --- */

/* Copies of the entries that matter to the order and were not over at the last look, into *out. All
 * matter where the tenant has its places already (*scarce). A cancelled campaign is left out: it is
 * over when campaign_cancel_rows() has ended, since that resumes the campaign's name, which must
 * not be another campaign's by then. */
static void find_meant(struct campaigns *all, const struct campaign_order *order, struct buf *out,
                       bool *scarce)
{
    bool full, found = false;

    pthread_mutex_lock(&all->lock);
    *scarce = order->verb == CAMPAIGN_CREATE && campaign_has_its_places(all, order->what.tenant);
    full = order->verb == CAMPAIGN_CREATE && all->by_id.count >= CAMPAIGNS_MAX;
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n)) {
        const struct campaign_entry *e = LIST_ENTRY(n, struct campaign_entry, order);
        bool meant = order->verb == CAMPAIGN_CREATE
                         ? strcmp(e->one.name, order->what.name) == 0 || (full && !found) || *scarce
                         : memcmp(&e->one.id, &order->what.id, sizeof(e->one.id)) == 0;

        if (meant && !e->over && !e->changing && e->one.state != CAMPAIGN_CANCELLED)
            buf_put(out, &e->one, sizeof(e->one));
        found |= e->over;
    }
    pthread_mutex_unlock(&all->lock);
}

static void note_over(struct campaigns *all, const struct campaign *one)
{
    struct campaign_entry *e;

    pthread_mutex_lock(&all->lock);
    e = campaigns_entry(all, &one->id);
    if (e != NULL && !e->changing && e->one.state == one->state)
        e->over = true;
    pthread_mutex_unlock(&all->lock);
}

/* Where there are too many campaigns, one that is over is enough, but all may have to be looked at:
 * without the lock, which workers take for each part of a list. */
void campaign_look_over(struct shared *all, const struct campaign_order *order)
{
    struct queue_tally counts;
    struct campaign one;
    struct buf meant = {0};
    bool found = false, scarce;

    find_meant(&all->campaigns, order, &meant, &scarce);
    for (size_t at = 0; at < meant.len; at += sizeof(one)) {
        bool named;

        memcpy(&one, meant.data + at, sizeof(one));
        named = order->verb != CAMPAIGN_CREATE || strcmp(one.name, order->what.name) == 0;
        if ((found && !named && !scarce) || campaign_counts(all->queue, &one.id, &counts) != 0 ||
            !campaign_is_over(&one, &counts))
            continue;
        note_over(&all->campaigns, &one);
        found = true;
    }
    buf_done(&meant);
}
