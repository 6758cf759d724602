/* Between campaign.c, campaign_preview.c and campaign_rows.c: what requests about campaigns have in
 * common. */
#ifndef HAYAUMA_ENGINE_HTTP_CAMPAIGN_H
#define HAYAUMA_ENGINE_HTTP_CAMPAIGN_H

#include "http/http_private.h"
#include "mail/json_fields.h"
#include "worker/campaigns.h"

/* The campaign that the path names. False: it is answered, for there is none that the token may
 * see. */
bool campaign_of_request(struct http_request *r, struct campaign *out);
/* The body as an object; no body at all is an empty one. NULL: it is answered. */
struct json_t *campaign_body(struct http_request *r);
/* Answers what is wrong with the body. */
void campaign_mistake(struct http_request *r, const struct json_mistake *m);
/* Answers 503. */
void campaign_shortage(struct http_request *r, int err);
/* Whether no mail is taken now; then it is answered. */
bool campaign_intake_refused(struct http_request *r);
/* Of a campaign that comes with its list: reads the list, which is r's body, into the draft of r's
 * id. */
void campaign_upload_rows(struct http_request *r);
/* The list is in, and r->upload.told says how: the campaign is started, or answered. */
void campaign_upload_end(struct http_request *r);

#endif
