#include "bench/base_cases.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/map.h"
#include "base/msgid.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/wheel.h"
#include "io/io.h"

#define TIMERS   100000
#define SPAN_MS  300000 /* RFC 5321 4.5.3.2: five minutes is the usual timeout */
#define DATA_MAX 65536

static struct wheel wheel;
static struct timer *timers;
static struct rng rng;
static size_t timers_ran;

static void on_timer(struct timer *timer)
{
    timers_ran++;
    wheel_arm(&wheel, timer, wheel.now_ms + 1 + rng_below(&rng, SPAN_MS));
}

static void fill_wheel(void)
{
    if (timers != NULL)
        return;
    timers = calloc(TIMERS, sizeof(*timers));
    ASSERT(timers != NULL);
    rng_seed(&rng, 1);
    wheel_init(&wheel, 1);
    for (size_t i = 0; i < TIMERS; i++) {
        timers[i].on_timer = on_timer;
        wheel_arm(&wheel, &timers[i], 1 + rng_below(&rng, SPAN_MS));
    }
}

size_t wheel_case_rearm(void)
{
    fill_wheel();
    wheel_arm(&wheel, &timers[rng_below(&rng, TIMERS)], wheel.now_ms + SPAN_MS);
    return 1;
}

size_t wheel_case_advance(void)
{
    fill_wheel();
    timers_ran = 0;
    wheel_advance(&wheel, wheel.now_ms + 1);
    return timers_ran;
}

static const uint8_t *data(void)
{
    static uint8_t bytes[DATA_MAX];

    for (size_t i = 0; bytes[1] == 0 && i < DATA_MAX; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 8));
    return bytes;
}

static uint32_t crc_sink;

static size_t crc_of(size_t n)
{
    crc_sink ^= crc32c(0, data(), n);
    return n;
}

size_t crc_case_64(void)
{
    return crc_of(64);
}

size_t crc_case_4k(void)
{
    return crc_of(4096);
}

size_t crc_case_64k(void)
{
    return crc_of(65536);
}

static uint64_t hash_sink;

static size_t hash_of(size_t n)
{
    hash_sink = hash_bytes(data(), n, hash_sink); /* chained: latency, as a look-up has it */
    return n;
}

size_t hash_case_16(void)
{
    return hash_of(16);
}

size_t hash_case_64(void)
{
    return hash_of(64);
}

static size_t escape_repeated(struct buf *text, const char *unit)
{
    static struct buf out;

    while (text->len < 1024)
        buf_puts(text, unit);
    buf_clear(&out);
    buf_put_json(&out, buf_str(text));
    return text->len;
}

size_t json_case_ascii_1k(void)
{
    static struct buf text;

    return escape_repeated(&text, "550 5.1.1 user unknown; see mail.example.org/help ");
}

size_t json_case_japanese_1k(void)
{
    static struct buf text;

    return escape_repeated(&text, "\xe6\x97\xa9\xe9\xa6\xac\xe3\x81\xaf\xe9\x80\x9f\xe3\x81\x84 ");
}

size_t json_case_controls_1k(void)
{
    static struct buf text;

    return escape_repeated(&text, "\"a\"\r\n\t\x01\xff");
}

size_t pool_case_cycle(void)
{
    static struct pool pool;

    if (pool.object_bytes == 0)
        pool_init(&pool, "bench", 512, 10);
    pool_put(&pool, pool_get(&pool));
    return 1;
}

size_t msgid_case_next(void)
{
    static struct msgid_source source;
    static struct msgid id;

    if (source.last_ms == 0)
        msgid_source_init(&source, 1);
    id = msgid_next(&source, 1795308557123);
    return id.bytes[0] == 0 ? 0 : 1;
}

size_t date_case_rfc5322(void)
{
    static int64_t wall_ms = 1795308557123;
    char date[CLOCK_RFC5322_BYTES];

    wall_ms += 61017;
    return clock_rfc5322(wall_ms, date) > 0;
}

static struct io *bench_io(void)
{
    static struct io *io;
    struct io_options options = {0};

    if (io == NULL && io_open(&io, &options) < 0)
        abort();
    return io;
}

size_t io_case_turn(void)
{
    if (io_turn(bench_io(), 0) < 0)
        abort();
    return 1;
}

size_t io_case_wake_awake(void)
{
    io_wake(bench_io());
    return 1;
}
