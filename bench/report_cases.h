/* What report_bench.cc measures: C, since the engine's headers are. Each call does the work once.
 */
#ifndef HAYAUMA_BENCH_REPORT_CASES_H
#define HAYAUMA_BENCH_REPORT_CASES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the line made. */
size_t report_case_delivery(void);
size_t report_case_reception(void);
size_t report_case_japanese(void); /* a bounce with non-ASCII text in it */
/* A newsletter's header of about 600 bytes: bytes of the header. */
size_t trace_case_scan(void);
size_t trace_case_prepend(void);
/* A notice of a bounce, the message returned: bytes. */
size_t notice_case_build(void);
/* Bounce classification of a typical refusal. */
size_t classify_case_bounce(void);

/* The rule of a refusal: of a long one that no rule reads, of one that the last of its code does.
 */
size_t rules_case_none(void);
size_t rules_case_last(void);

#ifdef __cplusplus
}
#endif

#endif
