#include "tls/scram.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "base/base64.h"

#define KEY_BYTES  PASSWORD_SCRAM_BYTES
#define SALT_BYTES 16
/* Of a server that would have the client compute for minutes, or so little that who has seen the
 * exchange can try passwords (RFC 7677 4). */
#define ITERATIONS_MIN 4096
#define ITERATIONS_MAX 1000000

/* --- arithmetic --- */

static void hmac(const uint8_t key[KEY_BYTES], struct str text, uint8_t out[KEY_BYTES])
{
    unsigned len = KEY_BYTES;
    const uint8_t *made =
        HMAC(EVP_sha256(), key, KEY_BYTES, (const uint8_t *)text.ptr, text.len, out, &len);

    ASSERT(made != NULL && len == KEY_BYTES);
}

static void sha256(const uint8_t in[KEY_BYTES], uint8_t out[KEY_BYTES])
{
    int made = EVP_Digest(in, KEY_BYTES, out, NULL, EVP_sha256(), NULL);

    ASSERT(made == 1);
}

static void random_bytes(uint8_t *out, size_t n)
{
    int made = RAND_bytes(out, (int)n);

    ASSERT(made == 1);
}

static void salted(const char *password, const struct password_scram *keys, uint8_t out[KEY_BYTES])
{
    ASSERT(PKCS5_PBKDF2_HMAC(password, (int)strlen(password), keys->salt, (int)keys->salt_len,
                             (int)keys->iterations, EVP_sha256(), KEY_BYTES, out) == 1);
}

/* What follows from a password: RFC 5802 3. keys has salt and iterations. */
static void derive(const char *password, struct password_scram *keys, uint8_t client_key[KEY_BYTES])
{
    uint8_t password_key[KEY_BYTES];

    salted(password, keys, password_key);
    hmac(password_key, STR("Client Key"), client_key);
    hmac(password_key, STR("Server Key"), keys->server);
    sha256(client_key, keys->stored);
    OPENSSL_cleanse(password_key, sizeof(password_key));
}

static void put_base64(struct buf *out, const uint8_t *bytes, size_t len)
{
    base64_put(out, (struct str){(const char *)bytes, len});
}

/* --- keys --- */

bool scram_password_suits(const char *password)
{
    for (; *password != '\0'; password++)
        if (*password < ' ' || *password > '~')
            return false;
    return true;
}

void scram_nonce(char nonce[static SCRAM_NONCE_CHARS + 1])
{
    uint8_t bytes[SCRAM_NONCE_CHARS / 4 * 3];
    struct buf text = {0};

    random_bytes(bytes, sizeof(bytes));
    put_base64(&text, bytes, sizeof(bytes));
    ASSERT(text.len == SCRAM_NONCE_CHARS);
    memcpy(nonce, text.data, text.len);
    nonce[text.len] = '\0';
    buf_done(&text);
}

void scram_keys_make(struct buf *out, const char *password)
{
    struct password_scram keys = {.iterations = SCRAM_ITERATIONS_MAKE, .salt_len = SALT_BYTES};
    uint8_t client_key[KEY_BYTES];

    ASSERT(scram_password_suits(password));
    random_bytes(keys.salt, SALT_BYTES);
    derive(password, &keys, client_key);
    OPENSSL_cleanse(client_key, sizeof(client_key));
    password_scram_put(out, &keys);
    OPENSSL_cleanse(&keys, sizeof(keys));
}

bool scram_keys_check(const struct password_scram *keys, const char *password)
{
    struct password_scram own = *keys;
    uint8_t client_key[KEY_BYTES];
    bool same;

    derive(password, &own, client_key);
    same = CRYPTO_memcmp(own.stored, keys->stored, KEY_BYTES) == 0;
    OPENSSL_cleanse(client_key, sizeof(client_key));
    OPENSSL_cleanse(&own, sizeof(own));
    return same;
}

void scram_keys_nobody(struct password_scram *out, const struct password_scram *real,
                       struct str name)
{
    uint8_t salt[KEY_BYTES];
    size_t len = real->salt_len < KEY_BYTES ? real->salt_len : KEY_BYTES;

