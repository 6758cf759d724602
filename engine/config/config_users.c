/* The file of users (auth.users_file): who may log in, and what of theirs is taken. A line each:
 *
 *   name:hash of the password:senders=shop.example,news@example.com tenant=shop rate=1000/h
 *
 * docs/manual.md describes it; `hayauma user` writes it. */
#include <errno.h>

#include "base/password.h"
#include "config/config_private.h"
#include "config/config_secret.h"
#include "config/config_value.h"

#define USER_NAME_BYTES_MAX 128

/* --- a line --- */

/* Each takes the value of a field. */
typedef int field_fn(struct config *c, struct str value, struct config_user *u, struct buf *why);

static bool is_name(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7f || s.ptr[i] == ':')
            return false;
    return s.len > 0 && s.len <= USER_NAME_BYTES_MAX && s.ptr[0] != '#';
}

static int set_list(struct config *c, struct str value, char ***out, size_t *len, struct buf *why)
{
    size_t n = 1;

    for (size_t i = 0; i < value.len; i++)
        n += value.ptr[i] == ',';
    *out = config_alloc(c, n * sizeof(**out));
    for (; n > 0; n--)
        if (config_set_sender(c, str_take(&value, ','), &(*out)[(*len)++], why) < 0)
            return -EINVAL;
    return 0;
}

static int set_senders(struct config *c, struct str value, struct config_user *u, struct buf *why)
{
    return set_list(c, value, &u->senders.envelope, &u->senders.envelope_len, why);
}

static int set_from(struct config *c, struct str value, struct config_user *u, struct buf *why)
{
    return set_list(c, value, &u->senders.from, &u->senders.from_len, why);
}

static int set_certificates(struct config *c, struct str value, struct config_user *u,
                            struct buf *why)
{
    size_t n = 1;

    for (size_t i = 0; i < value.len; i++)
        n += value.ptr[i] == ',';
    u->certificates = config_alloc(c, n * sizeof(*u->certificates));
    while (u->certificates_len < n) {
        struct str one = str_take(&value, ',');

        if (config_set_certificate(c, one, &u->certificates[u->certificates_len++], why) < 0)
            return -EINVAL;
    }
    return 0;
}

static int set_tenant(struct config *c, struct str value, struct config_user *u, struct buf *why)
{
    return config_set_name(c, value, &u->tenant, why);
}

static int set_pool(struct config *c, struct str value, struct config_user *u, struct buf *why)
{
    return config_set_name(c, value, &u->pool, why);
}

static int set_priority(struct config *c, struct str value, struct config_user *u, struct buf *why)
{
    (void)c;
    if (value.len != 1 || value.ptr[0] < '0' || value.ptr[0] > '9') {
        buf_puts(why, "priority is a number from 0 to 9");
        return -EINVAL;
    }
    u->priority = (int8_t)(value.ptr[0] - '0');
    return 0;
}

static int set_rate(struct config *c, struct str value, struct config_user *u, struct buf *why)
{
    (void)c;
    if (config_parse_rate(value, &u->rate_messages, &u->rate_period_ms) == 0 &&
        u->rate_messages != 0)
        return 0;
    buf_printf(why, "rate: '%.*s' is no rate; write 1000/h, 20/min", STR_FMT(value));
    return -EINVAL;
}

static const struct {
    struct str name;
    field_fn *set;
} fields[] = {
    {{"senders", 7}, set_senders},
    {{"from", 4}, set_from},
    {{"tenant", 6}, set_tenant},
    {{"pool", 4}, set_pool},
    {{"priority", 8}, set_priority},
    {{"rate", 4}, set_rate},
    {{"certificate", 11}, set_certificates},
};

static int set_field(struct config *c, struct str text, struct config_user *u, uint32_t *seen,
                     struct buf *why)
{
    struct str value = text, name = str_take(&value, '=');

    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (name.len == text.len || !str_eq(name, fields[i].name))
            continue;
        if ((*seen & 1u << i) != 0) {
            buf_printf(why, "%.*s is given twice", STR_FMT(name));
            return -EINVAL;
        }
        *seen |= 1u << i;
        return fields[i].set(c, value, u, why);
    }
    buf_printf(why,
               "'%.*s' is no field; there are senders=, from=, tenant=, pool=, priority=, rate= "
               "and certificate=",
               STR_FMT(name));
    return -EINVAL;
}

static int set_fields(struct config *c, struct str rest, struct config_user *u, struct buf *why)
{
    uint32_t seen = 0;

    while ((rest = str_trim(rest)).len != 0)
        if (set_field(c, str_take(&rest, ' '), u, &seen, why) < 0)
            return -EINVAL;
    return 0;
}

