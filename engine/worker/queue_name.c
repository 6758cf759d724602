#include "worker/queue_name.h"

#include <errno.h>

int queue_name_of(struct str domain, struct dns_name *out)
{
    struct dns_address literal;

    switch (dns_literal_parse(&literal, domain, false)) {
    case DNS_LITERAL_ADDRESS:
        dns_literal_text(&literal, out);
        return 0;
    case DNS_LITERAL_BAD:
        return -EINVAL;
    case DNS_LITERAL_NONE:
        break;
    }
    return dns_name_parse(out, domain);
}

struct str queue_name_domain(struct str address)
{
    ptrdiff_t at = str_rfind(address, '@');

    if (at < 0)
        return STR("");
    return (struct str){address.ptr + at + 1, address.len - (size_t)at - 1};
}
