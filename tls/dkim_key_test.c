/* Keys of signatures: made, written, read back, and what is no key. */
#include "tls/dkim_key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PEM(type, text) "-----BEGIN " type "-----\n" text "\n-----END " type "-----\n"

static const uint8_t hash[DKIM_HASH_BYTES] = {1, 2, 3};

static void test_made_keys(void **state)
{
    (void)state;
    for (int a = DKIM_RSA_SHA256; a <= DKIM_ED25519_SHA256; a++) {
        struct dkim_key *key, *again;
        struct buf text = {0}, one = {0}, two = {0};
        uint8_t signature[DKIM_SIGNATURE_BYTES];
        const char *why = "";
        size_t len;

        assert_int_equal(dkim_key_generate(&key, (enum dkim_algorithm)a), 0);
        assert_int_equal(dkim_key_write(key, &text), 0);
        assert_int_equal(dkim_key_parse(&again, text.data, text.len, &why), 0);
        assert_int_equal(dkim_key_algorithm(again), a);
        assert_int_equal(dkim_key_bits(again), a == DKIM_RSA_SHA256 ? 2048 : 256);
        assert_int_equal(dkim_key_public(key, &one), 0);
        assert_int_equal(dkim_key_public(again, &two), 0);
        assert_true(str_eq(buf_str(&one), buf_str(&two)));
        assert_int_equal(dkim_key_sign(again, hash, signature, &len), 0);
        assert_true(dkim_key_verify(key, hash, signature, len));
        signature[0] ^= 1;
        assert_false(dkim_key_verify(key, hash, signature, len));
        dkim_wipe(text.data, text.len);
        for (size_t i = 0; i < text.len; i++)
            assert_int_equal(text.data[i], 0);
        buf_done(&text);
        buf_done(&one);
        buf_done(&two);
        dkim_key_free(key);
        dkim_key_free(again);
    }
    dkim_key_free(NULL);
}

static void test_no_keys(void **state)
{
    static const char *const texts[] = {
        "",
        "no key",
        PEM("PRIVATE KEY", "AAAA"),
        PEM("PUBLIC KEY", "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
        /* P-256 */
        PEM("PRIVATE KEY", "MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCABAgMEBQYHCAkKCwwNDg8Q\n"
                           "ERITFBUWFxgZGhscHR4fIA=="),
        /* behind a pass phrase: nobody may be asked for it */
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
        "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAAAAAAAAAAAAAAAAAAAA==\n"
        "-----END RSA PRIVATE KEY-----\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct dkim_key *key = NULL;
        const char *why = NULL;

        assert_int_not_equal(dkim_key_parse(&key, texts[i], strlen(texts[i]), &why), 0);
        assert_non_null(why);
        assert_null(key);
    }
}

static void test_hash(void **state)
{
    static const uint8_t empty[] = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14};
    uint8_t out[DKIM_HASH_BYTES];
    struct dkim_hash *h = dkim_hash_new();

    (void)state;
    assert_int_equal(dkim_hash_end(h, out), 0);
    assert_memory_equal(out, empty, sizeof(empty));
    dkim_hash_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_keys),
        cmocka_unit_test(test_no_keys),
        cmocka_unit_test(test_hash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