int config_user_parse(struct config *c, struct str entry, struct config_user *out, struct buf *why)
{
    struct str rest = entry, name = str_take(&rest, ':'), hash = str_take(&rest, ':');

    *out = (struct config_user){.priority = -1};
    if (name.len == entry.len || !is_name(name)) {
        buf_puts(why, "is not \"name:hash\", with a name of 1 to 128 visible ASCII characters");
        return -EINVAL;
    }
    if (password_method(hash) == NULL) {
        buf_printf(why,
                   "user %.*s: no whole hash of yescrypt, bcrypt or sha512, and no keys of "
                   "SCRAM-SHA-256, behind the name; "
                   "'hayauma user passwd %.*s' makes one",
                   STR_FMT(name), STR_FMT(name));
        return -EINVAL;
    }
    out->name = config_dup(c, name);
    out->hash = config_dup(c, hash);
    return set_fields(c, rest, out, why);
}

/* --- the file --- */

const struct config_user *config_user_find(const struct config *c, struct str name)
{
    uint32_t at = config_names_find(&((const struct config_owner *)c)->users, name);

    ASSERT(at == CONFIG_NO_MATCH || at < c->auth.users_len);
    return at == CONFIG_NO_MATCH ? NULL : &c->auth.users[at];
}

/* A certificate is one user's. */
static int add_certificates(struct config *c, const struct config_user *u, struct buf *why)
{
    struct config_owner *owner = (struct config_owner *)c;

    for (size_t i = 0; i < u->certificates_len; i++) {
        struct str s = str_of(u->certificates[i]);

        if (config_certificate_user(c, s) != NULL) {
            buf_printf(why, "user %s: certificate %s is user %s's", u->name, s.ptr,
                       config_certificate_user(c, s)->name);
            return -EINVAL;
        }
        config_names_add(c, &owner->certificate_users, s, (uint32_t)(u - c->auth.users));
    }
    return 0;
}

static int add_user(struct config *c, struct str entry, struct buf *why)
{
    struct config_owner *owner = (struct config_owner *)c;
    struct config_user *u = &c->auth.users[c->auth.users_len];

    if (config_user_parse(c, entry, u, why) < 0)
        return -EINVAL;
    if (config_user_find(c, str_of(u->name)) != NULL) {
        buf_printf(why, "user %s is there twice", u->name);
        return -EINVAL;
    }
    if (u->pool != NULL && config_pool_find(c, str_of(u->pool)) == NULL) {
        buf_printf(why, "user %s: there is no pool '%s' in 'pools'", u->name, u->pool);
        return -EINVAL;
    }
    config_names_add(c, &owner->users, str_of(u->name), (uint32_t)c->auth.users_len++);
    return add_certificates(c, u, why);
}

static int load_entries(struct config *c, struct str text, struct buf *errors)
{
    size_t at = 0, count = 1;
    struct str entry;
    unsigned line = 0;
    int result = 0;

    for (size_t i = 0; i < text.len; i++)
        count += text.ptr[i] == '\n';
    ASSERT(c->auth.users_len == 0);
    c->auth.users = config_alloc(c, count * sizeof(*c->auth.users));
    c->auth.scram = true;
    while (config_secret_next(text, &at, &line, &entry)) {
        struct buf why = {0};

        if (add_user(c, entry, &why) < 0) {
            buf_printf(errors, "%s:%u: %.*s\n", c->auth.users_file, line, STR_FMT(buf_str(&why)));
            result = -EINVAL;
        }
        buf_done(&why);
    }
    ASSERT(c->auth.users_len <= count);
    for (size_t i = 0; i < c->auth.users_len; i++)
        c->auth.scram &=
            strcmp(password_method(str_of(c->auth.users[i].hash)), PASSWORD_SCRAM) == 0;
    c->auth.scram &= c->auth.users_len > 0;
    return result;
}

/* A listener that asks for users nobody has would take no mail, and nobody would know why. */
static int check_listeners(const struct config *c, struct buf *errors)
{
    const struct config_field *f = config_key(&config_listener_schema, "auth");

    for (size_t i = 0; i < c->listeners_len && c->auth.users_file == NULL; i++) {
        const struct config_listener *l = &c->listeners[i];

        if (strcmp(l->auth, "none") == 0)
            continue;
        buf_printf(errors,
                   "%s:%u: listeners[%zu].auth: there are no users: set auth.users_file, and make "
                   "one with 'hayauma user add'\n",
                   c->file, config_line_of(c, l, f), i);
        return -EINVAL;
    }
    return 0;
}

int config_load_users(struct config *c, struct buf *errors)
{
    struct buf text = {0};
    int err = check_listeners(c, errors);

    if (err == 0 && c->auth.users_file != NULL) {
        err = config_secret_read(c, c->auth.users_file, &text, errors);
        if (err == 0)
            err = load_entries(c, buf_str(&text), errors);
        else if (err == -ENOENT)
            buf_printf(errors, "%s: 'hayauma user add NAME' makes it\n", c->auth.users_file);
        config_secret_done(&text);
    }
    return err;
}
