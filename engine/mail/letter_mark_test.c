#include "mail/letter_mark.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const uint8_t key[MAC_KEY_BYTES] = {1, 2, 3, 4}, other[MAC_KEY_BYTES] = {1, 2, 3, 5};
static const struct msgid campaign = {
    {1, 0x9a, 0xb1, 0x68, 0x19, 0x83, 0x70, 4, 0x88, 0x1c, 0x2a, 0x55, 1, 0xfe, 0x90, 0x3b}};

/* Python: hmac.new(key, b"bounce" + id + index, "sha256").digest()[:8], and base64.b32encode(). */
static void test_known(void **state)
{
    struct buf out = {0};

    (void)state;
    letter_mark_put_return(&out, key, &campaign, 17);
    assert_true(str_eq(buf_str(&out), STR("agnlc2azqnyajca4fjkqd7uqhmaaaaarc6coq7rfgbqti")));
    buf_clear(&out);
    letter_mark_put_token(&out, key, &campaign, 17, STR("taro@example.jp"));
    assert_true(
        str_eq(buf_str(&out),
               STR("AZqxaBmDcASIHCpVAf6QOwAAABH8GzhPn-Cm3BNHO-Znu-wwdGFyb0BleGFtcGxlLmpw")));
    buf_done(&out);
}

/* What text stands for is ours, and no other key's. */
static void check_ours(struct str text, enum letter_mark_kind kind, uint32_t index,
                       const char *address)
{
    struct letter_mark m;

    assert_int_equal(letter_mark_parse(text, &m), 0);
    assert_int_equal(m.kind, kind);
    assert_memory_equal(&m.campaign, &campaign, sizeof(campaign));
    assert_int_equal(m.index, index);
    assert_true(str_eq(buf_str(&m.address), str_of(address)));
    assert_true(letter_mark_is_of(&m, key));
    assert_false(letter_mark_is_of(&m, other));
    letter_mark_done(&m);
}

static void test_return(void **state)
{
    static const uint32_t indices[] = {0, 1, 31, 255, 65536, 16777215, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(indices); i++) {
        struct buf out = {0};

        buf_puts(&out, "Bounce+");
        letter_mark_put_return(&out, key, &campaign, indices[i]);
        assert_int_equal(out.len, 7 + LETTER_MARK_RETURN_CHARS);
        buf_puts(&out, "@News.Example");
        check_ours(buf_str(&out), LETTER_MARK_RETURN, indices[i], "");
        for (size_t k = 0; k < out.len; k++)
            if (out.data[k] >= 'a' && out.data[k] <= 'z')
                out.data[k] = (uint8_t)(out.data[k] - 32);
        check_ours(buf_str(&out), LETTER_MARK_RETURN, indices[i], "");
        buf_done(&out);
    }
}

static void test_token(void **state)
{
    static const char *const addresses[] = {"a@b", "taro@example.jp", "太郎@例え.jp",
                                            "\"a b\"@example.org", "ab@example.org"};
    static const char *const around[][2] = {{"", ""},
                                            {"https://news.example/u/", ""},
                                            {"<https://news.example/u?token=", ">"},
                                            {"mailto:u@news.example?subject=", ""},
                                            {" ", " "}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++)
        for (size_t k = 0; k < ARRAY_LEN(around); k++) {
            struct buf out = {0};

            buf_puts(&out, around[k][0]);
            letter_mark_put_token(&out, key, &campaign, 9, str_of(addresses[i]));
            buf_puts(&out, around[k][1]);
            check_ours(buf_str(&out), LETTER_MARK_TOKEN, 9, addresses[i]);
            buf_done(&out);
        }
}

/* Each character of either counts: whatever is changed, it is not ours. */
static void test_forged(void **state)
{
    struct buf marks[2] = {0};

    (void)state;
    letter_mark_put_return(&marks[0], key, &campaign, 17);
    buf_puts(&marks[0], "@x");
    letter_mark_put_token(&marks[1], key, &campaign, 17, STR("taro@example.jp"));
    for (size_t i = 0; i < 2; i++)
        for (size_t at = 0; at + (i == 0 ? 2 : 0) < marks[i].len; at++)
            for (const char *c = "abcz27AZ09-_@=+/.%"; *c != '\0'; c++) {
                struct letter_mark m;
                uint8_t was = marks[i].data[at];

                if (i == 0 ? ascii_lower(*c) == (char)was : *c == (char)was)
                    continue;
                marks[i].data[at] = (uint8_t)*c;
                if (letter_mark_parse(buf_str(&marks[i]), &m) == 0)
                    assert_false(letter_mark_is_of(&m, key));
                letter_mark_done(&m);
                marks[i].data[at] = was;
            }
    buf_done(&marks[0]);
    buf_done(&marks[1]);
}

static void test_none(void **state)
{
    static const char *const none[] = {
        "", "@", "a@b", "bounce+abc@news.example", "https://news.example/u/", "AAAA", "mailto:x@y"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(none); i++) {
        struct letter_mark m;

        assert_int_equal(letter_mark_parse(str_of(none[i]), &m), -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_return),
                                       cmocka_unit_test(test_token), cmocka_unit_test(test_forged),
                                       cmocka_unit_test(test_none)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
