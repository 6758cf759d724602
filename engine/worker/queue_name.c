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
    return str_rfind(address, '@') < 0 ? STR("") : queue_name_destination(address);
}

struct str queue_name_destination(struct str queue)
{
    size_t at = (size_t)(str_rfind(queue, '@') + 1);

    return (struct str){queue.ptr + at, queue.len - at};
}
