/* The work that dns_bench times, in C; the clock and the upstream are its own, so that what is
 * measured is ours alone. */
#ifndef HAYAUMA_BENCH_DNS_CASES_H
#define HAYAUMA_BENCH_DNS_CASES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Each does its work once or some times over and returns how many. */
size_t dns_case_hit(void);        /* dns_cached() of one of 50,000 domains */
size_t dns_case_hit_hot(void);    /* of one of 100, all in the CPU's caches */
size_t dns_case_lookup_hit(void); /* dns_lookup() of the same, callback included */
size_t dns_case_miss(void);       /* of a domain never seen: MX and a known exchanger; evicts one */
size_t dns_case_packet(void);     /* an answer with 5 exchangers read */
size_t dns_case_choose(void);     /* 5 exchangers ordered and named */
/* Bytes of memory for each of 50,000 cached domains, with 5 exchangers of an address each. */
size_t dns_case_bytes(void);

#ifdef __cplusplus
}
#endif

#endif
