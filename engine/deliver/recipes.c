#include "deliver/recipes.h"

#include <errno.h>
#include <stdlib.h>

#include "deliver/render.h"
#include "worker/shared.h"

#define AT_ONCE_STEPS 20000 /* of templates, in a worker's turn: a millisecond */
#define AT_ONCE_BYTES (512u << 10)
#define LETTER_BYTES  4096 /* the first of a recipe, about */
/* What a letter takes of a turn, in steps of templates (50 ns): beside those of its own. */
#define LETTER_UNITS   80
#define BYTES_PER_UNIT 64
#define READ_ERROR     (-EPROTO)

struct recipe_entry {
    struct map_node node;       /* worker->recipes.entries, by id */
    struct list_node used_node; /* worker->recipes.unused, while nobody uses it */
    struct msgid id;
    struct crew_task task;   /* its reading */
    struct message *message; /* a reference, while it is read */
    struct list waits;       /* struct recipe_wait, until it is read */
    struct recipe *recipe;   /* NULL: it is not read, or cannot be */
    struct json_mistake mistake;
    bool heavy;            /* the crew makes its letters */
    uint32_t users;        /* jobs, and its own reading */
    uint64_t bytes;        /* that it takes */
    uint64_t letter_bytes; /* of the longest so far */
};

/* A letter that the crew makes. */
struct recipe_job {
    struct crew_task task;
    struct recipe_entry *entry;
    struct recipe_wait *wait; /* NULL: nobody wants it any more */
    struct message *message;  /* a reference */
    struct config *config;    /* a reference */
    struct suppressions *list;
    struct render_order order;
    struct message *letter;
    int result;
    struct buf why;
    char strings[]; /* of order */
};

/* --- what is kept --- */

static uint64_t hash_of(const struct worker *w, const struct msgid *id)
{
    return hash_bytes(id, sizeof(*id), w->hash_seed);
}

static struct recipe_entry *entry_find(struct worker *w, const struct msgid *id)
{
    struct map_node *n = map_find(&w->recipes.entries, hash_of(w, id));

    for (; n != NULL; n = map_find_next(n)) {
        struct recipe_entry *e = CONTAINER_OF(n, struct recipe_entry, node);

        if (memcmp(&e->id, id, sizeof(*id)) == 0)
            return e;
    }
    return NULL;
}

static void entry_free(struct worker *w, struct recipe_entry *e)
{
    ASSERT(e->users == 0 && e->message == NULL && list_empty(&e->waits));
    ASSERT(w->recipes.unused_len > 0 && w->recipes.unused_bytes >= e->bytes);
    list_remove(&e->used_node);
    map_remove(&w->recipes.entries, &e->node);
    w->recipes.unused_len--;
    w->recipes.unused_bytes -= e->bytes;
    recipe_free(e->recipe);
    free(e);
}

static void entry_use(struct worker *w, struct recipe_entry *e)
{
    if (e->users++ > 0)
        return;
    ASSERT(w->recipes.unused_len > 0 && w->recipes.unused_bytes >= e->bytes);
    list_remove(&e->used_node);
    w->recipes.unused_len--;
    w->recipes.unused_bytes -= e->bytes;
}

static void entry_unuse(struct worker *w, struct recipe_entry *e)
{
    ASSERT(e->users > 0);
    if (--e->users > 0)
        return;
    list_push_back(&w->recipes.unused, &e->used_node);
    w->recipes.unused_len++;
    w->recipes.unused_bytes += e->bytes;
    /* The last one stays, whatever its size: it is in use. */
    while (w->recipes.unused_len > 1 &&
           (w->recipes.unused_len > RECIPES_MAX || w->recipes.unused_bytes > RECIPES_BYTES_MAX))
        entry_free(w, LIST_ENTRY(list_first(&w->recipes.unused), struct recipe_entry, used_node));
}

/* --- the crew --- */

static void task_submit(struct worker *w, struct crew_task *task, void (*run)(struct crew_job *job),
                        void (*done)(struct crew_job *job))
{
    task->job = (struct crew_job){.run = run, .done = done};
    crew_share_submit(&w->recipes.share, task);
}

/* --- reading --- */

static void on_read(struct crew_job *job)
{
    struct recipe_entry *e = CONTAINER_OF(job, struct recipe_entry, task.job);
    struct str text = {(const char *)e->message->content, e->message->content_len};

    if (recipe_parse(text, &e->recipe, &e->mistake) < 0)
        e->recipe = NULL;
}

