#include "control/backend_sites.h"

#include <errno.h>
#include <stdlib.h>

#include "control/control_private.h"
#include "schedule/lane.h"
#include "schedule/supply.h"
#include "worker/worker.h"

#define SLICE_SITES 2000  /* looked at in one turn of a worker; a bucket counts as one, too */
#define SITES_MAX   10000 /* names; the others are one */
#define HASH_SEED   UINT64_C(0x5173)

/* What bears one name, in all workers. */
struct seen {
    struct map_node node;
    char *name;
    struct buf domain; /* of some mail there; empty: there is none now */
    bool provider;
    uint64_t waiting; /* recipients in memory */
    uint32_t queues, sets, sessions;
    struct buf limits;
};

struct sites_walk {
    struct worker_note note;
    struct control_job *job;
    uint32_t worker;
    size_t bucket;
    struct map names;
    struct seen others;
};

/* --- the limits of one --- */

struct limits_put {
    struct buf *out;
    const char *of; /* whose they are */
};

static void put_limit(void *arg, const char *key, struct str value, struct str origin)
{
    const struct limits_put *put = arg;

    buf_putc(put->out, '{');
    json_text(put->out, "of", str_of(put->of));
    json_text(put->out, "name", str_of(key));
    json_text(put->out, "value", value);
    json_text(put->out, "set", origin);
    json_end(put->out);
    buf_putc(put->out, ',');
}

void backend_put_limits(const struct site *site, const struct feed_limits *shares, struct buf *out)
{
    struct limits_put put = {.out = out, .of = "site"};

    if (site->provider != NULL) {
        json_text(out, "provider", str_of(site->provider->name));
        json_text(out, "exchangers_name", str_of(site->exchangers_name));
    }
    buf_puts(out, "\"limits\":[");
    if (site_is_limited(site))
        config_limits_visit(site->config, site->dest, put_limit, &put);
    put.of = "provider";
    if (site->provider != NULL)
        config_limits_visit(site->config, &site->provider->dest, put_limit, &put);
    put.of = "tenant";
    if (shares != NULL && shares->tenant != NULL)
        config_share_limits_visit(site->config, shares->tenant->share, shares->tenant->at,
                                  put_limit, &put);
    put.of = "campaign";
    if (shares != NULL && shares->campaign != NULL)
        config_share_limits_visit(site->config, shares->campaign->share, shares->campaign->at,
                                  put_limit, &put);
    json_end_list(out);
}

void backend_put_provider(const struct config *c, const struct config_provider *p, struct buf *out)
{
    struct limits_put put = {.out = out, .of = "provider"};

    json_text(out, "provider", str_of(p->name));
    buf_puts(out, "\"limits\":[");
    config_limits_visit(c, &p->dest, put_limit, &put);
    json_end_list(out);
}

/* --- the list --- */

static struct seen *seen_get(struct sites_walk *walk, const struct site *site)
{
    uint64_t hash = hash_bytes(site->name, strlen(site->name), HASH_SEED);
    struct seen *s;

    ASSERT(walk->names.count <= SITES_MAX);
    for (struct map_node *n = map_find(&walk->names, hash); n != NULL; n = map_find_next(n)) {
        s = CONTAINER_OF(n, struct seen, node);
        if (strcmp(s->name, site->name) == 0)
            return s;
    }
    if (walk->names.count >= SITES_MAX)
        return &walk->others;
    s = calloc(1, sizeof(*s));
    ASSERT(s != NULL);
    s->name = strdup(site->name);
    ASSERT(s->name != NULL);
    s->provider = site->provider != NULL;
    backend_put_limits(site, NULL, &s->limits);
    map_insert(&walk->names, &s->node, hash);
    return s;
}

/* A domain whose mail goes to site. */
static struct str domain_of(const struct site *site)
{
    for (struct list_node *n = list_first(&site->supplies); n != NULL;
         n = list_next(&site->supplies, n)) {
        const struct supply *supply = LIST_ENTRY(n, struct supply, site_node);
        const struct list *const lanes[] = {&supply->attached, &supply->shut, &supply->waking};

        for (size_t i = 0; i < ARRAY_LEN(lanes); i++)
            if (list_first(lanes[i]) != NULL)
                return lane_domain(LIST_ENTRY(list_first(lanes[i]), struct lane, site_node));
    }
    return STR("");
}

