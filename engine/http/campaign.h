/* Between campaign.c and campaign_rows.c: what requests about campaigns have in common. */
#ifndef HAYAUMA_ENGINE_HTTP_CAMPAIGN_H
#define HAYAUMA_ENGINE_HTTP_CAMPAIGN_H

#include "http/http_private.h"
#include "worker/campaigns.h"

/* The campaign that the path names. False: it is answered, for there is none that the token may
 * see. */
bool campaign_of_request(struct http_request *r, struct campaign *out);
/* Answers 503. */
void campaign_shortage(struct http_request *r, int err);
/* Whether no mail is taken now; then it is answered. */
bool campaign_intake_refused(struct http_request *r);

#endif
