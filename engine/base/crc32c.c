#include "base/crc32c.h"

#include <string.h>
#include <threads.h>

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
static once_flag table_once = ONCE_FLAG_INIT;

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
    call_once(&table_once, table_fill);
    for (; n > 0; n--)
        crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
    return crc;
}

#ifdef CRC_TARGET
CRC_TARGET static uint32_t crc_cpu(uint32_t crc, const uint8_t *p, size_t n)
{
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;

        memcpy(&word, p, 8);
        crc = CRC_U64(crc, word);
    }
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
