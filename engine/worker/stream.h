/* One connection of a session: its descriptor, its receive and its send, and perhaps a filter of
 * the bytes between session and network (TLS; a test that cuts bytes). Sessions of both directions
 * use it, and nothing else calls io_recv() or io_send() for them.
 *
 * Without a filter the session's buffers go to io, and io's to the session, uncopied. With one,
 * what is sent passes the filter in slices of STREAM_SLICE_BYTES, each in a buffer of the thread's
 * pool that is held only while it is on its way: a stream that waits holds none.
 *
 * Thread: its io's. Lifetime: a stream is a part of its session, and dies in two phases:
 * stream_cancel(), then stream_close() once stream_busy() is false. Handlers are called from io's
 * events and from stream_resume(), never inside a call that the session makes. */
#ifndef HAYAUMA_ENGINE_STREAM_H
#define HAYAUMA_ENGINE_STREAM_H

#include <sys/types.h>

#include "base/pool.h"
#include "base/str.h"
#include "io/io.h"

#define STREAM_SLICE_BYTES  16384u /* of a session's bytes, given to a filter at once */
#define STREAM_FILTER_BYTES 512u   /* so many more may a filter make of a slice */
#define STREAM_WIRE_BYTES   (2 * (STREAM_SLICE_BYTES + STREAM_FILTER_BYTES))
/* For what is no more than a few commands and a small message: sessions that send at the same time
 * have a buffer each, and a thousand of the large ones would be 33 MiB. */
#define STREAM_WIRE_SMALL_BYTES 6144u

struct stream;

/* A handler may do anything with the stream but close it. */
struct stream_handlers {
    /* result > 0: so many bytes at data, valid in the call only; 0: the peer's end; -errno: that of
     * the connection, or -ECANCELED: receiving was stopped. */
    void (*on_recv)(struct stream *s, int32_t result, const uint8_t *data);
    /* 0: all of what stream_send() was given went to the kernel; or -errno. */
    void (*on_sent)(struct stream *s, int32_t result);
};

/* Bytes between session and network. Embedded in what implements it. */
struct stream_filter {
    const struct stream_filter_kind *kind;
    struct stream *stream; /* set by stream_filter_set() */
};
struct stream_filter_kind {
    const char *name;
    /* Takes bytes of the network from the front of wire and gives bytes for the session: > 0 so
     * many, and there may be more; 0 none, and all of wire is taken; -ENODATA: the peer has ended
     * its stream within the filter; other -errno: broken, the end of the connection. */
    ssize_t (*in)(struct stream_filter *f, struct str *wire, uint8_t *plain, size_t plain_max);
    /* Gives bytes for the network: the filter's own (a handshake's, an answer to the peer), then
     * what it makes of bytes that it takes from the front of plain, at most STREAM_SLICE_BYTES, and
     * STREAM_FILTER_BYTES fewer than wire has room for. 0: none now, as within a handshake;
     * stream_resume() says when there are. -errno: broken. */
    ssize_t (*out)(struct stream_filter *f, struct str *plain, uint8_t *wire, size_t wire_max);
    /* Nothing more is sent: what tells the peer so comes from out(). May be NULL. */
    void (*end)(struct stream_filter *f);
    /* Whether another thread works for it; stream_resume() follows. May be NULL: never. */
    bool (*busy)(const struct stream_filter *f);
    /* The stream closes: frees the filter. */
    void (*close)(struct stream_filter *f);
};

/* What the streams of a thread share. */
struct streams {
    struct io *io;
    struct pool wires, small_wires; /* of STREAM_WIRE_BYTES, STREAM_WIRE_SMALL_BYTES */
};
void streams_init(struct streams *all, struct io *io);
void streams_done(struct streams *all);

struct stream { /* only fd and handed_bytes are for others to read */
    int fd;     /* -1: none */
    bool once, ended, cancelled, end_sending, late_end;
    bool broken;    /* the connection: nothing that is sent arrives */
    bool owed;      /* an on_sent(), with a filter */
    bool unhurried; /* the on_sent() that is owed */
    bool held;      /* what the filter says */
    int32_t late_result;
    uint64_t handed_bytes; /* to the kernel, by sends that have ended */
    struct streams *all;
    const struct stream_handlers *handlers;
    struct io_op recv, send;
    struct stream_filter *filter; /* NULL: none */
    struct iovec *iov;            /* the session's bytes that are not in the filter yet */
    size_t iov_len, iov_at;
    struct pool *wire_pool;
    uint8_t *wire; /* what the filter made, on its way: of that pool */
    struct iovec wire_iov;
};

/* No descriptor yet. */
void stream_init(struct stream *s, struct streams *all, const struct stream_handlers *handlers);
/* fd is the stream's from here on; it may still be connecting. */
void stream_attach(struct stream *s, int fd);

/* Receives until the end, an error or stream_recv_stop(). Or one buffer, for peers whose input is
 * paused: that ends with its on_recv(), or with a few where a filter makes them of it. */
void stream_recv(struct stream *s);
void stream_recv_once(struct stream *s);
void stream_recv_stop(struct stream *s);
bool stream_receiving(const struct stream *s);
/* Sends, one iov at a time; iov and its bytes live until on_sent(). unhurried: it is small, and
 * nothing follows but the peer's answer, so that on_sent() may come as late as the thread's next
 * turn, whatever that is for; see io_send_unhurried(). 0, or -errno: the filter is broken, and no
 * event follows. */
int stream_send(struct stream *s, struct iovec *iov, size_t iov_len, bool unhurried) MUST_USE;
/* What the filter has to say of itself waits from here on for the session's next send, and goes
 * with it; or for stream_flush(), where in the same turn the session found that it has nothing to
 * say. 0, or -errno as of stream_send(). */
void stream_hold(struct stream *s);
int stream_flush(struct stream *s) MUST_USE;
/* Whether an on_sent() is to come, so that iov is read from. */
bool stream_sending(const struct stream *s);
/* Ends our sending: the peer reads the end, and may talk on. Not while stream_sending(). */
void stream_send_end(struct stream *s);
/* See io_send_progress(). */
void stream_progress(const struct stream *s, struct io_progress *out);
/* Whether only the first bytes that were handed to the kernel have left this host, and none behind
 * them. False where that is not known. */
bool stream_kept_from(const struct stream *s, uint64_t bytes);

/* What is received and sent from here on passes f. Nothing may be on its way to the peer. Bytes
 * that the session was given before and has not looked at came in front of the filter: a session
 * that has such ends, or the peer could have put words into the other's mouth. */
void stream_filter_set(struct stream *s, struct stream_filter *f);
/* For the filter, outside of its functions: it may have bytes for the network again, or takes wire
 * (bytes of the network that it kept back) now. */
void stream_resume(struct stream *s, struct str wire);

/* The session is dying: no handler is called any more. polite: the filter's end() is sent if
 * nothing is in its way. */
void stream_cancel(struct stream *s, bool polite);
bool stream_busy(const struct stream *s);
/* Closes descriptor and filter; not while stream_busy(). abort: see io_close_fd(). */
void stream_close(struct stream *s, bool abort);

#endif
