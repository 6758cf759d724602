#include "sts/sts_policy.h"

#include <errno.h>
#include <stdlib.h>

#include "base/packed.h"
#include "dns/name.h"

#define VERSION      1
#define NAME_MAX_LEN 32 /* of a field */
#define AGE_DIGITS   10
/* version 1, mode 1, fetched_ms 8, max_age_s 4, id: length 1, bytes; mx: length 4, bytes */
#define STORED_MIN (1 + 1 + 8 + 4 + 1 + 4)

static const char *const mode_names[STS_MODES] = {
    [STS_NONE] = "none", [STS_TESTING] = "testing", [STS_ENFORCE] = "enforce"};

const char *sts_mode_name(enum sts_mode mode)
{
    ASSERT(mode < STS_MODES);
    return mode_names[mode];
}

/* --- the TXT record --- */

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
}

/* The name of a field, in the record and in the policy. */
static bool is_field_name(struct str name)
{
    if (name.len == 0 || name.len > NAME_MAX_LEN || !is_alnum(name.ptr[0]))
        return false;
    for (size_t i = 1; i < name.len; i++)
        if (!is_alnum(name.ptr[i]) && strchr("_-.", name.ptr[i]) == NULL)
            return false;
    return true;
}

static bool is_id(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_alnum(s.ptr[i]))
            return false;
    return s.len > 0 && s.len <= STS_ID_MAX;
}

static bool is_record_value(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7f || s.ptr[i] == '=')
            return false;
    return s.len > 0;
}

int sts_record_parse(struct str text, char id[STS_ID_MAX + 1])
{
    struct str version = str_take(&text, ';');
    bool found = false;

    /* With its semicolon: "v=STSv12" and "v=STSv1" alone are no records of this version. */
    if (!str_eq(str_trim(version), STR("v=STSv1")) || version.ptr + version.len == text.ptr ||
        version.ptr[0] != 'v')
        return -ENOENT;
    while (text.len > 0) {
        struct str field = str_trim(str_take(&text, ';')), name;

        if (field.len == 0 && str_trim(text).len == 0)
            break; /* a semicolon at the end */
        name = str_take(&field, '=');
        if (!is_field_name(name) || !is_record_value(field))
            return -EBADMSG;
        if (!str_eq(name, STR("id")) || found)
            continue;
        if (!is_id(field))
            return -EBADMSG;
        memcpy(id, field.ptr, field.len);
        id[field.len] = '\0';
        found = true;
    }
    return found ? 0 : -EBADMSG;
}

/* --- the policy --- */

struct draft {
    bool version;
    int mode; /* -1: none yet */
    int64_t max_age_s;
    struct buf mx;
    int mx_len; /* patterns */
};

static bool is_value(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (ascii_is_control(s.ptr[i]))
            return false;
    return s.len > 0;
}

static const char *take_mode(struct draft *d, struct str value)
{
    for (int mode = 0; mode < STS_MODES; mode++) {
        if (str_eq(value, str_of(mode_names[mode]))) {
            d->mode = mode;
            return NULL;
        }
    }
    return "its mode is none of 'enforce', 'testing', 'none'";
}

static const char *take_max_age(struct draft *d, struct str value)
{
    uint64_t seconds;

    if (value.len > AGE_DIGITS || str_to_u64(value, UINT64_MAX, &seconds) < 0)
        return "its max_age is no number of seconds";
    d->max_age_s = (int64_t)(seconds < STS_AGE_MAX_S ? seconds : STS_AGE_MAX_S);
    return NULL;
}

static const char *take_mx(struct draft *d, struct str value)
{
    bool wild = value.len > 2 && value.ptr[0] == '*' && value.ptr[1] == '.';
    struct dns_name name;

    if (wild)
        value = (struct str){value.ptr + 2, value.len - 2};
    ASSERT(value.len > 0); /* is_value() */
    if (value.ptr[value.len - 1] == '.' || dns_name_parse(&name, value) < 0)
        return "an mx of it is neither a host nor '*.' and a domain";
    if (++d->mx_len > STS_MX_MAX)
        return "it has too many mx";
    buf_puts(&d->mx, wild ? "*." : "");
    buf_put(&d->mx, name.text, name.len + 1);
    return NULL;
}

/* NULL, or what is wrong. Of what may be there once the first counts (RFC 8461 3.2). */
static const char *take_field(struct draft *d, struct str name, struct str value)
{
    if (!is_field_name(name) || !is_value(value))
        return "a line of it is no field";
    if (str_eq(name, STR("version"))) {
        if (!d->version && !str_eq(value, STR("STSv1")))
            return "its version is not STSv1";
        d->version = true;
        return NULL;
    }
    if (str_eq(name, STR("mode")))
        return d->mode < 0 ? take_mode(d, value) : NULL;
    if (str_eq(name, STR("max_age")))
        return d->max_age_s < 0 ? take_max_age(d, value) : NULL;
    return str_eq(name, STR("mx")) ? take_mx(d, value) : NULL;
}

