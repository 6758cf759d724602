/* Private to queue/: where records go that cannot be trusted. They are never sent and stay
 * until the operator purges them; `hayauma queue quarantine` lists them with the reason. */
#ifndef HAYAUMA_QUEUE_QUARANTINE_H
#define HAYAUMA_QUEUE_QUARANTINE_H

#include <lmdb.h>

#include "base/str.h"

struct shard;

enum quarantine_tree { QUARANTINE_ROWS = 'r', QUARANTINE_OUTBOX = 'o' };

/* Within txn: a copy of the record with the reason. An LMDB code. */
int quarantine_put(MDB_txn *txn, MDB_dbi quarantine, enum quarantine_tree tree, struct str key,
                   struct str value, const char *reason);
/* Tells the queue's owner of a row that is there now. */
void quarantine_tell(const struct shard *s, struct str row_key, const char *reason);

#endif
