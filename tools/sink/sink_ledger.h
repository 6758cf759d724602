/* The ledger: what a receiver took or a sender had acknowledged, one line per message and
 * recipient, compared by tests/lib/ledger_check.py. Shared by `hayauma sink` and `hayauma source`.
 *
 *   time_ms TAB session TAB sender TAB recipient TAB size TAB crc32c TAB message_id TAB seq LF
 *
 * session: of a source, how often the message may have been taken before this 250 (it lost its
 * connection behind the end of the message and had to send it again).
 * size and crc32c (8 hex digits) are of the content without the trace fields at its top (Received,
 * Return-Path), so that they are equal on both sides of an engine. seq is the value of X-Seq, "-"
 * when there is none. Bytes below 0x21, 0x7f and '%' in text are written as %XX.
 *
 * Thread: a buffer per worker; ledger_flush() is one O_APPEND write, so that workers may share a
 * file. */
#ifndef HAYAUMA_TOOLS_SINK_LEDGER_H
#define HAYAUMA_TOOLS_SINK_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

#define LEDGER_SEQ_BYTES        64
#define LEDGER_MESSAGE_ID_BYTES 256
/* Header blocks beyond this are looked at only so far. */
#define LEDGER_HEAD_BYTES_MAX (64 * 1024)

/* What is kept of one message while its bytes pass by. */
struct ledger_content {
    struct buf head; /* the header block when it comes in several pieces */
    bool in_body;
    uint32_t crc;
    uint64_t bytes;
    uint8_t seq_len, message_id_len;
    char seq[LEDGER_SEQ_BYTES];
    char message_id[LEDGER_MESSAGE_ID_BYTES];
};

void ledger_content_reset(struct ledger_content *c);
void ledger_content_add(struct ledger_content *c, const char *bytes, size_t n);
/* The message is complete: crc, bytes, seq and message_id are set. */
void ledger_content_end(struct ledger_content *c);
void ledger_content_done(struct ledger_content *c);

/* Appends one line to lines. */
void ledger_line(struct buf *lines, int64_t wall_ms, uint64_t session, struct str sender,
                 struct str recipient, const struct ledger_content *c);
/* A line for a session: "time_ms session peer helo". */
void ledger_session(struct buf *lines, int64_t wall_ms, uint64_t session, struct str peer,
                    struct str helo);
/* Writes lines to fd and clears them; 0 or -errno. */
int ledger_flush(struct buf *lines, int fd) MUST_USE;

#endif
