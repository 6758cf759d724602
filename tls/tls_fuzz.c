/* libFuzzer: bytes of a stranger, to a server or a client. The first byte says to which, and in
 * what pieces the rest comes: to a handshake that begins, or to an open connection. Whatever they
 * are, the end is a value with a text, and what there is to send stays within bounds. The same
 * bytes are a TLSA record, by which another connection verifies. */
#include <errno.h>
#include <openssl/pem.h>
#include <stdlib.h>

#include "tls/tls_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tls_server *server;
static struct tls_client *client;

static void make(void)
{
    struct tls_certificate *c = calloc(1, sizeof(*c));
    struct tls_tickets *tickets = tls_tickets_new();
    struct buf error = {0};
    X509_NAME *name;

    c->refs = 1;
    c->key = EVP_EC_gen("P-256");
    c->leaf = X509_new();
    c->chain = sk_X509_new_null();
    X509_gmtime_adj(X509_getm_notBefore(c->leaf), -60);
    X509_gmtime_adj(X509_getm_notAfter(c->leaf), 86400);
    X509_set_pubkey(c->leaf, c->key);
    name = X509_get_subject_name(c->leaf);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"a", -1, -1, 0);
    ASSERT(X509_sign(c->leaf, c->key, EVP_sha256()) > 0);
    ASSERT(tls_server_new(&server, &c, 1, tickets) == 0);
    ASSERT(tls_client_new(&client, &(struct tls_client_options){0}, &error) == 0);
    tls_certificate_unref(c);
    tls_tickets_unref(tickets);
}

/* All of wire, to t as it is. */
static void give(struct tls *t, enum tls_step *step, struct str wire)
{
    uint8_t plain[512];
    ssize_t n = 1;

    if (*step == TLS_WANTS)
        *step = tls_handshake(t, &wire);
    while (*step == TLS_DONE && n > 0) {
        n = tls_read(t, &wire, plain, sizeof(plain));
        ASSERT(n != 0 || wire.len == 0);
        if (n == -EPROTO)
            *step = TLS_FAILED;
    }
    ASSERT(*step != TLS_FAILED || tls_error(t)[0] != '\0');
    ASSERT(tls_unsent(t) <= 1 << 20);
}

/* What from has to say goes to to. */
static void carry(struct tls *from, struct tls *to, enum tls_step *step)
{
    uint8_t wire[4096];
    struct str none = STR("");
    ssize_t n;

    while ((n = tls_write(from, &none, wire, sizeof(wire))) > 0)
        give(to, step, (struct str){(const char *)wire, (size_t)n});
}

static void check_tlsa(struct str record)
{
    static const char *const name = "a.example";
    struct tls *t = tls_connect(client, &(struct tls_connect_options){.names = &name,
                                                                      .names_len = 1,
                                                                      .verify = TLS_VERIFY_DANE,
                                                                      .tlsa = &record,
                                                                      .tlsa_len = 1});

    ASSERT(t != NULL);
    ASSERT(t->unusable == (t->verify == TLS_VERIFY_NONE));
    ASSERT(t->unusable || (record.len > 3 && (record.ptr[0] == 2 || record.ptr[0] == 3)));
    tls_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls *ends[2];
    enum tls_step steps[2] = {TLS_WANTS, TLS_WANTS};
    size_t to, piece;

    if (size < 2)
        return 0;
    if (server == NULL)
        make();
    check_tlsa((struct str){(const char *)data, size});
    ends[0] = tls_connect(client, &(struct tls_connect_options){.server_name = "a.example"});
    ends[1] = tls_accept(server, &(struct tls_accept_options){.scope = STR("fuzz")});
    ASSERT(ends[0] != NULL && ends[1] != NULL);
    to = data[0] & 1;
    piece = (data[0] & 2) != 0 ? (size_t)(data[0] >> 3) + 1 : size;
    give(ends[0], &steps[0], STR(""));
    for (int i = 0; i < 4 && (data[0] & 4) != 0; i++) { /* an open connection */
        carry(ends[0], ends[1], &steps[1]);
        carry(ends[1], ends[0], &steps[0]);
    }
    ASSERT((data[0] & 4) == 0 || (steps[0] == TLS_DONE && steps[1] == TLS_DONE));
    for (size_t at = 1; at < size; at += piece)
        give(ends[to], &steps[to],
             (struct str){(const char *)data + at, size - at < piece ? size - at : piece});
    tls_close(ends[to]);
    tls_free(ends[0]);
    tls_free(ends[1]);
    return 0;
}
