#include "worker/crew_share.h"

#include "worker/shared.h"
#include "worker/worker.h"

#define FULL_RETRY_MS 20 /* until a crew that had no room is asked again */

static void submit_waiting(struct crew_share *s)
{
    struct io *io = s->worker->io;
    struct list_node *n;

    ASSERT(s->with_crew <= s->max);
    while (s->with_crew < s->max && (n = list_first(&s->waiting)) != NULL) {
        struct crew_task *t = LIST_ENTRY(n, struct crew_task, node);

        list_remove(&t->node); /* before the crew has it: a simulation's runs it at once */
        s->with_crew++;
        if (crew_submit(s->worker->shared->crew, &t->job))
            continue;
        s->with_crew--;
        list_push_front(&s->waiting, &t->node);
        if (!timer_armed(&s->timer))
            wheel_arm(io_wheel(io), &s->timer, io_now_ms(io) + FULL_RETRY_MS);
        return;
    }
}

static void on_timer(struct timer *timer)
{
    submit_waiting(CONTAINER_OF(timer, struct crew_share, timer));
}

void crew_share_init(struct crew_share *s, struct worker *w, uint32_t max)
{
    ASSERT(max > 0);
    *s = (struct crew_share){.worker = w, .max = max, .timer = {.on_timer = on_timer}};
    list_init(&s->waiting);
}

void crew_share_submit(struct crew_share *s, struct crew_task *t)
{
    ASSERT(!list_node_linked(&t->node));
    t->share = s;
    t->job.desk = &s->worker->desk;
    list_push_back(&s->waiting, &t->node);
    submit_waiting(s);
}

void crew_share_ended(struct crew_share *s)
{
    ASSERT(s->with_crew > 0);
    s->with_crew--;
    submit_waiting(s);
}

bool crew_share_take_back(struct crew_task *t)
{
    if (!list_node_linked(&t->node))
        return false;
    list_remove(&t->node);
    return true;
}
