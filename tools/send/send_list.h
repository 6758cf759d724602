/* The recipients of `hayauma send`: from arguments, a file or a CSV. What is no address is reported
 * with its file and line, counted, and left out. Later a recipient's cells are its variables. */
#ifndef HAYAUMA_TOOLS_SEND_LIST_H
#define HAYAUMA_TOOLS_SEND_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/str.h"

struct send_list {
    struct buf text;   /* all addresses, a NUL behind each; one that is not ASCII in both forms */
    struct buf starts; /* size_t: where each begins in text */
    uint64_t invalid;  /* reported and left out */
    uint64_t reported_max;
};

void send_list_done(struct send_list *l);
size_t send_list_len(const struct send_list *l);
struct str send_list_at(const struct send_list *l, size_t i); /* as it was given */
/* As SMTP gets it: a Japanese domain in A-labels unless the local part needs SMTPUTF8 anyway, since
 * most servers of such domains lack that. */
struct str send_list_wire(const struct send_list *l, size_t i);
/* Appends that form of an address. */
void send_put_wire(struct buf *out, struct str address);

/* where: what to call the source in a report ("list.csv:12"). */
void send_list_add(struct send_list *l, struct str address, const char *where);
/* One address a line; blank lines and those that begin with '#' are skipped. "-": stdin.
 * 0 or -errno, reported. */
int send_list_read_lines(struct send_list *l, const char *file) MUST_USE;
/* The cells under the heading column (case does not matter). 0 or -errno, reported. */
int send_list_read_csv(struct send_list *l, const char *file, const char *column) MUST_USE;

#endif
