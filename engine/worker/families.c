#include "worker/families.h"

#include "base/assert.h"

bool families_no_route(struct families *f, sa_family_t family, uint64_t now_ms)
{
    uint64_t *at_ms = &f->no_route_ms[family == AF_INET6];
    bool news = *at_ms == 0;

    ASSERT(family == AF_INET || family == AF_INET6);
    *at_ms = now_ms;
    return news;
}

uint64_t families_no_route_ms(const struct families *f, sa_family_t family)
{
    if (family != AF_INET && family != AF_INET6)
        return 0;
    return f->no_route_ms[family == AF_INET6];
}
