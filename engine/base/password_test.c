#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>

#include "base/password.h"

static void test_own_hashes(void **state)
{
    static const char *const methods[] = {"yescrypt", "bcrypt", "sha512"};

    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        struct buf hash = {0}, again = {0};

        assert_int_equal(password_hash(&hash, methods[i], "geheim 1"), 0);
        assert_string_equal(password_method(buf_str(&hash)), methods[i]);
        assert_int_equal(password_hash(&again, methods[i], "geheim 1"), 0);
        assert_false(str_eq(buf_str(&hash), buf_str(&again))); /* salted */
        buf_putc(&hash, '\0');
        assert_true(password_check((char *)hash.data, "geheim 1"));
        assert_false(password_check((char *)hash.data, "geheim 2"));
        assert_false(password_check((char *)hash.data, ""));
        assert_false(password_check((char *)hash.data, "geheim 1 "));
        buf_done(&hash);
        buf_done(&again);
    }
}

static void test_others(void **state)
{
    static const struct {
        const char *method, *hash; /* of "x", made by libcrypt's own tools */
    } others[] = {
        {"sha256", "$5$rounds=1000$saltsalt$z3t6rrtFn3lMdv6AmvXeEFzPOKLJ2JypZJIYx/pmpp/"},
        {NULL, "$1$saltsalt$4px9i58NU2Z2/vZOUlGjq."},
        {NULL, "sa/gmiDJtU21A"},
        {NULL, "plain"},
        {NULL, ""},
        {NULL, "*"},
        {NULL, "$y$j9T$kHfkUYnP.7mPxii5pG2gZ/$DfjQ8e.vdR2qSCoiknNp5MjCC6CoWIRS7/WZ4Cnp0e"},
        {NULL, "$y$j9T$kHfkUYnP.7mPxii5pG2gZ/$DfjQ8e.vdR2qSCoiknNp5MjCC6CoWIRS7/WZ4Cnp0e2a"},
        {NULL, "$y$j9T$kHfkUYnP.7mPxii5pG2gZ/$DfjQ8e.vdR2qSCoiknNp5MjCC6CoWIRS7/WZ4Cnp0e:"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        const char *method = password_method(str_of(others[i].hash));

        assert_int_equal(method == NULL, others[i].method == NULL);
        if (method != NULL)
            assert_string_equal(method, others[i].method);
    }
    assert_string_equal(password_method(str_of(password_nobody)), "yescrypt");
    assert_false(password_check(password_nobody, "hayauma"));
}

/* What `doveadm pw -s SCRAM-SHA-256` wrote. */
#define KEYS                                                                                       \
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"   \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static void test_scram(void **state)
{
    static const char *const wrong[] = {
        "{SCRAM-SHA-256}",
        "{SCRAM-SHA-256}4095,W22Z,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "{SCRAM-SHA-256}1000001,W22Z,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "{SCRAM-SHA-256}4096,,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "{SCRAM-SHA-256}4096,W22Z,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,W22Z",
        "{SCRAM-SHA-1}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        KEYS ",",
        KEYS ",W22Z",
    };
    struct password_scram keys;
    struct buf text = {0};

    (void)state;
    assert_string_equal(password_method(STR(KEYS)), PASSWORD_SCRAM);
    assert_true(password_scram_parse(STR(KEYS), &keys));
    assert_int_equal(keys.iterations, 4096);
    assert_int_equal(keys.salt_len, 16);
    password_scram_put(&text, &keys);
    assert_true(str_eq(buf_str(&text), STR(KEYS)));
    buf_done(&text);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_null(password_method(str_of(wrong[i])));
}

static void test_wrong(void **state)
{
    struct buf out = {0};
    char longest[PASSWORD_BYTES_MAX + 2];

    (void)state;
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(password_hash(&out, "md5", "x"), -EINVAL);
    assert_int_equal(password_hash(&out, "scrypt", "x"), -EINVAL); /* read, not made */
    assert_int_equal(password_hash(&out, "yescrypt", longest), -EMSGSIZE);
    longest[73] = '\0'; /* bcrypt would not look at the last letter */
    assert_int_equal(password_hash(&out, "bcrypt", longest), -EMSGSIZE);
    assert_int_equal(out.len, 0);
    buf_done(&out);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_hashes),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_scram),
        cmocka_unit_test(test_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
