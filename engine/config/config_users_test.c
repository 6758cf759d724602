/* The file of users: what is read, what is refused and how that is told, who may send as whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config_load.h"
#include "config/config_secret.h"

#define HASH "$y$j9T$kHfkUYnP.7mPxii5pG2gZ/$DfjQ8e.vdR2qSCoiknNp5MjCC6CoWIRS7/WZ4Cnp0e2"

static char directory[] = "/tmp/hayauma-users-XXXXXX";
static char users[64], file[64];

static void write_text(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

/* The configuration with a file of users of this text, or NULL with errors. */
static struct config *load(const char *text, mode_t mode, struct buf *errors)
{
    struct config *c = NULL;
    struct buf yaml = {0};

    write_text(users, text, mode);
    buf_printf(&yaml,
               "listeners: [{listen: 127.0.0.1:587, auth: required, auth_without_tls: yes}]\n"
               "sources: {a1: {ipv4: 192.0.2.11}}\n"
               "pools: {p1: {sources: {a1: {}}}}\n"
               "auth: {users_file: %s}\n",
               users);
    buf_putc(&yaml, '\0');
    write_text(file, (char *)yaml.data, 0644);
    buf_done(&yaml);
    buf_clear(errors);
    if (config_load(file, &c, errors) < 0)
        assert_null(c);
    return c;
}

static bool may_send(const struct config_user *u, const char *local, const char *domain)
{
    return config_may_send(&u->senders, str_of(local), str_of(domain));
}

static bool may_write(const struct config_user *u, const char *local, const char *domain)
{
    return config_may_write(&u->senders, str_of(local), str_of(domain));
}

static void test_good(void **state)
{
    struct buf errors = {0};
    struct config *c = load("# users\n\nshop:" HASH ":senders=shop.example,*.shop.example,"
                            "News@Other.EXAMPLE,日本語.example tenant=shop pool=p1 priority=3 "
                            "rate=1000/h\r\n"
                            "any@where:" HASH "\n"
                            "notices:" HASH ":senders=<>,n.example\n  last:" HASH ":\n"
                            "esp:" HASH ":senders=b.example from=a.example,*.a.example",
                            0600, &errors);
    const struct config_user *u;

    (void)state;
    assert_int_equal(errors.len, 0);
    assert_non_null(c);
    assert_int_equal(c->auth.users_len, 5);
    u = config_user_find(c, STR("shop"));
    assert_non_null(u);
    assert_string_equal(u->hash, HASH);
    assert_string_equal(u->tenant, "shop");
    assert_string_equal(u->pool, "p1");
    assert_int_equal(u->priority, 3);
    assert_int_equal(u->rate_messages, 1000);
    assert_int_equal(u->rate_period_ms, 3600 * 1000);
    assert_true(may_send(u, "a", "shop.example"));
    assert_true(may_send(u, "a", "SHOP.example"));
    assert_true(may_send(u, "a", "x.y.shop.example"));
    assert_true(may_send(u, "news", "other.example"));
    assert_true(may_send(u, "a", "xn--wgv71a119e.example"));
    assert_false(may_send(u, "new", "other.example"));
    assert_false(may_send(u, "news2", "other.example"));
    assert_false(may_send(u, "a", "notshop.example"));
    assert_false(may_send(u, "a", ".shop.example"));
    assert_false(may_send(u, "a", "example"));
    assert_false(may_send(u, "", ""));
    assert_false(may_send(u, "postmaster", ""));
    u = config_user_find(c, STR("any@where"));
    assert_true(u->tenant == NULL && u->pool == NULL && u->priority == -1 && u->rate_messages == 0);
    assert_true(may_send(u, "a", "anything.example") && may_send(u, "", ""));
    u = config_user_find(c, STR("notices"));
    assert_true(may_send(u, "", "") && may_send(u, "a", "n.example"));
    assert_false(may_send(u, "a", "") || may_send(u, "", "o.example"));
    assert_true(may_write(u, "a", "n.example") && !may_write(u, "a", "o.example"));
    u = config_user_find(c, STR("esp"));
    assert_true(may_send(u, "a", "b.example") && !may_send(u, "a", "a.example"));
    assert_true(may_write(u, "a", "a.example") && may_write(u, "a", "x.a.example"));
    assert_false(may_write(u, "a", "b.example"));
    assert_false(c->auth.scram);
    assert_non_null(config_user_find(c, STR("last")));
    assert_null(config_user_find(c, STR("SHOP")));
    assert_null(config_user_find(c, STR("")));
    config_unref(c);
    buf_done(&errors);
}

