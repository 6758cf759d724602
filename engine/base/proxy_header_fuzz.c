/* The PROXY header: any bytes. The same verdict whether they come at once or one by one, nothing
 * longer than the bound, an address only where there is a family. */
#include <netinet/in.h>

#include "base/assert.h"
#include "base/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header whole, part;
    enum proxy_header_status status = proxy_header_parse(data, size, &whole), grown;
    size_t n = 0;

    do {
        grown = proxy_header_parse(data, n, &part);
    } while (grown == PROXY_HEADER_MORE && n++ < size);
    ASSERT(status == grown);
    ASSERT(status != PROXY_HEADER_MORE || size < PROXY_HEADER_BYTES_MAX);
    if (status != PROXY_HEADER_DONE)
        return 0;
    ASSERT(whole.len == part.len && whole.len == n && whole.len <= PROXY_HEADER_BYTES_MAX);
    ASSERT(whole.client.ss_family == AF_UNSPEC || whole.client.ss_family == AF_INET ||
           (whole.client.ss_family == AF_INET6 &&
            !IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *)(void *)&whole.client)->sin6_addr)));
    return 0;
}
