/* A look at a source's proxy: whether it takes connections and, where it speaks SOCKS, the login.
 * Nothing is sent on by it. source_found() or source_missing() hear what came of it.
 *
 * Thread: the worker that has shard 0. A look's connection is closed within a second of its end. */
#ifndef HAYAUMA_ENGINE_PROXY_LOOK_H
#define HAYAUMA_ENGINE_PROXY_LOOK_H

struct config_source;
struct source;
struct worker;

/* Begins a look at the proxy of `of`, which is in w->config, unless one is under way. */
void proxy_look(struct worker *w, struct source *s, const struct config_source *of);
/* Frees those that are over. */
void proxy_looks_reap(struct worker *w);
/* Ends all, without a verdict; behind a turn of io proxy_looks_reap() frees them. */
void proxy_looks_end(struct worker *w);

#endif
