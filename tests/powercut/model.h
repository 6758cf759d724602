/* The workload of the power-cut test, what it did when, and whether a reopened queue agrees. */
#ifndef HAYAUMA_TESTS_POWERCUT_MODEL_H
#define HAYAUMA_TESTS_POWERCUT_MODEL_H

#include "base/rng.h"
#include "queue/queue.h"

#define MODEL_ROWS_MAX     3
#define MODEL_VERSIONS_MAX 12
#define MODEL_LANES        5

/* A row's history: each version is one change. */
struct model_version {
    bool gone;
    int64_t due_ms;
    uint64_t change; /* its number */
};

struct model_row {
    struct recipient *rcpt; /* while the workload runs */
    struct model_version versions[MODEL_VERSIONS_MAX];
    size_t versions_len;
    size_t lane;
    bool seen; /* of a check */
};

struct model_message {
    struct msgid id;
    size_t size;
    struct model_row rows[MODEL_ROWS_MAX];
    uint32_t rows_len;
};

struct model {
    struct rng rng;
    struct msgid_source ids;
    struct model_message *messages;
    size_t messages_len, messages_max;
    uint64_t changes; /* submitted so far; numbers 1.. */
};

/* Marks in the log: change number submitted (even) or acknowledged (odd). */
#define MARK_SUBMITTED(change) ((change)*2)
#define MARK_ACKED(change)     ((change)*2 + 1)

void model_init(struct model *m, uint64_t seed, size_t messages_max);
void model_done(struct model *m);
/* Runs rounds of changes against q (no_threads); calls mark with the marks above. */
void model_run(struct model *m, struct queue *q, struct queue_port *port, size_t rounds,
               void (*mark)(uint64_t value));

/* submitted, acked: by change number, whether the mark came before the cut. Opens the queue at path
 * with options, compares, closes. NULL when it agrees, else what is wrong (static). */
const char *model_check(struct model *m, const struct queue_options *options, const bool *submitted,
                        const bool *acked);

#endif
