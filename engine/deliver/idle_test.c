/* Which idle session a channel of another site takes over. */
#include "deliver/idle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "deliver/delivery.h"

static struct worker worker;

static void channel_make(struct channel *c, struct site *site)
{
    c->site = site;
    list_init(&c->seats);
    list_init(&c->idle);
    list_init(&c->resting);
}

/* A send may find that the peer has closed while what the peer said before is still to be received.
 */
static void test_not_what_ends(void **state)
{
    struct config_destination dest = {.tls = (char *)(uintptr_t) "none"};
    struct site site = {.worker = &worker, .dest = &dest}, its_site = site;
    struct exchanger to = {.addr.sa.sa_family = AF_INET, .len = sizeof(struct sockaddr_in)};
    struct channel *c = calloc(1, sizeof(*c)), *its = calloc(1, sizeof(*its));
    struct delivery *d = calloc(1, sizeof(*d));

    (void)state;
    assert_true(c != NULL && its != NULL && d != NULL);
    for (size_t i = 0; i < WORKER_IDLE_BUCKETS; i++)
        list_init(&worker.idle[i]);
    channel_make(c, &site);
    channel_make(its, &its_site);
    d->worker = &worker;
    d->site = &its_site;
    d->channel = its;
    d->state = DELIVERY_OPEN;
    d->dial.exchanger = to;
    d->secure.policy = secure_policy(&its_site, &to);
    list_init(&d->letters);
    list_init(&d->carried);
    assert_null(idle_find(c, &to));
    idle_enter(d);
    assert_ptr_equal(idle_find(c, &to), d);
    d->yielding = true;
    assert_null(idle_find(c, &to));
    d->yielding = false;
    assert_ptr_equal(idle_find(c, &to), d);
    idle_leave(d);
    assert_null(idle_find(c, &to));
    free(d);
    free(its);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_what_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
