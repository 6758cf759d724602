/* What a campaign's report is made of, as JSON: what became of its mail by site and reason, over
 * time, and how long deliveries took. Any thread. */
#ifndef HAYAUMA_ENGINE_CAMPAIGN_REPORT_H
#define HAYAUMA_ENGINE_CAMPAIGN_REPORT_H

#include "base/buf.h"
#include "queue/queue.h"

/* Appends the object (docs/http.md, "The report"). */
void campaign_put_report(struct buf *out, const struct sheet *sheet);
/* Reads the sheet of a campaign and appends ,"report":{...} before the end of its object, with
 * which out ends. 0, -ENOMEM, -EIO. */
int campaign_add_report(struct buf *out, struct queue *q, const struct msgid *id) MUST_USE;

#endif
