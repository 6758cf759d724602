/* hayauma queue suspend, resume, suspensions; hayauma source suspend, resume. */
#ifndef HAYAUMA_TOOLS_QUEUE_SUSPEND_H
#define HAYAUMA_TOOLS_QUEUE_SUSPEND_H

#include <stdbool.h>

/* The names of its actions: the at-th, or NULL. */
const char *queue_suspend_name(int at);
bool queue_suspend_is(const char *action);
/* argv[0] is what errors are said by: "hayauma queue suspend". Returns an exit code; -1: help was
 * asked for. */
int queue_suspend(const char *action, int argc, char **argv);
/* The same for `hayauma source suspend NAME` and resume. */
int source_suspend(const char *action, int argc, char **argv);

#endif
