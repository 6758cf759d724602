/* What base_bench.cc measures: C, since the headers of base and io are. Each call does the work
 * once; set-up happens on the first call. */
#ifndef HAYAUMA_BENCH_BASE_CASES_H
#define HAYAUMA_BENCH_BASE_CASES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Timers handled. 100,000 timers are armed, as of that many sessions. */
size_t wheel_case_rearm(void);   /* one timer pushed out again: what every reply does */
size_t wheel_case_advance(void); /* one millisecond; what runs arms itself again */

/* Bytes handled. */
size_t crc_case_64(void);
size_t crc_case_4k(void);
size_t crc_case_64k(void);
size_t hash_case_16(void);
size_t hash_case_64(void);
size_t json_case_ascii_1k(void);
size_t json_case_japanese_1k(void);
size_t json_case_controls_1k(void);

/* Objects handled. */
size_t pool_case_cycle(void); /* get and put one of 512 bytes */
size_t msgid_case_next(void);
size_t date_case_rfc5322(void);

/* Calls made. */
size_t io_case_turn(void);       /* a turn that finds nothing: one io_uring_enter() */
size_t io_case_wake_awake(void); /* io_wake() of somebody who is awake */

#ifdef __cplusplus
}
#endif

#endif
