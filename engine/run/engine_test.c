/* The process as a whole, with its threads: how it ends. */
#include "run/engine.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config_load.h"
#include "worker/shared.h"

#define NOTES   10000 /* more than an inbox has room for: the rest waits in the outbox */
#define SLOW_MS 200

static struct worker_note order, slow, *notes;
static _Atomic uint32_t posted, ran, strayed;

static void on_slow(struct worker *w, struct worker_note *note)
{
    (void)w, (void)note;
    usleep(SLOW_MS * 1000);
}

static void on_note(struct worker *w, struct worker_note *note)
{
    (void)note;
    strayed += w->index != 1;
    ran++;
}

static void on_order(struct worker *w, struct worker_note *note)
{
    (void)note;
    worker_post(w->shared, w, 1, &slow);
    for (uint32_t i = 0; i < NOTES; i++) {
        notes[i].run = on_note;
        worker_post(w->shared, w, 1, &notes[i]);
    }
    posted = 1;
}

static int on_ready(void *arg, struct buf *error)
{
    (void)arg, (void)error;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* A worker that ends while another has no room for what it was to hear: it ends when the other has
 * heard. Recipients that were accepted travel so. */
static void test_end_with_notes_outstanding(void **state)
{
    char dir[] = "/tmp/engine-test-XXXXXX", text[256];
    struct buf errors = {0};
    struct config *c;
    struct engine e;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(text, sizeof(text),
             "host_name: test.example\nlisteners: []\nworkers: 2\n"
             "queue: {path: %s/queue, map_size: 64MiB}\nrecords: {path: %s/records}\n",
             dir, dir);
    assert_int_equal(config_load_text("test.yaml", str_of(text), &c, &errors), 0);
    notes = calloc(NOTES, sizeof(*notes));
    assert_non_null(notes);
    assert_int_equal(engine_open(&e, c, &errors), 0);
    assert_int_equal(engine_start(&e, on_ready, NULL, &errors), 0);
    order.run = on_order;
    slow.run = on_slow;
    worker_post(&e.shared, NULL, 0, &order);
    while (!posted)
        usleep(1000);
    engine_close(&e);
    assert_int_equal(ran, NOTES);
    assert_int_equal(strayed, 0);
    free(notes);
    config_unref(c);
    buf_done(&errors);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Sanitizers' allocators have no back door. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define WORKERS 7 /* what is allocated for so many is known by that */

static bool no_memory;
void *__libc_calloc(size_t n, size_t bytes);

/* In place of libc's: the list of threads finds no memory. */
void *calloc(size_t n, size_t bytes)
{
    return no_memory && n == WORKERS && bytes == sizeof(pthread_t) ? NULL : __libc_calloc(n, bytes);
}

/* No thread has begun: nobody is there to be met at the end. */
static void test_no_memory(void **state)
{
    struct buf errors = {0};
    struct config *c;
    struct engine e;

    (void)state;
    assert_int_equal(config_load_text("test.yaml", STR("listeners: []\nworkers: 7\n"), &c, &errors),
                     0);
    no_memory = true;
    assert_int_equal(engine_open(&e, c, &errors), -ENOMEM);
    no_memory = false;
    alarm(10);
    engine_close(&e);
    alarm(0);
    config_unref(c);
    buf_done(&errors);
}
#define TEST_NO_MEMORY cmocka_unit_test(test_no_memory),
#else
#define TEST_NO_MEMORY
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_NO_MEMORY cmocka_unit_test(test_end_with_notes_outstanding)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