    hmac(real->server, name, salt);
    *out = (struct password_scram){.iterations = real->iterations, .salt_len = len};
    memcpy(out->salt, salt, len);
    random_bytes(out->stored, KEY_BYTES);
    random_bytes(out->server, KEY_BYTES);
}

/* --- messages --- */

/* The value of the attribute that text begins with, which is taken off with the comma behind it.
 * False: it begins with another. */
static bool take_value(struct str *text, char name, struct str *value)
{
    if (text->len < 2 || text->ptr[0] != name || text->ptr[1] != '=')
        return false;
    *value = str_take(text, ',');
    *value = (struct str){value->ptr + 2, value->len - 2};
    return true;
}

/* A name in which ',' is "=2C" and '=' is "=3D". */
static bool read_name(struct str text, char out[SCRAM_USER_BYTES_MAX + 1])
{
    size_t len = 0;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (c == '=') {
            struct str code = {text.ptr + i + 1, text.len - i - 1 < 2 ? 0 : 2};

            if (!str_eq(code, STR("2C")) && !str_eq(code, STR("3D")))
                return false;
            c = code.ptr[0] == '2' ? ',' : '=';
            i += 2;
        }
        if (c == '\0' || len == SCRAM_USER_BYTES_MAX)
            return false;
        out[len++] = c;
    }
    out[len] = '\0';
    return true;
}

static void put_name(struct buf *out, const char *name)
{
    for (; *name != '\0'; name++) {
        if (*name == ',')
            buf_puts(out, "=2C");
        else if (*name == '=')
            buf_puts(out, "=3D");
        else
            buf_putc(out, *name);
    }
}

/* Printable, and no comma (RFC 5802 7). */
static bool is_nonce(struct str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] <= ' ' || text.ptr[i] > '~' || text.ptr[i] == ',')
            return false;
    return text.len > 0;
}

static void xor_with(uint8_t a[KEY_BYTES], const uint8_t b[KEY_BYTES])
{
    for (size_t i = 0; i < KEY_BYTES; i++)
        a[i] ^= b[i];
}

/* --- the server --- */

static const struct tls_binding *find_binding(const struct scram_offer *offer, struct str name)
{
    for (size_t i = 0; i < offer->len; i++)
        if (str_eq(name, str_of(offer->bindings[i].name)))
            return &offer->bindings[i];
    return NULL;
}

/* What the client says of bindings (RFC 5802 6): "p=" and the name of the one that it uses, "n"
 * that it knows none, "y" that it does and believes that we do not. 0 and *to, NULL for none; or
 * what scram_server_begin() returns. */
static int read_flag(struct str flag, const struct scram_offer *offer,
                     const struct tls_binding **to)
{
    *to = NULL;
    if (offer->plus) {
        if (flag.len > 2 && memcmp(flag.ptr, "p=", 2) == 0)
            *to = find_binding(offer, (struct str){flag.ptr + 2, flag.len - 2});
        return *to == NULL ? -EINVAL : 0;
    }
    if (str_eq(flag, STR("n")))
        return 0;
    if (!str_eq(flag, STR("y")))
        return -EINVAL;
    return offer->len > 0 ? -EPERM : 0;
}

int scram_server_begin(struct scram_server *s, struct str message, const struct scram_offer *offer)
{
    struct str rest = message, authzid, user, nonce, bare;
    const struct tls_binding *to;
    int err;

    *s = (struct scram_server){.nonce_at = 0};
    if (message.len > SCRAM_MESSAGE_MAX)
        return -EINVAL;
    err = read_flag(str_take(&rest, ','), offer, &to);
    if (err < 0)
        return err;
    authzid = str_take(&rest, ',');
    if (authzid.len > 0 && (authzid.len < 3 || memcmp(authzid.ptr, "a=", 2) != 0 ||
                            !read_name((struct str){authzid.ptr + 2, authzid.len - 2}, s->authzid)))
        return -EINVAL;
    bare = rest;
    if (!take_value(&rest, 'n', &user) || user.len == 0 || !read_name(user, s->user) ||
        !take_value(&rest, 'r', &nonce) || !is_nonce(nonce))
        return -EINVAL;
    buf_put(&s->binding, message.ptr, message.len - bare.len);
    if (to != NULL)
        buf_put(&s->binding, to->bytes, to->len);
    buf_put_str(&s->messages, bare);
    s->nonce_at = (size_t)(nonce.ptr - bare.ptr);
    s->nonce_len = nonce.len;
    return 0;
}

