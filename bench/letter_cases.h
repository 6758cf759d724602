/* What letter_bench.cc measures: C, since the engine's headers are. */
#ifndef HAYAUMA_BENCH_LETTER_CASES_H
#define HAYAUMA_BENCH_LETTER_CASES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum letter_case { LETTER_ASCII, LETTER_LATIN, LETTER_JAPANESE };

void letter_case_begin(enum letter_case which);
/* A letter, as a worker makes it: its bytes. */
size_t letter_case_render(void);
void letter_case_end(void);

#ifdef __cplusplus
}
#endif

#endif
