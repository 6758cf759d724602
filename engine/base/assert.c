#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void assert_failed(const char *expr, const char *file, int line, const char *func)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "assertion failed: %s at %s:%d in %s\n", expr, file, line,
                     func);

    if (n > 0) {
        /* One write: lines of other threads cannot fall into it. Nothing is left to do on error. */
        ssize_t ignored =
            write(STDERR_FILENO, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
        (void)ignored;
    }
    abort();
}