static void test_mistakes(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"shop", ":1: is not \"name:hash\""},
        {":" HASH, ":1: is not \"name:hash\""},
        {"a b:" HASH, ":1: is not \"name:hash\""},
        {"# x\nshop:secret", ":2: user shop: no whole hash of yescrypt"},
        {"shop:$1$saltsalt$4px9i58NU2Z2/vZOUlGjq.", ":1: user shop: no whole hash"},
        {"shop:" HASH "x", ":1: user shop: no whole hash"},
        {"shop:" HASH ":sender=a.example", "'sender' is no field; there are senders="},
        {"shop:" HASH ":tenant", "'tenant' is no field"},
        {"shop:" HASH ":tenant=a tenant=b", "tenant is given twice"},
        {"shop:" HASH ":tenant=a/b", "'a/b' is not a name"},
        {"shop:" HASH ":pool=p2", ":1: user shop: there is no pool 'p2' in 'pools'"},
        {"shop:" HASH ":priority=10", "priority is a number from 0 to 9"},
        {"shop:" HASH ":rate=many", "'many' is no rate"},
        {"shop:" HASH ":rate=0/h", "'0/h' is no rate"},
        {"shop:" HASH ":senders=a.example,,b.example", "is not a domain pattern"},
        {"shop:" HASH ":senders=a@", "'a@' is no address"},
        {"shop:" HASH ":senders=site:x", "is not a domain pattern"},
        {"shop:" HASH "\nshop:" HASH, ":2: user shop is there twice"},
        {"shop:" HASH ":certificate=", "'' is neither a fingerprint"},
        {"shop:" HASH ":certificate=9F:86:D0", "'9F:86:D0' is neither a fingerprint"},
        {"shop:" HASH ":certificate=*.example", "'*.example' is neither a fingerprint"},
        {"shop:" HASH ":certificate=a.example\nx:" HASH ":certificate=A.example",
         ":2: user x: certificate a.example is user shop's"},
    };
    struct buf errors = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_null(load(cases[i].text, 0600, &errors));
        buf_putc(&errors, '\0');
        if (strstr((char *)errors.data, cases[i].error) == NULL)
            fail_msg("%s: %s", cases[i].text, (char *)errors.data);
        assert_null(strstr((char *)errors.data, "DfjQ8e")); /* no hash is shown */
        assert_null(strstr((char *)errors.data, "secret"));
    }
    buf_done(&errors);
}

#define FINGERPRINT "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
#define FINGERPRINT_COLONS                                                                         \
    "9F:86:D0:81:88:4C:7D:65:9A:2F:EA:A0:C5:5A:D0:15:A3:BF:4F:1B:2B:0B:82:2C:D1:5D:6C:15:B0:F0:0A" \
    ":08"

/* By which a user logs in: a fingerprint in each of its forms, and names. */
static void test_certificates(void **state)
{
    struct buf errors = {0};
    struct config *c = load("shop:" HASH ":certificate=" FINGERPRINT_COLONS ",App.Shop.example "
                            "tenant=shop\nops:" HASH ":certificate=ops@shop.example",
                            0600, &errors);

    (void)state;
    assert_int_equal(errors.len, 0);
    assert_non_null(c);
    assert_string_equal(config_certificate_user(c, STR(FINGERPRINT))->name, "shop");
    assert_string_equal(config_certificate_user(c, STR("app.shop.example"))->name, "shop");
    assert_string_equal(config_certificate_user(c, STR("ops@shop.example"))->name, "ops");
    assert_null(config_certificate_user(c, STR("shop.example")));
    assert_string_equal(config_user_find(c, STR("shop"))->tenant, "shop");
    config_unref(c);
    buf_done(&errors);
}

