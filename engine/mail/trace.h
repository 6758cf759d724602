/* What intake looks at in a message's header and what it puts in front (RFC 5321 4.4, RFC 5322).
 * Pure, no allocation, one pass. Runs once per accepted message. */
#ifndef HAYAUMA_ENGINE_TRACE_H
#define HAYAUMA_ENGINE_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/msgid.h"
#include "base/str.h"

struct buf;

#define TRACE_WANTED_MAX     16 /* configured headers for records */
#define TRACE_NAME_BYTES_MAX 64 /* campaign and tenant names */

/* Slices point into the content, without surrounding white space, still folded and encoded; empty
 * when the field is missing. The first field of a name counts. */
struct trace_facts {
    size_t
        header_len; /* bytes of the header fields; the empty line, if there is one, starts here */
    size_t body_offset; /* behind the empty line; content length when there is none */
    uint32_t fields;
    uint32_t received; /* Received fields: loops */
    bool has_message_id, has_date, has_from;
    bool eight_bit;   /* a byte > 127 in the header: needs SMTPUTF8, cannot be converted */
    bool wants_strip; /* there is something that trace_strip() takes away */
    struct str subject, message_id;
    struct str campaign, tenant, pool; /* validated: 1..64 bytes of letters, digits and "._-" */
    int8_t priority;                   /* X-Hayauma-Priority 0..9, -1 when missing */
    int64_t not_before_ms;             /* X-Hayauma-Not-Before, 0 when missing */
    int8_t engaged;                    /* X-Hayauma-Engaged: 1 yes, 0 no, -1 when missing */
    const char *error; /* the reply to a wrong X-Hayauma-* field ("550 5.6.0 ..."), or NULL */
    struct str wanted[TRACE_WANTED_MAX]; /* values of the names given, in their order */
};

/* How many bytes in front of the header are none of the message: a byte order mark, empty lines,
 * the "From " line of a mbox file. With them the header would be body. 0 where no header follows,
 * since they may be text then. */
size_t trace_lead(const uint8_t *content, size_t len);

/* content: lines that end in LF or CRLF. names: configured headers (case does not matter), at most
 * TRACE_WANTED_MAX are used. The header ends at the empty line, or at a line that is no field: then
 * body_offset is header_len, and trace_border() is to put the empty line there. */
void trace_scan(const uint8_t *content, size_t len, const struct str *names, size_t names_len,
                struct trace_facts *facts);

/* Removes X-Hayauma-*, Bcc, Resent-Bcc and Return-Path fields by moving the fields in front of them
 * towards the body, so that the body stays where it is. Removes blanks between a name and its colon
 * too: RFC 5322 4.5 lets nobody write them any more, and where some readers see a field others see
 * the header's end, or refuse to verify a signature (dkimpy). Returns how many bytes were taken
 * away: the message now starts at content
 * + that. facts' slices are stale afterwards (copy what is needed before), header_len and
 * body_offset are updated relative to the new start. */
size_t trace_strip(uint8_t *content, struct trace_facts *facts);

/* Puts an empty line in front of what ended the header without being one, as Postfix and Exim do:
 * others would end the header elsewhere, and a signature would not fit. The header moves into two
 * free bytes in front of content. Returns how many bytes earlier the message now starts: 0 or 2;
 * header_len and body_offset are relative to the new start, other slices of facts are stale. */
size_t trace_border(uint8_t *content, size_t len, struct trace_facts *facts);

struct trace_stamp {
    struct str helo;            /* as the client said it: hostile */
    bool esmtp, smtputf8, auth; /* the protocol: SMTP, ESMTP, UTF8SMTP and their S, A, SA forms */
    const char *tls_protocol;   /* "TLSv1.3"; NULL: the session was not encrypted */
    const char *tls_cipher;     /* "TLS_AES_256_GCM_SHA384" */
    int tls_bits;               /* 256 */
    const char *protocol;       /* instead of these, or NULL: "HTTP" */
    bool no_received;           /* no Received field is written */
    const char *peer_addr;      /* "192.0.2.1" or "2001:db8::1", no port; or NULL (Unix socket) */
    const char *host_name;      /* ours: "by", and the right side of a Message-ID */
    const struct msgid *id;
    struct str recipient; /* "for"; empty when the message has more than one (RFC 5321 7.2) */
    /* The From of a message without one, which many providers refuse and which can have no
     * signature; empty: it stays without. */
    struct str author;
    int64_t now_ms;
};

#define TRACE_STAMP_BYTES_MAX 2304
/* How many bytes trace_border() and trace_prepend() need in front of a message; helo, host_name,
 * recipient and author are looked at. */
size_t trace_stamp_room(const struct trace_stamp *stamp);
/* Whether trace_prepend() writes a From field: of an author whose address is ASCII. */
bool trace_adds_author(const struct trace_stamp *stamp, const struct trace_facts *facts);
/* That field, where it is written. */
void trace_put_author(const struct trace_stamp *stamp, struct buf *out);
/* Writes Received, and From, Message-ID and Date where facts say they are missing, so that they end
 * right at *end (where the message starts), into at least trace_stamp_room() free bytes in front of
 * it (less what trace_border() took). Returns the new start. Whatever the client sent, each field
 * is well-formed and below 998 bytes. */
uint8_t *trace_prepend(uint8_t *end, const struct trace_stamp *stamp,
                       const struct trace_facts *facts);

/* All three for a message that ends at end: what is for us alone goes, what is missing comes.
 * Returns its new start. */
uint8_t *trace_finish(uint8_t *start, const uint8_t *end, const struct trace_stamp *stamp,
                      struct trace_facts *facts);

/* The configured headers as a JSON object for message.trace: {"Subject":"..."}, names as given,
 * values unfolded, at most 512 bytes each. Appends nothing when none is present. */
void trace_wanted_json(const struct trace_facts *facts, const struct str *names, size_t names_len,
                       struct buf *out);

/* RFC 5322 3.3 date-time (obsolete zones included), or decimal Unix seconds, to milliseconds; 0 or
 * -EINVAL. */
int trace_date_parse(struct str s, int64_t *wall_ms);
/* The same, or ISO 8601 (RFC 3339): UTC without a zone. */
int trace_time_parse(struct str s, int64_t *wall_ms);

#endif
