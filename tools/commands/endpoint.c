#include "tools/commands/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/sockaddr.h"
#include "base/str.h"

void endpoint_name(struct endpoint *out)
{
    char host[INET6_ADDRSTRLEN] = "";

    if (out->addr.ss_family == AF_INET) {
        inet_ntop(AF_INET, &((struct sockaddr_in *)&out->addr)->sin_addr, host, sizeof(host));
        snprintf(out->text, sizeof(out->text), "%s:%u", host,
                 sockaddr_port((struct sockaddr *)&out->addr));
    } else if (out->addr.ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&out->addr)->sin6_addr, host, sizeof(host));
        snprintf(out->text, sizeof(out->text), "[%s]:%u", host,
                 sockaddr_port((struct sockaddr *)&out->addr));
    } else {
        snprintf(out->text, sizeof(out->text), "unix:%s",
                 ((struct sockaddr_un *)&out->addr)->sun_path);
    }
}

static int endpoint_unix(const char *path, struct endpoint *out)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(un.sun_path))
        return -EINVAL;
    memcpy(un.sun_path, path, len + 1);
    *out = (struct endpoint){.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1)};
    memcpy(&out->addr, &un, sizeof(un));
    endpoint_name(out);
    return 0;
}

/* Splits "host", "host:port", "[host]" and "[host]:port"; a bare IPv6 address has no port. */
static int endpoint_split(const char *text, char *host, size_t host_bytes, const char **port)
{
    const char *begin = text;
    const char *end = text + strlen(text);
    const char *colon;

    *port = NULL;
    if (*text == '[') {
        begin = text + 1;
        end = strchr(begin, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':'))
            return -EINVAL;
        *port = end[1] == ':' ? end + 2 : NULL;
    } else {
        colon = strchr(text, ':');
        if (colon != NULL && strchr(colon + 1, ':') == NULL) {
            end = colon;
            *port = colon + 1;
        }
    }
    if (begin == end || (size_t)(end - begin) >= host_bytes)
        return -EINVAL;
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    return 0;
}

int endpoint_parse(const char *text, uint16_t port, struct endpoint *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    const char *port_text;
    uint64_t number = port;
    char host[ENDPOINT_TEXT_BYTES];

    if (strncmp(text, "unix:", 5) == 0)
        return endpoint_unix(text + 5, out);
    if (endpoint_split(text, host, sizeof(host), &port_text) < 0)
        return -EINVAL;
    if (port_text != NULL && str_to_u64(str_of(port_text), UINT16_MAX, &number) < 0)
        return -EINVAL;
    if (number == 0)
        return -EINVAL;
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return -EHOSTUNREACH;
    *out = (struct endpoint){.len = found->ai_addrlen};
    memcpy(&out->addr, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    sockaddr_set_port((struct sockaddr *)&out->addr, (uint16_t)number);
    endpoint_name(out);
    return 0;
}
