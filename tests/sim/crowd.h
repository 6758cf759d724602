/* Much mail at once: where its rows go, and who has how much of a site that takes only so much.
 *
 *   spreading   mail of a domain that gets most of what arrives goes to shards by id; a message of
 * many recipients has rows in all shards, as many in each weights     while all tenants have mail
 * that waits for the crowd's site, each gets its part of what the site takes, by its weight, within
 * 5 %; in each worker, since shards are theirs */
#ifndef HAYAUMA_TESTS_SIM_CROWD_H
#define HAYAUMA_TESTS_SIM_CROWD_H

#include "queue/queue.h"
#include "tests/sim/ledger.h"

/* A worker's port submits a change. */
void crowd_submitted(const struct queue_port *port, uint32_t shard,
                     const struct queue_change *change);
/* A receiver took r, not for the first time maybe. */
void crowd_taken(const struct ledger_rcpt *r);
/* The end of the world. */
void crowd_check(void);

#endif
