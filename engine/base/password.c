#include "base/password.h"

#include <crypt.h>
#include <errno.h>
#include <stdlib.h>

#include "base/base64.h"

#define SCRAM_PREFIX "{SCRAM-SHA-256}"
/* RFC 7677 4 wants 4096 at least; more than these would take seconds of who logs in. */
#define SCRAM_ITERATIONS_MIN 4096
#define SCRAM_ITERATIONS_MAX 1000000

const char password_nobody[] =
    "$y$j9T$kHfkUYnP.7mPxii5pG2gZ/$DfjQ8e.vdR2qSCoiknNp5MjCC6CoWIRS7/WZ4Cnp0e2";

static const struct method {
    const char *name;
    const char *prefix;  /* of its hashes */
    size_t tail;         /* letters behind the last '$' */
    bool made;           /* new hashes are of it */
    unsigned long cost;  /* of new ones; 0: libcrypt's default */
    size_t password_max; /* bytes behind these are not looked at; 0: all are */
} methods[] = {
    {"yescrypt", "$y$", 43, true, 0, 0},    {"bcrypt", "$2b$", 53, true, 11, 72},
    {"sha512", "$6$", 86, true, 100000, 0}, {"gost-yescrypt", "$gy$", 43, false, 0, 0},
    {"scrypt", "$7$", 43, false, 0, 0},     {"bcrypt", "$2y$", 53, false, 0, 0},
    {"sha256", "$5$", 43, false, 0, 0},
};
#define METHODS_LEN (sizeof(methods) / sizeof(methods[0]))

static const struct method *method_of(struct str hash)
{
    for (size_t i = 0; i < METHODS_LEN; i++)
        if (str_starts_nocase(hash, str_of(methods[i].prefix)))
            return &methods[i];
    return NULL;
}

/* The next of the values between commas; of len bytes, or, with len 0, of 1 to max. */
static bool take_bytes(struct str *text, uint8_t *out, size_t *len, size_t max)
{
    struct buf bytes = {0};
    bool good = base64_decode(&bytes, str_take(text, ',')) == 0 && bytes.len <= max &&
                (*len == 0 ? bytes.len > 0 : bytes.len == *len);

    if (good) {
        memcpy(out, bytes.data, bytes.len);
        *len = bytes.len;
    }
    buf_wipe(&bytes);
    return good;
}

bool password_scram_parse(struct str hash, struct password_scram *out)
{
    struct str prefix = STR(SCRAM_PREFIX), rest;
    size_t key_len = PASSWORD_SCRAM_BYTES;
    uint64_t n;

    if (hash.len > PASSWORD_HASH_BYTES_MAX || !str_starts_nocase(hash, prefix) ||
        hash.ptr[hash.len - 1] == ',')
        return false;
    rest = (struct str){hash.ptr + prefix.len, hash.len - prefix.len};
    if (str_to_u64(str_take(&rest, ','), SCRAM_ITERATIONS_MAX, &n) < 0)
        return false;
    *out = (struct password_scram){.iterations = (uint32_t)n};
    return n >= SCRAM_ITERATIONS_MIN &&
           take_bytes(&rest, out->salt, &out->salt_len, sizeof(out->salt)) &&
           take_bytes(&rest, out->stored, &key_len, key_len) &&
           take_bytes(&rest, out->server, &key_len, key_len) && rest.len == 0;
}

static void put_bytes(struct buf *out, const uint8_t *bytes, size_t len)
{
    buf_putc(out, ',');
    base64_put(out, (struct str){(const char *)bytes, len});
}

void password_scram_put(struct buf *out, const struct password_scram *keys)
{
    buf_printf(out, SCRAM_PREFIX "%u", keys->iterations);
    put_bytes(out, keys->salt, keys->salt_len);
    put_bytes(out, keys->stored, sizeof(keys->stored));
    put_bytes(out, keys->server, sizeof(keys->server));
}

const char *password_method(struct str hash)
{
    struct password_scram keys;
    const struct method *m = method_of(hash);
    ptrdiff_t last = str_rfind(hash, '$');

    if (password_scram_parse(hash, &keys))
        return PASSWORD_SCRAM;
    if (m == NULL || hash.len - (size_t)last - 1 != m->tail || hash.len > PASSWORD_HASH_BYTES_MAX)
        return NULL;
    for (size_t i = 0; i < hash.len; i++) {
        char c = hash.ptr[i], lower = ascii_lower(c);
        bool letter = (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9');

        if (!letter && c != '.' && c != '/' && c != '$' && c != '=' && c != ',')
            return NULL;
    }
    return m->name;
}

/* Takes as long wherever the first difference is. */
static bool same_text(const char *a, const char *b)
{
    size_t len = strlen(a);
    unsigned difference = 0;

    if (strlen(b) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        difference |= (unsigned char)(a[i] ^ b[i]);
    return difference == 0;
}

bool password_check(const char *hash, const char *password)
{
    struct crypt_data *data = calloc(1, sizeof(*data));
    const char *result;
    bool same;

    ASSERT(data != NULL && hash[0] == '$');
    result = crypt_r(password, hash, data);
    same = result != NULL && result[0] == '$' && same_text(hash, result);
    explicit_bzero(data, sizeof(*data));
    free(data);
    return same;
}

int password_hash(struct buf *out, const char *method, const char *password)
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    struct crypt_data *data;
    const struct method *m = NULL;
    const char *result;
    int err = 0;

    for (size_t i = 0; i < METHODS_LEN && m == NULL; i++)
        if (methods[i].made && strcmp(method, methods[i].name) == 0)
            m = &methods[i];
    if (m == NULL)
        return -EINVAL;
    if (strlen(password) > PASSWORD_BYTES_MAX ||
        (m->password_max != 0 && strlen(password) > m->password_max))
        return -EMSGSIZE;
    if (crypt_gensalt_rn(m->prefix, m->cost, NULL, 0, setting, (int)sizeof(setting)) == NULL)
        return -errno;
    data = calloc(1, sizeof(*data));
    ASSERT(data != NULL);
    result = crypt_r(password, setting, data);
    if (result == NULL || result[0] != '$')
        err = -EIO;
    else
        buf_puts(out, result);
    explicit_bzero(data, sizeof(*data));
    free(data);
    return err;
}
