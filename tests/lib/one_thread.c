/* Linked into the unit tests that ThreadSanitizer does not run: their code starts no threads, which
 * would be looked at by nobody. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *arg)
{
    (void)thread, (void)attributes, (void)run, (void)arg;
    fputs("this test starts a thread: add it to HAYAUMA_THREADED in CMakeLists.txt\n", stderr);
    abort();
}
