/* Delivery status notifications (RFC 3461-3464): builds the message that tells a sender what became
 * of recipients. Pure: content in, content out. */
#ifndef HAYAUMA_ENGINE_NOTICE_H
#define HAYAUMA_ENGINE_NOTICE_H

#include "base/buf.h"
#include "outcome/outcome.h"
#include "queue/message.h"

enum notice_kind {
    NOTICE_FAILED,
    NOTICE_DELAYED,
    NOTICE_RELAYED,
    NOTICE_DELIVERED,
    NOTICE_EXPIRED
};

struct notice_recipient {
    struct str address, orcpt;
    const struct outcome *outcome;
    const char *peer_name;                        /* Remote-MTA, or NULL */
    int64_t last_attempt_ms, will_retry_until_ms; /* 0 = leave out */
};

struct notice {
    enum notice_kind kind;
    const char *host_name;  /* Reporting-MTA, From domain */
    const char *postmaster; /* From address; NULL = MAILER-DAEMON@host_name */
    const char *from_name;  /* NULL = "Mail Delivery System" */
    const struct message *original;
    const struct notice_recipient *recipients;
    size_t recipients_len;
    bool headers_only;         /* unless RET=FULL; RET=HDRS always wins */
    uint64_t return_bytes_max; /* larger originals are returned as headers */
    int64_t now_ms;
    struct msgid id; /* of the notice */
};

/* Whether a notice of this kind is owed for a recipient: never to the null sender, NOTIFY rules of
 * RFC 3461 4.1 (default: failure and delay). */
bool notice_wanted(enum notice_kind kind, const struct message *m, uint8_t notify);
/* The notice's content (multipart/report, CRLF). eight_bit says whether it has bytes > 127,
 * smtputf8 whether the return path needs it, and then it has message/global-delivery-status (RFC
 * 6533); else all its addresses are in ASCII. */
void notice_build(const struct notice *n, struct buf *out, bool *eight_bit, bool *smtputf8);

#endif
