#include "worker/peer_text.h"

#include <arpa/inet.h>
#include <stdio.h>

void peer_text(const struct sockaddr *sa, char ip[INET6_ADDRSTRLEN], char out[PEER_TEXT_BYTES])
{
    const struct sockaddr_in *in = (const void *)sa;
    const struct sockaddr_in6 *in6 = (const void *)sa;
    char address[INET6_ADDRSTRLEN] = "";

    if (sa->sa_family == AF_INET) {
        inet_ntop(AF_INET, &in->sin_addr, address, sizeof(address));
        snprintf(out, PEER_TEXT_BYTES, "%s:%u", address, ntohs(in->sin_port));
    } else if (sa->sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &in6->sin6_addr, address, sizeof(address));
        snprintf(out, PEER_TEXT_BYTES, "[%s]:%u", address, ntohs(in6->sin6_port));
    } else {
        snprintf(out, PEER_TEXT_BYTES, "unix");
    }
    if (ip != NULL)
        snprintf(ip, INET6_ADDRSTRLEN, "%s", address);
}
