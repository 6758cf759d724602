/* Lanes that an operator or a rule suspended: which are, and how each hears of a change.
 *
 * A worker counts the changes that it has heard of, and a lane remembers the count at its last
 * look into the table. So whoever asks lane_suspended() gets the present answer from the change on,
 * and the walk only gives back windows, or wakes what was resumed. */
#include "schedule/lane_find.h"
#include "schedule/lane_private.h"
#include "schedule/lane_walk.h"
#include "schedule/supply.h"
#include "worker/shared.h"

#define WALK_WORK 4000 /* of a turn: lanes, and recipients that go back */

void lane_suspension_names(const struct lane *lane, struct lane_names_at_site *at_site,
                           struct str names[SUSPENSION_SCOPES])
{
    at_site->campaign[0] = at_site->tenant[0] = '\0';
    at_site->signer[0] = at_site->envelope[0] = '\0';
    for (int scope = 0; scope < SUSPENSION_SCOPES; scope++)
        names[scope] = STR("");
    names[SUSPENSION_DOMAIN] = lane_domain(lane);
    names[SUSPENSION_CAMPAIGN] = lane->names == NULL ? STR("") : lane->names->campaign;
    names[SUSPENSION_TENANT] = lane_tenant(lane);
    names[SUSPENSION_SITE] = lane->site == NULL ? STR("") : str_of(lane->site->name);
    suspension_name(at_site->of_tenant, names[SUSPENSION_CAMPAIGN], names[SUSPENSION_TENANT]);
    names[SUSPENSION_CAMPAIGN_TENANT] = str_of(at_site->of_tenant);
    /* The mail of a source goes by the others of its pool. */
    if (lane->site != NULL) {
        suspension_name(at_site->campaign, names[SUSPENSION_CAMPAIGN], names[SUSPENSION_SITE]);
        suspension_name(at_site->tenant, names[SUSPENSION_TENANT], names[SUSPENSION_SITE]);
        if (lane->names != NULL) {
            suspension_name(at_site->signer, lane->names->signer, names[SUSPENSION_SITE]);
            suspension_name(at_site->envelope, lane->names->envelope, names[SUSPENSION_SITE]);
        }
    }
    names[SUSPENSION_SIGNER_SITE] = str_of(at_site->signer);
    names[SUSPENSION_ENVELOPE_SITE] = str_of(at_site->envelope);
    names[SUSPENSION_CAMPAIGN_SITE] = str_of(at_site->campaign);
    names[SUSPENSION_TENANT_SITE] = str_of(at_site->tenant);
}

void lane_suspensions_look(struct lane *lane)
{
    struct suspensions *all = &lane->worker->shared->suspensions;
    struct str names[SUSPENSION_SCOPES];
    struct lane_names_at_site at_site;

    lane->suspensions_changed = lane->worker->suspensions_changed;
    lane->suspensions = 0;
    if (suspensions_count(all) == 0)
        return;
    lane_suspension_names(lane, &at_site, names);
    lane->suspensions = (uint16_t)suspensions_of(all, names);
    /* A set of exchangers may have been suspended before a provider of them was known. */
    if (lane->site != NULL && lane->site->provider != NULL) {
        names[SUSPENSION_SITE] = str_of(lane->site->exchangers_name);
        lane->suspensions |= (uint16_t)suspensions_of(all, names);
    }
}

bool lane_suspended(struct lane *lane)
{
    if (lane->suspensions_changed != lane->worker->suspensions_changed)
        lane_suspensions_look(lane);
    return supply_holds(lane) || lane->suspensions != 0 || lane_backs_off(lane);
}

void lane_suspensions_begin(struct worker *w, struct suspension_walk *walk)
{
    walk->change = ++w->suspensions_changed;
    walk->bucket = 0;
    list_push_back(&w->suspension_walks, &walk->node);
    lanes_find_soon(w);
}

const struct queue_flow *lane_names(const struct lane *lane, uint32_t *version)
{
    struct shared *all = lane->worker->shared;

    return campaigns_names(&all->campaigns, all->queue, queue_flow_find(all->queue, lane->flow),
                           version);
}

/* Its campaign was set to another priority, pool or rate: it comes to its site anew. */
static bool lane_names_look(struct lane *lane)
{
    uint32_t version;
    const struct queue_flow *names = lane_names(lane, &version);

    if (version == lane->names_version)
        return false;
    if (lane->site != NULL)
        site_detach(lane->site, lane);
    lane->names = names;
    lane->names_version = version;
    return true;
}

static uint32_t lane_hears(struct lane *lane, void *arg)
{
    uint32_t window = lane->window_len;
    bool renamed = lane_names_look(lane);

    (void)arg;
    if (lane->supply != NULL &&
        lane->supply->suspensions_changed != lane->worker->suspensions_changed)
        supply_dirty(lane->supply);
    /* A lane that was resumed cannot be told from one that was never suspended, since
     * lane_suspended() may have been asked before: every lane with stored rows is looked at. */
    if (lane_suspended(lane) ? window > 0 : lane->stored_due_ms != INT64_MAX || renamed)
        lane_update(lane);
    return 1 + window - lane->window_len;
}

static void walk_end(struct suspension_walk *walk)
{
    list_remove(&walk->node);
    walk->on_done(walk);
}

/* One walk serves all changes that there were when it began: rules may make thousands. */
void lane_suspensions_walk(struct worker *w)
{
    struct list_node *first = list_first(&w->suspension_walks);
    struct suspension_walk *walk;
    uint32_t told;

    if (first == NULL)
        return;
    walk = LIST_ENTRY(first, struct suspension_walk, node);
    if (walk->bucket == 0)
        walk->change = w->suspensions_changed;
    if (!lane_walk(w, &walk->bucket, WALK_WORK, lane_hears, NULL))
        return;
    told = walk->change;
    while ((first = list_first(&w->suspension_walks)) != NULL) {
        walk = LIST_ENTRY(first, struct suspension_walk, node);
        if ((int32_t)(walk->change - told) > 0)
            break;
        walk_end(walk);
    }
}

void lane_suspensions_abandon(struct worker *w)
{
    struct list_node *n;

    while ((n = list_first(&w->suspension_walks)) != NULL)
        walk_end(LIST_ENTRY(n, struct suspension_walk, node));
}
