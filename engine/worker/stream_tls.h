/* TLS on a stream (worker/stream.h), for sessions of both directions: a filter that carries bytes
 * between stream and tls/. Steps of a handshake, which cost up to milliseconds, run in the crew.
 *
 * States of a connection (stream_tls.c has the table): it waits for bytes of its peer; its step is
 * queued, since no more than HANDSHAKES_AT_ONCE of a worker's are in the crew, whose threads have
 * other work too; its step runs; then it is open or failed. The worker itself runs, for
 * HANDSHAKES_TURN_NS of a turn, a client's first step, the last one of a server's handshake where
 * it only hears that its client has heard all, and steps that resume a session. A client may ask
 * for a session that it has not, and so have a worker sign, and a server may not take its own: once
 * a second, see HANDSHAKE_REFUSED_MS.
 *
 * Thread: the stream's; the crew's touch a connection in its step only, and stream_busy() is true
 * for as long. There is no timer: the session has a deadline for the handshake, as for all that its
 * peer may take long for. */
#ifndef HAYAUMA_ENGINE_STREAM_TLS_H
#define HAYAUMA_ENGINE_STREAM_TLS_H

#include "tls/tls.h"
#include "worker/crew.h"
#include "worker/stream.h"

#define HANDSHAKES_AT_ONCE 16 /* of a worker, in the crew */
/* Steps that the worker itself runs: one more in a turn while those before count as less; what a
 * brief one counts as, and another, as measured on a slow machine (asking how much CPU each took
 * costs two system calls, a fiftieth of it); and for how long the crew runs those to resume a
 * session, behind one that was refused. */
#define HANDSHAKES_TURN_NS   UINT64_C(1000000)
#define HANDSHAKE_BRIEF_NS   UINT64_C(15000)
#define HANDSHAKE_SHORT_NS   UINT64_C(120000)
#define HANDSHAKE_REFUSED_MS 1000
/* How much a peer may send while its step waits or runs. Anybody may be a client, so clients may
 * send less; and a client has less to say. */
#define HANDSHAKE_BYTES_MAX        (64u << 10)
#define HANDSHAKE_CLIENT_BYTES_MAX (20u << 10)

/* What the handshakes of a thread share. */
struct handshakes {
    struct crew *crew;
    struct crew_desk *desk;
    struct io *io;
    struct list queued;
    uint32_t running;
    uint64_t turn_ns;     /* in which ... */
    uint64_t used_ns;     /* ... steps here count as so long, */
    uint64_t turn_max_ns; /* of HANDSHAKES_TURN_NS; a test sets it, since its machine may be slow */
    uint64_t resuming_ms; /* until then the crew runs those that resume */
    struct timer timer;   /* the crew was full: look again */
};
void handshakes_init(struct handshakes *h, struct crew *crew, struct crew_desk *desk,
                     struct io *io);
void handshakes_done(struct handshakes *h); /* none queued or running */

/* Called once, in a turn, and never from inside stream_tls_start(): error NULL, the handshake is
 * complete, stream_tls_of() has its facts; else why it failed: an alert is on its way to the peer,
 * which stream_send_end() lets go out. Not called when the stream was cancelled before, or ended:
 * the session hears that from the stream. */
typedef void stream_tls_ended(struct stream *s, const char *error);

/* From here on what is sent and received on s passes tls, which is the stream's, also when this
 * fails; see stream_filter_set(). A client's handshake begins, a server's waits for its client. 0
 * or -ENOMEM. */
int stream_tls_start(struct stream *s, struct handshakes *h, struct tls *tls,
                     stream_tls_ended *on_ended) MUST_USE;
/* Whether a step of the handshake waits for the crew, or is there: it is not the peer that is slow.
 */
bool stream_tls_is_late(const struct stream *s);
/* The connection of a stream whose handshake is complete; NULL: it is not encrypted. */
struct tls *stream_tls_of(const struct stream *s);
/* What became of the peer's certificate in a handshake that may have failed. */
enum tls_verdict stream_tls_verdict(const struct stream *s);

#endif