static void on_read_done(struct crew_job *job)
{
    struct recipe_entry *e = CONTAINER_OF(job, struct recipe_entry, task.job);
    struct worker *w = e->task.share->worker;
    struct list_node *n;

    message_unref(e->message);
    e->message = NULL;
    e->bytes = sizeof(*e) + (e->recipe == NULL ? 0 : recipe_bytes(e->recipe));
    e->heavy = e->recipe != NULL && !recipe_is_light(e->recipe);
    while ((n = list_pop_front(&e->waits)) != NULL) {
        struct recipe_wait *wait = LIST_ENTRY(n, struct recipe_wait, node);

        ASSERT(wait->entry == e && wait->job == NULL && !wait->made);
        wait->entry = NULL;
        wait->on_ready(wait);
    }
    entry_unuse(w, e);
    crew_share_ended(&w->recipes.share);
}

static struct recipe_entry *entry_new(struct worker *w, struct message *m)
{
    struct recipe_entry *e = calloc(1, sizeof(*e));

    ASSERT(e != NULL);
    e->id = m->id;
    e->message = message_ref(m);
    e->letter_bytes = LETTER_BYTES;
    e->users = 1;
    list_init(&e->waits);
    map_insert(&w->recipes.entries, &e->node, hash_of(w, &m->id));
    task_submit(w, &e->task, on_read, on_read_done);
    return e;
}

/* --- letters --- */

static struct render_order order_of(const struct worker *w, const struct recipe_entry *e,
                                    const struct recipient *r)
{
    uint64_t most = w->config->http.message_bytes_max;

    return (struct render_order){
        .recipe = e->recipe,
        .message = r->message,
        .config = w->config,
        .address = r->address,
        .variables = r->variables,
        .index = r->index,
        .budget = {most < AT_ONCE_BYTES ? most : AT_ONCE_BYTES, AT_ONCE_STEPS},
        .bytes = e->letter_bytes};
}

static void note_length(struct recipe_entry *e, const struct message *letter)
{
    if (letter != NULL && letter->content_len > e->letter_bytes)
        e->letter_bytes = letter->content_len;
}

static void on_make(struct crew_job *job)
{
    struct recipe_job *j = CONTAINER_OF(job, struct recipe_job, task.job);

    struct suppression held_by;
    int held = suppressions_hold(j->list, j->message->tenant, j->order.address, true, &held_by);

    if (held > 0) {
        suppression_put_why(&j->why, &held_by);
        j->result = RECIPES_SUPPRESSED;
    } else if (held < 0) {
        buf_puts(&j->why, "the suppression list cannot be read");
        j->result = held;
    } else {
        j->result = render_letter(&j->order, &j->letter, &j->why);
    }
}

static void job_free(struct worker *w, struct recipe_job *j)
{
    entry_unuse(w, j->entry);
    message_unref(j->message);
    config_unref(j->config);
    message_unref(j->letter);
    buf_done(&j->why);
    free(j);
}

static void on_made(struct crew_job *job)
{
    struct recipe_job *j = CONTAINER_OF(job, struct recipe_job, task.job);
    struct worker *w = j->task.share->worker;
    struct recipe_wait *wait = j->wait;

    ASSERT((j->result == 0) == (j->letter != NULL));
    note_length(j->entry, j->letter);
    if (wait != NULL) {
        ASSERT(wait->job == j && wait->letter == NULL);
        wait->job = NULL;
        wait->made = true;
        wait->letter = j->letter;
        wait->result = j->result;
        wait->why = j->why;
        j->letter = NULL;
        j->why = (struct buf){0};
        wait->on_ready(wait);
    }
    job_free(w, j);
    crew_share_ended(&w->recipes.share);
}

static void make_by_crew(struct worker *w, struct recipe_entry *e, const struct recipient *r,
                         struct recipe_wait *wait)
{
    struct recipe_job *j = calloc(1, sizeof(*j) + r->address.len + r->variables.len);

    ASSERT(j != NULL && e->recipe != NULL && wait->job == NULL);
    j->entry = e;
    j->wait = wait;
    j->message = message_ref(r->message);
    j->config = config_ref(w->config);
    j->list = &w->shared->suppressions;
    j->order = order_of(w, e, r);
    j->order.budget = (struct template_budget){w->config->http.message_bytes_max, RENDER_STEPS_MAX};
    memcpy(j->strings, r->address.ptr, r->address.len);
    if (r->variables.len > 0)
        memcpy(j->strings + r->address.len, r->variables.ptr, r->variables.len);
    j->order.address.ptr = j->strings;
    j->order.variables.ptr = j->strings + r->address.len;
    wait->job = j;
    entry_use(w, e);
    task_submit(w, &j->task, on_make, on_made);
}

