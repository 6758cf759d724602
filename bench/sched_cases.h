/* What sched_bench.cc measures: a worker's lanes, a site and the governor, without network and
 * store. Each call handles one; set-up happens on the first call. */
#ifndef HAYAUMA_BENCH_SCHED_CASES_H
#define HAYAUMA_BENCH_SCHED_CASES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 1,000 lanes with ten recipients each, of one site. */
size_t site_case_pick(void);  /* the next recipient of the next lane, and back */
size_t lane_case_cycle(void); /* a recipient arrives, another is picked and is settled */

/* 100,000 lanes that wait for their next due time. */
size_t lane_case_find(void);    /* by name */
size_t lane_case_timer(void);   /* looked at and armed again */
size_t lane_case_backoff(void); /* suspended, and woken */

size_t governor_case_session(void); /* taken and given */
size_t governor_case_rate(void);    /* one message's right */

#ifdef __cplusplus
}
#endif

#endif
