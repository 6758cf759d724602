/* The file of users as `hayauma user` changes it: read, one line changed, written anew and renamed
 * into its place, so that a reader finds the old file or the new one. Two that change it wait for
 * each other: a lock on its directory is held from users_open() to users_close(). */
#ifndef HAYAUMA_TOOLS_USERS_FILE_H
#define HAYAUMA_TOOLS_USERS_FILE_H

#include <sys/stat.h>

#include "base/buf.h"

struct users_file {
    char *path; /* without symbolic links */
    int directory;
    struct stat owner; /* st_uid and st_gid: of the file, or what a new one gets */
    struct buf text;
};

/* owner: whom a new file is to belong to, NULL: who calls. 0, or -1 with a line on stderr. */
int users_open(struct users_file *f, const char *command, const char *path,
               const char *owner) MUST_USE;
/* The line of the user, without its line end; *at: where it begins. False: there is none. */
bool users_find(const struct users_file *f, struct str name, size_t *at, struct str *line);
/* Puts text (with its line end, or nothing) in the place of old_len bytes at at. */
void users_replace(struct users_file *f, size_t at, size_t old_len, struct str text);
int users_write(struct users_file *f, const char *command) MUST_USE;
void users_close(struct users_file *f);

#endif
