/* Addresses as records and logs say them. Pure. */
#ifndef HAYAUMA_ENGINE_PEER_TEXT_H
#define HAYAUMA_ENGINE_PEER_TEXT_H

#include <netinet/in.h>
#include <sys/socket.h>

#define PEER_TEXT_BYTES (INET6_ADDRSTRLEN + 8)

/* out: "192.0.2.1:25", "[2001:db8::1]:25", or "unix" where there is no address. ip, unless NULL:
 * the address alone, empty where there is none. */
void peer_text(const struct sockaddr *sa, char ip[INET6_ADDRSTRLEN], char out[PEER_TEXT_BYTES]);

#endif
