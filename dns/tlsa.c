/* TLSA records of a host, as routes carry them. */
#include <stdio.h>
#include <stdlib.h>

#include "dns/route.h"

/* One block: the object, bytes of rdata, two texts. */
static struct dns_tlsa *tlsa_alloc(size_t records_len, size_t rdata_bytes, const char *base,
                                   const char *error, char **rdata)
{
    struct dns_tlsa *tlsa;
    size_t base_bytes = strlen(base) + 1, error_bytes = error == NULL ? 0 : strlen(error) + 1;
    size_t bytes = sizeof(*tlsa) + records_len * sizeof(tlsa->records[0]) + rdata_bytes +
                   base_bytes + error_bytes;
    char *texts;

    tlsa = malloc(bytes);
    if (tlsa == NULL)
        return NULL;
    *rdata = (char *)&tlsa->records[records_len];
    texts = *rdata + rdata_bytes;
    *tlsa = (struct dns_tlsa){.refs = 1, .bytes = (uint32_t)bytes};
    tlsa->base = memcpy(texts, base, base_bytes);
    if (error != NULL)
        tlsa->error = memcpy(texts + base_bytes, error, error_bytes);
    return tlsa;
}

struct dns_tlsa *tlsa_new(const char *base, const struct dns_record *records, size_t len)
{
    size_t n = 0, bytes = 0;
    struct dns_tlsa *tlsa;
    char *rdata;

    while (n < len && n < DNS_TLSA_MAX && bytes + records[n].tlsa.len <= DNS_TLSA_BYTES_MAX)
        bytes += records[n++].tlsa.len;
    tlsa = tlsa_alloc(n, bytes, base, NULL, &rdata);
    if (tlsa == NULL)
        return NULL;
    for (; tlsa->records_len < n; tlsa->records_len++) {
        struct str from = records[tlsa->records_len].tlsa;

        tlsa->records[tlsa->records_len] =
            (struct str){memcpy(rdata, from.ptr, from.len), from.len};
        rdata += from.len;
    }
    return tlsa;
}

struct dns_tlsa *tlsa_failed(const char *name, const char *why)
{
    char error[DNS_ERROR_MAX + 1];
    char *rdata;

    snprintf(error, sizeof(error), "TLSA lookup for %s: %s", name, why);
    return tlsa_alloc(0, 0, name, error, &rdata);
}

/* Usage, selector, matching type; then the certificate, the key or a hash of it. */
static bool is_usable(struct str record)
{
    const uint8_t *p = (const uint8_t *)record.ptr;
    size_t data = record.len - 3;

    if (record.len <= 3 || (p[0] != 2 && p[0] != 3) || p[1] > 1)
        return false;
    return p[2] == 0 || (p[2] == 1 && data == 32) || (p[2] == 2 && data == 64);
}

bool dns_tlsa_usable(const struct dns_tlsa *tlsa)
{
    for (uint16_t i = 0; i < tlsa->records_len; i++)
        if (is_usable(tlsa->records[i]))
            return true;
    return false;
}

struct dns_tlsa *dns_tlsa_ref(struct dns_tlsa *tlsa)
{
    ASSERT(tlsa == NULL || (tlsa->refs > 0 && tlsa->refs < UINT32_MAX));
    if (tlsa != NULL)
        tlsa->refs++;
    return tlsa;
}

void dns_tlsa_unref(struct dns_tlsa *tlsa)
{
    if (tlsa == NULL)
        return;
    ASSERT(tlsa->refs > 0);
    if (--tlsa->refs == 0)
        free(tlsa);
}
