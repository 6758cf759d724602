/* What 'hayauma queue' shows: rows, groups of them, one message, damaged records. Each returns an
 * exit code. One thread. */
#ifndef HAYAUMA_TOOLS_QUEUE_VIEW_H
#define HAYAUMA_TOOLS_QUEUE_VIEW_H

#include <jansson.h>

#include "tools/commands/channel.h"
#include "tools/commands/queue_filter.h"

int queue_view_list(struct channel *ch, struct queue_options *o);
int queue_view_summary(struct channel *ch, struct queue_options *o);
int queue_view_show(struct channel *ch, struct queue_options *o);
int queue_view_quarantine(struct channel *ch, struct queue_options *o);
int queue_view_quarantine_show(struct channel *ch, struct queue_options *o);

#endif
