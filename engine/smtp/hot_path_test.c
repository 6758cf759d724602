/* Messages flow through both machines without an allocation once buffers have their size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/client.h"
#include "smtp/server.h"

#define MESSAGES      2000
#define WARM_MESSAGES 200

/* Counted where nobody else has taken these names over. */
#if defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#if !SANITIZED
#define COUNTING 1
void *__libc_malloc(size_t n);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n);
void *realloc(void *p, size_t n);

static size_t allocations;

void *malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}

void *realloc(void *p, size_t n)
{
    allocations++;
    return __libc_realloc(p, n);
}
#else
#define COUNTING 0
static size_t allocations;
#endif

static struct smtp_transaction transactions[8];
static struct smtp_transaction_rcpt rcpts[8];
static uint8_t content[4096];
static size_t submitted, delivered;

static void submit(struct smtp_client *c)
{
    struct smtp_transaction *t = &transactions[submitted % 8];

    rcpts[submitted % 8].address = STR("somebody@example.net");
    *t = (struct smtp_transaction){
        .sender = STR("bounce@example.org"),
        .pieces = {{content, sizeof(content)}},
        .dot_lines = true,
        .rcpts = &rcpts[submitted % 8],
        .rcpts_len = 1,
    };
    submitted++;
    smtp_client_submit(c, t);
}

static void drain(struct smtp_client *c)
{
    struct smtp_event e;

    do {
        while (submitted < MESSAGES && smtp_client_can_submit(c))
            submit(c);
        smtp_client_next_event(c, &e);
        if (e.kind == SMTP_EVENT_RECIPIENT && e.reply->code == 250)
            delivered++;
    } while (e.kind != SMTP_EVENT_NONE);
}

static void serve(struct smtp_server *s, struct buf *out, const struct iovec *piece)
{
    struct smtp_server_input in = {piece->iov_base, piece->iov_len};
    enum smtp_server_want want;

    while ((want = smtp_server_step(s, &in, out)) != SMTP_SERVER_INPUT) {
        assert_int_not_equal(want, SMTP_SERVER_CLOSE);
        assert_int_not_equal(want, SMTP_SERVER_ABORT);
        if (want != SMTP_SERVER_BODY)
            smtp_server_answer(s, out, NULL);
    }
}

static void flow(bool no_chunking)
{
    static struct pool outputs;
    static const struct smtp_client_options client_options = {.ehlo_name = "client.test",
                                                              .pipeline_max = 4,
                                                              .pipeline_bytes_max = 100000,
                                                              .outputs = &outputs};
    struct smtp_server_options server_options = {.host_name = "mx.test",
                                                 .line_bytes_max = 4096,
                                                 .commands_max = 100,
                                                 .no_chunking = no_chunking};
    struct smtp_client *c;
    struct buf replies = {0};
    struct smtp_server s;
    size_t warm = 0;

    pool_init(&outputs, "output", SMTP_CLIENT_OUTPUT_BYTES, 1);
    c = smtp_client_new(&client_options);
    submitted = delivered = 0;
    for (size_t i = 0; i < sizeof(content); i++)
        content[i] = i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : i % 780 == 0 ? '.' : 'a';
    memcpy(content + sizeof(content) - 2, "\r\n", 2);
    smtp_server_init(&s, &server_options);
    smtp_server_greet(&s, &replies, NULL);
    while (delivered < MESSAGES) {
        struct iovec iov[64];
        size_t n;

        if (delivered > WARM_MESSAGES && warm == 0)
            warm = allocations;
        smtp_client_input(c, replies.data, replies.len);
        buf_clear(&replies);
        drain(c);
        n = smtp_client_output(c, iov, 64);
        for (size_t i = 0; i < n; i++)
            serve(&s, &replies, &iov[i]);
        if (n != 0)
            smtp_client_sent(c);
        drain(c);
    }
    assert_int_equal(s.messages, MESSAGES);
    if (COUNTING) {
        assert_true(warm > 0);
        assert_int_equal(allocations, warm);
    }
    smtp_client_free(c);
    pool_done(&outputs);
    smtp_server_done(&s);
    buf_done(&replies);
}

static void test_no_allocation(void **state)
{
    (void)state;
    flow(false);
    flow(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_allocation)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
