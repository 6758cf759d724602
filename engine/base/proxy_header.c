#include "base/proxy_header.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/str.h"

#define V1_BYTES_MAX 107 /* with CRLF */
#define V2_FIXED     16

static const uint8_t v2_signature[12] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                         '\n', 'Q',  'U',  'I',  'T', '\n'};

/* An IPv4 address in IPv6 clothes is an IPv4 address to whoever looks for it in a list. */
static void set_ipv6(struct sockaddr_storage *client, const struct in6_addr *address, uint16_t port)
{
    if (IN6_IS_ADDR_V4MAPPED(address)) {
        struct sockaddr_in *in = (void *)client;

        in->sin_family = AF_INET;
        memcpy(&in->sin_addr, address->s6_addr + 12, 4);
        in->sin_port = htons(port);
    } else {
        struct sockaddr_in6 *in6 = (void *)client;

        in6->sin6_family = AF_INET6;
        in6->sin6_addr = *address;
        in6->sin6_port = htons(port);
    }
}

static void set_ipv4(struct sockaddr_storage *client, const void *address, uint16_t port)
{
    struct sockaddr_in *in = (void *)client;

    in->sin_family = AF_INET;
    memcpy(&in->sin_addr, address, 4);
    in->sin_port = htons(port);
}

/* --- version 1: "PROXY TCP4 192.0.2.1 198.51.100.1 4711 25" --- */

static bool parse_ip(struct str word, int family, void *out)
{
    char text[INET6_ADDRSTRLEN];

    if (word.len >= sizeof(text))
        return false;
    memcpy(text, word.ptr, word.len);
    text[word.len] = '\0';
    return strlen(text) == word.len && inet_pton(family, text, out) == 1;
}

static bool parse_port(struct str word, uint16_t *out)
{
    uint64_t port;

    if (word.len > 5 || (word.len > 1 && word.ptr[0] == '0') || str_to_u64(word, 65535, &port) != 0)
        return false;
    *out = (uint16_t)port;
    return true;
}

bool proxy_client_parse(struct str address, struct str port, struct sockaddr_storage *out)
{
    int family = str_find(address, ':') >= 0 ? AF_INET6 : AF_INET;
    struct in6_addr ip = {0}; /* large enough for either family */
    uint16_t number = 0;

    if (!parse_ip(address, family, &ip) || (port.len > 0 && !parse_port(port, &number)))
        return false;
    *out = (struct sockaddr_storage){0};
    if (family == AF_INET)
        set_ipv4(out, &ip, number);
    else
        set_ipv6(out, &ip, number);
    return true;
}

/* Both ends in family: addresses, then ports. */
static bool v1_addresses(struct str rest, int family, struct sockaddr_storage *client)
{
    struct in6_addr from = {0}, to = {0}; /* large enough for either family */
    uint16_t from_port, to_port;

    if (rest.len == 0 || rest.ptr[rest.len - 1] == ' ')
        return false;
    if (!parse_ip(str_take(&rest, ' '), family, &from) ||
        !parse_ip(str_take(&rest, ' '), family, &to) ||
        !parse_port(str_take(&rest, ' '), &from_port) ||
        !parse_port(str_take(&rest, ' '), &to_port) || rest.len != 0)
        return false;
    if (family == AF_INET)
        set_ipv4(client, &from, from_port);
    else
        set_ipv6(client, &from, from_port);
    return true;
}

static enum proxy_header_status v1_parse(struct str in, struct proxy_header *out)
{
    ptrdiff_t end = str_find(in, '\n');
    struct str line, protocol;
    bool good;

    if (end < 0 ? in.len >= V1_BYTES_MAX : end >= V1_BYTES_MAX)
        return PROXY_HEADER_BAD;
    if (end < 0)
        return PROXY_HEADER_MORE;
    if (end < 8 || in.ptr[end - 1] != '\r')
        return PROXY_HEADER_BAD;
    line = (struct str){in.ptr + 6, (size_t)end - 1 - 6};
    out->len = (size_t)end + 1;
    if (str_eq(line, STR("UNKNOWN")))
        return PROXY_HEADER_DONE;
    protocol = str_take(&line, ' ');
    if (str_eq(protocol, STR("UNKNOWN"))) /* whatever follows */
        good = str_find(line, '\r') < 0;
    else
        good = str_eq(protocol, STR("TCP4"))   ? v1_addresses(line, AF_INET, &out->client)
               : str_eq(protocol, STR("TCP6")) ? v1_addresses(line, AF_INET6, &out->client)
                                               : false;
    return good ? PROXY_HEADER_DONE : PROXY_HEADER_BAD;
}

/* --- version 2 --- */

static uint16_t get_16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* Families and protocols of which addresses are known, and how long both ends are together. */
static const struct family {
    uint8_t byte;
    size_t bytes;
    int family;
} families[] = {
    {0x00, 0, AF_UNSPEC},
    {0x11, 12, AF_INET},
    {0x21, 36, AF_INET6},
    {0x31, 216, AF_UNSPEC}, /* Unix sockets */
};

#define TLV_CRC32C 0x03

