/* hayauma queue export: messages of the queue as files. */
#ifndef HAYAUMA_TOOLS_QUEUE_EXPORT_H
#define HAYAUMA_TOOLS_QUEUE_EXPORT_H

#include <stdint.h>

#include "tools/commands/queue_filter.h"

/* One message (o->one_id) to stdout, or all that match into the directory o->to: <id>.eml for each
 * message, and recipients.jsonl with a line for each recipient. Returns an exit code. */
int queue_export(struct channel *ch, struct queue_options *o);
/* Damaged records into the directory o->to: <record>.key and .value as they were stored,
 * <id>.content with what is stored of the message, records.jsonl with a line for each. */
int queue_export_quarantine(struct channel *ch, struct queue_options *o);
/* Bytes in a reply; out has room for as many as text. Returns their number. */
size_t queue_decode_base64(const char *text, uint8_t *out);

#endif
