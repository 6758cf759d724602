#include "mail/dkim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "mail/header.h"

#define COLUMN_MAX 76 /* where a line is folded, if it can be */

/* Fields that are signed. Always: also where the message has none. Not here: what is added or
 * changed on the way (Received, Return-Path, DKIM-Signature, Authentication-Results). */
static const struct {
    const char *name;
    bool always;
} selection[] = {
    {"From", true},
    {"Reply-To", true},
    {"Subject", true},
    {"Date", true},
    {"To", true},
    {"Cc", true},
    {"Message-ID", true},
    {"MIME-Version", true},
    {"Content-Type", true},
    {"Content-Transfer-Encoding", true},
    {"Sender", false},
    {"In-Reply-To", false},
    {"References", false},
    {"Content-Disposition", false},
    {"Content-ID", false},
    {"Content-Description", false},
    {"Resent-From", false},
    {"Resent-Sender", false},
    {"Resent-To", false},
    {"Resent-Cc", false},
    {"Resent-Date", false},
    {"Resent-Message-ID", false},
    {"List-Id", false},
    {"List-Unsubscribe", false}, /* with -Post: RFC 8058 4 */
    {"List-Unsubscribe-Post", false},
    {"List-Help", false},
    {"List-Subscribe", false},
    {"List-Post", false},
    {"List-Owner", false},
    {"List-Archive", false},
    {"Feedback-ID", false},
    {"Auto-Submitted", false},
    {"Precedence", false},
};

/* The header fields of a message. */
struct fields {
    const uint8_t *content;
    struct header_field *list;
    size_t len, room;
    size_t body; /* where the body starts */
};

/* What the engine adds itself, and what conversion makes of fields, is never as many again. */
#define FIELDS_MAX (2 * HEADER_FIELDS_MAX)

/* 0, -ENOMEM, or -E2BIG. */
static int fields_read(struct fields *f, const uint8_t *content, size_t len)
{
    struct header_field one;
    size_t at = 0;

    *f = (struct fields){.content = content};
    for (; at < len && header_field_next(content, len, at, &one); at = one.end) {
        if (f->len == FIELDS_MAX)
            return -E2BIG;
        if (f->len == f->room) {
            size_t room = f->room == 0 ? 64 : 2 * f->room;
            struct header_field *list = realloc(f->list, room * sizeof(*list));

            if (list == NULL)
                return -ENOMEM;
            f->list = list;
            f->room = room;
        }
        f->list[f->len++] = one;
    }
    if (len - at >= 2 && content[at] == '\r' && content[at + 1] == '\n')
        at += 2;
    ASSERT(at <= len && f->len <= f->room);
    f->body = at;
    return 0;
}

/* The nth field of that name from the bottom, from 0; NULL: there is none. */
static const struct header_field *fields_from_below(const struct fields *f, struct str name,
                                                    size_t n)
{
    for (size_t i = f->len; i > 0; i--)
        if (str_eq_nocase(f->list[i - 1].name, name) && n-- == 0)
            return &f->list[i - 1];
    return NULL;
}

static void hash_field(const struct fields *f, const struct header_field *one, bool relaxed,
                       struct dkim_hash *h)
{
    dkim_canon_field(h, relaxed, one->name,
                     (struct str){(const char *)f->content + one->start, one->end - one->start});
}

bool dkim_name_valid(struct str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] <= ' ' || name.ptr[i] > '~' || name.ptr[i] == ':' || name.ptr[i] == ';')
            return false;
    return name.len > 0 && name.len <= DKIM_NAME_BYTES_MAX;
}

int dkim_header_hash(const uint8_t *content, size_t len, bool relaxed, const struct str *names,
                     size_t names_len, struct str signature, uint8_t out[DKIM_HASH_BYTES])
{
    struct dkim_hash *h = dkim_hash_new();
    struct fields f;
    int err = fields_read(&f, content, len);

    if (h == NULL || err != 0) {
        dkim_hash_free(h);
        free(f.list);
        return err != 0 ? err : -ENOMEM;
    }
    for (size_t i = 0; i < names_len; i++) {
        const struct header_field *one;
        size_t before = 0;

        for (size_t k = 0; k < i; k++)
            before += str_eq_nocase(names[k], names[i]);
        one = fields_from_below(&f, names[i], before);
        if (one != NULL)
            hash_field(&f, one, relaxed, h);
    }
    free(f.list);
    dkim_canon_signature(h, relaxed, signature);
    return dkim_hash_end(h, out);
}

