#include "tools/commands/dkim_record.h"

/* Of a string in a zone file: 255 are allowed, but some programs cut long lines. */
#define STRING_BYTES_MAX 200

static const char *key_type(const struct dkim_key *key)
{
    return dkim_key_algorithm(key) == DKIM_RSA_SHA256 ? "rsa" : "ed25519";
}

int dkim_record_text(const struct dkim_key *key, struct buf *out)
{
    buf_printf(out, "v=DKIM1; k=%s; p=", key_type(key));
    return dkim_key_public(key, out);
}

int dkim_record_zone(const struct dkim_key *key, const char *selector, const char *domain,
                     struct buf *out)
{
    struct buf text = {0};
    int err = dkim_record_text(key, &text);

    buf_printf(out, "%s._domainkey.%s. 3600 IN TXT (", selector, domain);
    for (size_t at = 0; err == 0 && at < text.len; at += STRING_BYTES_MAX) {
        size_t n = text.len - at < STRING_BYTES_MAX ? text.len - at : STRING_BYTES_MAX;

        buf_printf(out, "\n    \"%.*s\"", (int)n, (const char *)text.data + at);
    }
    buf_puts(out, " )\n");
    buf_done(&text);
    return err;
}

/* --- reading --- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct str trim(struct str s)
{
    while (s.len > 0 && is_space(s.ptr[0]))
        s = (struct str){s.ptr + 1, s.len - 1};
    while (s.len > 0 && is_space(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

/* Whether s has word among its values, which stand between colons. */
static bool has_word(struct str s, struct str word)
{
    while (s.len > 0)
        if (str_eq_nocase(trim(str_take(&s, ':')), word))
            return true;
    return false;
}

/* The value of a tag; false: the record does not have it. */
static bool find_tag(struct str record, char tag, struct str *value)
{
    while (record.len > 0) {
        struct str one = str_take(&record, ';'), rest = one, before = str_take(&rest, '=');
        struct str name = trim(before);

        if (before.len < one.len && name.len == 1 && name.ptr[0] == tag) {
            *value = trim(rest);
            return true;
        }
    }
    return false;
}

/* Base64 may have white space in it. */
static bool same_key(struct str base64, const struct dkim_key *key)
{
    struct buf ours = {0};
    size_t at = 0;
    bool same = dkim_key_public(key, &ours) == 0;

    for (size_t i = 0; i < base64.len && same; i++)
        if (!is_space(base64.ptr[i]))
            same = at < ours.len && ours.data[at++] == (uint8_t)base64.ptr[i];
    same = same && at == ours.len;
    buf_done(&ours);
    return same;
}

enum dkim_record_fault dkim_record_check(struct str record, const struct dkim_key *key)
{
    struct str version = STR("DKIM1"), type = STR("rsa"), hashes = STR("sha256"), flags = STR("");
    struct str base64;

    (void)find_tag(record, 'v', &version);
    (void)find_tag(record, 'k', &type);
    (void)find_tag(record, 'h', &hashes);
    (void)find_tag(record, 't', &flags);
    if (!str_eq(version, STR("DKIM1")) || !find_tag(record, 'p', &base64))
        return DKIM_RECORD_NOT_DKIM;
    if (base64.len == 0)
        return DKIM_RECORD_REVOKED;
    if (!str_eq_nocase(type, str_of(key_type(key))) || !same_key(base64, key))
        return DKIM_RECORD_OTHER_KEY;
    if (!has_word(hashes, STR("sha256")))
        return DKIM_RECORD_NO_SHA256;
    return has_word(flags, STR("y")) ? DKIM_RECORD_TESTING : DKIM_RECORD_GOOD;
}

const char *dkim_record_fault_text(enum dkim_record_fault fault)
{
    static const char *const texts[] = {
        [DKIM_RECORD_GOOD] = "good",
        [DKIM_RECORD_TESTING] =
            "good, but in test mode: receivers may act as if mail were unsigned; take t=y out",
        [DKIM_RECORD_REVOKED] = "revoked: p= is empty",
        [DKIM_RECORD_OTHER_KEY] = "of another key",
        [DKIM_RECORD_NO_SHA256] = "without sha256 in h=: no signature of today verifies",
        [DKIM_RECORD_NOT_DKIM] = "no DKIM record",
    };

    return texts[fault];
}
