/* Domain names and address literals as mail writes them, brought to one form: lower-case A-labels
 * without trailing dot (RFC 5321 4.1.2 and 4.1.3, RFC 5890). Pure. */
#ifndef HAYAUMA_DNS_NAME_H
#define HAYAUMA_DNS_NAME_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "dns/dns.h"
#include "dns/dns_upstream.h"

struct dns_name {
    char text[DNS_NAME_MAX + 1];
    size_t len;
};

/* in: A-labels in any case, or UTF-8 (mapped as UTS 46 says, non-transitional). One trailing dot is
 * taken off. Underscores pass, since such names exist. A name whose last label is all digits is an
 * address that lost its brackets. 0 or -EINVAL. */
int dns_name_parse(struct dns_name *out, struct str in);

/* For people: A-labels as what they stand for, where dns_name_parse() brings that back; else name
 * itself. To be freed. */
char *dns_name_readable(const char *name);

/* True for a name from the network that could be a host's: as dns_name_parse() puts them out. */
bool dns_name_valid(struct str name);

enum dns_literal { DNS_LITERAL_NONE, DNS_LITERAL_ADDRESS, DNS_LITERAL_BAD };

/* "[192.0.2.1]", "[IPv6:2001:db8::1]"; with bare also "192.0.2.1", "2001:db8::1" and
 * "[2001:db8::1]" (static routes). BAD: brackets around something else. out gets port 25. */
enum dns_literal dns_literal_parse(struct dns_address *out, struct str in, bool bare);
/* The same in RFC 5321 form, whatever form the name was written in. */
void dns_literal_text(const struct dns_address *address, struct dns_name *out);

/* No mail server has this address: unspecified, multicast, broadcast, IPv4-mapped IPv6. A hostile
 * zone may name any address; one that leads back here is found out by its name in EHLO. */
bool dns_address_refused(const struct dns_address *address);

/* A sockaddr with the SMTP port. */
void dns_address_v4(struct dns_address *out, struct in_addr in);
void dns_address_v6(struct dns_address *out, struct in6_addr in);

#endif
