/* Reading the YAML file. It is applied only when it has no mistake. */
#include "config/config_load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "config/config_secret.h"
#include "config/config_walk.h"
#include "smtp/address.h"

#define FILE_BYTES_MAX (64 * 1024 * 1024)

/* A line of the text, from 1. */
static struct str line_at(struct str text, int line)
{
    struct str found = str_take(&text, '\n');

    while (--line > 0)
        found = str_take(&text, '\n');
    return found;
}

/* What YAML takes for an alias, or for a list with something behind it, and was meant otherwise. */
static const char *hint_of_line(struct str line)
{
    static const char *const alike[] = {"\xef\xbc\x9a" /* a full-width colon */,
                                        "\xe3\x80\x80" /* and blank */,
                                        "\xc2\xa0" /* a blank that keeps words together */};
    struct str text = str_trim(line);

    for (size_t i = 0; i < ARRAY_LEN(alike); i++)
        if (memmem(line.ptr, line.len, alike[i], strlen(alike[i])) != NULL)
            return "; this line has a full-width or no-break blank or colon: write those of ASCII";
    if (text.len != 0 && text.ptr[0] == '*')
        return "; a pattern that starts with * needs quotes: \"*.example.com\"";
    for (size_t i = 0; i + 2 < text.len; i++)
        if (memcmp(text.ptr + i, "]:", 2) == 0 && text.ptr[i + 2] >= '0' && text.ptr[i + 2] <= '9')
            return "; an address in brackets needs quotes: \"[relay.example.com]:25\"";
    return "";
}

/* libfyaml's words are about YAML; what was forgotten is mostly this. */
static const char *hint_of_error(const char *error, struct str line)
{
    static const char *const hints[][2] = {
        {"nested block mapping on the same line", "; a value with ': ' needs quotes"},
        {"did not find expected '-' indicator",
         "; all keys of an item begin in the column of its first one"},
        {"invalid multiline plain key",
         "; a key lacks its ': ', or the line below is indented too far"},
        {"could not find expected ':'", "; a key lacks its ': ', a colon with a blank behind it"},
        {"invalid value after mapping", "; a key lacks its ': ', a colon with a blank behind it"},
        {"invalid indentation in mapping", "; keys of a section begin in the same column"},
        {"in flow mapping", "; a '{' before it lacks its '}', or a comma lacks between keys"},
        {"in flow sequence", "; a '[' before it lacks its ']', or a comma lacks between items"},
        {"quoted scalar", "; a quotation mark lacks its second one"}};
    const char *hint = hint_of_line(line);

    if (strstr(error, "tab character") != NULL || strstr(error, "invalid tab") != NULL)
        return "; indent with spaces";
    for (size_t i = 0; *hint == 0 && i < ARRAY_LEN(hints); i++)
        if (strstr(error, hints[i][0]) != NULL)
            hint = hints[i][1];
    return hint;
}

static void syntax_errors(struct config_loader *l, struct fy_diag *diag, struct str text)
{
    struct fy_diag_error *e;
    void *i = NULL;
    bool any = false;

    while ((e = fy_diag_errors_iterate(diag, &i)) != NULL) {
        struct config_place at = {e->line, e->column};

        config_complain(l, at, "YAML: %s%s", e->msg, hint_of_error(e->msg, line_at(text, e->line)));
        any = true;
    }
    if (!any)
        config_complain(l, (struct config_place){0}, "this is not YAML");
}

static void ignore_output(struct fy_diag *diag, void *user, const char *text, size_t len)
{
    (void)diag, (void)user, (void)text, (void)len;
}

static void load_document(struct config_loader *l, struct fy_parser *parser, struct fy_diag *diag,
                          struct str text)
{
    struct fy_document *doc = fy_parse_load_document(parser), *more;
    struct fy_node *root = doc == NULL ? NULL : fy_document_root(doc);

    if (doc == NULL && fy_diag_got_error(diag))
        syntax_errors(l, diag, text);
    else
        config_walk(l, root);
    if (doc != NULL)
        config_warmup_check(l);
    l->walked = doc != NULL;
    more = doc == NULL ? NULL : fy_parse_load_document(parser);
    if (more != NULL)
        config_complain(l, config_place_of(fy_document_root(more), (struct config_place){0}),
                        "a second document ('---'): the file is one");
    else if (doc != NULL && fy_diag_got_error(diag))
        syntax_errors(l, diag, text);
    fy_parse_document_destroy(parser, more);
    fy_parse_document_destroy(parser, doc);
}

