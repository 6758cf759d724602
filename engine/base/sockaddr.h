/* Internet addresses of sockets, IPv4 and IPv6. Of an address of another family (a path) the
 * questions say no; its port is 0, and is not set. Pure. */
#ifndef HAYAUMA_ENGINE_SOCKADDR_H
#define HAYAUMA_ENGINE_SOCKADDR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

uint16_t sockaddr_port(const struct sockaddr *addr);
void sockaddr_set_port(struct sockaddr *addr, uint16_t port);
/* Whether both have the same family and address, whatever their ports. */
bool sockaddr_same_host(const struct sockaddr *a, const struct sockaddr *b);
/* 127.0.0.0/8, also written as IPv6 (::ffff:127.0.0.1), and ::1. */
bool sockaddr_is_loopback(const struct sockaddr *addr);
/* 0.0.0.0/8, also written as IPv6, and ::. A connection to it leads to this host. */
bool sockaddr_is_unspecified(const struct sockaddr *addr);

#endif