/* --- what a signature covers --- */

/* The list of h=, and the fields of each name from the bottom up. One for all signatures. */
struct cover {
    struct fields fields;
    struct buf names;                 /* "From:From:To:..." */
    const struct header_field **list; /* in the order of names */
    size_t len, room;
    uint8_t body_hash[DKIM_HASH_BYTES];
};

static int cover_add(struct cover *c, const struct header_field *one)
{
    if (c->len == c->room) {
        size_t room = c->room == 0 ? 64 : 2 * c->room;
        const struct header_field **list =
            realloc(c->list, room * sizeof(const struct header_field *));

        if (list == NULL)
            return -ENOMEM;
        c->list = list;
        c->room = room;
    }
    ASSERT(c->len < c->room);
    c->list[c->len++] = one;
    return 0;
}

static void cover_name(struct cover *c, struct str name)
{
    if (c->names.len > 0)
        buf_putc(&c->names, ':');
    buf_put_str(&c->names, name);
}

/* Of a message with hundreds of fields of a name the last ones are signed, and whoever adds one
 * adds to a crowd. */
static int cover_field(struct cover *c, struct str name, bool always)
{
    const struct fields *f = &c->fields;
    size_t n = 0;

    ASSERT(name.len > 0 && name.len <= DKIM_NAME_BYTES_MAX);
    for (size_t i = f->len; i > 0; i--) {
        const struct header_field *one = &f->list[i - 1];
        int err;

        if (one->name.len != name.len || !str_eq_nocase(one->name, name))
            continue;
        if (n++ == DKIM_FIELDS_MAX)
            return 0;
        cover_name(c, name);
        err = cover_add(c, one);
        if (err < 0)
            return err;
    }
    if (n > 0 || always)
        cover_name(c, name);
    return 0;
}

/* Whether the nth of the further names is covered by those before. */
static bool is_covered(const struct dkim_options *options, size_t n)
{
    struct str name = str_of(options->headers[n]);

    for (size_t i = 0; i < ARRAY_LEN(selection); i++)
        if (str_eq_nocase(name, str_of(selection[i].name)))
            return true;
    for (size_t i = 0; i < n; i++)
        if (str_eq_nocase(name, str_of(options->headers[i])))
            return true;
    return false;
}

static int cover_body(struct cover *c, size_t len, struct str kept, bool relaxed)
{
    struct dkim_body b;
    int err;

    ASSERT(c->fields.body <= len);
    if (body_hash_kept(kept, relaxed, len - c->fields.body, c->body_hash))
        return 0;
    err = dkim_body_begin(&b, relaxed);
    if (err != 0)
        return err;
    dkim_body_add(&b, c->fields.content + c->fields.body, len - c->fields.body);
    return dkim_body_end(&b, c->body_hash);
}

static int cover_read(struct cover *c, const uint8_t *content, size_t len, struct str body_hash,
                      const struct dkim_options *options)
{
    int err;

    *c = (struct cover){.len = 0};
    err = fields_read(&c->fields, content, len);
    for (size_t i = 0; i < ARRAY_LEN(selection) && err == 0; i++)
        err = cover_field(c, str_of(selection[i].name), selection[i].always);
    for (size_t i = 0; i < options->headers_len && err == 0; i++)
        if (!is_covered(options, i))
            err = cover_field(c, str_of(options->headers[i]), false);
    return err != 0 ? err : cover_body(c, len, body_hash, options->body_relaxed);
}

static void cover_done(struct cover *c)
{
    free(c->fields.list);
    free(c->list);
    buf_done(&c->names);
}

/* --- the field --- */

/* Writes a field's tags, folded in front of one that does not fit. */
struct writer {
    struct buf *out;
    size_t column;
};

static void fold(struct writer *w)
{
    buf_puts(w->out, "\r\n ");
    w->column = 1;
}

static void put_tag(struct writer *w, const char *tag, struct str value)
{
    size_t len = strlen(tag) + value.len + 2; /* "=" and ";" */

    if (w->column + 1 + len > COLUMN_MAX) {
        fold(w);
    } else {
        buf_putc(w->out, ' ');
        w->column++;
    }
    buf_puts(w->out, tag);
    buf_putc(w->out, '=');
    buf_put_str(w->out, value);
    buf_putc(w->out, ';');
    w->column += len;
}

static void put_number(struct writer *w, const char *tag, int64_t v)
{
    char digits[STR_U64_BYTES];

    put_tag(w, tag, str_of_u64(v < 0 ? 0 : (uint64_t)v, digits));
}

