/* DNS records of keys: as they are printed, and what is made of published ones, garbage included.
 */
#include "tools/commands/dkim_record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char key_text[] = "-----BEGIN PRIVATE KEY-----\n"
                               "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
                               "-----END PRIVATE KEY-----\n"; /* RFC 8463 */
#define PUBLIC "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

static struct dkim_key *test_key(void)
{
    struct dkim_key *key;
    const char *why;

    assert_int_equal(dkim_key_parse(&key, key_text, sizeof(key_text) - 1, &why), 0);
    return key;
}

static void test_printed(void **state)
{
    struct dkim_key *key = test_key(), *rsa;
    struct buf out = {0};
    size_t line = 0;

    (void)state;
    assert_int_equal(dkim_record_text(key, &out), 0);
    assert_true(str_eq(buf_str(&out), STR("v=DKIM1; k=ed25519; p=" PUBLIC)));
    buf_clear(&out);
    assert_int_equal(dkim_key_generate(&rsa, DKIM_RSA_SHA256), 0);
    assert_int_equal(dkim_record_zone(rsa, "s1-rsa", "example.com", &out), 0);
    for (size_t i = 0; i < out.len; i++) {
        line = out.data[i] == '\n' ? 0 : line + 1;
        assert_true(line < 255);
    }
    buf_putc(&out, 0);
    assert_non_null(strstr((const char *)out.data, "s1-rsa._domainkey.example.com. 3600 IN TXT ("));
    buf_done(&out);
    dkim_key_free(key);
    dkim_key_free(rsa);
}

static void test_published(void **state)
{
    static const struct {
        const char *record;
        enum dkim_record_fault fault;
    } rows[] = {
        {"v=DKIM1; k=ed25519; p=" PUBLIC, DKIM_RECORD_GOOD},
        {"k=ed25519;p=" PUBLIC ";", DKIM_RECORD_GOOD},
        {" v = DKIM1 ; p = 11qYAYKxCrfVS/7T yWQHOg7hcvPapiMl\trwIaaPcHURo= ; k = ed25519 ",
         DKIM_RECORD_GOOD},
        {"v=DKIM1; k=ed25519; h=sha1:sha256; t=y:s; p=" PUBLIC, DKIM_RECORD_TESTING},
        {"v=DKIM1; k=ed25519; h=sha1; p=" PUBLIC, DKIM_RECORD_NO_SHA256},
        {"v=DKIM1; k=ed25519; p=", DKIM_RECORD_REVOKED},
        {"v=DKIM1; p=" PUBLIC, DKIM_RECORD_OTHER_KEY},
        {"v=DKIM1; k=ed25519; p=12qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
         DKIM_RECORD_OTHER_KEY},
        {"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHUR", DKIM_RECORD_OTHER_KEY},
        {"v=DKIM1; k=ed25519; p=" PUBLIC "AAAA", DKIM_RECORD_OTHER_KEY},
        {"v=DKIM2; k=ed25519; p=" PUBLIC, DKIM_RECORD_NOT_DKIM},
        {"v=spf1 -all", DKIM_RECORD_NOT_DKIM},
        {"", DKIM_RECORD_NOT_DKIM},
        {";;;=;= ;p", DKIM_RECORD_NOT_DKIM},
        {"p=\xff\x01;k", DKIM_RECORD_OTHER_KEY},
    };
    struct dkim_key *key = test_key();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (dkim_record_check(str_of(rows[i].record), key) != rows[i].fault)
            fail_msg("%s", rows[i].record);
    dkim_key_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printed),
        cmocka_unit_test(test_published),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