static void spend_turn(struct worker *w, const struct render_order *order,
                       const struct message *letter)
{
    uint64_t units = LETTER_UNITS + AT_ONCE_STEPS - order->budget.steps;

    if (letter != NULL)
        units += letter->content_len / BYTES_PER_UNIT;
    w->recipes.turn_left -= units < w->recipes.turn_left ? units : w->recipes.turn_left;
}

/* False: it takes longer than a turn may. */
static bool make_at_once(struct worker *w, struct recipe_entry *e, const struct recipient *r,
                         struct recipe_wait *wait)
{
    struct render_order order = order_of(w, e, r);

    wait->result = render_letter(&order, &wait->letter, &wait->why);
    spend_turn(w, &order, wait->letter);
    if (wait->result != -E2BIG) {
        note_length(e, wait->letter);
        return true;
    }
    e->heavy = true;
    buf_done(&wait->why);
    return false;
}

/* Whether this letter is for a later turn. Who comes now does not pass those that wait. */
static bool must_wait(struct worker *w, struct recipe_wait *wait)
{
    if (wait->granted || (w->recipes.turn_left > 0 && list_empty(&w->recipes.later))) {
        wait->granted = false;
        return false;
    }
    list_push_back(&w->recipes.later, &wait->node);
    return true;
}

void recipes_turn(struct worker *w)
{
    w->recipes.turn_left = RECIPE_TURN_UNITS;
}

bool recipes_grant(struct worker *w)
{
    struct list_node *n = w->recipes.turn_left == 0 ? NULL : list_pop_front(&w->recipes.later);
    struct recipe_wait *wait;

    if (n == NULL)
        return false;
    wait = LIST_ENTRY(n, struct recipe_wait, node);
    wait->granted = true;
    wait->on_ready(wait);
    return true;
}

bool recipes_letter(struct worker *w, const struct recipient *r, struct recipe_wait *wait)
{
    struct recipe_entry *e;
    bool by_crew;

    ASSERT(wait->job == NULL && wait->entry == NULL && r->message->recipe == NULL);
    if (wait->made)
        return true;
    e = entry_find(w, &r->message->id);
    if (e == NULL)
        e = entry_new(w, r->message);
    if (e->message != NULL) {
        wait->entry = e;
        list_push_back(&e->waits, &wait->node);
        return false;
    }
    if (e->recipe == NULL) {
        wait->result = READ_ERROR;
        buf_printf(&wait->why, "its recipe cannot be read: %s: %s", e->mistake.field,
                   e->mistake.text);
        return true;
    }
    /* The crew looks into the list: the store may have to be read from the disk. */
    by_crew = e->heavy || suppressions_may_have(&w->shared->suppressions, r->address);
    if (!by_crew && must_wait(w, wait))
        return false;
    entry_use(w, e);
    if (!by_crew && make_at_once(w, e, r, wait)) {
        entry_unuse(w, e);
        return true;
    }
    make_by_crew(w, e, r, wait);
    entry_unuse(w, e);
    return false;
}

/* What nobody wants any more, and the crew does not have yet, is not made. A recipe is read all the
 * same: others will want it. */
void recipes_leave(struct recipe_wait *wait)
{
    struct recipe_job *j = wait->job;

    if (list_node_linked(&wait->node))
        list_remove(&wait->node);
    wait->granted = false;
    wait->entry = NULL;
    wait->job = NULL;
    if (j == NULL)
        return;
    j->wait = NULL;
    if (crew_share_take_back(&j->task))
        job_free(j->task.share->worker, j);
}

/* --- the worker's --- */

void recipes_init(struct worker *w)
{
    int err;

    crew_share_init(&w->recipes.share, w, RECIPE_JOBS_MAX);
    list_init(&w->recipes.later);
    recipes_turn(w);
    list_init(&w->recipes.unused);
    err = map_init(&w->recipes.entries, 16);
    ASSERT(err == 0); /* as in buf_*: memory is fatal */
}

void recipes_done(struct worker *w)
{
    struct list_node *n;

    ASSERT(!recipes_pending(w) && list_empty(&w->recipes.later));
    while ((n = list_first(&w->recipes.unused)) != NULL)
        entry_free(w, LIST_ENTRY(n, struct recipe_entry, used_node));
    ASSERT(w->recipes.entries.count == 0);
    map_done(&w->recipes.entries);
}

bool recipes_pending(const struct worker *w)
{
    return crew_share_pending(&w->recipes.share);
}
