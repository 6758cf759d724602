/* Values with units as the configuration and the command line write them. Pure.
 *
 * Parsers take the whole slice; they return 0, -EINVAL (not such a value) or -ERANGE (does not
 * fit), and write their result only on success. Formatters append the shortest text that parses
 * back to the same value. */
#ifndef HAYAUMA_ENGINE_CONFIG_VALUE_H
#define HAYAUMA_ENGINE_CONFIG_VALUE_H

#include "base/buf.h"
#include "config/config.h"

/* "20", "10k", "1.5M", "2G": decimal multiples. */
int config_parse_count(struct str s, uint64_t *out) MUST_USE;
/* "512", "64KiB", "1.5GiB" (powers of 1024), "10kB", "1GB" (powers of 1000). */
int config_parse_bytes(struct str s, uint64_t *out) MUST_USE;
/* "500ms", "30s", "5m", "2h", "3d", "1w", "1h30m", and "0". A number alone is refused. */
int config_parse_duration(struct str s, uint64_t *out_ms) MUST_USE;
/* "100/min", "5/s", "1k/h", "20000/d", "100/10s". */
int config_parse_rate(struct str s, uint64_t *messages, uint32_t *period_ms) MUST_USE;
/* "2MiB/s", likewise. */
int config_parse_byte_rate(struct str s, uint64_t *bytes, uint32_t *period_ms) MUST_USE;
/* "10%" or "10". */
int config_parse_percent(struct str s, uint64_t *out) MUST_USE;
/* yes, no, true, false, on, off. */
int config_parse_bool(struct str s, bool *out) MUST_USE;
/* "192.0.2.0/24", "2001:db8::/32", an address alone; bits behind the prefix must be zero.
 * -EDOM: they are not, and out is the network without them. */
int config_parse_network(struct str s, struct config_network *out) MUST_USE;
/* "192.0.2.1", "2001:db8::1", "[2001:db8::1]"; port 0. text is left NULL. */
int config_parse_ip(struct str s, struct config_address *out) MUST_USE;
/* "192.0.2.1:25", "[2001:db8::1]:25", "unix:/path"; default_port 0: the port must be given. */
int config_parse_address(struct str s, uint16_t default_port, struct config_address *out) MUST_USE;

void config_format_count(struct buf *out, uint64_t v);
void config_format_bytes(struct buf *out, uint64_t v);
void config_format_duration(struct buf *out, uint64_t ms);
void config_format_rate(struct buf *out, uint64_t messages, uint32_t period_ms);
void config_format_byte_rate(struct buf *out, uint64_t bytes, uint32_t period_ms);
void config_format_network(struct buf *out, const struct config_network *n);

#endif
