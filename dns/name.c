#include "dns/name.h"

#include <arpa/inet.h>
#include <errno.h>
#include <idn2.h>
#include <stdio.h>
#include <stdlib.h>

#define LABEL_MAX 63
#define SMTP_PORT 25
/* 253 characters of an A-label name never come from more UTF-8 than this. */
#define UTF8_NAME_MAX 1024
#define LITERAL_MAX   64

/* Copies in to out in lower case; false when a byte cannot be in a name. */
static bool copy_lower(struct dns_name *out, struct str in)
{
    for (size_t i = 0; i < in.len; i++) {
        char c = ascii_lower(in.ptr[i]);
        bool good =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';

        if (!good)
            return false;
        out->text[i] = c;
    }
    out->text[in.len] = '\0';
    out->len = in.len;
    return true;
}

static bool labels_valid(const struct dns_name *name)
{
    size_t label = 0;
    bool digits = true;

    for (size_t i = 0; i < name->len; i++) {
        char c = name->text[i];

        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
            digits = true;
            continue;
        }
        if (++label > LABEL_MAX)
            return false;
        digits = digits && c >= '0' && c <= '9';
    }
    return label > 0 && !digits;
}

static int parse_ascii(struct dns_name *out, struct str in)
{
    if (in.len > 0 && in.ptr[in.len - 1] == '.')
        in.len--;
    if (in.len == 0 || in.len > DNS_NAME_MAX || !copy_lower(out, in) || !labels_valid(out))
        return -EINVAL;
    return 0;
}

static int parse_utf8(struct dns_name *out, struct str in)
{
    char text[UTF8_NAME_MAX + 1];
    uint8_t *mapped = NULL;
    int rc;

    if (in.len > UTF8_NAME_MAX || memchr(in.ptr, '\0', in.len) != NULL)
        return -EINVAL;
    memcpy(text, in.ptr, in.len);
    text[in.len] = '\0';
    rc = idn2_lookup_u8((const uint8_t *)text, &mapped, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (rc != IDN2_OK)
        return -EINVAL;
    rc = parse_ascii(out, str_of((const char *)mapped));
    idn2_free(mapped);
    return rc;
}

int dns_name_parse(struct dns_name *out, struct str in)
{
    return str_is_ascii(in) ? parse_ascii(out, in) : parse_utf8(out, in);
}

char *dns_name_readable(const char *name)
{
    struct dns_name back;
    char *text = NULL, *out;
    bool same = strstr(name, "xn--") != NULL && idn2_to_unicode_8z8z(name, &text, 0) == IDN2_OK &&
                dns_name_parse(&back, str_of(text)) == 0 && strcmp(back.text, name) == 0;

    out = strdup(same ? text : name);
    ASSERT(out != NULL);
    idn2_free(text);
    return out;
}

bool dns_name_valid(struct str name)
{
    struct dns_name parsed;

    return parse_ascii(&parsed, name) == 0;
}

void dns_address_v4(struct dns_address *out, struct in_addr in)
{
    *out = (struct dns_address){.in = {.sin_family = AF_INET, .sin_port = htons(SMTP_PORT)}};
    out->in.sin_addr = in;
}

void dns_address_v6(struct dns_address *out, struct in6_addr in)
{
    *out = (struct dns_address){.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(SMTP_PORT)}};
    out->in6.sin6_addr = in;
}

static bool parse_v4(struct dns_address *out, const char *text)
{
    struct in_addr in;

    if (inet_pton(AF_INET, text, &in) != 1)
        return false;
    dns_address_v4(out, in);
    return true;
}

static bool parse_v6(struct dns_address *out, const char *text)
{
    struct in6_addr in;

    if (inet_pton(AF_INET6, text, &in) != 1)
        return false;
    dns_address_v6(out, in);
    return true;
}

enum dns_literal dns_literal_parse(struct dns_address *out, struct str in, bool bare)
{
    bool bracketed = in.len > 0 && in.ptr[0] == '[';
    char text[LITERAL_MAX];
    bool good;

    if (!bracketed && !bare)
        return DNS_LITERAL_NONE;
    if (in.len >= sizeof(text))
        return bracketed ? DNS_LITERAL_BAD : DNS_LITERAL_NONE;
    if (bracketed) {
        if (in.len < 2 || in.ptr[in.len - 1] != ']')
            return DNS_LITERAL_BAD;
        in = (struct str){in.ptr + 1, in.len - 2};
    }
    if (memchr(in.ptr, '\0', in.len) != NULL)
        return bracketed ? DNS_LITERAL_BAD : DNS_LITERAL_NONE;
    memcpy(text, in.ptr, in.len);
    text[in.len] = '\0';
    if (bracketed && str_starts_nocase(in, STR("IPv6:")))
        good = parse_v6(out, text + 5);
    else
        good = parse_v4(out, text) || (bare && parse_v6(out, text));
    if (good)
        return DNS_LITERAL_ADDRESS;
    return bracketed ? DNS_LITERAL_BAD : DNS_LITERAL_NONE;
}

void dns_literal_text(const struct dns_address *address, struct dns_name *out)
{
    bool v6 = address->sa.sa_family == AF_INET6;
    char text[INET6_ADDRSTRLEN];
    const void *bytes = v6 ? (const void *)&address->in6.sin6_addr : &address->in.sin_addr;
    int n;

    if (inet_ntop(address->sa.sa_family, bytes, text, sizeof(text)) == NULL)
        text[0] = '\0';
    n = snprintf(out->text, sizeof(out->text), "[%s%s]", v6 ? "IPv6:" : "", text);
    ASSERT(n > 0 && (size_t)n < sizeof(out->text));
    out->len = (size_t)n;
}

bool dns_address_refused(const struct dns_address *address)
{
    uint32_t v4;

    if (address->sa.sa_family == AF_INET6) {
        const struct in6_addr *in6 = &address->in6.sin6_addr;

        return IN6_IS_ADDR_UNSPECIFIED(in6) || IN6_IS_ADDR_MULTICAST(in6) ||
               IN6_IS_ADDR_V4MAPPED(in6);
    }
    v4 = ntohl(address->in.sin_addr.s_addr);
    /* 0/8 reaches the local host on Linux; 224/3 is multicast and reserved, broadcast included. */
    return v4 >> 24 == 0 || v4 >> 29 == 7;
}
