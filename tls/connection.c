/* A connection: OpenSSL between two streams of bytes. Its BIO reads from and writes to what the
 * call at hand was given, so that nothing is copied on the way; what OpenSSL writes when nobody
 * asked (a handshake, an alert, a new key) waits in unsent. */
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tls/tls_private.h"

#define RECORD_PLAIN_MAX 16384
#define UNSENT_MAX       (64u << 10) /* of a peer that makes us answer and does not read */

/* --- the BIO --- */

static int bio_read(BIO *bio, char *out, size_t len, size_t *used)
{
    struct tls *t = BIO_get_data(bio);
    size_t n = t->wire == NULL ? 0 : t->wire->len;

    BIO_clear_retry_flags(bio);
    n = n < len ? n : len;
    if (n == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    memcpy(out, t->wire->ptr, n);
    t->wire->ptr += n;
    t->wire->len -= n;
    *used = n;
    return 1;
}

static int bio_write(BIO *bio, const char *bytes, size_t len, size_t *used)
{
    struct tls *t = BIO_get_data(bio);
    size_t n = t->unsent.len > 0 ? 0 : t->window_len - t->window_used;

    BIO_clear_retry_flags(bio);
    if (t->unsent.len + len > UNSENT_MAX)
        return 0;
    n = n < len ? n : len;
    if (n > 0)
        memcpy(t->window + t->window_used, bytes, n);
    t->window_used += n;
    buf_put(&t->unsent, bytes + n, len - n);
    *used = len;
    return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void bio_method_make(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "bytes");
    bool made = m != NULL && BIO_meth_set_read_ex(m, bio_read) == 1 &&
                BIO_meth_set_write_ex(m, bio_write) == 1 && BIO_meth_set_ctrl(m, bio_ctrl) == 1;

    ASSERT(made);
    bio_method = m;
}

/* --- life --- */

struct tls *tls_new(SSL *ssl)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct tls *t = ssl == NULL ? NULL : calloc(1, sizeof(*t));
    BIO *bio;

    pthread_once(&once, bio_method_make);
    bio = t == NULL ? NULL : BIO_new(bio_method);
    if (bio == NULL) {
        SSL_free(ssl);
        free(t);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, t);
    t->ssl = ssl;
    return t;
}

void tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    /* Else OpenSSL takes the session of a connection that was cut for a bad one, and nobody could
     * resume it. */
    if (t->state == TLS_OPEN || t->state == TLS_ENDED)
        SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->ssl);
    SSL_SESSION_free(t->session);
    tls_server_unref(t->server);
    tls_authorities_unref(t->authorities);
    tls_certificate_unref(t->own);
    for (size_t i = 0; i < t->names_len; i++)
        free(t->names[i]);
    free(t->names);
    buf_done(&t->unsent);
    free(t);
    ERR_clear_error();
}

bool tls_is_client(const struct tls *t)
{
    return SSL_is_server(t->ssl) == 0;
}

/* --- failures --- */

static void put_text(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++)
        buf_putc(out, ascii_is_control(*text) || *text == '"' || (*text & 0x80) ? '?' : *text);
}

void tls_put_failure(struct buf *out)
{
    unsigned long code = ERR_get_error(); /* the first is the cause */
    int reason = ERR_GET_REASON(code);
    const char *text = ERR_reason_error_string(code);

    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET) {
        reason -= SSL_AD_REASON_OFFSET;
        buf_puts(out, "peer's alert: ");
        /* OpenSSL 3.0 has no words for it, and it says what to configure. */
        text = reason == SSL_AD_CERTIFICATE_REQUIRED ? "certificate required"
                                                     : SSL_alert_desc_string_long(reason);
    }
    put_text(out, text == NULL ? "failed" : text);
    ERR_clear_error();
}

