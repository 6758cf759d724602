#include "tests/sim/ledger.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "smtp/server.h"
#include "tests/sim/crowd.h"
#include "tests/sim/season.h"
#include "worker/worker.h"

/* What a rate may lag behind on its way to a receiver that is swift. */
#define RATE_SLACK_NS (3 * SIM_S)

static struct {
    struct map rcpts;
    struct list messages;
    struct use {
        uint32_t sessions;
        uint64_t due_ns;                             /* of the next message, by the rate */
    } sites[WORLD_SITES_MAX][WORLD_SOURCES_MAX + 1]; /* by source; the last: of all */
    bool reloaded;
} ledger = {.messages = {{&ledger.messages.head, &ledger.messages.head}}};

/* --- entries --- */

uint64_t ledger_hash(const void *bytes, size_t len)
{
    return hash_bytes(bytes, len, 1);
}

struct ledger_message *ledger_message(uint32_t number)
{
    struct ledger_message *m = calloc(1, sizeof(*m));

    ASSERT(m != NULL);
    m->number = number;
    list_push_back(&ledger.messages, &m->node);
    return m;
}

struct ledger_rcpt *ledger_find(struct str key)
{
    for (struct map_node *n = ledger.rcpts.buckets == NULL
                                  ? NULL
                                  : map_find(&ledger.rcpts, ledger_hash(key.ptr, key.len));
         n != NULL; n = map_find_next(n)) {
        struct ledger_rcpt *r = CONTAINER_OF(n, struct ledger_rcpt, map);

        if (str_eq(str_of(r->key), key))
            return r;
    }
    return NULL;
}

static struct ledger_rcpt *rcpt_new(struct str key)
{
    struct ledger_rcpt *r = calloc(1, sizeof(*r) + key.len + 1);

    ASSERT(r != NULL);
    if (ledger.rcpts.buckets == NULL)
        ASSERT(map_init(&ledger.rcpts, 1024) == 0);
    memcpy(r->key, key.ptr, key.len);
    list_init(&r->acceptances);
    map_insert(&ledger.rcpts, &r->map, ledger_hash(key.ptr, key.len));
    return r;
}

struct ledger_rcpt *ledger_rcpt(struct ledger_message *m, const char *address, uint32_t domain)
{
    struct ledger_rcpt *r = rcpt_new(str_of(address));

    r->message = m;
    r->domain = domain;
    return r;
}

struct ledger_rcpt *ledger_notice(struct str id)
{
    struct ledger_rcpt *r = ledger_find(id);

    return r != NULL ? r : rcpt_new(id);
}

/* --- what receivers took --- */

void ledger_stored(uint32_t shard, const struct queue_change *change)
{
    for (size_t i = 0; i < change->rows_len; i++) {
        struct ledger_rcpt *r = change->rows[i].kind == QUEUE_ROW_ADD
                                    ? ledger_find(change->rows[i].rcpt->address)
                                    : NULL;

        if (r != NULL)
            r->shard = shard;
    }
}

void ledger_taken(struct ledger_rcpt *r, struct list *session, uint64_t offset)
{
    struct ledger_acceptance *a = calloc(1, sizeof(*a));

    ASSERT(a != NULL);
    a->offset = offset;
    r->taken++;
    list_push_back(&r->acceptances, &a->node);
    list_push_back(session, &a->session_node);
    sim_trace("taken %s", r->key);
    crowd_taken(r);
}

void ledger_seen(struct list *session, uint64_t offset)
{
    struct list_node *n;

    while ((n = list_first(session)) != NULL) {
        struct ledger_acceptance *a = LIST_ENTRY(n, struct ledger_acceptance, session_node);

        if (a->offset > offset)
            return;
        list_remove(n);
        a->answered_ns = sim_now_ns();
    }
}

void ledger_crashed(uint64_t from_ns)
{
    struct map_node *n = NULL;
    size_t bucket = 0;

    for (int i = 0; i < WORLD_SITES_MAX; i++)
        for (int j = 0; j <= WORLD_SOURCES_MAX; j++)
            ledger.sites[i][j].due_ns = 0; /* the new process starts its rates anew */
    while (ledger.rcpts.buckets != NULL && (n = map_walk(&ledger.rcpts, &bucket, n)) != NULL) {
        struct ledger_rcpt *r = CONTAINER_OF(n, struct ledger_rcpt, map);

        for (struct list_node *a = list_first(&r->acceptances); a != NULL;
             a = list_next(&r->acceptances, a)) {
            struct ledger_acceptance *acceptance = LIST_ENTRY(a, struct ledger_acceptance, node);

            if (acceptance->answered_ns >= from_ns)
                acceptance->excused = true;
        }
    }
}

/* --- limits --- */

void ledger_reloaded(void)
{
    ledger.reloaded = true;
}

