#include "base/password.h"

#include <crypt.h>
#include <errno.h>
#include <stdlib.h>

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

const char *password_method(struct str hash)
{
    const struct method *m = method_of(hash);
    ptrdiff_t last = str_rfind(hash, '$');

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

    ASSERT(data != NULL);
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