static void load_yaml(struct config_loader *l, struct str text)
{
    struct fy_diag_cfg diag_cfg;
    struct fy_parse_cfg cfg = {.flags = FYPCF_ALLOW_DUPLICATE_KEYS};
    struct fy_diag *diag;
    struct fy_parser *parser;

    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag_cfg.output_fn = ignore_output;
    diag_cfg.level = FYET_ERROR;
    diag_cfg.colorize = false;
    diag = fy_diag_create(&diag_cfg);
    ASSERT(diag != NULL);
    fy_diag_set_collect_errors(diag, true);
    cfg.diag = diag;
    parser = fy_parser_create(&cfg);
    ASSERT(parser != NULL);
    if (fy_parser_set_string(parser, text.ptr, text.len) != 0)
        config_complain(l, (struct config_place){0}, "this is not YAML");
    else
        load_document(l, parser, diag, text);
    fy_parser_destroy(parser);
    fy_diag_destroy(diag);
}

/* What libfyaml should not see. Directives ("%YAML 1.2") are of no use here, and some malformed
 * ones make it loop for ever. */
static void check_bytes(struct config_loader *l, struct str text)
{
    const char *nul = text.len == 0 ? NULL : memchr(text.ptr, 0, text.len);
    struct config_place at = {1, 1};

    if (nul != NULL)
        config_complain(l, (struct config_place){0},
                        "a NUL byte at offset %td: this is no text file", nul - text.ptr);
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '%' && (i == 0 || text.ptr[i - 1] == '\n' || text.ptr[i - 1] == '\r')) {
            config_complain(l, at, "YAML directives (lines that begin with %%) are not taken");
            return;
        }
        at.line += text.ptr[i] == '\n';
    }
    at.line = 1;
    for (struct str rest = text; rest.len != 0; at.line++)
        if (!smtp_utf8_valid(str_take(&rest, '\n'))) {
            config_complain(l, at, "this line is not UTF-8");
            return;
        }
}

static void load_text(struct config_loader *l, struct str text)
{
    l->c->file = config_dup(l->c, str_of(l->file));
    check_bytes(l, text);
    l->c->is_empty = text.len == 0;
    if (l->errors_count == 0 && text.len != 0)
        load_yaml(l, text);
}

