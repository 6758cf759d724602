/* CRC-32C (Castagnoli, RFC 3720 B.4): SSE4.2 or ARMv8 instructions where the CPU has them. */
#ifndef HAYAUMA_BASE_CRC32C_H
#define HAYAUMA_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* crc: 0 to begin, or the value so far. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t n);

#endif