/* Whether it is asked for: by its name, or as one of a provider's sets of exchangers. */
static bool is_asked(const struct sites_walk *walk, const struct site *site)
{
    struct str name = str_of(walk->job->suspension.name);

    return name.len == 0 || str_eq_nocase(str_of(site->name), name) ||
           str_eq_nocase(str_of(site->exchangers_name), name);
}

static void see(struct sites_walk *walk, const struct site *site)
{
    struct seen *s;

    if (!is_asked(walk, site))
        return;
    s = seen_get(walk, site);
    if (s->domain.len == 0 && s != &walk->others)
        buf_put_str(&s->domain, domain_of(site));

    s->queues += site->lanes;
    s->sets++;
    s->sessions += site->sessions_len;
    for (struct list_node *n = list_first(&site->supplies); n != NULL;
         n = list_next(&site->supplies, n))
        s->waiting += LIST_ENTRY(n, struct supply, site_node)->waiting;
}

static int by_waiting(const void *a, const void *b)
{
    const struct seen *x = *(struct seen *const *)a, *y = *(struct seen *const *)b;

    if (x->waiting != y->waiting)
        return x->waiting > y->waiting ? -1 : 1;
    if (x->sessions != y->sessions)
        return x->sessions > y->sessions ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void seen_add(struct seen *to, const struct seen *s)
{
    to->queues += s->queues;
    to->waiting += s->waiting;
    to->sessions += s->sessions;
    to->sets += s->sets;
}

static void put_seen(const struct seen *s, struct buf *out)
{
    buf_puts(out, "{\"site\":{");
    json_text(out, "name", str_of(s->name));
    if (s->domain.len > 0)
        json_text(out, "domain", buf_str(&s->domain));
    json_bool(out, "is_provider", s->provider);
    json_number(out, "queues", s->queues);
    json_number(out, "waiting", (int64_t)s->waiting);
    json_number(out, "sessions", s->sessions);
    buf_put_str(out, buf_str(&s->limits));
    json_end(out);
    buf_puts(out, "}\n");
}

static void walk_end(struct sites_walk *walk)
{
    struct seen **all = calloc(walk->names.count + 1, sizeof(struct seen *));
    struct control_job *job = walk->job;
    size_t len = 0, bucket = 0;
    struct map_node *n;

    ASSERT(all != NULL);
    while ((n = map_walk(&walk->names, &bucket, NULL)) != NULL) {
        all[len++] = CONTAINER_OF(n, struct seen, node);
        map_remove(&walk->names, n);
    }
    ASSERT(walk->names.count == 0);
    qsort(all, len, sizeof(struct seen *), by_waiting);
    for (size_t i = 0; i < len; i++) {
        if (i < job->sites_max)
            put_seen(all[i], &job->memory);
        else
            seen_add(&walk->others, all[i]);
        buf_done(&all[i]->limits);
        buf_done(&all[i]->domain);
        free(all[i]->name);
        free(all[i]);
    }
    free(all);
    if (walk->others.sets > 0) {
        walk->others.name = "(others)";
        put_seen(&walk->others, &job->memory);
    }
    map_done(&walk->names);
    free(walk);
    control_job_done(job, 0);
}

static void on_walk(struct worker *w, struct worker_note *note)
{
    struct sites_walk *walk = CONTAINER_OF(note, struct sites_walk, note);

    ASSERT(walk->worker == w->index);
    /* Whole buckets, none twice. */
    for (uint32_t done = 0; done < SLICE_SITES && walk->bucket < map_buckets(&w->sites);
         done++, walk->bucket++)
        for (struct map_node *n = map_bucket(&w->sites, walk->bucket); n != NULL; n = n->next) {
            see(walk, CONTAINER_OF(n, struct site, node));
            done++;
        }
    if (walk->bucket >= map_buckets(&w->sites)) {
        walk->worker++;
        walk->bucket = 0;
    }
    if (walk->worker < w->shared->workers_len)
        worker_send(w->shared, walk->worker, &walk->note); /* to itself: in its next turn */
    else
        walk_end(walk);
}

void backend_sites(struct shared *all, struct control_job *job)
{
    struct sites_walk *walk = calloc(1, sizeof(*walk));

    if (walk == NULL || map_init(&walk->names, 256) < 0) {
        free(walk);
        control_job_done(job, -ENOMEM);
        return;
    }
    walk->job = job;
    walk->note.run = on_walk;
    worker_post(all, NULL, 0, &walk->note);
}