static bool field_name_valid(const char *name)
{
    for (const char *c = name; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~' || *c == ':')
            return false;
    return *name != '\0';
}

static void check_idempotency(struct config_loader *l, size_t i)
{
    const struct config_listener *listener = &l->c->listeners[i];
    const struct config_field *f = config_key(&config_listener_schema, "idempotency_header");
    struct config_place at = {(int)config_line_of(l->c, listener, f), 1};

    if (listener->idempotency_header != NULL && !field_name_valid(listener->idempotency_header))
        config_complain(l, at,
                        "listeners[%zu].idempotency_header: no name of a header field; write for "
                        "example X-Idempotency-Key",
                        i);
}

/* Each value for itself is right; what they say together may be wrong. */
static void check_listeners(struct config_loader *l)
{
    const struct config_section *s = &config_listener_schema;

    for (size_t i = 0; i < l->c->listeners_len; i++) {
        const struct config_listener *listener = &l->c->listeners[i];
        bool none = strcmp(listener->tls, "none") == 0;
        const struct config_field *f = config_key(s, none ? "tls_required" : "tls");
        struct config_place at = {(int)config_line_of(l->c, listener, f), 1};

        if (none && listener->tls_required)
            config_complain(
                l, at,
                "listeners[%zu].tls_required: without tls no client gets in; set 'certificates'",
                i);
        if (none && strcmp(listener->auth, "none") != 0 && !listener->auth_without_tls) {
            at.line = (int)config_line_of(l->c, listener, config_key(s, "auth"));
            config_complain(
                l, at,
                "listeners[%zu].auth: without tls nobody can log in; set 'certificates', "
                "or auth_without_tls",
                i);
        }
        if (!none && l->c->certificates_len == 0)
            config_complain(l, at, "listeners[%zu].tls: %s needs 'certificates'", i, listener->tls);
        if (l->c->http.listen.len != 0 &&
            strcmp(l->c->http.listen.text, listener->address.text) == 0) {
            at.line = (int)config_line_of(l->c, listener, config_key(s, "listen"));
            config_complain(l, at, "listeners[%zu].listen: %s is taken by http.listen", i,
                            listener->address.text);
        }
        check_idempotency(l, i);
    }
}

/* Whether d, of the map called so under that name, asks for what would never be found. */
static bool lacks_validation(struct config_loader *l, const char *map, const char *name,
                             const struct config_destination *d)
{
    const struct config_field *f = config_key(&config_destination_schema, "tls");
    struct config_place at = {(int)config_line_of(l->c, d, f), 1};

    if (!config_tls_has_dane(config_tls_of(d)))
        return false;
    config_complain(l, at,
                    "%s['%s'].tls: dane needs a resolver that validates DNSSEC, such as Unbound on "
                    "this machine; name it in 'dns.servers' and set 'dns.validating: yes'",
                    map, name);
    return true;
}

/* One mistake for all: "*" is the last, from which others have what they do not say. */
static void check_dane(struct config_loader *l)
{
    const struct config *c = l->c;
    bool told = c->dns.validating;

    for (size_t i = c->destinations_len; i > 0 && !told; i--)
        told = lacks_validation(l, "destinations", c->destinations[i - 1].pattern,
                                &c->destinations[i - 1]);
    for (size_t i = 0; i < c->providers_len && !told; i++)
        told = lacks_validation(l, "providers", c->providers[i].name, &c->providers[i].dest);
}

static void on_mistake(void *arg, unsigned line, const char *what)
{
    config_complain(arg, (struct config_place){(int)line, 1}, "%s", what);
}

int config_load_text(const char *file, struct str text, struct config **out, struct buf *errors)
{
    struct config_loader l = {.c = config_new_default(), .file = file, .errors = errors};

    load_text(&l, text);
    if (l.errors_count == 0) {
        config_finish(l.c);
        check_listeners(&l);
        check_dane(&l);
        config_check_certificates(l.c, on_mistake, &l);
        config_check_pools(l.c, on_mistake, &l);
        config_check_providers(l.c, on_mistake, &l);
        config_rules_check(&l);
    }
    if (l.errors_count != 0) {
        config_unref(l.c);
        return -EINVAL;
    }
    *out = l.c;
    return 0;
}

int config_load_file(const char *file, struct config **out, struct buf *errors)
{
    struct buf text = {0};
    int err = file_read(file, FILE_BYTES_MAX, &text);

    if (err == -ENOENT)
        buf_printf(errors, "%s: is not there; docs/examples has files to begin with\n", file);
    else if (err != 0)
        buf_printf(errors, "%s: cannot be read: %s\n", file, strerror(-err));
    else
        err = config_load_text(file, buf_str(&text), out, errors);
    buf_done(&text);
    return err;
}

/* Says which key names the file that could not be loaded. */
static int load_named(struct config *c, const char *key, const char *named,
                      int (*load)(struct config *c, struct buf *errors), struct buf *errors)
{
    int err = load(c, errors);

    if (err != 0 && named != NULL) {
        config_place_put(c, key, errors);
        buf_puts(errors, " names this file\n");
    }
    return err;
}

int config_load_secrets(struct config *c, struct buf *errors)
{
    const int errs[] = {
        load_named(c, "auth.users_file", c->auth.users_file, config_load_users, errors),
        load_named(c, "credentials_file", c->credentials_file, config_load_credentials, errors),
        config_load_proxies(c, errors),
        load_named(c, "letter_keys", c->letter_keys_file, config_load_letter_keys, errors)};

    for (size_t i = 0; i < ARRAY_LEN(errs); i++)
        if (errs[i] != 0)
            return errs[i];
    return 0;
}

int config_load(const char *file, struct config **out, struct buf *errors)
{
    struct config *c = NULL;
    int err = config_load_file(file, &c, errors);

    if (err == 0)
        err = config_load_secrets(c, errors);
    if (err == 0)
        *out = c;
    else
        config_unref(c);
    return err;
}

char *config_control_socket(const char *file, struct buf *errors)
{
    struct config_loader l = {.c = config_new_default(), .file = file, .errors = errors};
    struct buf text = {0};
    char *path = NULL;
    int err = file_read(file, FILE_BYTES_MAX, &text);

    if (err != 0)
        buf_printf(errors, "%s: cannot be read: %s\n", file, strerror(-err));
    else
        load_text(&l, buf_str(&text));
    if (err == 0 && (l.walked || l.errors_count == 0)) {
        buf_clear(errors);
        path = strdup(l.c->control_socket);
    }
    config_unref(l.c);
    buf_done(&text);
    return path;
}
