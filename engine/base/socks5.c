#include "base/socks5.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

#define VERSION       5
#define LOGIN_VERSION 1 /* RFC 1929 */

enum { METHOD_NONE = 0, METHOD_LOGIN = 2, METHOD_REFUSED = 0xFF };
enum { COMMAND_CONNECT = 1 };
enum { ADDRESS_IPV4 = 1, ADDRESS_NAME = 3, ADDRESS_IPV6 = 4 };

/* What went wrong, above the byte that says so. */
enum fault { FAULT_VERSION = 1, FAULT_METHOD, FAULT_LOGIN, FAULT_ANSWER, FAULT_ADDRESS };

static int error_of(enum fault fault, uint8_t byte)
{
    return (int)fault << 8 | byte;
}

void socks5_error_text(int error, char out[SOCKS5_TEXT])
{
    static const char *const answers[] = {
        NULL,
        "general failure",
        "not allowed by the proxy's rules",
        "Network unreachable",
        "Host unreachable",
        "Connection refused",
        "TTL expired",
        "the proxy does not connect",
        "the proxy has no such addresses",
    };
    unsigned byte = (unsigned)error & 0xFF;

    switch ((enum fault)(error >> 8)) {
    case FAULT_VERSION:
        snprintf(out, SOCKS5_TEXT, "it does not speak SOCKS 5 (its first byte is %u)", byte);
        return;
    case FAULT_METHOD:
        snprintf(out, SOCKS5_TEXT, "it does not accept how we log in (answer %u)", byte);
        return;
    case FAULT_LOGIN:
        snprintf(out, SOCKS5_TEXT, "it refuses the user or password (answer %u)", byte);
        return;
    case FAULT_ADDRESS:
        snprintf(out, SOCKS5_TEXT, "it answers with an unknown kind of address (%u)", byte);
        return;
    case FAULT_ANSWER:
        break;
    }
    snprintf(out, SOCKS5_TEXT, "%s (answer %u)",
             byte < sizeof(answers) / sizeof(*answers) && byte > 0 ? answers[byte] : "failed",
             byte);
}

