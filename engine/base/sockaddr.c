#include "base/sockaddr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static const struct sockaddr_in *in_of(const struct sockaddr *addr)
{
    return (const struct sockaddr_in *)(const void *)addr;
}

static const struct sockaddr_in6 *in6_of(const struct sockaddr *addr)
{
    return (const struct sockaddr_in6 *)(const void *)addr;
}

uint16_t sockaddr_port(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET)
        return ntohs(in_of(addr)->sin_port);
    return addr->sa_family == AF_INET6 ? ntohs(in6_of(addr)->sin6_port) : 0;
}

void sockaddr_set_port(struct sockaddr *addr, uint16_t port)
{
    if (addr->sa_family == AF_INET)
        ((struct sockaddr_in *)(void *)addr)->sin_port = htons(port);
    if (addr->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)addr)->sin6_port = htons(port);
}

bool sockaddr_same_host(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return in_of(a)->sin_addr.s_addr == in_of(b)->sin_addr.s_addr;
    return a->sa_family == AF_INET6 &&
           memcmp(&in6_of(a)->sin6_addr, &in6_of(b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

/* The four bytes of an IPv4 address, whichever way it is written; NULL for any other. */
static const uint8_t *ipv4_bytes(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET)
        return (const uint8_t *)&in_of(addr)->sin_addr;
    if (addr->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6_of(addr)->sin6_addr))
        return in6_of(addr)->sin6_addr.s6_addr + 12;
    return NULL;
}

bool sockaddr_is_loopback(const struct sockaddr *addr)
{
    const uint8_t *v4 = ipv4_bytes(addr);

    if (v4 != NULL)
        return v4[0] == 127;
    return addr->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6_of(addr)->sin6_addr);
}

bool sockaddr_is_unspecified(const struct sockaddr *addr)
{
    const uint8_t *v4 = ipv4_bytes(addr);

    if (v4 != NULL)
        return v4[0] == 0;
    return addr->sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6_of(addr)->sin6_addr);
}
