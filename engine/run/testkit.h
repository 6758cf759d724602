/* For tests of one worker without its threads: what an engine has before its queue is opened.
 * Header only, since each test is a program of its own. */
#ifndef HAYAUMA_ENGINE_RUN_TESTKIT_H
#define HAYAUMA_ENGINE_RUN_TESTKIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "run/engine.h"
#include "run/turn.h"

static inline void kit_wake_nobody(void *arg)
{
    (void)arg;
}

/* Opens the one worker of e, which is zeroed but for its config. */
static inline struct worker *kit_worker_open(struct engine *e)
{
    struct buf errors = {0};

    assert_int_equal(trust_load(&e->trust, e->config, NULL, &errors), 0);
    assert_int_equal(governor_open(&e->shared.governor), 0);
    assert_int_equal(sources_init(&e->shared.sources), 0);
    assert_int_equal(clients_init(&e->shared.clients), 0);
    assert_int_equal(logins_init(&e->shared.logins), 0);
    assert_int_equal(crew_open(&e->shared.crew, 0, CREW_JOBS_PER_WORKER), 0);
    e->shared.workers_len = 1;
    e->shared.sessions_out_max = 100;
    e->shared.workers = aligned_alloc(CACHE_LINE_BYTES, sizeof(*e->shared.workers));
    assert_non_null(e->shared.workers);
    memset(e->shared.workers, 0, sizeof(*e->shared.workers));
    assert_int_equal(worker_open(&e->shared.workers[0], e, 0), 0);
    return &e->shared.workers[0];
}

#endif
