/* A session's way through its source's proxy: between the connection, which is to the proxy, and
 * the greeting, which is the exchanger's. A SOCKS proxy answers; one that reads the PROXY protocol
 * does not, and what becomes of its connection shows in the greeting.
 *
 * What is needed for it is held from proxying_begin() to proxying_end(). Thread: the session's
 * worker. */
#ifndef HAYAUMA_ENGINE_PROXYING_H
#define HAYAUMA_ENGINE_PROXYING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_address;
struct delivery;

enum proxying_status {
    PROXYING_GOES_ON,
    PROXYING_OPEN,   /* the connection is the exchanger's now */
    PROXYING_FAILED, /* see proxying_over() */
};

/* Where the session connects instead of to its exchanger; NULL: to that. A Unix socket is reached
 * without proxy. */
const struct config_address *proxying_to(const struct delivery *d);
/* The connection to the proxy is there. True: the proxy answers, and is to be heard. */
bool proxying_begin(struct delivery *d);
/* Puts what is to be said into d->iov: how many pieces, 0 or 1. */
size_t proxying_output(struct delivery *d);
/* What was on its way was sent. False: it was not the proxy's. */
bool proxying_sent(struct delivery *d, enum proxying_status *out);
/* Takes what the proxy says off the front of data. */
enum proxying_status proxying_input(struct delivery *d, const uint8_t **data, size_t *len);
/* The way is open: notes from where the exchanger is reached, as records say it. */
void proxying_opened(struct delivery *d);
/* It failed. False: the proxy does not work, and is left out until it does. True: it was asked to
 * connect, and could not, or did not answer; why is what there is to say of that. */
#define PROXYING_WHY 256
bool proxying_over(struct delivery *d, char why[PROXYING_WHY]);
/* "through haproxy 10.0.0.5:2525"; ended: the connection did, and nobody knows by whom. */
void proxying_put_name(const struct delivery *d, bool ended, char out[PROXYING_WHY]);
void proxying_end(struct delivery *d);

#endif
