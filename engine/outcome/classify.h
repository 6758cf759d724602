/* Reading of a failure: what a reply or a broken session means for the recipient, the message, the
 * session, the host and the site, and which name the bounce gets in the records. Pure tables, any
 * thread. The rules are in docs/failures.md and in the const tables of classify.c;
 * engine/outcome/judge.c turns the verdict into action. */
#ifndef HAYAUMA_ENGINE_CLASSIFY_H
#define HAYAUMA_ENGINE_CLASSIFY_H

#include <stdbool.h>

#include "dns/dns.h"
#include "outcome/outcome.h"

/* Whose fault it is: the smallest thing that a change could help. Ordered from small to large. */
enum fault_scope {
    FAULT_NONE,      /* delivered */
    FAULT_RECIPIENT, /* this recipient only; the session goes on with the others */
    FAULT_MESSAGE,   /* every recipient of this message that is still open in the transaction; the
                        session   goes on with other messages */
    FAULT_SESSION,   /* this session is over; the host itself may be fine (a limit of messages, an
                        idle   timeout, a disconnect): open another one */
    FAULT_HOST,      /* this address of this exchanger: try the next one */
    FAULT_SITE, /* the destination as a whole, or what it thinks of our source: back off the lane */
};

struct verdict {
    /* The class for the recipient(s) in question. At a stage before MAIL nobody was refused yet:
     * the class then says what becomes of recipients that have no other host left to try. */
    enum outcome_class class;
    enum fault_scope scope;
    bool next_host; /* another exchanger may do better at once (RFC 5321 5.1); false: an answer for
                       all */
    bool close;     /* the session is of no more use */
    bool goodbye;   /* the server ends the session whatever it was asked: 421 (RFC 5321 3.8), or the
                       session may not bring more messages */
    bool too_many;  /* too many recipients in this transaction (RFC 5321 4.5.3.1.10): when others of
                       it were accepted, this one goes into the next transaction at once, no attempt
                       counted */
    bool slow_down; /* the peer says we send too much or too fast: fewer sessions, lower rate */
    bool paused;    /* a rule suspends the source or the site for it: outcome/rules.h */
    bool lowered;   /* a rule lowers the source's limits there for it */
};

/* What an event of smtp_client means. reply NULL: the session broke without one (fate NOT_SENT or
 * LOST). For fate UNABLE set unable; the class is then OUTCOME_FAILED and the reply from
 * classify_unable_reply(). A session that ends with SMTP_EVENT_CLOSE: pass its stage and reply
 * (NULL when its code is 0, a protocol error) with SMTP_FATE_REPLY or SMTP_FATE_NOT_SENT. */
struct verdict classify(enum smtp_stage stage, enum smtp_fate fate, enum smtp_unable unable,
                        const struct smtp_reply *reply);
/* What the end of a route lookup means (not for DNS_OK). */
struct verdict classify_dns(enum dns_status status);

/* Our own words where no peer spoke, as a reply with code and enhanced code (outcome.local = true).
 * error: -errno of connect/read/write, -ETIMEDOUT for a stage timeout, -EPROTO for a peer that does
 * not speak SMTP, -EBADMSG for the end of a session's encryption, 0 or -EPIPE for a peer that
 * closed. detail: more to say, or empty. */
void classify_io_reply(enum smtp_stage stage, int error, struct str detail, struct smtp_reply *out);
void classify_dns_reply(enum dns_status status, struct str detail, struct smtp_reply *out);
/* The session was to be encrypted, and is not: why says what failed. */
void classify_tls_reply(struct str why, struct smtp_reply *out);
/* The source's proxy was asked to connect, and did not: why begins with its name. */
void classify_proxy_reply(struct str why, struct smtp_reply *out);
/* The address that DNS names is ours: RFC 5321 5.1, mail would loop. */
void classify_own_reply(struct smtp_reply *out);
/* A route of ours says reject: what is queued ends as what comes is refused. */
void classify_rejected_reply(struct smtp_reply *out);
/* The message has no signature, although its domain signs: -errno. */
void classify_unsigned_reply(int error, struct smtp_reply *out);
/* The letter cannot be rendered: -EINVAL and -E2BIG are final, as its template or its variables are
 * wrong; any other -errno may pass. why: more to say, or empty. */
void classify_unrendered_reply(int error, struct str why, struct smtp_reply *out);
/* The message is not to be sent, since the address is on the suppression list: why says by what. */
void classify_suppressed_reply(struct str why, struct smtp_reply *out);
void classify_unable_reply(enum smtp_unable unable, struct smtp_reply *out);
/* 5xx 4.4.7 "message expired", with what it waited for and the last error behind it, where there
 * are such. at_set_time: not for its lifetime, but since whoever sent it set a time. */
void classify_expired_reply(bool at_set_time, struct str last_error, struct str waited_for,
                            struct smtp_reply *out);

/* bounce_classification for the records: one of KumoMTA's names or "Suppressed", never NULL. From
 * class and stage, then the enhanced code, then a few key words in the text, then the code.
 * OUTCOME_DELIVERED: "Uncategorized", as KumoMTA has it. */
const char *classify_bounce(const struct outcome *outcome);

/* Whether the answer says that nobody has the recipient's address, for good: then no mail should go
 * there any more. Doubtful ones do not: the address of somebody who is there would get none. */
bool classify_is_unknown(const struct outcome *outcome);

/* The number under which a classification is counted, and its name; both static. 0 is
 * "Uncategorized". Numbers are stored (queue/sheet.h). */
uint8_t classify_reason(const char *classification);
const char *classify_reason_name(uint8_t reason);

/* What the reply answered, as KumoMTA's response.command: "RCPT TO", "MAIL FROM", "DATA", "." ...;
 * NULL where there was no command (connect, banner). */
const char *classify_command(enum smtp_stage stage);

#endif