void socks5_begin(struct socks5 *s, const char *user, const char *password,
                  const struct sockaddr *to)
{
    ASSERT(user == NULL || (strlen(user) <= SOCKS5_LOGIN_MAX && password != NULL &&
                            strlen(password) <= SOCKS5_LOGIN_MAX));
    ASSERT(to == NULL || to->sa_family == AF_INET || to->sa_family == AF_INET6);
    *s = (struct socks5){.user = user, .password = password};
    if (to != NULL)
        memcpy(&s->to, to,
               to->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
}

static void set_state(struct socks5 *s, enum socks5_state state)
{
    ASSERT(state > s->state && s->state < SOCKS5_OPEN);
    s->state = state;
    s->said = false;
    s->asked |= state == SOCKS5_REQUEST;
    s->heard_len = 0;
}

static void fail(struct socks5 *s, enum fault fault, uint8_t byte)
{
    s->error = error_of(fault, byte);
    set_state(s, SOCKS5_FAILED);
}

/* --- out --- */

static size_t put_text(uint8_t *out, const char *text)
{
    size_t len = strlen(text);

    out[0] = (uint8_t)len;
    memcpy(out + 1, text, len);
    return 1 + len;
}

static size_t put_request(const struct socks5 *s, uint8_t *out)
{
    const struct sockaddr_in *in = (const void *)&s->to;
    const struct sockaddr_in6 *in6 = (const void *)&s->to;
    size_t len = 0;

    out[len++] = VERSION;
    out[len++] = COMMAND_CONNECT;
    out[len++] = 0;
    if (s->to.ss_family == AF_INET) {
        out[len++] = ADDRESS_IPV4;
        memcpy(out + len, &in->sin_addr, 4);
        memcpy(out + len + 4, &in->sin_port, 2);
        return len + 6;
    }
    out[len++] = ADDRESS_IPV6;
    memcpy(out + len, &in6->sin6_addr, 16);
    memcpy(out + len + 16, &in6->sin6_port, 2);
    return len + 18;
}

size_t socks5_say(struct socks5 *s, uint8_t out[SOCKS5_SAY_MAX])
{
    size_t len = 0;

    if (s->said || s->state >= SOCKS5_OPEN)
        return 0;
    s->said = true;
    switch (s->state) {
    case SOCKS5_METHOD: /* one way: which address mail comes from may depend on the user */
        out[len++] = VERSION;
        out[len++] = 1;
        out[len++] = s->user != NULL ? METHOD_LOGIN : METHOD_NONE;
        break;
    case SOCKS5_LOGIN:
        out[len++] = LOGIN_VERSION;
        len += put_text(out + len, s->user);
        len += put_text(out + len, s->password);
        break;
    case SOCKS5_REQUEST:
        len = put_request(s, out);
        break;
    case SOCKS5_OPEN:
    case SOCKS5_FAILED:
    case SOCKS5_STATES:
        break;
    }
    ASSERT(len > 0 && len <= SOCKS5_SAY_MAX);
    return len;
}

/* --- in --- */

static void logged_in(struct socks5 *s)
{
    set_state(s, s->to.ss_family == AF_UNSPEC ? SOCKS5_OPEN : SOCKS5_REQUEST);
}

/* Both bytes of the answer are there. */
static void on_method(struct socks5 *s)
{
    uint8_t method = s->heard[1];

    if (method != (s->user != NULL ? METHOD_LOGIN : METHOD_NONE))
        fail(s, FAULT_METHOD, method);
    else if (s->user != NULL)
        set_state(s, SOCKS5_LOGIN);
    else
        logged_in(s);
}

static void on_login(struct socks5 *s)
{
    if (s->heard[1] != 0)
        fail(s, FAULT_LOGIN, s->heard[1]);
    else
        logged_in(s);
}

/* An address of all zeros says nothing. */
static void take_bound(struct socks5 *s)
{
    struct sockaddr_in *in = (void *)&s->bound;
    struct sockaddr_in6 *in6 = (void *)&s->bound;
    const uint8_t *address = s->heard + 4;

    if (s->heard[3] == ADDRESS_IPV4 && memcmp(address, "\0\0\0\0", 4) != 0) {
        in->sin_family = AF_INET;
        memcpy(&in->sin_addr, address, 4);
        memcpy(&in->sin_port, address + 4, 2);
    } else if (s->heard[3] == ADDRESS_IPV6 && memcmp(address, &in6addr_any, 16) != 0) {
        in6->sin6_family = AF_INET6;
        memcpy(&in6->sin6_addr, address, 16);
        memcpy(&in6->sin6_port, address + 16, 2);
    }
}

/* How long the answer to the request is, as far as is known; 0: it is none. */
static size_t answer_bytes(const struct socks5 *s)
{
    if (s->heard_len < 5)
        return 5;
    switch (s->heard[3]) {
    case ADDRESS_IPV4:
        return 4 + 4 + 2;
    case ADDRESS_IPV6:
        return 4 + 16 + 2;
    case ADDRESS_NAME:
        return 4 + 1 + (size_t)s->heard[4] + 2;
    default:
        return 0;
    }
}

/* A refusal is believed as soon as it is said: not every proxy puts an address behind it. */
static void on_request(struct socks5 *s)
{
    if (s->heard[1] != 0)
        fail(s, FAULT_ANSWER, s->heard[1]);
    else if (s->heard_len < 5)
        return;
    else if (answer_bytes(s) == 0)
        fail(s, FAULT_ADDRESS, s->heard[3]);
    else if (s->heard_len == answer_bytes(s)) {
        take_bound(s);
        set_state(s, SOCKS5_OPEN);
    }
}

/* A byte of the answer to what the state has said. */
static void hear_one(struct socks5 *s, uint8_t byte)
{
    if (s->heard_len < sizeof(s->heard)) /* else it is of a name, which nobody reads */
        s->heard[s->heard_len] = byte;
    s->heard_len++;
    if (s->heard_len == 1 && byte != (s->state == SOCKS5_LOGIN ? LOGIN_VERSION : VERSION))
        fail(s, FAULT_VERSION, byte);
    else if (s->heard_len < 2)
        return;
    else if (s->state == SOCKS5_METHOD)
        on_method(s);
    else if (s->state == SOCKS5_LOGIN)
        on_login(s);
    else
        on_request(s);
}

size_t socks5_hear(struct socks5 *s, const uint8_t *bytes, size_t len)
{
    size_t n = 0;

    while (n < len && s->state < SOCKS5_OPEN)
        hear_one(s, bytes[n++]);
    return n;
}
