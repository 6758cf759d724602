/* hayauma queue export: messages of the queue as files. */
#ifndef HAYAUMA_TOOLS_QUEUE_EXPORT_H
#define HAYAUMA_TOOLS_QUEUE_EXPORT_H

#include "tools/commands/queue_filter.h"

/* One message (o->one_id) to stdout, or all that match into the directory o->to: <id>.eml for each
 * message, and recipients.jsonl with a line for each recipient. Returns an exit code. */
int queue_export(struct channel *ch, struct queue_options *o);
/* Damaged records into the directory o->to: <record>.key and .value as they were stored,
 * <id>.content with what is stored of the message, records.jsonl with a line for each. */
int queue_export_quarantine(struct channel *ch, struct queue_options *o);

#endif
