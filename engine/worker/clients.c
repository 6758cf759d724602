#include "worker/clients.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

struct client {
    struct map_node node;
    uint8_t key[8];
    size_t listener;
    uint32_t sessions, handshakes;
};

int clients_init(struct clients *c)
{
    pthread_mutex_init(&c->mutex, NULL);
    c->seed = rng_entropy();
    return map_init(&c->sessions, 64);
}

void clients_done(struct clients *c)
{
    ASSERT(c->sessions.count == 0);
    map_done(&c->sessions);
    pthread_mutex_destroy(&c->mutex);
}

/* An IPv4 address is behind a marker that no /64 of the Internet has. */
void client_key(const struct sockaddr *addr, uint8_t key[CLIENT_KEY_BYTES])
{
    memset(key, 0, 8);
    if (addr->sa_family == AF_INET) {
        key[0] = 0xff;
        key[1] = 4;
        memcpy(key + 4, &((const struct sockaddr_in *)(const void *)addr)->sin_addr, 4);
    } else if (addr->sa_family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr;

        if (IN6_IS_ADDR_V4MAPPED(in6)) {
            key[0] = 0xff;
            key[1] = 4;
            memcpy(key + 4, in6->s6_addr + 12, 4);
        } else {
            memcpy(key, in6->s6_addr, 8);
        }
    }
}

static uint64_t client_hash(const struct clients *c, const uint8_t key[8], size_t listener)
{
    return hash_bytes(key, CLIENT_KEY_BYTES, c->seed + listener);
}

static struct client *client_find(struct clients *c, const uint8_t key[8], size_t listener)
{
    uint64_t hash = client_hash(c, key, listener);

    for (struct map_node *n = map_find(&c->sessions, hash); n != NULL; n = map_find_next(n)) {
        struct client *client = CONTAINER_OF(n, struct client, node);

        if (client->listener == listener && memcmp(client->key, key, 8) == 0)
            return client;
    }
    return NULL;
}

bool clients_take(struct clients *c, const struct sockaddr *addr, size_t listener, uint32_t max)
{
    uint8_t key[8];
    struct client *client;
    bool ok = false;

    client_key(addr, key);
    pthread_mutex_lock(&c->mutex);
    client = client_find(c, key, listener);
    if (client == NULL) {
        client = calloc(1, sizeof(*client));
        if (client == NULL)
            goto out;
        memcpy(client->key, key, sizeof(key));
        client->listener = listener;
        map_insert(&c->sessions, &client->node, client_hash(c, key, listener));
    }
    ASSERT(client->sessions < UINT32_MAX);
    if (max == 0 || client->sessions < max) {
        client->sessions++;
        ok = true;
    }
out:
    pthread_mutex_unlock(&c->mutex);
    return ok;
}

/* Under the lock, of one that has sessions there. */
static struct client *client_known(struct clients *c, const struct sockaddr *addr, size_t listener)
{
    uint8_t key[8];
    struct client *client;

    client_key(addr, key);
    client = client_find(c, key, listener);
    ASSERT(client != NULL && client->sessions > 0);
    return client;
}

void clients_give(struct clients *c, const struct sockaddr *addr, size_t listener)
{
    struct client *client;

    pthread_mutex_lock(&c->mutex);
    client = client_known(c, addr, listener);
    if (--client->sessions == 0) {
        ASSERT(client->handshakes == 0);
        map_remove(&c->sessions, &client->node);
        free(client);
    }
    pthread_mutex_unlock(&c->mutex);
}

bool clients_shake(struct clients *c, const struct sockaddr *addr, size_t listener, uint32_t max)
{
    struct client *client;
    bool ok;

    pthread_mutex_lock(&c->mutex);
    client = client_known(c, addr, listener);
    ok = max == 0 || client->handshakes < max;
    client->handshakes += ok;
    pthread_mutex_unlock(&c->mutex);
    return ok;
}

void clients_shaken(struct clients *c, const struct sockaddr *addr, size_t listener)
{
    struct client *client;

    pthread_mutex_lock(&c->mutex);
    client = client_known(c, addr, listener);
    ASSERT(client->handshakes > 0);
    client->handshakes--;
    pthread_mutex_unlock(&c->mutex);
}
