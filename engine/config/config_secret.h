/* Files that hold secrets, one entry a line: who may submit (users), how to log in at others
 * (credentials), or at a source's proxy; the keys of letters. Only their owner may read them;
 * whoever else can is told, and nothing is read. */
#ifndef HAYAUMA_ENGINE_CONFIG_SECRET_H
#define HAYAUMA_ENGINE_CONFIG_SECRET_H

#include <sys/stat.h>

#include "base/buf.h"
#include "config/config.h"

/* As root, before the change to c's user: whether that user will be able to read a file, which the
 * next reload needs. Else true. */
bool config_user_may_read(const struct config *c, const struct stat *st);
/* The whole of file into text, to be wiped by config_secret_done(). 0, or -errno with a line in
 * errors. -EACCES: others than its owner may read or write it, or c's user may not. c may be NULL:
 * the caller alone is to read it. */
int config_secret_read(const struct config *c, const char *file, struct buf *text,
                       struct buf *errors) MUST_USE;
/* The same of what fd is open on; file is its name in errors. */
int config_secret_read_fd(const struct config *c, const char *file, int fd, struct buf *text,
                          struct buf *errors) MUST_USE;
void config_secret_done(struct buf *text);
/* The next entry of text, from *at on; empty lines and those that begin with '#' are passed over.
 * False at the end. *line: its number. */
bool config_secret_next(struct str text, size_t *at, unsigned *line, struct str *entry);

/* One line of the file of users into *out, which lives as long as c. 0, or -EINVAL with what is
 * wrong in why (never with the line's hash). */
int config_user_parse(struct config *c, struct str entry, struct config_user *out,
                      struct buf *why) MUST_USE;
/* Loads the files that c names. 0, or -errno with lines in errors. */
int config_load_users(struct config *c, struct buf *errors) MUST_USE;
int config_load_credentials(struct config *c, struct buf *errors) MUST_USE;
int config_load_proxies(struct config *c, struct buf *errors) MUST_USE;
int config_load_letter_keys(struct config *c, struct buf *errors) MUST_USE;
/* Passwords leave memory with the configuration. */
void config_wipe_credentials(struct config *c);
void config_wipe_proxies(struct config *c);
void config_wipe_letter_keys(struct config *c);

#endif
