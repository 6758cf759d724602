/* The keeper of reports of TLS (RFC 8460): the worker that owns shard 0 asks whether domains want
 * reports, stores what is counted (worker/tls_counts.h), and sends the report of a day that is over
 * by mail or HTTPS. A record goes when all of the report is accepted: a crash in between sends it
 * once more, under the same id. What cannot be delivered is tried again for a day.
 *
 * Timer: one each TLS_REPORTS_TICK_MS. */
#ifndef HAYAUMA_ENGINE_TLS_REPORTS_H
#define HAYAUMA_ENGINE_TLS_REPORTS_H

#include "worker/shared.h"
#include "worker/worker.h"

#define TLS_REPORTS_TICK_MS 1000

/* In the worker that owns shard 0, at its start; 0 or -ENOMEM. At its end behind dns_close(),
 * queue_port_close() and the end of the fetcher. */
int tls_reports_open(struct worker *w) MUST_USE;
void tls_reports_close(struct worker *w);

#endif
