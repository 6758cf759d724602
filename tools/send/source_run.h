/* The run of `hayauma source`: makes messages at the wanted pace, sends again what may be, keeps
 * the ledger and the counters. One thread; lives as long as the command. */
#ifndef HAYAUMA_TOOLS_SOURCE_RUN_H
#define HAYAUMA_TOOLS_SOURCE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "io/io.h"
#include "tools/commands/histogram.h"
#include "tools/send/source_message.h"
#include "tools/send/submit.h"

#define SOURCE_ERRORS_MAX  8
#define SOURCE_ERROR_BYTES 200

struct source_error {
    char text[SOURCE_ERROR_BYTES];
    uint64_t count;
};

struct source {
    struct source_plan plan;
    struct submit_options submit_options;
    uint64_t messages_max, duration_ms, rate, seq_start;
    bool retry, stats, json;
    const char *ledger_file;

    struct io *io;
    struct submit *submit;
    int ledger_fd;
    struct buf ledger;
    struct list idle; /* messages for use */
    struct list due;  /* to be sent again, oldest first */
    uint64_t made, finished, accepted, refused, recipients, bytes, again;
    uint64_t started_ns, first_ns, last_ns, progress_ns, progress_accepted;
    bool ended; /* nothing new is made */
    int error;
    int64_t date_s;
    char date[CLOCK_RFC5322_BYTES];
    struct histogram latency_us;
    struct source_error errors[SOURCE_ERRORS_MAX];
    size_t errors_len;
};

void source_init(struct source *c);
/* Opens, sends, waits. 0 or -errno, reported; what messages came to is in the counters. */
int source_run(struct source *c) MUST_USE;
void source_done(struct source *c);

#endif
