/* The message of `hayauma send`: read from a file as it is, or built from parts (mail/mime.h). */
#ifndef HAYAUMA_TOOLS_SEND_MESSAGE_H
#define HAYAUMA_TOOLS_SEND_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/msgid.h"
#include "base/str.h"

#define SEND_ATTACHMENTS_MAX 32

struct send_parts {
    const char *from, *subject; /* from: as send_mailbox_parse() takes it; subject may be NULL;
                                   neither, nor an attachment's name, has control characters */
    const char *text_file, *html_file; /* UTF-8; "-": stdin */
    const char *attachments[SEND_ATTACHMENTS_MAX];
    size_t attachments_len;
};

struct send_message {
    struct buf content; /* CRLF lines, ends in CRLF */
    bool has_date, has_message_id, has_to;
    bool eight_bit, smtputf8, dot_lines;
    char *from; /* address of its From field, or NULL */
};

/* Both report what is wrong and return 0 or -errno. */
int send_message_read(const char *file, struct send_message *out) MUST_USE;
/* text is a whole message, with any line ends; file: what to call it in an error. */
int send_message_take(const char *file, struct str text, struct send_message *out) MUST_USE;
int send_message_build(const struct send_parts *parts, struct send_message *out) MUST_USE;
void send_message_done(struct send_message *m);
/* What an attachment of this path is called. */
const char *send_file_name(const char *path);
/* Whether text is "a@b" or "Name <a@b>"; the address goes to out (to be freed), as SMTP gets it
 * (send_list_wire()). 0 or -EINVAL. */
int send_mailbox_parse(const char *text, char **out) MUST_USE;

/* Writes the fields that the message lacks (Message-ID, Date, To), which stand before it in one
 * copy. to: the single recipient, or empty for several. */
void send_message_head(const struct send_message *m, struct str to, struct str id_domain,
                       struct msgid_source *ids, int64_t wall_ms, struct buf *out);

#endif
