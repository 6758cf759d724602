/* hayauma queue export: messages of the queue as files. */
#ifndef HAYAUMA_TOOLS_QUEUE_EXPORT_H
#define HAYAUMA_TOOLS_QUEUE_EXPORT_H

#include "tools/queue_filter.h"

/* One message (o->one_id) to stdout, or all that match into the directory o->to: <id>.eml for each
 * message, and recipients.jsonl with a line for each recipient. Returns an exit code. */
int queue_export(struct channel *ch, struct queue_options *o);

#endif