/* Lines end in LF or CRLF. Empty ones say nothing, and many files end with some. */
static const char *take_body(struct draft *d, struct str body)
{
    const char *why = NULL;

    if (body.len > STS_BODY_MAX)
        return "it is larger than 64 KiB";
    while (body.len > 0 && why == NULL) {
        struct str line = str_take(&body, '\n'), name;

        if (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        if (line.len == 0)
            continue;
        name = str_take(&line, ':');
        why = take_field(d, name, str_trim(line));
    }
    if (why != NULL)
        return why;
    if (!d->version)
        return "it has no version";
    if (d->mode < 0)
        return "it has no mode";
    if (d->max_age_s < 0)
        return "it has no max_age";
    return d->mx.len == 0 && d->mode != STS_NONE ? "it has no mx" : NULL;
}

static struct sts_policy *policy_new(enum sts_mode mode, struct str id, int64_t fetched_ms,
                                     uint32_t max_age_s, struct str mx)
{
    struct sts_policy *p = calloc(1, sizeof(*p) + mx.len);

    if (p == NULL)
        return NULL;
    ASSERT(id.len <= STS_ID_MAX && mode < STS_MODES && max_age_s <= STS_AGE_MAX_S);
    ASSERT(mx.len == 0 || mx.ptr[mx.len - 1] == '\0');
    atomic_init(&p->refs, 1);
    p->mode = mode;
    memcpy(p->id, id.ptr, id.len);
    p->fetched_ms = fetched_ms;
    p->max_age_s = max_age_s;
    p->mx_bytes = (uint32_t)mx.len;
    if (mx.len > 0)
        memcpy(p->mx, mx.ptr, mx.len);
    return p;
}

int sts_policy_parse(struct str body, const char *id, int64_t fetched_ms, struct sts_policy **out,
                     const char **why)
{
    struct draft d = {.mode = -1, .max_age_s = -1};
    int err = 0;

    *why = take_body(&d, body);
    if (*why != NULL) {
        err = -EBADMSG;
    } else {
        *out = policy_new((enum sts_mode)d.mode, str_of(id), fetched_ms, (uint32_t)d.max_age_s,
                          buf_str(&d.mx));
        err = *out == NULL ? -ENOMEM : 0;
    }
    buf_done(&d.mx);
    return err;
}

struct sts_policy *sts_policy_ref(struct sts_policy *policy)
{
    uint32_t before =
        policy == NULL ? 1 : atomic_fetch_add_explicit(&policy->refs, 1, memory_order_relaxed);

    ASSERT(before > 0);
    return policy;
}

void sts_policy_unref(struct sts_policy *policy)
{
    if (policy != NULL && atomic_fetch_sub_explicit(&policy->refs, 1, memory_order_acq_rel) == 1)
        free(policy);
}

bool sts_policy_matches(const struct sts_policy *policy, const char *host)
{
    const char *rest = strchr(host, '.');

    for (const char *mx = policy->mx; mx < policy->mx + policy->mx_bytes; mx += strlen(mx) + 1) {
        if (strncmp(mx, "*.", 2) != 0
                ? str_eq_nocase(str_of(mx), str_of(host))
                : rest != NULL && rest != host && str_eq_nocase(str_of(mx + 1), str_of(rest)))
            return true;
    }
    return false;
}

bool sts_policy_same(const struct sts_policy *a, const struct sts_policy *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return a->mode == b->mode && a->mx_bytes == b->mx_bytes &&
           memcmp(a->mx, b->mx, a->mx_bytes) == 0;
}

/* --- stored --- */

void sts_policy_encode(struct buf *out, const struct sts_policy *policy)
{
    size_t id_len = strlen(policy->id), began = out->len;

    buf_putc(out, VERSION);
    buf_putc(out, (char)policy->mode);
    packed_put(out, (uint64_t)policy->fetched_ms, 8);
    packed_put(out, policy->max_age_s, 4);
    buf_putc(out, (char)id_len);
    buf_put(out, policy->id, id_len);
    packed_put(out, policy->mx_bytes, 4);
    buf_put(out, policy->mx, policy->mx_bytes);
    ASSERT(out->len - began == STORED_MIN + id_len + policy->mx_bytes);
}

/* Every pattern ends, and is what the parser of policies lets through. */
static bool is_mx_list(struct str mx)
{
    while (mx.len > 0) {
        struct str one = str_take(&mx, '\0');

        if (one.ptr + one.len == mx.ptr)
            return false; /* without its NUL */
        if (one.len > 2 && one.ptr[0] == '*' && one.ptr[1] == '.')
            one = (struct str){one.ptr + 2, one.len - 2};
        if (!dns_name_valid(one))
            return false;
    }
    return true;
}

/* What a later version of this build has behind it is left alone. */
int sts_policy_decode(struct str value, struct sts_policy **out)
{
    struct str id, mx;
    uint64_t mode, max_age_s;

    if (value.len < STORED_MIN)
        return -EBADMSG;
    if (value.ptr[0] != VERSION)
        return -EPROTO;
    mode = (uint8_t)value.ptr[1];
    max_age_s = packed_at(value.ptr + 10, 4);
    id = (struct str){value.ptr + 15, (uint8_t)value.ptr[14]};
    if (mode >= STS_MODES || max_age_s > STS_AGE_MAX_S || value.len < STORED_MIN + id.len ||
        !is_id(id))
        return -EBADMSG;
    mx = (struct str){id.ptr + id.len + 4, packed_at(id.ptr + id.len, 4)};
    if (mx.len > value.len - STORED_MIN - id.len || !is_mx_list(mx))
        return -EBADMSG;
    *out = policy_new((enum sts_mode)mode, id, (int64_t)packed_at(value.ptr + 2, 8),
                      (uint32_t)max_age_s, mx);
    return *out == NULL ? -ENOMEM : 0;
}