void scram_server_challenge(struct scram_server *s, const struct password_scram *keys,
                            const char *nonce, struct buf *out)
{
    size_t at, begin = out->len;

    s->keys = *keys;
    buf_puts(out, "r=");
    buf_put(out, s->messages.data + s->nonce_at, s->nonce_len);
    buf_puts(out, nonce);
    buf_puts(out, ",s=");
    put_base64(out, keys->salt, keys->salt_len);
    buf_printf(out, ",i=%u", keys->iterations);
    buf_putc(&s->messages, ',');
    at = s->messages.len + 2;
    buf_put(&s->messages, out->data + begin, out->len - begin);
    s->nonce_at = at;
    s->nonce_len += strlen(nonce);
}

/* The client's proof in message, whose other parts are as they must be; what it signed is in
 * s->messages then. */
static bool read_proof(struct scram_server *s, struct str message, uint8_t proof[KEY_BYTES])
{
    struct str rest = message, binding, nonce, text;
    struct buf bytes = {0}, wanted = {0};
    ptrdiff_t last = str_rfind(message, ',');
    bool good = message.len <= SCRAM_MESSAGE_MAX && last > 0 && take_value(&rest, 'c', &binding) &&
                take_value(&rest, 'r', &nonce);

    while (good && rest.len > 0 && (size_t)(rest.ptr - message.ptr) <= (size_t)last)
        (void)str_take(&rest, ','); /* extensions, which we know none of */
    base64_put(&wanted, buf_str(&s->binding));
    good = good && str_eq(binding, buf_str(&wanted)) &&
           str_eq(nonce, (struct str){(char *)s->messages.data + s->nonce_at, s->nonce_len}) &&
           take_value(&rest, 'p', &text) && base64_decode(&bytes, text) == 0 &&
           bytes.len == KEY_BYTES;
    if (good) {
        memcpy(proof, bytes.data, KEY_BYTES);
        buf_putc(&s->messages, ',');
        buf_put(&s->messages, message.ptr, (size_t)last);
    }
    buf_done(&wanted);
    buf_done(&bytes);
    return good;
}

bool scram_server_end(struct scram_server *s, struct str message, struct buf *out)
{
    uint8_t client_key[KEY_BYTES] = {0}, signature[KEY_BYTES], stored[KEY_BYTES];
    bool good = read_proof(s, message, client_key);

    hmac(s->keys.stored, buf_str(&s->messages), signature);
    xor_with(client_key, signature);
    sha256(client_key, stored);
    good &= CRYPTO_memcmp(stored, s->keys.stored, KEY_BYTES) == 0;
    OPENSSL_cleanse(client_key, sizeof(client_key));
    hmac(s->keys.server, buf_str(&s->messages), signature);
    buf_puts(out, "v=");
    put_base64(out, signature, KEY_BYTES);
    return good;
}

void scram_server_done(struct scram_server *s)
{
    OPENSSL_cleanse(&s->keys, sizeof(s->keys));
    buf_done(&s->binding);
    buf_done(&s->messages);
}

/* --- the client --- */

void scram_client_begin(struct scram_client *c, const char *user, const char *nonce,
                        enum scram_client_binds binds, const struct tls_binding *to,
                        struct buf *out)
{
    *c = (struct scram_client){.proved = false};
    ASSERT((to != NULL) == (binds == SCRAM_BOUND));
    if (to != NULL)
        buf_printf(&c->binding, "p=%s,,", to->name);
    else
        buf_puts(&c->binding, binds == SCRAM_WOULD_BIND ? "y,," : "n,,");
    buf_put_str(out, buf_str(&c->binding));
    if (to != NULL)
        buf_put(&c->binding, to->bytes, to->len);
    buf_puts(&c->messages, "n=");
    put_name(&c->messages, user);
    buf_puts(&c->messages, ",r=");
    buf_puts(&c->messages, nonce);
    buf_put_str(out, buf_str(&c->messages));
}

