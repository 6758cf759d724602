#include "dns/route.h"

#include <stdlib.h>

static size_t text_bytes(const char *text)
{
    return text == NULL ? 0 : strlen(text) + 1;
}

static char *put_text(char **at, const char *text)
{
    size_t n = text_bytes(text);
    char *copy = *at;

    if (text == NULL)
        return NULL;
    memcpy(copy, text, n);
    *at += n;
    return copy;
}

struct dns_route *route_build(const struct route_draft *draft)
{
    size_t hosts_bytes = draft->hosts_len * sizeof(struct dns_host);
    size_t addresses_bytes = draft->addresses_len * sizeof(struct dns_address);
    size_t texts_bytes = text_bytes(draft->error) + text_bytes(draft->site_name);
    struct dns_route *route;
    size_t bytes, tlsa_bytes = 0;
    char *at;

    ASSERT(draft->hosts_len <= DNS_HOSTS_MAX && draft->addresses_len <= DNS_ADDRESSES_MAX);
    for (size_t i = 0; i < draft->hosts_len; i++) {
        texts_bytes += text_bytes(draft->hosts[i].name);
        tlsa_bytes += draft->hosts[i].tlsa == NULL ? 0 : draft->hosts[i].tlsa->bytes;
    }
    bytes = sizeof(*route) + hosts_bytes + addresses_bytes + texts_bytes;
    route = malloc(bytes);
    if (route == NULL)
        return NULL;
    *route = (struct dns_route){
        .refs = 1,
        .status = draft->status,
        .implicit_mx = draft->implicit_mx,
        .secure = draft->secure,
        .hosts_len = (uint16_t)draft->hosts_len,
        .addresses_len = (uint16_t)draft->addresses_len,
        .bytes = (uint32_t)(bytes + tlsa_bytes),
        .expires_ms = draft->expires_ms,
        .mx_expires_ms = draft->mx_expires_ms,
        .hosts = (struct dns_host *)(route + 1),
    };
    route->addresses = (struct dns_address *)(route->hosts + draft->hosts_len);
    memcpy(route->addresses, draft->addresses, addresses_bytes);
    at = (char *)(route->addresses + draft->addresses_len);
    route->error = put_text(&at, draft->error);
    route->site_name = put_text(&at, draft->site_name);
    for (size_t i = 0; i < draft->hosts_len; i++) {
        route->hosts[i].name = put_text(&at, draft->hosts[i].name);
        route->hosts[i].preference = draft->hosts[i].preference;
        route->hosts[i].tlsa = dns_tlsa_ref(draft->hosts[i].tlsa);
    }
    return route;
}

struct dns_route *dns_route_ref(struct dns_route *route)
{
    ASSERT(route->refs > 0 && route->refs < UINT32_MAX);
    route->refs++;
    return route;
}

void dns_route_unref(struct dns_route *route)
{
    if (route == NULL)
        return;
    ASSERT(route->refs > 0);
    if (--route->refs > 0)
        return;
    for (uint16_t i = 0; i < route->hosts_len; i++)
        dns_tlsa_unref(route->hosts[i].tlsa);
    free(route);
}
