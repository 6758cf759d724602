/* The suppression list as JSON, for HTTP and the control channel: what is asked to go on it or off
 * it, and what is there. Any thread but a worker. */
#ifndef HAYAUMA_ENGINE_SUPPRESS_LIST_H
#define HAYAUMA_ENGINE_SUPPRESS_LIST_H

#include "outcome/suppress.h"

#define SUPPRESS_ENTRIES_MAX 10000 /* of a request: one transaction */

struct json_t;

/* What became of the entries of a request. */
struct suppress_told {
    uint64_t changed; /* in the order */
    uint64_t same;    /* it is so already */
    uint64_t invalid;
    struct buf errors; /* of the first of these: members of a JSON list */
};

/* Reads a list of {"email", "reason", "campaign", "since_ms"}, of which the first must be there, in
 * an order: they go on the list, or off it (remove; of these the address alone counts). as: what
 * counts where an entry says nothing, tenant and who for all. 0, -EINVAL: it is no list, or too
 * long; -EIO. */
int suppress_list_read(struct suppressions *list, const struct json_t *entries,
                       const struct suppression *as, bool remove, struct suppress_order *order,
                       struct suppress_told *told) MUST_USE;
/* {"added":1,"known":0,"invalid":0,"errors":[]}, or "removed" and "unknown". */
void suppress_told_put(struct buf *out, const struct suppress_told *told, bool remove);
void suppress_told_done(struct suppress_told *told);

/* Appends the object of one. */
void suppression_put(struct buf *out, const struct suppression *one);

#endif
