/* Options of 'hayauma queue': which recipients, and how to show them. */
#ifndef HAYAUMA_TOOLS_QUEUE_FILTER_H
#define HAYAUMA_TOOLS_QUEUE_FILTER_H

#include <jansson.h>
#include <stdbool.h>

#include "tools/commands/channel.h"

struct queue_options {
    struct channel_options channel;
    json_t *filter;     /* for the request */
    const char *one_id; /* the message or record, when there is one; then nothing is mass */
    bool records;       /* of the quarantine: an argument may be the name of one */
    long long limit;
    bool all, yes;
    const char *to; /* --to */
};

extern const char queue_filter_help[];

/* Options and arguments behind the action's name (argv[0]). 0, or an exit code, or -1: help was
 * asked for. On success release with queue_options_done(). */
int queue_options_parse(struct queue_options *o, int argc, char **argv);
void queue_options_done(struct queue_options *o);
/* {"op":op,"filter":...}, with limit and all. */
json_t *queue_request(const struct queue_options *o, const char *op);

#endif