/* What would never come true is told; a fingerprint needs no authority. */
static void test_relay_certificates(void **state)
{
#define CERTIFIED "certificates: [{chain: /c, key: /k}]\nlisteners:\n- {listen: 127.0.0.1:25, "
    static const struct {
        const char *text, *error; /* NULL: it is good */
    } cases[] = {
        {CERTIFIED "client_certificates: ask, relay_certificates: [\"" FINGERPRINT_COLONS "\"]}",
         NULL},
        {CERTIFIED "client_certificates: ask, relay_certificates: [a.example]}",
         ":3:1: listeners[0].relay_certificates: a name counts in a certificate"},
        {CERTIFIED "client_certificates: ask, relay_certificates: [\"*\"]}",
         ":3:1: listeners[0].relay_certificates: a name counts"},
        {CERTIFIED "client_certificates: require, client_ca_file: /ca, "
                   "relay_certificates: [\"*\", a.example]}",
         NULL},
        {CERTIFIED "client_certificates: ask, relay_certificates: [\"9F:86\"]}",
         ":3:1: listeners[0].relay_certificates: '9F:86' is neither a fingerprint"},
        {CERTIFIED "relay_certificates: [" FINGERPRINT "]}",
         ":3:1: listeners[0].relay_certificates: no client is asked"},
        {CERTIFIED "client_ca_file: /ca}", ":3:1: listeners[0].client_ca_file: no client is asked"},
        {CERTIFIED "client_certificates: ask, client_ca_file: /ca, client_crl_file: /crl}", NULL},
        {CERTIFIED "client_certificates: ask, client_crl_file: /crl}",
         ":3:1: listeners[0].client_crl_file: there are no authorities"},
        {"listeners:\n- {listen: 127.0.0.1:25, client_certificates: ask}",
         ":2:1: listeners[0].client_certificates: without tls"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf errors = {0};
        struct config *c = NULL;
        int err = config_load_text("x", str_of(cases[i].text), &c, &errors);

        buf_putc(&errors, '\0');
        assert_int_equal(err, cases[i].error == NULL ? 0 : -EINVAL);
        if (cases[i].error != NULL && strstr((char *)errors.data, cases[i].error) == NULL)
            fail_msg("%s: %s", cases[i].text, (char *)errors.data);
        if (i == 0)
            assert_true(config_relays_certificate(c->listeners, STR(FINGERPRINT)) &&
                        !config_relays_certificate(c->listeners, STR(CONFIG_ANY_CERTIFICATE)));
        config_unref(c);
        buf_done(&errors);
    }
}

/* As root, which becomes 'user' behind this: files of root's are of no use to a reload. */
static void test_of_user(void **state)
{
    static const char *const keys[] = {"auth:\n  users_file", "credentials_file"};
    const struct passwd *pw = getpwnam("nobody");
    bool root = geteuid() == 0;

    (void)state;
    assert_non_null(pw);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct buf yaml = {0}, errors = {0};
        struct config *c = NULL;

        write_text(users, "", 0600);
        buf_printf(&yaml, "user: nobody\n%s: %s\n", keys[i], users);
        buf_putc(&yaml, '\0');
        write_text(file, (char *)yaml.data, 0644);
        assert_int_equal(config_load(file, &c, &errors), root ? -EACCES : 0);
        buf_putc(&errors, '\0');
        assert_true(!root || strstr((char *)errors.data,
                                    "by root, but not by 'user'; chown nobody ") != NULL);
        config_unref(c);
        c = NULL;
        buf_clear(&errors);
        assert_int_equal(root ? chown(users, pw->pw_uid, (gid_t)-1) : 0, 0);
        assert_int_equal(config_load(file, &c, &errors), 0);
        config_unref(c);
        unlink(users);
        buf_done(&errors);
        buf_done(&yaml);
    }
}

static void test_files(void **state)
{
    static const mode_t loose[] = {0640, 0604, 0660, 0601, 0620};
    struct buf errors = {0};
    struct config *c = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(loose); i++) {
        assert_null(load("shop:" HASH "\n", loose[i], &errors));
        buf_putc(&errors, '\0');
        assert_non_null(strstr((char *)errors.data, "chmod 600"));
    }
    c = load("", 0600, &errors); /* nobody yet: nobody gets in */
    assert_non_null(c);
    config_unref(c);
    unlink(users);
    buf_clear(&errors);
    assert_int_equal(config_load(file, &c, &errors), -ENOENT);
    buf_clear(&errors);
    assert_int_equal(mkdir(users, 0700), 0);
    assert_int_equal(config_load(file, &c, &errors), -EINVAL);
    assert_int_equal(rmdir(users), 0);
    /* A listener for users that there are not. */
    write_text(
        file,
        "listeners:\n  - listen: 127.0.0.1:587\n    auth: offered\n    auth_without_tls: yes\n",
        0644);
    buf_clear(&errors);
    assert_int_equal(config_load(file, &c, &errors), -EINVAL);
    buf_putc(&errors, '\0');
    assert_non_null(strstr((char *)errors.data, ":3: listeners[0].auth: there are no users"));
    assert_int_equal(config_load_file(file, &c, &errors), 0);
    config_unref(c);
    /* And one that offers nobody a way to log in. */
    write_text(file, "listeners:\n  - listen: 127.0.0.1:587\n    auth: offered\n", 0644);
    buf_clear(&errors);
    assert_int_equal(config_load_file(file, &c, &errors), -EINVAL);
    buf_putc(&errors, '\0');
    assert_non_null(strstr((char *)errors.data, ":3:1: listeners[0].auth: without tls nobody"));
    buf_done(&errors);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),         cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_certificates), cmocka_unit_test(test_relay_certificates),
        cmocka_unit_test(test_of_user),      cmocka_unit_test(test_files),
    };
    int failed;

    if (mkdtemp(directory) == NULL)
        return 1;
    snprintf(users, sizeof(users), "%s/users", directory);
    snprintf(file, sizeof(file), "%s/hayauma.yaml", directory);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(users);
    unlink(file);
    rmdir(directory);
    return failed;
}
