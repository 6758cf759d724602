/* The HTTP side of the engine: injection, metrics, health (docs/http.md). libmicrohttpd reads and
 * writes on threads of its own; letters go to the workers as notes, and a request waits, without
 * holding a thread, until its letters are durable.
 *
 * Main thread: all of these. Everything may be NULL: a configuration without http.listen. */
#ifndef HAYAUMA_ENGINE_HTTP_H
#define HAYAUMA_ENGINE_HTTP_H

#include "config/config.h"
#include "worker/shared.h"

struct http;

/* Binds, before privileges are dropped. 0 (*out NULL: nothing is configured) or -errno with a line
 * in error. */
int http_open(struct http **out, struct config *config, struct buf *error) MUST_USE;
/* Serves, once workers do. 0 or -errno with a line in error. */
int http_start(struct http *h, struct shared *shared, struct buf *error) MUST_USE;
void http_reload(struct http *h, struct config *config);
/* From here on no mail is taken, and /health/ready says so. */
void http_drain(struct http *h);
/* Ends connections whose request takes too long to arrive. Some times a second. */
void http_tick(struct http *h);
/* Answers what is under way, which needs the workers, and ends. */
void http_close(struct http *h);

#endif
