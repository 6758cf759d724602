/* Which instructions scan.c uses: chosen at start, changed only by tests and benchmarks. */
#ifndef HAYAUMA_SMTP_SCAN_ISA_H
#define HAYAUMA_SMTP_SCAN_ISA_H

#include <stdbool.h>

enum scan_isa { SCAN_SCALAR, SCAN_SSE2, SCAN_AVX2, SCAN_NEON, SCAN_ISAS };

/* False, and nothing changes, when this CPU lacks it. Not for use beside running scans. */
bool scan_isa_use(enum scan_isa isa);
const char *scan_isa_name(enum scan_isa isa);
/* Back to the best of this CPU. */
void scan_isa_best(void);

#endif
