/* Keys of the configuration: which files are taken, and whose keys sign what. */
#include "worker/keyring.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config_load.h"

static char dir[] = "/tmp/hayauma-keyring-XXXXXX";

static void write_text(const char *name, const void *text, size_t len, mode_t mode)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void write_key(const char *name, enum dkim_algorithm algorithm)
{
    struct dkim_key *key;
    struct buf text = {0};

    assert_int_equal(dkim_key_generate(&key, algorithm), 0);
    assert_int_equal(dkim_key_write(key, &text), 0);
    write_text(name, text.data, text.len, 0600);
    buf_done(&text);
    dkim_key_free(key);
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    write_key("rsa", DKIM_RSA_SHA256);
    write_key("ed", DKIM_ED25519_SHA256);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

/* The configuration with what %d of text stands for replaced by the directory. 0 or -EINVAL. */
static int open_ring(const char *text, struct config **c, struct buf *errors)
{
    struct buf file = {0};
    int err;

    for (const char *p = text; *p != 0; p++)
        if (*p == '%')
            buf_puts(&file, dir);
        else
            buf_putc(&file, *p);
    err = config_load_text("test.yaml", buf_str(&file), c, errors);
    buf_done(&file);
    if (err != 0)
        fail_msg("%.*s", STR_FMT(buf_str(errors)));
    return keyring_open(*c, errors);
}

/* "s1.example.com s2.example.com": who signs mail from author. */
static void check_chosen(const struct config *c, const char *chosen, const char *author,
                         const char *want)
{
    struct dkim_signer signers[DKIM_SIGNERS_MAX];
    struct buf message = {0}, got = {0};
    size_t n;

    buf_printf(&message, "From: A <a@%s>\r\n\r\n", author);
    n = keyring_signers(c->keyring, str_of(chosen), message.data, message.len, signers);
    for (size_t i = 0; i < n; i++)
        buf_printf(&got, "%s%s.%s", i == 0 ? "" : " ", signers[i].selector, signers[i].domain);
    buf_putc(&got, 0);
    assert_string_equal((char *)got.data, want);
    buf_done(&message);
    buf_done(&got);
}

static void check_signers(const struct config *c, const char *author, const char *want)
{
    check_chosen(c, "", author, want);
}

#define KEY(domain, selector, file, more)                                                          \
    "    - {domain: " domain ", selector: " selector ", file: %/" file more "}\n"

static void test_signers(void **state)
{
    struct config *c = NULL;
    struct buf errors = {0};

    (void)state;
    assert_int_equal(
        open_ring("dkim:\n  default: fallback.example\n  platform: Platform.example\n  keys:\n" KEY(
                      "Example.com", "e", "ed", "") KEY("example.com", "r", "rsa", "")
                      KEY("up.example", "r", "rsa", ", subdomains: yes") KEY(
                          "deep.up.example", "d", "ed", "") KEY("fallback.example", "f", "ed", "")
                          KEY("platform.example", "p", "rsa", ""),
                  &c, &errors),
        0);
    assert_int_equal(errors.len, 0);
    assert_int_equal(keyring_len(c->keyring), 6);
    check_signers(c, "EXAMPLE.com", "r.example.com p.platform.example e.example.com");
    check_signers(c, "sub.example.com", "p.platform.example f.fallback.example");
    check_signers(c, "up.example", "r.up.example p.platform.example");
    check_signers(c, "x.y.up.example", "r.up.example p.platform.example");
    check_signers(c, "deep.up.example", "p.platform.example d.deep.up.example");
    check_signers(c, "x.deep.up.example", "r.up.example p.platform.example");
    check_signers(c, "other.example", "p.platform.example f.fallback.example");
    check_signers(c, "platform.example", "p.platform.example");
    check_signers(c, "", "p.platform.example f.fallback.example");
    /* Chosen: in place of the author's; where it has no key, the author's is. */
    check_chosen(c, "up.example", "example.com", "r.up.example p.platform.example");
    check_chosen(c, "x.up.example", "deep.up.example", "p.platform.example d.deep.up.example");
    assert_true(keyring_has(c->keyring, STR("deep.up.example")));
    assert_false(keyring_has(c->keyring, STR("x.up.example")));
    assert_false(keyring_has(c->keyring, STR("")));
    assert_false(keyring_has(NULL, STR("up.example")));
    config_unref(c);
    c = NULL;
    assert_int_equal(open_ring("dkim:\n  keys:\n" KEY("example.com", "e", "ed", ""), &c, &errors),
                     0);
    check_signers(c, "example.com", "e.example.com");
    check_signers(c, "example.org", "");
    config_unref(c);
    assert_int_equal(open_ring("dkim:\n  canonicalization: simple/relaxed\n", &c, &errors), 0);
    assert_null(c->keyring);
    config_unref(c);
    buf_done(&errors);
}

/* Each mistake is told with file, line and what to do; no text has anything of a key. */
static void test_mistakes(void **state)
{
    static const struct {
        const char *text, *error;
    } rows[] = {
        {KEY("a.example", "s", "none", ""),
         "test.yaml:3: dkim.keys: %/none is not there; 'hayauma dkim keygen' makes keys"},
        {KEY("a.example", "s1-rsa", "none", ""), "'hayauma dkim keygen a.example --selector s1'"},
        {KEY("a.example", "s", "loose", ""), "can be used by others than its owner; chmod 600 it"},
        {KEY("a.example", "s", "written", ""),
         "can be used by others than its owner; chmod 600 it"},
        {KEY("a.example", "s", "text", ""), "is no key to sign with: no private key in PEM"},
        {KEY("a.example", "s", "empty", ""), "is no key to sign with: no private key in PEM"},
        {KEY("a.example", "s", "large", ""), "is too large for a key"},
        {KEY("a.example", "s", "", ""), "is no file"},
        {KEY("a.example", "s", "ed", "") KEY("A.example", "s", "rsa", ""),
         "test.yaml:4: dkim.keys: %/rsa is of a domain and selector that another key has"},
        {KEY("a.example", "s._domainkey.a.example", "ed", ""),
         "%/ed has a selector with '_domainkey' in it; write what stands in front of that in DNS"},
        {KEY("a.example", "1", "ed", "") KEY("a.example", "2", "ed", "")
             KEY("a.example", "3", "ed", "") KEY("a.example", "4", "ed", "")
                 KEY("a.example", "5", "ed", ""),
         "is the fifth key of its domain"},
        {KEY("a.example", "s", "ed", "") "  default: b.example\n",
         ": dkim.default: no key of dkim.keys is of the domain b.example"},
        {KEY("a.example", "s", "ed", "") "  platform: b.example\n", "dkim.platform: no key"},
        {KEY("a.example", "s", "ed", "") "  headers: [\"X Y\"]\n",
         "dkim.headers: 'X Y' is no name of a header field"},
    };
    static char large[KEYRING_FILE_BYTES_MAX + 1];

    (void)state;
    write_text("loose", "x", 1, 0644);
    write_text("written", "x", 1, 0620);
    write_text("text", "SECRET", 6, 0600);
    write_text("empty", "", 0, 0600);
    write_text("large", large, sizeof(large), 0600);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf errors = {0}, text = {0}, want = {0};
        struct config *c = NULL;

        buf_printf(&text, "dkim:\n  keys:\n%s", rows[i].text);
        buf_putc(&text, 0);
        assert_int_not_equal(open_ring((char *)text.data, &c, &errors), 0);
        assert_null(c->keyring);
        buf_putc(&errors, 0);
        for (const char *p = rows[i].error; *p != 0; p++)
            if (*p == '%')
                buf_puts(&want, dir);
            else
                buf_putc(&want, *p);
        buf_putc(&want, 0);
        if (strstr((char *)errors.data, (char *)want.data) == NULL)
            fail_msg("%s: %s", want.data, errors.data);
        assert_null(strstr((char *)errors.data, "SECRET"));
        config_unref(c);
        buf_done(&errors);
        buf_done(&text);
        buf_done(&want);
    }
}

/* root's key that a group may read, as a service's that runs as another user. */
static void test_group(void **state)
{
    struct config *c = NULL;
    struct buf errors = {0};
    char path[128];

    (void)state;
    write_key("group", DKIM_ED25519_SHA256);
    snprintf(path, sizeof(path), "%s/group", dir);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(open_ring("dkim:\n  keys:\n" KEY("a.example", "s", "group", ""), &c, &errors),
                     geteuid() == 0 ? 0 : -EINVAL);
    config_unref(c);
    buf_done(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signers),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_group),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
