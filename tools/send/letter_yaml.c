#include "tools/send/letter_yaml.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/file.h"
#include "base/suggest.h"
#include "mail/json_fields.h"
#include "tools/send/send_type.h"
#include "tools/sink/sink_yaml.h"

#define ATTACHMENT_BYTES_MAX (50u << 20)
#define DEPTH_MAX            30
#define PATH_BYTES           200

struct reading {
    struct yaml_reader yaml;
    json_t *root, *content, *places;
    char *directory;
};

/* --- values --- */

static struct str scalar_of(struct fy_node *node)
{
    size_t len = 0;
    const char *text = fy_node_get_scalar(node, &len);

    return (struct str){text == NULL ? "" : text, len};
}

/* NULL after a complaint. */
static json_t *text_of(struct reading *r, struct fy_node *node, const char *what)
{
    json_t *out = NULL;

    if (node == NULL || !fy_node_is_scalar(node)) {
        yaml_complain(&r->yaml, "%s: want a text", what);
        return NULL;
    }
    out = json_stringn(scalar_of(node).ptr, scalar_of(node).len);
    if (out == NULL)
        yaml_complain(&r->yaml, "%s: is not UTF-8", what);
    return out;
}

/* What is not quoted is a number, true, false or null where it looks like one. */
static json_t *scalar_json(struct reading *r, struct fy_node *node)
{
    struct str text = scalar_of(node);
    json_t *out = NULL;

    if (fy_node_get_style(node) == FYNS_PLAIN) {
        if (text.len == 0 || str_eq(text, STR("~")))
            return json_null();
        out = json_loadb(text.ptr, text.len, JSON_DECODE_ANY, NULL);
        if (json_is_object(out) || json_is_array(out) || json_is_string(out)) {
            json_decref(out);
            out = NULL;
        }
    }
    return out != NULL ? out : text_of(r, node, "a value");
}

/* A value of variables: as deep as it is. */
static json_t *value_json(struct reading *r, struct fy_node *node, unsigned depth)
{
    json_t *out;
    void *at = NULL;

    if (depth > DEPTH_MAX) {
        yaml_complain(&r->yaml, "nested more than %d deep", DEPTH_MAX);
        return NULL;
    }
    if (node == NULL)
        return json_null();
    if (fy_node_is_scalar(node))
        return fy_node_is_alias(node) ? NULL : scalar_json(r, node);
    out = fy_node_is_mapping(node) ? json_object() : json_array();
    if (fy_node_is_mapping(node)) {
        for (struct fy_node_pair *p; (p = fy_node_mapping_iterate(node, &at)) != NULL;) {
            json_t *key = text_of(r, fy_node_pair_key(p), "a name"),
                   *value = value_json(r, fy_node_pair_value(p), depth + 1);

            if (key != NULL && value != NULL)
                json_put(out, json_string_value(key), json_incref(value));
            json_decref(key);
            json_decref(value);
        }
    } else {
        for (struct fy_node *n; (n = fy_node_sequence_iterate(node, &at)) != NULL;) {
            json_t *value = value_json(r, n, depth + 1);

            if (value != NULL)
                json_array_append_new(out, value);
        }
    }
    return out;
}

/* --- places --- */

static void note_place(struct reading *r, struct fy_node *key, const char *path, const char *shown)
{
    struct fy_token *token = key == NULL ? NULL : fy_node_get_scalar_token(key);
    const struct fy_mark *mark = token == NULL ? NULL : fy_token_start_mark(token);

    r->yaml.key = key;
    if (mark != NULL)
        json_put(r->places, path, json_pack("[i,s]", mark->line + 1, shown));
}

unsigned letter_yaml_place(const json_t *places, const char *path, const char **key)
{
    char around[PATH_BYTES];
    size_t len;

    snprintf(around, sizeof(around), "%s", path);
    for (len = strlen(around); len > 0; around[len] = '\0') {
        json_t *place = json_object_get(places, around);

        if (place != NULL) {
            *key = json_string_value(json_array_get(place, 1));
            return (unsigned)json_integer_value(json_array_get(place, 0));
        }
        while (len > 0 && around[--len] != '.' && around[len] != '[')
            ;
    }
    return 0;
}

/* --- fields --- */

/* "Name <address>", "address", or a mapping {email, name}. */
static void read_mailbox(struct reading *r, struct fy_node *node, const char *name)
{
    json_t *text, *out;
    struct str all;
    ptrdiff_t open;

    if (node != NULL && fy_node_is_mapping(node)) {
        out = value_json(r, node, 0);
        json_put(r->content, name, out);
        return;
    }
    text = text_of(r, node, name);
    if (text == NULL)
        return;
    all = str_trim(str_of(json_string_value(text)));
    open = str_rfind(all, '<');
    out = json_object();
    if (open >= 0 && all.ptr[all.len - 1] == '>') {
        struct str display = str_trim((struct str){all.ptr, (size_t)open});

        if (display.len > 1 && *display.ptr == '"' && display.ptr[display.len - 1] == '"')
            display = (struct str){display.ptr + 1, display.len - 2};
        if (display.len > 0)
            json_put(out, "name", json_stringn(display.ptr, display.len));
        all = (struct str){all.ptr + open + 1, all.len - (size_t)open - 2};
    }
    json_put(out, "email", json_stringn(all.ptr, all.len));
    json_put(r->content, name, out);
    json_decref(text);
}

