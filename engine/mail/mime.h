/* Messages built from parts: header fields (RFC 5322, RFC 2047), text and attachments (RFC 2045,
 * RFC 2046). Everything that is written is ASCII, but for an address that is not, in lines of at
 * most 998 bytes with CRLF. Texts are valid UTF-8 without NUL; whatever else is in them, no value
 * makes a second field or part. Pure.
 */
#ifndef HAYAUMA_ENGINE_MIME_H
#define HAYAUMA_ENGINE_MIME_H

#include <stdbool.h>

#include "base/assert.h"
#include "base/buf.h"

#define MIME_BOUNDARY_BYTES 48

/* Whether name can be a field's. */
bool mime_field_name_valid(struct str name);
/* What is written where text is not ASCII. */
enum mime_charset {
    MIME_UTF8,
    MIME_ISO_2022_JP, /* of what fits it: iso2022jp_can() */
};

/* Appends "name: value". Control characters, line ends too, become spaces; what is not ASCII
 * becomes encoded words, as the field's syntax has them. 0, or -EMSGSIZE: a piece of value where
 * the line cannot be folded is too long. */
int mime_put_field(struct buf *out, struct str name, struct str value,
                   enum mime_charset charset) MUST_USE;
/* Appends "name: display <address>"; display may be empty. */
int mime_put_mailbox(struct buf *out, struct str name, struct str display, struct str address,
                     enum mime_charset charset) MUST_USE;

/* Appends a part: its fields, an empty line, its content. text has LF, CR or CRLF line ends. The
 * encoding is that of the content: 7bit, or the shorter of quoted-printable and base64. */
void mime_put_text(struct buf *out, struct str subtype, struct str text, enum mime_charset charset);

struct mime_attachment {
    struct str type;       /* "image/png"; mime_type_valid() */
    struct str file_name;  /* may be empty */
    struct str content_id; /* without <>; given: it is shown within the text; mime_id_valid() */
    struct str bytes;
};
/* Whether type is "type/subtype", with parameters or without, and may be encoded in base64. */
bool mime_type_valid(struct str type);
bool mime_id_valid(struct str id);
void mime_put_attachment(struct buf *out, const struct mime_attachment *a);
/* Appends a part of parts. seed makes the boundary, which is in none of them: what nobody guesses,
 * another for each message and level. */
void mime_put_multipart(struct buf *out, const char *subtype, const struct str *parts, size_t len,
                        struct str seed);
/* Appends in with CRLF wherever it has LF, CR or CRLF, and at its end. */
void mime_put_lines(struct buf *out, struct str in);

#endif