/* The challenge's nonce, salt and iterations. NULL, or what is wrong with it. */
static const char *read_challenge(const struct scram_client *c, struct str challenge,
                                  struct str *nonce, struct password_scram *keys)
{
    struct str rest = challenge, salt, count, own = buf_str(&c->messages);
    struct buf bytes = {0};
    ptrdiff_t at = str_rfind(own, '=');
    const char *why = NULL;
    uint64_t iterations = 0;

    own = (struct str){own.ptr + at + 1, own.len - (size_t)at - 1};
    if (challenge.len > SCRAM_MESSAGE_MAX || !take_value(&rest, 'r', nonce) ||
        !take_value(&rest, 's', &salt) || !take_value(&rest, 'i', &count) ||
        base64_decode(&bytes, salt) < 0 || bytes.len == 0 || bytes.len > sizeof(keys->salt) ||
        !is_nonce(*nonce) || str_to_u64(count, UINT64_MAX, &iterations) < 0)
        why = "the challenge of SCRAM-SHA-256 is none";
    else if (nonce->len <= own.len || nonce->len > SCRAM_MESSAGE_MAX / 2 ||
             memcmp(nonce->ptr, own.ptr, own.len) != 0)
        why = "the challenge of SCRAM-SHA-256 is an answer to somebody else";
    else if (iterations < ITERATIONS_MIN || iterations > ITERATIONS_MAX)
        why = "SCRAM-SHA-256 with fewer than 4096 or more than 1000000 iterations";
    if (why == NULL) {
        keys->iterations = (uint32_t)iterations;
        keys->salt_len = bytes.len;
        memcpy(keys->salt, bytes.data, bytes.len);
    }
    buf_done(&bytes);
    return why;
}

int scram_client_answer(struct scram_client *c, const char *password, struct str challenge,
                        struct buf *out, const char **why)
{
    uint8_t client_key[KEY_BYTES], signature[KEY_BYTES];
    struct password_scram keys = {0};
    size_t begin = out->len;
    struct str nonce;

    *why = read_challenge(c, challenge, &nonce, &keys);
    if (*why != NULL)
        return -EINVAL;
    derive(password, &keys, client_key);
    buf_puts(out, "c=");
    base64_put(out, buf_str(&c->binding));
    buf_puts(out, ",r=");
    buf_put_str(out, nonce);
    buf_putc(&c->messages, ',');
    buf_put_str(&c->messages, challenge);
    buf_putc(&c->messages, ',');
    buf_put(&c->messages, out->data + begin, out->len - begin);
    hmac(keys.stored, buf_str(&c->messages), signature);
    xor_with(client_key, signature);
    buf_puts(out, ",p=");
    put_base64(out, client_key, KEY_BYTES);
    hmac(keys.server, buf_str(&c->messages), c->server_signature);
    c->proved = true;
    OPENSSL_cleanse(client_key, sizeof(client_key));
    OPENSSL_cleanse(&keys, sizeof(keys));
    return 0;
}

bool scram_client_end(const struct scram_client *c, struct str message)
{
    struct buf bytes = {0};
    struct str rest = message, text;
    bool good = c->proved && take_value(&rest, 'v', &text) && base64_decode(&bytes, text) == 0 &&
                bytes.len == KEY_BYTES &&
                CRYPTO_memcmp(bytes.data, c->server_signature, KEY_BYTES) == 0;

    buf_done(&bytes);
    return good;
}

void scram_client_done(struct scram_client *c)
{
    OPENSSL_cleanse(c->server_signature, sizeof(c->server_signature));
    buf_done(&c->binding);
    buf_done(&c->messages);
}

/* --- CRAM-MD5 --- */

int cram_md5_answer(const char *user, const char *password, struct str challenge, struct buf *out)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (HMAC(EVP_md5(), password, (int)strlen(password), (const uint8_t *)challenge.ptr,
             challenge.len, digest, &len) == NULL)
        return -ENOTSUP;
    buf_puts(out, user);
    buf_putc(out, ' ');
    for (unsigned i = 0; i < len; i++)
        buf_printf(out, "%02x", digest[i]);
    return 0;
}
