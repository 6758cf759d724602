/* What smtp_bench.cc measures: C, since the headers of smtp are. Each call does the work once;
 * set-up happens on the first call. */
#ifndef HAYAUMA_BENCH_SMTP_CASES_H
#define HAYAUMA_BENCH_SMTP_CASES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes handled. bytes: of the body, lines of 76 with CRLF; isa: enum scan_isa, -1 = memcpy alone.
 */
size_t smtp_case_decode(int isa, size_t bytes); /* slices, copied */
/* What the server does with a body: slices alone. */
size_t smtp_case_slices(int isa, size_t bytes);
size_t smtp_case_bdat_scan(int isa, size_t bytes);
size_t smtp_case_find_dot(int isa, size_t bytes);
const char *smtp_case_isa_name(int isa); /* NULL: not on this CPU */

/* Items handled. */
size_t smtp_case_replies(void);    /* the four replies of a message, pipelined */
size_t smtp_case_ehlo_reply(void); /* a reply of ten lines */
size_t smtp_case_address(void);
size_t smtp_case_server_envelope(void); /* MAIL RCPT RSET in one read */
size_t smtp_case_server_data(void);     /* MAIL RCPT DATA body . of 4 KiB */
size_t smtp_case_server_bdat(void);
size_t smtp_case_client_data(void); /* a transaction of 4 KiB, next group pipelined */
size_t smtp_case_client_bdat(void);

#ifdef __cplusplus
}
#endif

#endif
