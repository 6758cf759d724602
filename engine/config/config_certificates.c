/* Certificates that clients are known by: how the configuration and the file of users name them. */
#include <errno.h>

#include "config/config_private.h"
#include "config/config_value.h"

#define HEX_DIGITS     64 /* of a SHA-256 */
#define NAME_BYTES_MAX 255

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f');
}

/* "9F:86:D0 ..." or the digits alone, as 64 in lower case. False: it is no fingerprint. */
static bool fingerprint(struct str text, char out[HEX_DIGITS])
{
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        bool between = n > 0 && n % 2 == 0 && text.ptr[i] == ':' && i + 1 < text.len;

        if (between && text.ptr[i - 1] != ':')
            continue;
        if (!is_hex(text.ptr[i]) || n == HEX_DIGITS)
            return false;
        out[n++] = ascii_lower(text.ptr[i]);
    }
    return n == HEX_DIGITS;
}

static bool is_name(struct str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] <= ' ' || text.ptr[i] >= 0x7f || strchr("*:,\"", text.ptr[i]) != NULL)
            return false;
    return text.len > 0 && text.len <= NAME_BYTES_MAX;
}

int config_set_certificate(struct config *c, struct str text, char **out, struct buf *why)
{
    char digits[HEX_DIGITS];
    char *name;

    if (fingerprint(text, digits)) {
        *out = config_dup(c, (struct str){digits, sizeof(digits)});
        return 0;
    }
    if (!is_name(text)) {
        buf_printf(why,
                   "'%.*s' is neither a fingerprint (SHA-256: 64 hex digits, as 'openssl x509 "
                   "-noout -fingerprint -sha256' prints them) nor a name",
                   STR_FMT(text));
        return -EINVAL;
    }
    name = config_dup(c, text);
    for (char *p = name; *p != '\0'; p++)
        *p = ascii_lower(*p);
    *out = name;
    return 0;
}

bool config_is_fingerprint(const char *certificate)
{
    char digits[HEX_DIGITS];

    return fingerprint(str_of(certificate), digits);
}

const struct config_user *config_certificate_user(const struct config *c, struct str certificate)
{
    uint32_t at =
        config_names_find(&((const struct config_owner *)c)->certificate_users, certificate);

    return at == CONFIG_NO_MATCH ? NULL : &c->auth.users[at];
}

bool config_asks_certificate(const struct config_listener *l)
{
    return strcmp(l->client_certificates, "off") != 0;
}

bool config_relays_certificate(const struct config_listener *l, struct str certificate)
{
    for (size_t i = 0; i < l->relay_certificates_len; i++)
        if (str_eq(str_of(l->relay_certificates[i]), certificate))
            return true;
    return false;
}

/* Complains of what can never apply, or means less than it seems to. */
static void check_listener(struct config *c, size_t index,
                           void (*tell)(void *arg, unsigned line, const char *what), void *arg)
{
    struct config_listener *l = &c->listeners[index];
    bool asked = config_asks_certificate(l);
    const char *key = NULL, *what = NULL;
    struct buf text = {0};

    for (size_t i = 0; i < l->relay_certificates_len && what == NULL; i++) {
        struct str s = str_of(l->relay_certificates[i]);

        key = "relay_certificates";
        if (!str_eq(s, STR(CONFIG_ANY_CERTIFICATE)) &&
            config_set_certificate(c, s, &l->relay_certificates[i], &text) < 0)
            what = "";
        else if (!config_is_fingerprint(l->relay_certificates[i]) && l->client_ca_file == NULL)
            what = "a name counts in a certificate that an authority vouches for: set "
                   "client_ca_file, or write a fingerprint";
    }
    if (what == NULL && l->client_crl_file != NULL && l->client_ca_file == NULL) {
        key = "client_crl_file";
        what = "there are no authorities whose list it could be: set client_ca_file";
    }
    if (what == NULL && !asked && (l->relay_certificates_len > 0 || l->client_ca_file != NULL)) {
        key = l->relay_certificates_len > 0 ? "relay_certificates" : "client_ca_file";
        what = "no client is asked for a certificate: set client_certificates";
    } else if (what == NULL && asked && strcmp(l->tls, "none") == 0) {
        key = "client_certificates";
        what = "without tls no client can show one; set 'certificates'";
    }
    if (what != NULL) {
        struct buf whole = {0};

        buf_printf(&whole, "listeners[%zu].%s: %s%.*s", index, key, what, STR_FMT(buf_str(&text)));
        buf_putc(&whole, '\0');
        tell(arg, config_line_of(c, l, config_key(&config_listener_schema, key)),
             (const char *)whole.data);
        buf_done(&whole);
    }
    buf_done(&text);
}

void config_check_certificates(struct config *c,
                               void (*tell)(void *arg, unsigned line, const char *what), void *arg)
{
    for (size_t i = 0; i < c->listeners_len; i++)
        check_listener(c, i, tell, arg);
}
