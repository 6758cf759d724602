/* The header of the PROXY protocol, versions 1 and 2, by which a balancer says whose connection it
 * passes on, or is told from where to connect (HAProxy's doc/proxy-protocol.txt). Pure. */
#ifndef HAYAUMA_BASE_PROXY_HEADER_H
#define HAYAUMA_BASE_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/str.h"

/* Version 2 may say more about a connection than its addresses, up to the certificate of its
 * client; HAProxy makes no longer ones. */
#define PROXY_HEADER_BYTES_MAX 16384

enum proxy_header_status { PROXY_HEADER_MORE, PROXY_HEADER_DONE, PROXY_HEADER_BAD };

struct proxy_header {
    size_t len;                     /* of the header: what follows is the connection's */
    struct sockaddr_storage client; /* AF_UNSPEC: not told. It is a check of the balancer's own
                                       (LOCAL, UNKNOWN), or no TCP connection */
};

/* bytes: all that has come so far. Looked at anew with each call; out is set when DONE. */
enum proxy_header_status proxy_header_parse(const uint8_t *bytes, size_t len,
                                            struct proxy_header *out);

/* The client that text names: an IPv4 or IPv6 address (one of IPv4 in IPv6 clothes is of IPv4), and
 * a port, 0 where that is empty. False: it is none; out is as it was. */
bool proxy_client_parse(struct str address, struct str port, struct sockaddr_storage *out);

#define PROXY_HEADER_PUT_MAX 52
/* Writes a header of version 2 that asks whoever reads it to connect on from `from` to `to`; both
 * are of IPv4, or both of IPv6. Its length. */
size_t proxy_header_put(uint8_t out[PROXY_HEADER_PUT_MAX], const struct sockaddr *from,
                        const struct sockaddr *to);

#endif
