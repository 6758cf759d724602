#include "schedule/flow_split.h"

#include "schedule/lane.h"
#include "schedule/settle.h"
#include "schedule/site.h"
#include "worker/keyring.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define AGAIN_MS   60000 /* what can have no flow of its own now waits so long */
#define SCOPES_LEN 3

static const enum suspension_scope of_signer[SCOPES_LEN] = {
    SUSPENSION_SIGNER_SITE, SUSPENSION_SIGNER_CAP, SUSPENSION_SIGNER_RECOVERY};
static const enum suspension_scope of_envelope[SCOPES_LEN] = {
    SUSPENSION_ENVELOPE_SITE, SUSPENSION_ENVELOPE_CAP, SUSPENSION_ENVELOPE_RECOVERY};

struct str flow_signer(const struct lane *lane, const struct message *m)
{
    const struct keyring *k = lane->worker->config->keyring;

    return k == NULL ? STR("")
                     : keyring_signing_domain(k, m->dkim_domain, m->content, m->content_len);
}

/* Whether mail of domain waits at site, or has lowered limits there, by one of scopes. */
static bool is_told_of(const struct site *site, const enum suspension_scope scopes[SCOPES_LEN],
                       struct str domain)
{
    struct worker *w = site->worker;
    struct suspensions *all = &w->shared->suspensions;
    char name[SUSPENSION_NAME_MAX + 1];

    suspension_name(name, domain, str_of(site->name));
    for (int i = 0; i < SCOPES_LEN; i++)
        if (suspended_names_have(&w->suspended_names, all, scopes[i], str_of(name)) &&
            suspensions_hold(all, scopes[i], str_of(name)))
            return true;
    return false;
}

/* The signing domain that the flow of m, mail of lane to site, is to be called by. */
static struct str signer_of(const struct lane *lane, const struct site *site,
                            const struct message *m, struct str present, bool told)
{
    const struct config *c = lane->worker->config;
    struct str signer;

    if ((m->flags & MESSAGE_RECIPE) != 0) /* its letters say who signs them */
        return present;
    if (present.len == 0 && c->warmup.signers_len == 0 && !told)
        return present;
    signer = flow_signer(lane, m);
    if (signer.len == 0 || signer.len > FLOW_DOMAIN_MAX)
        return STR("");
    return str_eq(signer, present) || config_warmup_has(c, CONFIG_WARMUP_SIGNER, signer) ||
                   (told && is_told_of(site, of_signer, signer))
               ? signer
               : STR("");
}

/* The same of the return path; out has room for it. */
static struct str envelope_of(const struct site *site, const struct message *m, struct str present,
                              bool told, struct dns_name *out)
{
    struct str domain;

    if (present.len == 0 && !told)
        return present;
    if (queue_name_of(queue_name_domain(m->sender), out) < 0)
        return STR("");
    domain = (struct str){out->text, out->len};
    return str_eq(domain, present) || is_told_of(site, of_envelope, domain) ? domain : STR("");
}

struct wanted {
    struct queue_flow flow;
    struct dns_name envelope;
};

/* Which flow m, mail of lane to site, is to be of. False: it is of that. */
static bool wants(const struct lane *lane, const struct site *site, const struct message *m,
                  struct wanted *out)
{
    static const struct queue_flow unknown = {.priority = PRIORITY_DEFAULT};
    const struct queue_flow *names = lane->names == NULL ? &unknown : lane->names, *stored;
    struct worker *w = lane->worker;
    bool told =
        suspended_names_at(&w->suspended_names, &w->shared->suspensions, str_of(site->name));

    if (!told && w->config->warmup.signers_len == 0 && names->signer.len == 0 &&
        names->envelope.len == 0)
        return false;
    /* Its rows' own names: what the campaign was set to may be set anew. */
    stored = queue_flow_find(w->shared->queue, lane->flow);
    out->flow = stored == NULL ? unknown : *stored;
    out->flow.signer = signer_of(lane, site, m, names->signer, told);
    out->flow.envelope = envelope_of(site, m, names->envelope, told, &out->envelope);
    return !str_eq(out->flow.signer, names->signer) || !str_eq(out->flow.envelope, names->envelope);
}

/* r, which is PLACE_FLIGHT, goes over to wanted; where there is no room for further flows it waits.
 */
static void go_over(struct recipient *r, const struct queue_flow *wanted)
{
    struct lane *lane = r->lane;
    struct worker *w = lane->worker;
    const struct queue_flow *flow = queue_flow_like(w->shared->queue, wanted);
    struct queue_row row = {.kind = QUEUE_ROW_MOVE, .rcpt = r, .old_due_ms = r->due_ms};

    ASSERT(r->state == PLACE_FLIGHT);
    lane_settling(r);
    if (flow == NULL || flow->id == r->flow) {
        r->due_ms = worker_wall_ms(w) + AGAIN_MS;
    } else {
        row.old_flow = r->flow;
        r->flow = flow->id;
    }
    settle(w, &(struct settlement){.shard = lane->shard, .rows = &row, .rows_len = 1});
}

bool flow_split(struct lane *lane)
{
    struct recipient *r = lane_peek(lane);
    struct wanted wanted;

    if (!wants(lane, lane->site, r->message, &wanted))
        return false;
    go_over(lane_pop(lane), &wanted.flow);
    return true;
}

bool flow_split_wanted(const struct recipient *r, const struct site *site,
                       const struct message *letter)
{
    struct wanted wanted;

    return wants(r->lane, site, letter, &wanted);
}

void flow_split_letter(struct recipient *r, const struct site *site, const struct message *letter)
{
    struct wanted wanted;

    if (wants(r->lane, site, letter, &wanted))
        go_over(r, &wanted.flow);
    else
        lane_unpop(r); /* since then what asked for it has gone */
}
