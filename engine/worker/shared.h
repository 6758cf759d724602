/* What the workers of a process share, beside what they post to each other (worker_post()): the one
 * queue, the limits, the crew, and a few counts that are limits of the process as a whole. Made by
 * run/, before the first worker, and constant while workers turn, but for the atomics. */
#ifndef HAYAUMA_ENGINE_SHARED_H
#define HAYAUMA_ENGINE_SHARED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "limits/governor.h"
#include "limits/tally.h"
#include "limits/warmup.h"
#include "queue/queue.h"
#include "worker/campaigns.h"
#include "worker/clients.h"
#include "worker/crew.h"
#include "worker/dialogues.h"
#include "worker/logins.h"
#include "worker/sources.h"
#include "worker/sts_table.h"
#include "worker/suppressions.h"
#include "worker/suspensions.h"
#include "worker/tls_counts.h"

struct once;
struct worker;

#define LISTENERS_MAX 64

struct shared {
    struct queue *queue; /* NULL until it is open: workers bind before that */
    struct governor *governor;
    struct crew *crew;      /* as many threads as workers */
    struct clients clients; /* sessions per client address and listener */
    struct logins logins;   /* failures per client address and user name; rates of users */
    struct suspensions suspensions;
    struct suppressions suppressions;
    struct campaigns campaigns;
    struct tally tally; /* of refusals that rules count */
    struct dialogues dialogues;
    struct sts_table sts;
    struct tls_counts tls_counts;
    struct sources sources;
    struct warmup warmup;
    struct { /* zero is its beginning: an unlocked mutex, and nobody */
        pthread_mutex_t lock;
        struct once *first[1024]; /* by name: a disk that stalls makes many of them */
    } once;                       /* intake/once.h: requests with keys that are under way */
    struct worker *workers;
    uint32_t workers_len;
    uint32_t sessions_out_max; /* descriptors are kept for intake */
    /* Sums over all workers. Relaxed: each is a limit, no invariant. */
    _Atomic uint64_t intake_bytes; /* content being received: intake backpressure */
    _Atomic uint64_t settle_bytes; /* records and rows of settles that have not committed */
    _Atomic uint32_t sessions_out;
    _Atomic uint32_t listener_sessions[LISTENERS_MAX]; /* of each listener */
    _Atomic uint32_t listener_handshakes[LISTENERS_MAX];
    struct {
        _Atomic uint64_t requests, refused; /* refused: answered 4xx or 5xx */
        _Atomic uint32_t connections;
    } http; /* engine/http */
};

#endif