/* The file's bytes in base64; NULL after a complaint. file: from the letter's directory on. */
static json_t *read_file(struct reading *r, const char *file)
{
    struct buf path = {0}, bytes = {0}, coded = {0};
    json_t *out = NULL;
    int err;

    if (*file != '/')
        buf_printf(&path, "%s/", r->directory);
    buf_puts(&path, file);
    buf_putc(&path, '\0');
    err = file_read((char *)path.data, ATTACHMENT_BYTES_MAX, &bytes);
    if (err < 0) {
        yaml_complain(&r->yaml, "%s: %s", (char *)path.data, strerror(-err));
    } else {
        base64_put(&coded, buf_str(&bytes));
        out = json_stringn(coded.len == 0 ? "" : (char *)coded.data, coded.len);
    }
    buf_done(&path);
    buf_done(&bytes);
    buf_done(&coded);
    return out;
}

/* A file's name, or {file, type, name, id}. */
static json_t *attachment_of(struct reading *r, struct fy_node *node)
{
    static const struct {
        const char *key, *member;
    } fields[] = {
        {"file", NULL}, {"type", "content_type"}, {"name", "file_name"}, {"id", "content_id"}};
    json_t *given = value_json(r, node, 0), *out = json_object(), *data, *value;
    const char *file, *slash, *key;

    if (json_is_string(given)) {
        json_t *all = json_object();

        json_put(all, "file", given);
        given = all;
    }
    json_object_foreach(given, key, value)
    {
        size_t i = 0;

        while (i < ARRAY_LEN(fields) && strcmp(fields[i].key, key) != 0)
            i++;
        if (i == ARRAY_LEN(fields) || !json_is_string(value))
            yaml_complain(&r->yaml, "attachments: '%s': want file, type, name, id, as texts", key);
        else if (fields[i].member != NULL)
            json_put(out, fields[i].member, json_incref(value));
    }
    file = json_string_value(json_object_get(given, "file"));
    data = file == NULL ? NULL : read_file(r, file);
    if (file == NULL)
        yaml_complain(&r->yaml, "attachments: want names of files, or {file: ...}");
    if (data != NULL) {
        slash = strrchr(file, '/');
        json_put(out, "data", data);
        json_put(out, "base64", json_true());
        if (json_object_get(out, "content_type") == NULL)
            json_put(out, "content_type", json_string(send_type_of(file)));
        if (json_object_get(out, "file_name") == NULL)
            json_put(out, "file_name", json_string(slash == NULL ? file : slash + 1));
    }
    json_decref(given);
    return out;
}

static void read_attachments(struct reading *r, struct fy_node *node, struct fy_node *key)
{
    json_t *list = json_array();
    char path[PATH_BYTES];
    void *at = NULL;

    json_put(r->content, "attachments", list);
    if (node == NULL || !fy_node_is_sequence(node)) {
        yaml_complain(&r->yaml, "attachments: want a list");
        return;
    }
    for (struct fy_node *n; (n = fy_node_sequence_iterate(node, &at)) != NULL;) {
        snprintf(path, sizeof(path), "content.attachments[%zu]", json_array_size(list));
        note_place(r, fy_node_is_scalar(n) ? n : key, path, "attachments");
        json_array_append_new(list, attachment_of(r, n));
    }
}

/* Names and texts: of headers and partials. prefix: their path. */
static void read_texts(struct reading *r, struct fy_node *node, json_t *into, const char *name,
                       const char *prefix)
{
    json_t *out = json_object();
    char path[PATH_BYTES], shown[PATH_BYTES];
    void *at = NULL;

    json_put(into, name, out);
    if (node == NULL || !fy_node_is_mapping(node)) {
        yaml_complain(&r->yaml, "%s: want names and texts", name);
        return;
    }
    for (struct fy_node_pair *p; (p = fy_node_mapping_iterate(node, &at)) != NULL;) {
        json_t *key = text_of(r, fy_node_pair_key(p), name), *text;

        if (key == NULL)
            continue;
        snprintf(path, sizeof(path), "%s.%s", prefix, json_string_value(key));
        snprintf(shown, sizeof(shown), "%s.%s", name, json_string_value(key));
        note_place(r, fy_node_pair_key(p), path, shown);
        text = text_of(r, fy_node_pair_value(p), shown);
        if (text != NULL)
            json_put(out, json_string_value(key), text);
        json_decref(key);
    }
}

