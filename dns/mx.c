/* Which exchangers of a domain count, and in which order (RFC 5321 5.1, RFC 7505), and what their
 * set is called. */
#include <stdio.h>
#include <stdlib.h>

#include "dns/route.h"
#include "tls/digest.h"

#define SITE_NAME_SOFT_MAX 200
#define SITE_NAME_TAIL_MAX 48 /* "+1023-", the hash in hexadecimal, ")" and a little */
#define SITE_HASH_BYTES    16

struct candidate {
    const char *name;
    uint16_t preference;
    uint32_t chance;
};

static int compare_u32(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

static int by_name(const void *a, const void *b)
{
    const struct candidate *left = a, *right = b;
    int order = strcmp(left->name, right->name);

    return order != 0 ? order : compare_u32(left->preference, right->preference);
}

static int by_preference_name(const void *a, const void *b)
{
    const struct candidate *left = a, *right = b;
    int order = compare_u32(left->preference, right->preference);

    return order != 0 ? order : strcmp(left->name, right->name);
}

static int by_preference_chance(const void *a, const void *b)
{
    const struct candidate *left = a, *right = b;
    int order = compare_u32(left->preference, right->preference);

    if (order == 0)
        order = compare_u32(left->chance, right->chance);
    return order != 0 ? order : strcmp(left->name, right->name);
}

/* Takes the usable records; counts the null ones. */
static size_t take_candidates(struct candidate *out, const struct dns_record *records, size_t len,
                              struct rng *rng, size_t *null_mx)
{
    size_t n = 0;

    *null_mx = 0;
    for (size_t i = 0; i < len; i++) {
        const char *name = records[i].mx.exchanger;

        *null_mx += name[0] == '\0';
        if (!dns_name_valid(str_of(name)))
            continue;
        out[n++] = (struct candidate){
            .name = name,
            .preference = records[i].mx.preference,
            .chance = (uint32_t)rng_next(rng),
        };
    }
    return n;
}

/* Sorts by name and keeps the best preference of each. */
static size_t drop_doubles(struct candidate *c, size_t len)
{
    size_t kept = 0;

    qsort(c, len, sizeof(*c), by_name);
    for (size_t i = 0; i < len; i++) {
        if (kept == 0 || strcmp(c[kept - 1].name, c[i].name) != 0)
            c[kept++] = c[i];
    }
    return kept;
}

/* How many of the sorted candidates are better than ourselves. */
static size_t cut_own(const struct candidate *c, size_t len, const char *own_name)
{
    uint32_t cut = UINT32_MAX;
    size_t n = 0;

    for (size_t i = 0; own_name != NULL && i < len; i++) {
        if (strcmp(c[i].name, own_name) == 0)
            cut = c[i].preference;
    }
    while (n < len && c[n].preference < cut)
        n++;
    return n;
}

void mx_choose(struct mx_list *out, const struct dns_record *records, size_t len,
               const char *own_name, struct rng *rng)
{
    struct candidate c[DNS_RECORDS_MAX];
    const char *names[DNS_RECORDS_MAX];
    size_t n, null_mx, all;

    ASSERT(len <= DNS_RECORDS_MAX);
    out->hosts_len = 0;
    out->error = NULL;
    out->site_name[0] = '\0';
    all = drop_doubles(c, take_candidates(c, records, len, rng, &null_mx));
    qsort(c, all, sizeof(*c), by_preference_name);
    n = cut_own(c, all, own_name);
    if (n == 0) {
        out->status = null_mx > 0 && null_mx == len ? DNS_NULL_MX : DNS_NO_HOST;
        out->error = out->status == DNS_NULL_MX ? "null MX: the domain takes no mail"
                     : all > 0 ? "this host is the domain's best mail exchanger: mail would loop"
                               : "no MX record names a host";
        return;
    }
    out->status = DNS_OK;
    for (size_t i = 0; i < n; i++)
        names[i] = c[i].name;
    site_name_make(out->site_name, names, n);
    qsort(c, n, sizeof(*c), by_preference_chance);
    for (size_t i = 0; i < n && i < DNS_HOSTS_MAX; i++) {
        out->hosts[i].name = c[i].name;
        out->hosts[i].preference = c[i].preference;
        out->hosts_len++;
    }
}

/* Length of the longest ".last.labels" that all names share, each keeping a label of its own (what
 * is shared begins with a dot, and no name does). */
static size_t common_suffix(const char *const *names, size_t len)
{
    size_t first_len = strlen(names[0]), shared = first_len, dot;

    for (size_t i = 1; i < len; i++) {
        size_t name_len = strlen(names[i]), same = 0;

        while (same < shared && same < name_len &&
               names[i][name_len - 1 - same] == names[0][first_len - 1 - same])
            same++;
        shared = same;
    }
    for (dot = first_len - shared; dot < first_len && names[0][dot] != '.';)
        dot++;
    return first_len - dot;
}

/* The same on every node and in every version, and nobody can make another set with the same one:
 * a zone would take part in the limits, and in the sessions, of that set. Each step hashes what the
 * names so far came to and the next one. */
static void names_hash(const char *const *names, size_t len, char hex[2 * SITE_HASH_BYTES + 1])
{
    uint8_t step[DIGEST_BYTES + DNS_NAME_MAX + 1], digest[DIGEST_BYTES] = {0};

    for (size_t i = 0; i < len; i++) {
        size_t n = strlen(names[i]);

        ASSERT(n <= DNS_NAME_MAX);
        memcpy(step, digest, sizeof(digest));
        memcpy(step + sizeof(digest), names[i], n);
        digest_sha256(step, sizeof(digest) + n, digest);
    }
    for (size_t i = 0; i < SITE_HASH_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* Appends the part of name before its last suffix bytes, and an end; at stays within out. */
static size_t put_part(char out[DNS_SITE_NAME_MAX + 1], size_t at, const char *name, size_t suffix,
                       char end)
{
    int n = snprintf(out + at, DNS_SITE_NAME_MAX + 1 - at, "%.*s%c", (int)(strlen(name) - suffix),
                     name, end);

    ASSERT(n > 0 && (size_t)n <= DNS_SITE_NAME_MAX - at);
    return at + (size_t)n;
}

/* "(a|b|+30-0123456789abcdef0123456789abcdef).suffix": as many names as fit. */
static void make_short(char out[DNS_SITE_NAME_MAX + 1], const char *const *names, size_t len,
                       size_t suffix)
{
    const char *tail = names[0] + strlen(names[0]) - suffix;
    char hash[2 * SITE_HASH_BYTES + 1];
    size_t at = 1, shown = 0;
    int n;

    if (suffix > SITE_NAME_SOFT_MAX / 2) {
        suffix = 0;
        tail = "";
    }
    out[0] = '(';
    for (; shown < len; shown++) {
        size_t own = strlen(names[shown]) - suffix;

        if (at + own + 1 + suffix > SITE_NAME_SOFT_MAX - SITE_NAME_TAIL_MAX)
            break;
        at = put_part(out, at, names[shown], suffix, '|');
    }
    names_hash(names, len, hash);
    n = snprintf(out + at, DNS_SITE_NAME_MAX + 1 - at, "+%zu-%s)%s", len - shown, hash, tail);
    ASSERT(n > 0 && (size_t)n <= DNS_SITE_NAME_MAX - at);
}

void site_name_make(char out[DNS_SITE_NAME_MAX + 1], const char *const *names, size_t len)
{
    size_t suffix, at = 1, total = 1;

    ASSERT(len > 0);
    if (len == 1) {
        snprintf(out, DNS_SITE_NAME_MAX + 1, "%s", names[0]);
        return;
    }
    suffix = common_suffix(names, len);
    for (size_t i = 0; i < len; i++)
        total += strlen(names[i]) - suffix + 1;
    if (total + suffix > SITE_NAME_SOFT_MAX) {
        make_short(out, names, len, suffix);
        return;
    }
    out[0] = '(';
    for (size_t i = 0; i < len; i++)
        at = put_part(out, at, names[i], suffix, i + 1 < len ? '|' : ')');
    snprintf(out + at, DNS_SITE_NAME_MAX + 1 - at, "%s", names[0] + strlen(names[0]) - suffix);
}