static void count_session(struct use *use, const uint32_t limits[2], bool opened, const char *site,
                          uint32_t source)
{
    uint32_t max = limits[0];

    /* A lower limit of a reload lets what is open end by itself; 0 is none. */
    if (ledger.reloaded && (limits[1] > max || limits[1] == 0))
        max = limits[1];
    if (limits[0] == 0)
        max = 0;
    if (!opened) {
        use->sessions--;
        return;
    }
    use->sessions++;
    sim_trace("connect %s source %u: %u", site, source, use->sessions);
    if (max != 0 && use->sessions > max)
        sim_fail("limits", "site %s has %u sessions from source %u, %u are allowed", site,
                 use->sessions, source, max);
}

void ledger_session(const struct sockaddr *from, const struct sockaddr *to, bool opened)
{
    uint32_t index = world_host_at(to)->site, source = world_source_at(from);
    const struct world_site *s = &world.sites[index];

    if (opened && world.sources_len > 0 && !world_source_here(source))
        sim_fail("sources", "source %u connects, and its address is gone", source);
    count_session(&ledger.sites[index][source], s->sessions_max, opened, s->name, source);
    count_session(&ledger.sites[index][WORLD_SOURCES_MAX], s->total_sessions_max, opened, s->name,
                  WORLD_SOURCES_MAX);
}

static void count_mail(struct use *use, const uint32_t intervals_ms[2], const char *site,
                       uint32_t source)
{
    uint64_t interval_ns = intervals_ms[0] * SIM_MS, now_ns = sim_now_ns();

    if (ledger.reloaded && intervals_ms[1] * SIM_MS < interval_ns)
        interval_ns = intervals_ms[1] * SIM_MS;
    if (interval_ns == 0)
        return;
    if (now_ns + RATE_SLACK_NS + world.stall_ns < use->due_ns)
        sim_fail("limits", "site %s gets messages of source %u faster than one in %u ms", site,
                 source, intervals_ms[0]);
    use->due_ns = (use->due_ns > now_ns ? use->due_ns : now_ns) + interval_ns;
}

void ledger_mail(const struct sockaddr *from, const struct world_host *host)
{
    const struct world_site *s = &world.sites[host->site];
    uint32_t source = world_source_at(from);

    count_mail(&ledger.sites[host->site][source], s->interval_ms, s->name, source);
    count_mail(&ledger.sites[host->site][WORLD_SOURCES_MAX], s->total_interval_ms, s->name,
               WORLD_SOURCES_MAX);
}

/* --- the engine's records --- */

static const struct {
    const char *type;
    enum ledger_final final;
} finals[] = {{"Delivery", FINAL_DELIVERY},
              {"Bounce", FINAL_BOUNCE},
              {"Expiration", FINAL_EXPIRATION},
              {"AdminBounce", FINAL_CANCELLED}};

static void rcpt_final(struct ledger_rcpt *r, enum ledger_final final)
{
    if (r->finals++ > 0)
        sim_fail("one outcome", "%s has two final records", r->key);
    r->final = final;
}

static void record_final(const json_t *json, enum ledger_final final)
{
    const char *recipient = json_string_value(json_object_get(json, "recipient"));
    const char *id = json_string_value(json_object_get(json, "id"));
    struct ledger_rcpt *r = ledger_find(str_of(recipient));

    if (r == NULL) { /* a notice, to the sender s<number>@... */
        uint32_t number = (uint32_t)strtoul(recipient + 1, NULL, 10);

        if (recipient[0] != 's')
            sim_fail("records", "a record of somebody unknown: %s", recipient);
        for (struct list_node *n = list_first(&ledger.messages); n != NULL;
             n = list_next(&ledger.messages, n)) {
            struct ledger_message *m = LIST_ENTRY(n, struct ledger_message, node);

            m->notices += m->number == number;
        }
        r = ledger_notice(str_of(id));
    }
    rcpt_final(r, final);
}

/* In worlds of some 300,000 recipients nearly all records are of two types. To parse them took an
 * eighth of the time; other worlds do. */
static bool record_is_plain(const char *line)
{
    static const char reception[] = "{\"type\":\"Reception\"",
                      delivery[] = "{\"type\":\"Delivery\"", recipient[] = "\"recipient\":\"";
    struct ledger_rcpt *r;
    const char *at;

    if (strncmp(line, reception, sizeof(reception) - 1) == 0)
        return true; /* no news */
    if (strncmp(line, delivery, sizeof(delivery) - 1) != 0 ||
        (at = strstr(line, recipient)) == NULL)
        return false;
    at += sizeof(recipient) - 1;
    r = ledger_find((struct str){at, strcspn(at, "\"")});
    if (r != NULL)
        rcpt_final(r, FINAL_DELIVERY);
    return r != NULL;
}

