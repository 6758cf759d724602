/* A session's way to an exchanger: which address is tried next, its socket, its connect operation.
 * A dial is a part of a delivery and lives as long; the delivery gets the end of the connect
 * operation, and its stream closes the descriptor. Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_DIAL_H
#define HAYAUMA_ENGINE_DIAL_H

#include "io/io.h"
#include "schedule/channel.h"
#include "schedule/exchanger.h"
#include "worker/peer_text.h"

struct dial {
    struct io_op connect;
    int fd;
    uint16_t offset;
    uint16_t tried;    /* addresses */
    uint16_t no_route; /* of them: no route from this host; these cost nothing of addresses_max */
    uint16_t lost;     /* of these: the source has no route over the family to anywhere */
    bool both;         /* of either family */
    bool again;        /* the session has connected before: its next attempts have no leave */
    struct exchanger exchanger; /* its host: peer_name, for the site may get another route; for that
                                   its tlsa is a reference, too */
    struct governor_entry *slot; /* of the host's sessions, which this is one of; or NULL */
    char peer_addr[PEER_TEXT_BYTES];
    char peer_name[256];
};

/* Starts connecting to the next address for which there can be a socket. -errno: a shortage, or of
 * the last address when no more may be tried (-ENOENT: none was; -EBUSY: none was, for their hosts
 * have as many sessions as they may). */
int dial_next(struct dial *d, struct channel *c) MUST_USE;
/* Connects to the present address once more, which does not count as another one tried. */
int dial_again(struct dial *d, struct channel *c) MUST_USE;
/* Whether the chosen exchanger gets no connection: its TLSA records count and could not be looked
 * up, so nobody knows what its certificate must be (RFC 7672 2.1.2). */
bool dial_in_doubt(const struct dial *d, const struct site *site);
/* Whether another worker lacks a session at the host, where this one has its place. */
bool dial_is_pressed(const struct dial *d, const struct worker *w) MUST_USE;
void dial_done(struct dial *d);
/* The session's new site calls the address by the name host. */
void dial_rename(struct dial *d, const char *host);
/* The address did not give a session. err: of the connection, or 0. */
void dial_failed(struct dial *d, struct channel *c, int err);
/* Whether all that was tried was lost so: it is the source's failure, and no attempt. */
bool dial_is_lost(const struct dial *d);
/* Whether there is another address to try, and this session may (addresses_max). */
bool dial_may_go_on(const struct dial *d, const struct channel *c);
/* How many addresses of the site the channel's source can connect to. */
uint16_t dial_addresses(const struct channel *c);
/* Whether err says that this host lacks something, and nothing of the address. */
bool dial_is_shortage(int err);
/* Whether the connect operation ended with err because this host lacks something, a port perhaps.
 */
bool dial_lacked(const struct dial *d, const struct channel *c, int err);
/* Whether the connection leads to a listener of this engine, or, where there is none yet, would
 * lead to port 25 of a loopback address. */
bool dial_is_own(const struct dial *d, const struct site *site);

#endif
