/* The queue's benchmark cases, in C since its headers are C only; queue_bench.cc times them. */
#ifndef HAYAUMA_BENCH_QUEUE_CASES_H
#define HAYAUMA_BENCH_QUEUE_CASES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Record codec on one 4 KiB message and its recipient. Each returns bytes handled. */
size_t queue_case_row_encode(void);
size_t queue_case_row_decode(void);
size_t queue_case_content_encode(void);
size_t queue_case_content_decode(void);

/* A queue in a fresh directory under TMPDIR or /var/tmp (a real disk, synced commits). */
struct queue_case;
struct queue_case *queue_case_open(size_t messages_max, size_t content_bytes, size_t records_bytes);
void queue_case_close(struct queue_case *c);
/* n messages of one recipient accepted as n changes, each with its record; waits for all. */
void queue_case_accept(struct queue_case *c, size_t n);
/* The n rows of the last accept removed by one change, as a worker's turn does; waits. */
void queue_case_settle(struct queue_case *c, size_t n);
/* The n rows of the last accept loaded back and freed. */
void queue_case_load(struct queue_case *c, size_t n);

#ifdef __cplusplus
}
#endif

#endif
