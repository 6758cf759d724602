#include "base/crc32c.h"

#include <pthread.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define CRC_TARGET __attribute__((target("+crc")))
#define CRC_U64    __crc32cd
#define CRC_U8     __crc32cb
#elif defined(__x86_64__)
#include <nmmintrin.h>
#define CRC_TARGET __attribute__((target("sse4.2")))
#define CRC_U64    (uint32_t) _mm_crc32_u64
#define CRC_U8     _mm_crc32_u8
#endif

#define POLYNOMIAL 0x82f63b78 /* reflected */

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_fill(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;

        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[byte] = crc;
    }
}

static uint32_t crc_table(uint32_t crc, const uint8_t *p, size_t n)
{
    pthread_once(&table_once, table_fill);
    for (; n > 0; n--)
        crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
    return crc;
}

#ifdef CRC_TARGET
/* The instruction has a latency of three cycles and a throughput of one: three lanes at once keep
 * it busy. A lane's sum is carried over the bytes of the next lane by tables: moving a CRC over
 * zeros is linear, so it is the sum of what each of its bytes moves to. */
#define LANE_BYTES ((size_t)256)

static uint32_t lane_shift[4][256];
static pthread_once_t lane_once = PTHREAD_ONCE_INIT;

static void lane_fill(void)
{
    static const uint8_t zeros[LANE_BYTES];

    for (uint32_t place = 0; place < 4; place++)
        for (uint32_t byte = 0; byte < 256; byte++)
            lane_shift[place][byte] = crc_table(byte << (8 * place), zeros, LANE_BYTES);
}

static uint32_t over_lane(uint32_t crc)
{
    return lane_shift[0][crc & 0xff] ^ lane_shift[1][crc >> 8 & 0xff] ^
           lane_shift[2][crc >> 16 & 0xff] ^ lane_shift[3][crc >> 24];
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t word;

    memcpy(&word, p, 8);
    return word;
}

CRC_TARGET static uint32_t crc_lanes(uint32_t crc, const uint8_t *p)
{
    uint32_t second = 0, third = 0;

    for (size_t i = 0; i < LANE_BYTES; i += 8) {
        crc = CRC_U64(crc, load64(p + i));
        second = CRC_U64(second, load64(p + LANE_BYTES + i));
        third = CRC_U64(third, load64(p + 2 * LANE_BYTES + i));
    }
    return over_lane(over_lane(crc) ^ second) ^ third;
}

CRC_TARGET static uint32_t crc_cpu(uint32_t crc, const uint8_t *p, size_t n)
{
    if (n >= 3 * LANE_BYTES)
        pthread_once(&lane_once, lane_fill);
    for (; n >= 3 * LANE_BYTES; n -= 3 * LANE_BYTES, p += 3 * LANE_BYTES)
        crc = crc_lanes(crc, p);
    for (; n >= 8; n -= 8, p += 8)
        crc = CRC_U64(crc, load64(p));
    for (; n > 0; n--)
        crc = CRC_U8(crc, *p++);
    return crc;
}

static int cpu_has_crc(void)
{
#ifdef __aarch64__
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#else
    return __builtin_cpu_supports("sse4.2");
#endif
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t n)
{
#ifdef CRC_TARGET
    if (cpu_has_crc())
        return ~crc_cpu(~crc, bytes, n);
#endif
    return ~crc_table(~crc, bytes, n);
}