/* The checksum is of the whole header, with zeros in its own place. */
static bool v2_crc_fits(const uint8_t *header, size_t len, size_t at)
{
    static const uint8_t zeros[4];
    uint32_t want = (uint32_t)get_16(header + at) << 16 | get_16(header + at + 2);
    uint32_t crc = crc32c(0, header, at);

    crc = crc32c(crc, zeros, sizeof(zeros));
    return crc32c(crc, header + at + 4, len - at - 4) == want;
}

/* What is said beside the addresses, from at on: well-formed, and with a checksum that fits. */
static bool v2_extras_fit(const uint8_t *header, size_t len, size_t at)
{
    while (at < len) {
        size_t value = at + 3, bytes;

        if (value > len)
            return false;
        bytes = get_16(header + at + 1);
        if (bytes > len - value)
            return false;
        if (header[at] == TLV_CRC32C && (bytes != 4 || !v2_crc_fits(header, len, value)))
            return false;
        at = value + bytes;
    }
    return true;
}

static bool v2_body(const uint8_t *header, size_t len, struct sockaddr_storage *client)
{
    const struct family *f = NULL;
    const uint8_t *body = header + V2_FIXED;
    struct in6_addr address;

    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        if (families[i].byte == header[13])
            f = &families[i];
    if (f == NULL || len - V2_FIXED < f->bytes || !v2_extras_fit(header, len, V2_FIXED + f->bytes))
        return false;
    if (f->family == AF_INET)
        set_ipv4(client, body, get_16(body + 8));
    if (f->family == AF_INET6) {
        memcpy(&address, body, sizeof(address));
        set_ipv6(client, &address, get_16(body + 32));
    }
    return true;
}

static enum proxy_header_status v2_parse(const uint8_t *in, size_t len, struct proxy_header *out)
{
    if (len < V2_FIXED)
        return PROXY_HEADER_MORE;
    if (in[12] >> 4 != 2 || (in[12] & 15) > 1)
        return PROXY_HEADER_BAD;
    out->len = V2_FIXED + (size_t)get_16(in + 14);
    if (out->len > PROXY_HEADER_BYTES_MAX)
        return PROXY_HEADER_BAD;
    if (len < out->len)
        return PROXY_HEADER_MORE;
    if ((in[12] & 15) == 0) /* LOCAL: the rest is not to be looked at */
        return PROXY_HEADER_DONE;
    return v2_body(in, out->len, &out->client) ? PROXY_HEADER_DONE : PROXY_HEADER_BAD;
}

static bool begins(const uint8_t *in, size_t len, const void *with, size_t with_len)
{
    return memcmp(in, with, len < with_len ? len : with_len) == 0;
}

enum proxy_header_status proxy_header_parse(const uint8_t *bytes, size_t len,
                                            struct proxy_header *out)
{
    struct proxy_header header = {.client = {.ss_family = AF_UNSPEC}};
    enum proxy_header_status status = PROXY_HEADER_BAD;

    if (len == 0)
        return PROXY_HEADER_MORE;
    if (begins(bytes, len, "PROXY ", 6))
        status =
            len < 6 ? PROXY_HEADER_MORE : v1_parse((struct str){(const char *)bytes, len}, &header);
    else if (begins(bytes, len, v2_signature, sizeof(v2_signature)))
        status = v2_parse(bytes, len, &header);
    if (status == PROXY_HEADER_DONE)
        *out = header;
    return status;
}

/* --- out --- */

static size_t put_ends(uint8_t *out, const void *from, const void *to, size_t address_bytes,
                       in_port_t from_port, in_port_t to_port)
{
    memcpy(out, from, address_bytes);
    memcpy(out + address_bytes, to, address_bytes);
    memcpy(out + 2 * address_bytes, &from_port, 2);
    memcpy(out + 2 * address_bytes + 2, &to_port, 2);
    return 2 * address_bytes + 4;
}

size_t proxy_header_put(uint8_t out[PROXY_HEADER_PUT_MAX], const struct sockaddr *from,
                        const struct sockaddr *to)
{
    const struct sockaddr_in *from4 = (const void *)from, *to4 = (const void *)to;
    const struct sockaddr_in6 *from6 = (const void *)from, *to6 = (const void *)to;
    size_t len;

    ASSERT(from->sa_family == to->sa_family);
    ASSERT(to->sa_family == AF_INET || to->sa_family == AF_INET6);
    if (to->sa_family == AF_INET)
        len = put_ends(out + V2_FIXED, &from4->sin_addr, &to4->sin_addr, 4, from4->sin_port,
                       to4->sin_port);
    else
        len = put_ends(out + V2_FIXED, &from6->sin6_addr, &to6->sin6_addr, 16, from6->sin6_port,
                       to6->sin6_port);
    memcpy(out, v2_signature, sizeof(v2_signature));
    out[12] = 0x21; /* version 2, PROXY */
    out[13] = to->sa_family == AF_INET ? 0x11 : 0x21;
    out[14] = 0;
    out[15] = (uint8_t)len;
    return V2_FIXED + len;
}