static void record_line(const char *line, size_t len)
{
    json_t *json;
    const char *type;

    if (world_warmup && record_is_plain(line))
        return;
    json = json_loadb(line, len, 0, NULL);
    type = json_string_value(json_object_get(json, "type"));

    if (json == NULL || type == NULL)
        sim_fail("records", "a line is broken: %.*s", (int)len, line);
    for (size_t i = 0; i < ARRAY_LEN(finals); i++)
        if (strcmp(type, finals[i].type) == 0)
            record_final(json, finals[i].final);
    if (world_season && strcmp(type, "Warmup") == 0)
        season_record(json);
    json_decref(json);
}

static void records_read(const char *dir)
{
    DIR *d = opendir(dir);
    char *line = NULL, path[512];
    size_t cap = 0;
    ssize_t len;

    ASSERT(d != NULL);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        FILE *f;

        if (strstr(entry->d_name, ".jsonl") == NULL)
            continue;
        snprintf(path, sizeof(path), "%s/%.255s", dir, entry->d_name);
        f = fopen(path, "r");
        ASSERT(f != NULL);
        while ((len = getline(&line, &cap, f)) > 0)
            record_line(line, (size_t)len);
        fclose(f);
    }
    free(line);
    closedir(d);
}

/* --- the comparison --- */

static void check_acceptances(struct ledger_rcpt *r, struct ledger_totals *totals)
{
    uint32_t allowed = r->final == FINAL_DELIVERY ? 1 : 0;
    struct list_node *n;

    while ((n = list_pop_front(&r->acceptances)) != NULL) {
        struct ledger_acceptance *a = LIST_ENTRY(n, struct ledger_acceptance, node);

        r->unexcused += a->answered_ns != 0 && !a->excused;
        free(a);
    }
    if (r->unexcused > allowed)
        sim_fail("duplicates", "%s was taken %u times, %u of them without excuse (final %d)",
                 r->key, r->taken, r->unexcused, r->final);
    totals->duplicates += r->taken > 1 ? r->taken - 1 : 0;
}

static void check_bounce(const struct ledger_rcpt *r)
{
    const struct world_domain *d = &world.domains[r->domain];

    if (r->final == FINAL_BOUNCE &&
        (d->kind == ZONE_MX || d->kind == ZONE_IMPLICIT || d->kind == ZONE_ROUTED) &&
        world.sites[d->site].kind && world.sites[d->site_later].kind)
        sim_fail("outcomes", "%s bounced, and nobody refused it", r->key);
}

static void check_rcpt(struct ledger_rcpt *r, struct ledger_totals *totals)
{
    check_acceptances(r, totals);
    if (r->finals == 0 && r->acked)
        sim_fail("nothing lost", "%s was acknowledged and has no final record", r->key);
    if (r->finals == 0 && r->taken > 0)
        sim_fail("one outcome", "%s was taken and has no final record", r->key);
    if (r->final == FINAL_DELIVERY && r->taken == 0)
        sim_fail("nothing lost", "%s is delivered on record, and nobody took it", r->key);
    if (r->message == NULL) {
        totals->notices++;
        return;
    }
    if (r->refused && r->finals > 0)
        sim_fail("one outcome", "%s was refused at the door and has a final record", r->key);
    check_bounce(r);
    totals->rcpts++;
    totals->acked += r->acked;
    totals->delivered += r->final == FINAL_DELIVERY;
    totals->bounced += r->final == FINAL_BOUNCE;
    totals->expired += r->final == FINAL_EXPIRATION;
    totals->cancelled += r->final == FINAL_CANCELLED;
    if ((r->final == FINAL_BOUNCE || r->final == FINAL_EXPIRATION) && !r->message->null_sender &&
        (r->notify == 0 || (r->notify & SMTP_NOTIFY_FAILURE) != 0))
        r->message->owed++;
}

void ledger_check(const char *records_dir, struct ledger_totals *out)
{
    struct map_node *n;
    struct list_node *l;
    size_t bucket = 0;

    memset(out, 0, sizeof(*out));
    records_read(records_dir);
    while (ledger.rcpts.buckets != NULL && (n = map_walk(&ledger.rcpts, &bucket, NULL)) != NULL) {
        struct ledger_rcpt *r = CONTAINER_OF(n, struct ledger_rcpt, map);

        check_rcpt(r, out);
        map_remove(&ledger.rcpts, n);
        free(r);
    }
    map_done(&ledger.rcpts);
    while ((l = list_pop_front(&ledger.messages)) != NULL) {
        struct ledger_message *m = LIST_ENTRY(l, struct ledger_message, node);

        if (m->owed > 0 && m->notices == 0)
            sim_fail("notices", "message %u has %u failed recipients, and its sender got no notice",
                     m->number, m->owed);
        out->messages++;
        free(m);
    }
}
