#include "deliver/conversion.h"

#include <errno.h>
#include <stdlib.h>

#include "mail/header.h"
#include "outcome/admin.h"
#include "schedule/lane.h"
#include "worker/crew.h"
#include "worker/shared.h"

/* A worker converts a message of up to so many bytes itself. That takes a fifth of a millisecond,
 * or one and a half where the message is nothing but names to look at (each word of a Received
 * field may be one, each domain of an address list): the crew would cost more than that. */
#define AT_ONCE_BYTES (4u << 10)
#define FULL_RETRY_MS 20 /* until a crew that had no room is asked again */

/* A message that the crew converts. */
struct conversion {
    struct list_node node; /* worker->conversions */
    struct crew_job job;
    struct worker *worker;
    struct message *message; /* a reference */
    enum convert what;
    struct list recipients; /* that wait for it, PLACE_FLIGHT */
    struct buf content;
    int result;
    struct timer timer; /* the crew had no room */
};

/* Remembers in m what its conversion gave: a converted copy, or that there can be none. */
static void message_converted(struct message *m, enum convert what, int result, struct buf *content)
{
    struct message fields = *m;

    ASSERT(m->converted[what] == NULL && (m->inconvertible & 1u << what) == 0);
    if (result == -EILSEQ)
        m->inconvertible |= (uint8_t)(1u << what);
    if (result != 0)
        return;
    fields.content = content->data;
    fields.content_block = NULL;
    fields.content_of = NULL;
    fields.body_hash = STR("");
    fields.recipe = NULL; /* a converted letter stays its recipient's */
    fields.content_len = content->len;
    fields.flags &= ~(uint32_t)(MESSAGE_SMTPUTF8 | MESSAGE_8BIT);
    if (what == CONVERT_HEADERS && header_eight_bit(content->data, content->len))
        fields.flags |= MESSAGE_8BIT;
    fields.converted[CONVERT_HEADERS] = fields.converted[CONVERT_ALL] = NULL;
    fields.inconvertible = 0;
    fields.front = NULL;
    fields.signing = NULL;
    m->converted[what] = message_new(&fields);
    ASSERT(m->converted[what] != NULL);
    *content = (struct buf){0};
}

/* r goes back to its lane, with the converted message where there is one. Without memory for it r
 * goes back to the store: it was not tried. */
static void give_back(struct recipient *r, enum convert what, int result)
{
    struct message *m = r->message;

    ASSERT(r->state == PLACE_FLIGHT && (m->converted[what] == NULL || result == 0));
    if (result == -ENOMEM && r->wanted == 0) {
        lane_return(r);
        return;
    }
    if (m->converted[what] != NULL) {
        r->message = message_ref(m->converted[what]);
        message_unref(m);
    } else if (result == -EILSEQ && m->recipe != NULL) {
        /* The letter stays its recipient's, too: one made anew would be converted anew, for ever.
         */
        message_unref(m->recipe);
        m->recipe = NULL;
    }
    admin_put_back(r);
}

static void conversion_end(struct conversion *c)
{
    struct list_node *n;

    while ((n = list_pop_front(&c->recipients)) != NULL)
        give_back(LIST_ENTRY(n, struct recipient, node), c->what, c->result);
    list_remove(&c->node);
    message_unref(c->message);
    buf_done(&c->content);
    free(c);
}

static void on_run(struct crew_job *job)
{
    struct conversion *c = CONTAINER_OF(job, struct conversion, job);

    c->result = convert_message(c->message->content, c->message->content_len, c->what, &c->content);
}

static void on_done(struct crew_job *job)
{
    struct conversion *c = CONTAINER_OF(job, struct conversion, job);

    ASSERT(list_node_linked(&c->node) && !list_empty(&c->recipients) && !timer_armed(&c->timer));
    message_converted(c->message, c->what, c->result, &c->content);
    conversion_end(c);
}

static void conversion_submit(struct conversion *c)
{
    struct io *io = c->worker->io;

    if (c->worker->draining) { /* recipients go back with the message unconverted */
        c->result = -ECANCELED;
        conversion_end(c);
    } else if (!crew_submit(c->worker->shared->crew, &c->job)) {
        wheel_arm(io_wheel(io), &c->timer, io_now_ms(io) + FULL_RETRY_MS);
    }
}

static void on_timer(struct timer *timer)
{
    conversion_submit(CONTAINER_OF(timer, struct conversion, timer));
}

static struct conversion *conversion_find(struct worker *w, const struct message *m,
                                          enum convert what)
{
    struct list_node *n;

    for (n = list_first(&w->conversions); n != NULL; n = list_next(&w->conversions, n)) {
        struct conversion *c = LIST_ENTRY(n, struct conversion, node);

        if (c->message == m && c->what == what)
            return c;
    }
    return NULL;
}

static void conversion_join(struct worker *w, struct recipient *r, enum convert what)
{
    struct conversion *c = conversion_find(w, r->message, what);

    if (c != NULL) {
        list_push_back(&c->recipients, &r->node);
        return;
    }
    c = calloc(1, sizeof(*c));
    ASSERT(c != NULL);
    c->worker = w;
    c->message = message_ref(r->message);
    c->what = what;
    c->job = (struct crew_job){.run = on_run, .done = on_done, .desk = &w->desk};
    c->timer.on_timer = on_timer;
    list_init(&c->recipients);
    list_push_back(&c->recipients, &r->node);
    list_push_back(&w->conversions, &c->node);
    conversion_submit(c);
}

bool conversion_take(struct worker *w, struct recipient *r, enum convert what)
{
    struct message *m = r->message;
    struct buf content = {0};
    int result = 0;

    ASSERT(r->state == PLACE_FLIGHT && (m->flags & MESSAGE_RECIPE) == 0);
    if ((m->inconvertible & 1u << what) != 0)
        return false;
    if (m->converted[what] == NULL && m->content_len > AT_ONCE_BYTES && !w->draining) {
        conversion_join(w, r, what);
        return true;
    }
    if (m->converted[what] == NULL && m->content_len <= AT_ONCE_BYTES) {
        result = convert_message(m->content, m->content_len, what, &content);
        message_converted(m, what, result, &content);
        buf_done(&content);
    }
    if (result == -EILSEQ)
        return false;
    give_back(r, what, result);
    return true;
}
