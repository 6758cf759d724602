/* Certificates by TLSA records (RFC 6698, 7671), for mail (RFC 7672). OpenSSL does the matching. */
#include <openssl/err.h>

#include "tls/tls_private.h"

#define FIXED_BYTES 3 /* usage, selector, matching type */
#define USAGE_TA    2
#define USAGE_EE    3

/* RFC 7672 3.1.3: the usages by which authorities must vouch, too, are of no use between mail
 * servers, which have none in common. What OpenSSL refuses is a selector or a matching type that
 * nobody knows, a hash of another length, or no certificate. */
static bool add(struct tls *t, struct str record)
{
    const unsigned char *bytes = (const unsigned char *)record.ptr;

    if (record.len <= FIXED_BYTES || (bytes[0] != USAGE_TA && bytes[0] != USAGE_EE))
        return false;
    return SSL_dane_tlsa_add(t->ssl, bytes[0], bytes[1], bytes[2], bytes + FIXED_BYTES,
                             record.len - FIXED_BYTES) > 0;
}

/* A client's OpenSSL resumes no session of another context: none that was verified by other
 * records, or by none. */
static bool bind_sessions(struct tls *t, const struct tls_connect_options *o)
{
    struct buf records = {0};
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    bool ok;

    for (size_t i = 0; i < o->tlsa_len; i++) {
        buf_put(&records, &o->tlsa[i].len, sizeof(o->tlsa[i].len));
        buf_put_str(&records, o->tlsa[i]);
    }
    ok = EVP_Digest(records.data, records.len, hash, &len, EVP_sha256(), NULL) == 1 &&
         SSL_set_session_id_context(t->ssl, hash, len) == 1;
    buf_done(&records);
    return ok;
}

bool tls_dane_set(struct tls *t, const struct tls_connect_options *o)
{
    size_t usable = 0;

    ASSERT(o->names_len > 0);
    if (SSL_dane_enable(t->ssl, o->names[0]) != 1 || !bind_sessions(t, o))
        return false;
    SSL_dane_set_flags(t->ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
    for (size_t i = 0; i < o->tlsa_len; i++)
        usable += add(t, o->tlsa[i]);
    ERR_clear_error();
    t->unusable = usable == 0;
    t->verify = t->unusable ? TLS_VERIFY_NONE : TLS_VERIFY_DANE;
    return true;
}