static void broken(struct tls *t)
{
    struct buf text = {0};
    bool verify = ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_SSL &&
                  ERR_GET_REASON(ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED;

    t->state = TLS_BROKEN;
    tls_put_failure(&text);
    if (verify) {
        buf_puts(&text, ": ");
        put_text(&text, X509_verify_cert_error_string(SSL_get_verify_result(t->ssl)));
    }
    snprintf(t->error, sizeof(t->error), "%.*s", STR_FMT(buf_str(&text)));
    buf_done(&text);
}

const char *tls_error(const struct tls *t)
{
    return t->error;
}

/* --- handshake --- */

enum tls_step tls_handshake(struct tls *t, struct str *wire)
{
    int result;

    ASSERT(t->state == TLS_SHAKING);
    ERR_clear_error();
    t->wire = wire;
    result = SSL_do_handshake(t->ssl);
    t->wire = NULL;
    if (result != 1 && SSL_get_error(t->ssl, result) == SSL_ERROR_WANT_READ)
        return TLS_WANTS;
    if (result != 1) {
        broken(t);
        return TLS_FAILED;
    }
    if (tls_demands(t) && SSL_session_reused(t->ssl) && !tls_resumed_well(t)) {
        t->state = TLS_BROKEN;
        snprintf(t->error, sizeof(t->error), "the resumed session was not verified for this name");
        return TLS_FAILED;
    }
    t->state = TLS_OPEN;
    return TLS_DONE;
}

/* --- how long the next step takes --- */

/* Takes len bytes from the front; false: there are fewer. */
static bool take(struct str *s, size_t len)
{
    if (s->len < len)
        return false;
    *s = (struct str){s->ptr + len, s->len - len};
    return true;
}

/* Takes a length of so many bytes and gives what it is of; false: that is cut off. */
static bool take_vector(struct str *s, size_t length_bytes, struct str *out)
{
    size_t len = 0;

    for (size_t i = 0; i < length_bytes && i < s->len; i++)
        len = len << 8 | (uint8_t)s->ptr[i];
    if (!take(s, length_bytes))
        return false;
    *out = (struct str){s->ptr, len};
    return take(s, len);
}

/* Whether wire begins with a ClientHello, whole and in one record, that asks for a session to be
 * resumed: a ticket of TLS 1.2 (RFC 5077) or a key of TLS 1.3 (RFC 8446, 4.2.11). Others than these
 * are no error. */
static bool offers_session(struct str wire)
{
    static const size_t fixed = 2 + 32; /* version and random */
    struct str hello, skipped, extensions, body;

    if (wire.len < 5 || wire.ptr[0] != SSL3_RT_HANDSHAKE || !take(&wire, 3) ||
        !take_vector(&wire, 2, &hello) || hello.len < 1 || hello.ptr[0] != SSL3_MT_CLIENT_HELLO ||
        !take(&hello, 1) || !take_vector(&hello, 3, &body) || !take(&body, fixed) ||
        !take_vector(&body, 1, &skipped) || !take_vector(&body, 2, &skipped) ||
        !take_vector(&body, 1, &skipped) || !take_vector(&body, 2, &extensions))
        return false;
    while (extensions.len >= 4) {
        unsigned type = (unsigned)(uint8_t)extensions.ptr[0] << 8 | (uint8_t)extensions.ptr[1];

        (void)take(&extensions, 2);
        if (!take_vector(&extensions, 2, &body))
            return false;
        if (body.len > 0 && (type == TLSEXT_TYPE_session_ticket || type == TLSEXT_TYPE_psk))
            return true;
    }
    return false;
}

/* A server's own Finished has a length once it was made: behind all that takes long in TLS 1.3 and
 * in a resumed session, at the end of a full handshake of TLS 1.2, and not behind a ClientHello
 * that is asked for again. A client's certificate would be to be verified still. */
static bool is_told(const struct tls *t)
{
    uint8_t first;

    return SSL_is_server(t->ssl) == 1 && SSL_get_verify_mode(t->ssl) == SSL_VERIFY_NONE &&
           SSL_get_finished(t->ssl, &first, sizeof(first)) > 0;
}

enum tls_cost tls_step_cost(const struct tls *t, struct str wire)
{
    if (t->state != TLS_SHAKING)
        return TLS_LONG;
    if (is_told(t))
        return TLS_BRIEF;
    if (SSL_is_server(t->ssl) == 0 && SSL_in_before(t->ssl))
        return TLS_HELLO;
    if (SSL_is_server(t->ssl) == 1 ? SSL_in_before(t->ssl) && offers_session(wire) : t->offers)
        return TLS_RESUMING;
    return TLS_LONG;
}

bool tls_resumes(const struct tls *t)
{
    return SSL_session_reused(t->ssl) == 1;
}

/* --- bytes --- */

ssize_t tls_read(struct tls *t, struct str *wire, uint8_t *plain, size_t plain_max)
{
    size_t len = 0;
    int result, why;

    if (t->state != TLS_OPEN)
        return t->state == TLS_ENDED ? -ENODATA : -EPROTO;
    ASSERT(plain_max > 0);
    ERR_clear_error();
    t->wire = wire;
    result = SSL_read_ex(t->ssl, plain, plain_max, &len);
    t->wire = NULL;
    if (result == 1)
        return (ssize_t)len;
    why = SSL_get_error(t->ssl, result);
    if (why == SSL_ERROR_WANT_READ)
        return 0;
    if (why == SSL_ERROR_ZERO_RETURN) {
        t->state = TLS_ENDED;
        return -ENODATA;
    }
    broken(t);
    return -EPROTO;
}

size_t tls_unsent(const struct tls *t)
{
    return t->unsent.len;
}

static size_t take_unsent(struct tls *t, uint8_t *wire, size_t wire_max)
{
    size_t n = t->unsent.len < wire_max ? t->unsent.len : wire_max;

    if (n == 0)
        return 0;
    memcpy(wire, t->unsent.data, n);
    if (n < t->unsent.len)
        buf_consume(&t->unsent, n);
    else
        buf_done(&t->unsent);
    return n;
}

static bool write_record(struct tls *t, struct str *plain, size_t len)
{
    size_t taken = 0;

    if (SSL_write_ex(t->ssl, plain->ptr, len, &taken) != 1) {
        broken(t);
        return false;
    }
    plain->ptr += taken;
    plain->len -= taken;
    return true;
}

ssize_t tls_write(struct tls *t, struct str *plain, uint8_t *wire, size_t wire_max)
{
    size_t own = take_unsent(t, wire, wire_max);
    bool ok = true;

    if (t->state == TLS_BROKEN && own == 0)
        return -EPROTO;
    if ((t->state != TLS_OPEN && t->state != TLS_ENDED) || t->closing)
        return (ssize_t)own;
    ERR_clear_error();
    t->window = wire;
    t->window_len = wire_max;
    t->window_used = own;
    while (ok && plain->len > 0 && t->unsent.len == 0 &&
           wire_max - t->window_used >= TLS_RECORD_BYTES) {
        size_t room = wire_max - t->window_used - TLS_RECORD_OVERHEAD;
        size_t len = plain->len < RECORD_PLAIN_MAX ? plain->len : RECORD_PLAIN_MAX;

        ok = write_record(t, plain, len < room ? len : room);
    }
    own = t->window_used;
    t->window_len = t->window_used = 0;
    return ok || own > 0 ? (ssize_t)own : -EPROTO;
}

void tls_close(struct tls *t)
{
    if ((t->state != TLS_OPEN && t->state != TLS_ENDED) || t->closing)
        return;
    t->closing = true;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
}

/* --- facts --- */

static const char *words_of(enum tls_verdict verdict, const struct tls *t)
{
    switch (verdict) {
    case TLS_UNCHECKED:
        return t->unusable ? "not checked: no TLSA record is usable" : "not checked";
    case TLS_VERIFIED:
        return "verified";
    case TLS_CERT_HOST_MISMATCH:
        return "another host's certificate";
    case TLS_CERT_EXPIRED:
    case TLS_CERT_UNTRUSTED:
        break;
    }
    return X509_verify_cert_error_string(SSL_get_verify_result(t->ssl));
}

void tls_facts(const struct tls *t, struct tls_facts *out)
{
    const char *asked = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    enum tls_verdict verdict = tls_verdict(t);

    *out = (struct tls_facts){.protocol = SSL_get_version(t->ssl),
                              .cipher = SSL_get_cipher_name(t->ssl),
                              .cipher_bits = SSL_get_cipher_bits(t->ssl, NULL),
                              .resumed = SSL_session_reused(t->ssl) == 1,
                              .server_name = asked == NULL ? "" : asked,
                              .verdict = verdict,
                              .verify = words_of(verdict, t),
                              .own = t->own_shown ? t->own->names : NULL};
}

void tls_peer_name(const struct tls *t, char *out, size_t size)
{
    X509 *leaf = SSL_get0_peer_certificate(t->ssl);
    const char *matched = SSL_get0_peername(t->ssl);

    if (matched == NULL && leaf != NULL)
        tls_first_name(leaf, out, size);
    else
        snprintf(out, size, "%s", matched == NULL ? "" : matched);
}