/* RFC 6376 3.5: white space may stand around the colons of h=. */
static void put_names(struct writer *w, struct str names)
{
    ASSERT(names.len > 0); /* From at the least */
    fold(w);
    buf_puts(w->out, "h=");
    w->column += 2;
    while (names.len > 0) {
        ptrdiff_t colon = str_find(names, ':');
        size_t len = colon < 0 ? names.len : (size_t)colon + 1;

        if (w->column + len + 1 > COLUMN_MAX)
            fold(w);
        buf_put(w->out, names.ptr, len);
        w->column += len;
        names = (struct str){names.ptr + len, names.len - len};
    }
    buf_putc(w->out, ';');
}

/* The value of b=, the last tag, and the end of the field. */
static void put_signature(struct writer *w, struct str base64)
{
    while (base64.len > 0) {
        size_t n = COLUMN_MAX - w->column;

        ASSERT(w->column < COLUMN_MAX);
        n = n < base64.len ? n : base64.len;
        buf_put(w->out, base64.ptr, n);
        base64 = (struct str){base64.ptr + n, base64.len - n};
        if (base64.len > 0)
            fold(w);
    }
    buf_puts(w->out, "\r\n");
}

/* All up to and with "b=", as it is signed. */
static void put_field(struct writer *w, const struct cover *c, const struct dkim_options *options,
                      const struct dkim_signer *signer, int64_t now_s)
{
    static const char *const forms[] = {"simple", "relaxed"};
    char canonical[32];
    struct buf hash = {0};

    snprintf(canonical, sizeof(canonical), "%s/%s", forms[options->header_relaxed],
             forms[options->body_relaxed]);
    buf_puts(w->out, "DKIM-Signature:");
    w->column = strlen("DKIM-Signature:");
    put_tag(w, "v", STR("1"));
    put_tag(w, "a", str_of(dkim_algorithm_name(dkim_key_algorithm(signer->key))));
    put_tag(w, "c", str_of(canonical));
    put_tag(w, "d", str_of(signer->domain));
    put_tag(w, "s", str_of(signer->selector));
    put_number(w, "t", now_s);
    if (options->expires_s != 0)
        put_number(w, "x", now_s + options->expires_s);
    put_names(w, buf_str(&c->names));
    fold(w);
    base64_put(&hash, (struct str){(const char *)c->body_hash, sizeof(c->body_hash)});
    buf_puts(w->out, "bh=");
    buf_put_str(w->out, buf_str(&hash));
    buf_putc(w->out, ';');
    buf_done(&hash);
    fold(w);
    buf_puts(w->out, "b=");
    w->column += 2;
}

/* 0, -ENOMEM or -EIO. */
static int sign_one(const struct cover *c, const struct dkim_options *options,
                    const struct dkim_signer *signer, int64_t now_s, struct buf *out)
{
    struct writer w = {.out = out};
    size_t start = out->len, signature_len;
    uint8_t hash[DKIM_HASH_BYTES], signature[DKIM_SIGNATURE_BYTES];
    struct dkim_hash *h = dkim_hash_new();
    struct buf base64 = {0};
    int err;

    if (h == NULL)
        return -ENOMEM;
    put_field(&w, c, options, signer, now_s);
    for (size_t i = 0; i < c->len; i++)
        hash_field(&c->fields, c->list[i], options->header_relaxed, h);
    dkim_canon_signature(h, options->header_relaxed,
                         (struct str){(const char *)out->data + start, out->len - start});
    err = dkim_hash_end(h, hash);
    if (err == 0)
        err = dkim_key_sign(signer->key, hash, signature, &signature_len);
    if (err != 0)
        return err;
    ASSERT(signature_len > 0 && signature_len <= sizeof(signature));
    base64_put(&base64, (struct str){(const char *)signature, signature_len});
    put_signature(&w, buf_str(&base64));
    buf_done(&base64);
    return 0;
}

int dkim_sign(const uint8_t *content, size_t len, struct str body_hash,
              const struct dkim_options *options, const struct dkim_signer *signers,
              size_t signers_len, int64_t now_s, struct buf *out)
{
    struct cover c;
    int err = cover_read(&c, content, len, body_hash, options);

    ASSERT(signers_len <= DKIM_SIGNERS_MAX && (len == 0 || content != out->data));
    for (size_t i = 0; i < signers_len && err == 0; i++)
        err = sign_one(&c, options, &signers[i], now_s, out);
    cover_done(&c);
    return err;
}