enum kind { TEXT, VALUE, MAILBOX, ATTACHMENTS, HEADERS, PARTIALS };

static const struct field {
    const char *key, *member; /* of content, or of the root */
    enum kind kind;
    bool in_content;
} fields[] = {
    {"subject", "subject", TEXT, true},
    {"from", "from", MAILBOX, true},
    {"reply_to", "reply_to", MAILBOX, true},
    {"text", "text_body", TEXT, true},
    {"html", "html_body", TEXT, true},
    {"amp_html", "amp_html_body", TEXT, true},
    {"attachments", "attachments", ATTACHMENTS, true},
    {"headers", "headers", HEADERS, true},
    {"charset", "charset", TEXT, true},
    {"charset_fallback", "charset_fallback", TEXT, true},
    {"partials", "partials", PARTIALS, false},
    {"substitutions", "substitutions", VALUE, false},
    {"template_dialect", "template_dialect", TEXT, false},
    {"missing_variables", "missing_variables", TEXT, false},
    {"envelope_sender", "envelope_sender", TEXT, false},
    {"name", "name", TEXT, false},
    {"tenant", "tenant", TEXT, false},
    {"pool", "pool", TEXT, false},
    {"priority", "priority", VALUE, false},
    {"rate", "rate", TEXT, false},
    {"expires", "expires", VALUE, false},
    {"dkim_domain", "dkim_domain", TEXT, false},
    {"tags", "tags", VALUE, false},
};

static void read_field(struct reading *r, const struct field *f, struct fy_node *key,
                       struct fy_node *node)
{
    json_t *into = f->in_content ? r->content : r->root, *value;
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), "%s%s", f->in_content ? "content." : "", f->member);
    note_place(r, key, path, f->key);
    switch (f->kind) {
    case TEXT:
    case VALUE:
        value = f->kind == TEXT ? text_of(r, node, f->key) : value_json(r, node, 0);
        if (value != NULL)
            json_put(into, f->member, value);
        break;
    case MAILBOX:
        read_mailbox(r, node, f->member);
        break;
    case ATTACHMENTS:
        read_attachments(r, node, key);
        break;
    case HEADERS:
        read_texts(r, node, into, f->member, "content.headers");
        break;
    case PARTIALS:
        read_texts(r, node, into, f->member, "partials");
        break;
    }
}

static void read_root(struct reading *r, struct fy_node *root)
{
    void *at = NULL;

    if (root == NULL || !fy_node_is_mapping(root)) {
        yaml_complain(&r->yaml, "want keys: subject, from, text, html ...");
        return;
    }
    for (struct fy_node_pair *p; (p = fy_node_mapping_iterate(root, &at)) != NULL;) {
        struct fy_node *key = fy_node_pair_key(p);
        struct str name = fy_node_is_scalar(key) ? scalar_of(key) : STR("");
        struct suggest s;
        size_t i = 0;

        r->yaml.key = key;
        suggest_init(&s, name);
        while (i < ARRAY_LEN(fields) && !str_eq(name, str_of(fields[i].key)))
            suggest_offer(&s, fields[i++].key);
        if (i < ARRAY_LEN(fields))
            read_field(r, &fields[i], key, fy_node_pair_value(p));
        else
            yaml_complain(&r->yaml, "unknown key '%.*s'%s%s%s", STR_FMT(name),
                          s.best != NULL ? "; did you mean '" : "", s.best != NULL ? s.best : "",
                          s.best != NULL ? "'?" : "");
    }
}

int letter_yaml_read(const char *file, struct letter_yaml *out, struct buf *errors)
{
    struct reading r = {.yaml = {.file = file, .errors = errors},
                        .root = json_object(),
                        .content = json_object(),
                        .places = json_object()};
    struct fy_diag_cfg diag_cfg;
    struct fy_diag *diag;
    struct fy_document *document;
    char *copy = strdup(file);

    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag = fy_diag_create(&diag_cfg);
    ASSERT(diag != NULL);
    document = yaml_parse(&r.yaml, diag);

    ASSERT(copy != NULL && r.root != NULL && r.content != NULL && r.places != NULL);
    r.directory = dirname(copy);
    json_put(r.root, "content", r.content);
    if (document != NULL)
        read_root(&r, fy_document_root(document));
    fy_document_destroy(document);
    fy_diag_destroy(diag);
    free(copy);
    *out = (struct letter_yaml){r.root, r.places};
    if (document != NULL && !r.yaml.failed)
        return 0;
    letter_yaml_done(out);
    return -EINVAL;
}

void letter_yaml_done(struct letter_yaml *l)
{
    json_decref(l->root);
    json_decref(l->places);
    *l = (struct letter_yaml){0};
}
