/* A SOCKS version 5 client (RFC 1928) that asks a proxy for one connection, with a user and a
 * password where it has them (RFC 1929). Pure: no socket, clock or malloc. Whoever has the
 * connection to the proxy sends what socks5_say() gives and hands over what the proxy says, until
 * the state is SOCKS5_OPEN or SOCKS5_FAILED. */
#ifndef HAYAUMA_BASE_SOCKS5_H
#define HAYAUMA_BASE_SOCKS5_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define SOCKS5_LOGIN_MAX 255 /* bytes of a user, and of a password */
#define SOCKS5_SAY_MAX   (3 + 2 * SOCKS5_LOGIN_MAX)
#define SOCKS5_TEXT      96

enum socks5_state {
    SOCKS5_METHOD,  /* which way to log in is being agreed on */
    SOCKS5_LOGIN,   /* user and password are being looked at */
    SOCKS5_REQUEST, /* the proxy connects: what fails now may be the address's fault */
    SOCKS5_OPEN,    /* connected, or logged in where no address was given */
    SOCKS5_FAILED,
    SOCKS5_STATES
};

struct socks5 {
    enum socks5_state state;
    bool said;        /* what the state has to say */
    bool asked;       /* the request was reached */
    const char *user; /* NULL: no login */
    const char *password;
    struct sockaddr_storage to;    /* AF_UNSPEC: nowhere, the login is all */
    struct sockaddr_storage bound; /* from where the proxy connected; AF_UNSPEC: it did not say */
    int error;                     /* of SOCKS5_FAILED: see socks5_error_text() */
    uint8_t heard[4 + 16 + 2];     /* an answer as far as it has come */
    size_t heard_len;
};

/* user and password (NULL: none) live as long as s. to: an IPv4 or IPv6 address with its port; NULL
 * to see only whether the proxy is there and takes the login. */
void socks5_begin(struct socks5 *s, const char *user, const char *password,
                  const struct sockaddr *to);
/* What is to be sent now; 0: nothing. It may hold the password. */
size_t socks5_say(struct socks5 *s, uint8_t out[SOCKS5_SAY_MAX]);
/* Takes what the proxy said, and gives how many bytes of it: those behind an answer that opens are
 * the connection's. */
size_t socks5_hear(struct socks5 *s, const uint8_t *bytes, size_t len);
/* error, which is > 0, in words: "Connection refused (answer 5)". */
void socks5_error_text(int error, char out[SOCKS5_TEXT]);

#endif
