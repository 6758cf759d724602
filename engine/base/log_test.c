#include "base/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"

static char line[8192];
static int real_stderr, pipe_fds[2];

static void capture_begin(void)
{
    assert_int_equal(pipe2(pipe_fds, O_NONBLOCK), 0);
    real_stderr = dup(STDERR_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
}

/* What was written to stderr since capture_begin(), in line[]. */
static void capture_end(void)
{
    ssize_t n = read(pipe_fds[0], line, sizeof(line) - 1);

    line[n > 0 ? n : 0] = '\0';
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void test_escapes(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"a\r\nforged=1", "a\\x0d\\x0aforged=1"},
        {"\x1b[2J\x7f", "\\x1b[2J\\x7f"},
        {"\xc2\x9b"
         "1m",
         "\\x9b1m"}, /* U+009B, a terminal's CSI */
        {"\xe6\x97\xa9\xe9\xa6\xac", "\xe6\x97\xa9\xe9\xa6\xac"},
        {"\xc2", "\xc2"},
    };

    (void)state;
    setenv("JOURNAL_STREAM", "8:1", 1);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char want[128] = "<4>event=test.case text=";

        capture_begin();
        log_warn("test.case", "text=%s", cases[i].in);
        capture_end();
        strcat(strcat(want, cases[i].out), "\n");
        assert_string_equal(line, want);
    }
}

static void test_prefix_and_level(void **state)
{
    (void)state;
    unsetenv("JOURNAL_STREAM");
    capture_begin();
    log_error("a.b", "n=%d", 1);
    capture_end();
    assert_memory_equal(line, "time=20", 7);
    assert_string_equal(strstr(line, " level="), " level=error event=a.b n=1\n");

    capture_begin();
    log_debug("a.b", "n=%d", 1);
    capture_end();
    assert_string_equal(line, "");

    log_set_level(LOG_LEVEL_DEBUG);
    assert_true(log_enabled(LOG_LEVEL_DEBUG));
    capture_begin();
    log_debug("a.b", "n=%d", 1);
    capture_end();
    assert_non_null(strstr(line, " level=debug event=a.b n=1\n"));
    log_set_level(LOG_LEVEL_ERROR);
    capture_begin();
    log_warn("a.b", "n=%d", 1);
    capture_end();
    assert_string_equal(line, "");
    log_set_level(LOG_LEVEL_INFO);
}

/* Too long is cut, an escape never in the middle, and the line still ends. */
static void test_long(void **state)
{
    (void)state;
    setenv("JOURNAL_STREAM", "8:1", 1);
    for (size_t pad = 2000; pad < 2060; pad++) {
        char text[2100];
        size_t n;

        memset(text, 'x', pad);
        strcpy(text + pad, "\n\n\n\n\n\n\n\n\n\n");
        capture_begin();
        log_warn("e", "%s", text);
        capture_end();
        n = strlen(line);
        assert_true(n <= 2048 && n > 2000);
        assert_ptr_equal(strchr(line, '\n'), line + n - 1);
        if (strchr(line, '\\') != NULL)
            assert_memory_equal(line + n - 5, "\\x0a\n", 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_prefix_and_level),
        cmocka_unit_test(test_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
