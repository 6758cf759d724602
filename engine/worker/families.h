/* When this host last had no route at all to an address of a family. A worker's, for all that it
 * connects to. */
#ifndef HAYAUMA_ENGINE_FAMILIES_H
#define HAYAUMA_ENGINE_FAMILIES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct families {
    uint64_t no_route_ms[2]; /* monotonic, IPv4 and IPv6; 0: never */
};

/* This host has no route to any address of family, AF_INET or AF_INET6. True: that is news. */
bool families_no_route(struct families *f, sa_family_t family, uint64_t now_ms);
/* When that was last so; 0: never, as of any other family. */
uint64_t families_no_route_ms(const struct families *f, sa_family_t family);

#endif
