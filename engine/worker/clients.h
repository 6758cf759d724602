/* How many sessions each client address has at each listener, and how many of them are in a
 * handshake of TLS, over all workers. A listener is a number of the caller's: bounds are a
 * listener's, so what a client does at one keeps it from no other. Under a mutex: touched when a
 * session, or its handshake, begins and ends. IPv6 clients count by /64. */
#ifndef HAYAUMA_ENGINE_CLIENTS_H
#define HAYAUMA_ENGINE_CLIENTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/map.h"

struct clients {
    pthread_mutex_t mutex; /* protects sessions and its nodes */
    struct map sessions;
    uint64_t seed;
};

/* 8 bytes that stand for a client: an IPv4 address, the first 64 bits of an IPv6 address; all Unix
 * sockets are one client. */
#define CLIENT_KEY_BYTES 8
void client_key(const struct sockaddr *addr, uint8_t key[CLIENT_KEY_BYTES]);

int clients_init(struct clients *c) MUST_USE;
void clients_done(struct clients *c);
/* False when the address already has max sessions at the listener (max 0: no limit). */
bool clients_take(struct clients *c, const struct sockaddr *addr, size_t listener, uint32_t max);
void clients_give(struct clients *c, const struct sockaddr *addr, size_t listener);
/* Counts the handshakes under way of an address that has a session at the listener. False: it has
 * max already (0: no limit). */
bool clients_shake(struct clients *c, const struct sockaddr *addr, size_t listener, uint32_t max);
void clients_shaken(struct clients *c, const struct sockaddr *addr, size_t listener);

#endif
