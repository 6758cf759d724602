/* A client of /api/campaigns/v1 (docs/http.md), for one campaign at a time. Blocks. */
#ifndef HAYAUMA_TOOLS_CAMPAIGN_CLIENT_H
#define HAYAUMA_TOOLS_CAMPAIGN_CLIENT_H

#include <jansson.h>

#include "base/assert.h"
#include "base/buf.h"

struct campaign_client {
    void *curl;
    const char *url; /* "http://127.0.0.1:8000" */
    char *token;     /* or NULL */
    struct buf answer;
};

/* token_file: its first line is the token; NULL: none. 0 or -errno, said on stderr.
 * campaign_client_close() follows in any case. */
int campaign_client_open(struct campaign_client *c, const char *url,
                         const char *token_file) MUST_USE;
void campaign_client_close(struct campaign_client *c);
/* A request for the campaigns' path and path; body: of this type, or NULL. What may pass (no
 * connection, 503) is tried again for half a minute: no request here does anything twice. The
 * status, and *answer, JSON or NULL, the caller's to give back; or -errno, said on stderr. */
int campaign_request(struct campaign_client *c, const char *method, const char *path,
                     const char *type, const struct str *body, json_t **answer) MUST_USE;

#endif
