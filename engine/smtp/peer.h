/* What a peer said in its EHLO reply (RFC 5321 4.1.1.1). Pure. */
#ifndef HAYAUMA_SMTP_PEER_H
#define HAYAUMA_SMTP_PEER_H

#include <stdint.h>

#include "base/str.h"

struct smtp_peer {
    uint32_t capabilities;                        /* bits of enum smtp_capability */
    uint32_t auth;                                /* mechanisms of AUTH, bits of enum smtp_auth */
    uint64_t size_max;                            /* 0: none stated */
    uint32_t mail_max, rcpt_max, rcpt_domain_max; /* RFC 9422; 0: none stated */
};

/* One line behind the first, without code and separator. What is not understood is ignored. */
void smtp_peer_line(struct smtp_peer *peer, struct str line);

#endif
