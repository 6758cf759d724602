/* Time: where it is read, and how mail writes it. Only engine/io and tools/ call the first two;
 * everybody else takes time as a parameter. */
#ifndef HAYAUMA_BASE_CLOCK_H
#define HAYAUMA_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t clock_mono_ns(void);
/* CLOCK_REALTIME in milliseconds since 1970. */
int64_t clock_wall_ms(void);
/* What the calling thread has had of a CPU since it began, in nanoseconds. A system call. */
uint64_t clock_thread_cpu_ns(void);

#define CLOCK_RFC5322_BYTES 40
#define CLOCK_RFC3339_BYTES 32
/* "Sun, 22 Nov 2026 00:49:17 +0000" (RFC 5322 3.3, always UTC) with NUL; returns the length. */
size_t clock_rfc5322(int64_t wall_ms, char out[CLOCK_RFC5322_BYTES]);
/* "2026-11-22T00:49:17.123Z" (RFC 3339) with NUL; returns the length. */
size_t clock_rfc3339(int64_t wall_ms, char out[CLOCK_RFC3339_BYTES]);

#endif
