/* An address on the command line: "127.0.0.1:25", "[::1]:25", "localhost", "unix:/run/x.sock".
 * Any thread; owns nothing. */
#ifndef HAYAUMA_TOOLS_ENDPOINT_H
#define HAYAUMA_TOOLS_ENDPOINT_H

#include <stdint.h>
#include <sys/socket.h>

#include "base/assert.h"

#define ENDPOINT_TEXT_BYTES 128

struct endpoint {
    struct sockaddr_storage addr;
    socklen_t len;
    char text[ENDPOINT_TEXT_BYTES]; /* as numbers: "127.0.0.1:25" */
};

/* port: used when text names none; 0: text must name one. Names are resolved (this may block).
 * 0, -EINVAL (syntax) or -EHOSTUNREACH (no such host); *out is set only on success. */
int endpoint_parse(const char *text, uint16_t port, struct endpoint *out) MUST_USE;
/* Fills out->text from out->addr. */
void endpoint_name(struct endpoint *out);

#endif
