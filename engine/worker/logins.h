/* What the process remembers of logins (AUTH), over all workers: how many have failed of late, of
 * each client address and for each user name, and how many messages users have sent. Under a mutex:
 * touched a few times in a login, and once a message of a user with a rate.
 *
 * Failures are buckets that leak: failures_max of them fit, and period / failures_max later there
 * is room for one more. Anybody can make entries, so there are LOGINS_ENTRIES_MAX of them at most;
 * the one that was touched longest ago makes room. */
#ifndef HAYAUMA_ENGINE_LOGINS_H
#define HAYAUMA_ENGINE_LOGINS_H

#include <pthread.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/map.h"
#include "base/str.h"

#define LOGINS_ENTRIES_MAX 65536

struct logins {
    pthread_mutex_t mutex; /* protects what follows */
    struct map entries;
    struct list by_age; /* entries, the one touched longest ago first */
    uint32_t len;
    struct map rates; /* of users: as many as there ever were in a file */
    uint64_t seed;
};

struct logins_limit {
    uint32_t failures_max, period_ms;
};

int logins_init(struct logins *l) MUST_USE;
void logins_done(struct logins *l);

/* Whether the client may try to log in as user now. Times are monotonic. */
bool logins_may_try(struct logins *l, const struct sockaddr *client, struct str user,
                    const struct logins_limit *limit, uint64_t now_ms);
/* The client tried to log in as user, in vain. Returns how many failures of the client there have
 * been of late, this one included. */
uint32_t logins_failed(struct logins *l, const struct sockaddr *client, struct str user,
                       const struct logins_limit *limit, uint64_t now_ms);
/* The client has logged in as user: for a day failures of other clients do not keep it from doing
 * so again. */
void logins_succeeded(struct logins *l, const struct sockaddr *client, struct str user,
                      uint64_t now_ms);

/* Takes the leave for one message of the user, of `messages` each period_ms; as many may come at
 * once. 0, or how many ms later to come again. */
uint64_t logins_rate_take(struct logins *l, struct str user, uint64_t messages, uint32_t period_ms,
                          uint64_t now_ms);

#endif
