#include "tools/send/mailing.h"
#include "tools/commands/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"
#include "base/hashset.h"
#include "base/map.h"
#include "config/config.h"
#include "dns/name.h"
#include "mail/header.h"
#include "smtp/address.h"
#include "tools/commands/author_check.h"
#include "tools/commands/screen.h"
#include "tools/send/letter_yaml.h"
#include "tools/send/send_list.h"
#include "tools/send/send_preview.h"

#define LETTER_STEPS     2000000
#define LETTER_BYTES_MAX (50u << 20)
#define HASH_SEED        7  /* the list is the user's own */
#define AUTHORS_MAX      20 /* that are looked at: each asks DNS */

/* --- the template --- */

static int complain(const char *file, const char *field, const char *text)
{
    fprintf(stderr, "hayauma send: %s: %s%s%s\n", file, field, *field != '\0' ? ": " : "", text);
    return -EINVAL;
}

static json_t *root_of_message(struct str text)
{
    json_t *content = json_stringn(text.ptr, text.len);

    return content == NULL ? NULL : json_pack("{s:o}", "content", content);
}

static bool ends_with(const char *file, const char *end)
{
    size_t len = strlen(file), end_len = strlen(end);

    return len >= end_len && str_eq_nocase(str_of(file + len - end_len), str_of(end));
}

static int read_yaml(struct mailing *m)
{
    struct letter_yaml letter;
    struct buf errors = {0};
    int err = letter_yaml_read(m->template_file, &letter, &errors);

    fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
    buf_done(&errors);
    m->root = letter.root;
    m->places = letter.places;
    return err;
}

int mailing_complain(const struct mailing *m, const struct json_mistake *mistake)
{
    const char *key = mistake->field;
    unsigned line = letter_yaml_place(m->places, mistake->field, &key);
    char file[400];

    if (line == 0)
        return complain(m->template_file, mistake->field, mistake->text);
    snprintf(file, sizeof(file), "%s:%u", m->template_file, line);
    return complain(file, key, mistake->text);
}

/* A copy of root in which what the engine may know of each letter is known: the engine's
 * configuration decides, and is not here to be asked. */
static json_t *with_engine_variables(const json_t *root)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)root),
           *given = json_member(root, "substitutions"),
           *all = json_is_object(given) ? json_copy(given) : json_object();

    ASSERT(copy != NULL && all != NULL);
    if (json_object_get(all, "unsubscribe_url") == NULL)
        json_put(all, "unsubscribe_url", json_string("https://unsubscribe.example/TOKEN"));
    if (given == NULL || json_is_object(given))
        json_put(copy, "substitutions", json_incref(all));
    json_decref(all);
    return copy;
}

static int read_template(struct mailing *m)
{
    bool yaml = ends_with(m->template_file, ".yaml") || ends_with(m->template_file, ".yml");
    struct json_mistake mistake = {.text = "is not UTF-8"};
    struct buf text = {0};
    json_t *strict;
    int err = yaml ? read_yaml(m) : input_read("send", m->template_file, &text);

    if (err == 0 && !yaml)
        m->root = ends_with(m->template_file, ".eml")
                      ? root_of_message(buf_str(&text))
                      : json_fields_load(buf_str(&text), NULL, &mistake);
    buf_done(&text);
    if (err < 0)
        return err;
    if (m->root == NULL || !json_is_object(m->root))
        return complain(m->template_file, "", m->root == NULL ? mistake.text : "is no object");
    strict = with_engine_variables(m->root);
    err = recipe_read(strict, &m->recipe, &mistake);
    json_decref(strict);
    if (err < 0)
        return mailing_complain(m, &mistake);
    strict = with_engine_variables(m->root);
    ASSERT(strict != NULL &&
           json_object_set_new(strict, "missing_variables", json_string("fail")) == 0);
    err = recipe_read(strict, &m->strict, &mistake);
    ASSERT(err == 0);
    json_decref(strict);
    return 0;
}

/* --- the list --- */

int mailing_rewind(struct mailing *m)
{
    json_decref(m->headings);
    m->headings = json_array();
    m->email = m->name = SIZE_MAX;
    csv_done(m->csv);
    csv_init(m->csv, buf_str(&m->list));
    if (csv_next(m->csv) <= 0)
        return complain(m->list_file, "", m->csv->error != NULL ? m->csv->error : "is empty");
    for (size_t i = 0; i < m->csv->cells_len; i++) {
        struct str cell = m->csv->cells[i];

        if (str_eq(cell, STR("email")))
            m->email = i;
        if (str_eq(cell, STR("name")))
            m->name = i;
        if (json_array_append_new(m->headings, json_stringn(cell.ptr, cell.len)) < 0)
            return complain(m->list_file, "", "its first line " CSV_NOT_UTF8);
    }
    if (m->email == SIZE_MAX)
        return complain(m->list_file, "", "has no column 'email', by this name, in its first line");
    return 0;
}

static const char *take_cells(struct mailing *m, json_t *one, json_t *variables)
{
    struct smtp_address address;
    struct dns_name domain;

    if (m->csv->cells_len != json_array_size(m->headings))
        return "has not as many cells as the first line";
    m->csv->cells[m->email] = str_trim(m->csv->cells[m->email]);
    if (smtp_address_parse(m->csv->cells[m->email], true, &address) < 0 ||
        address.domain.len == 0 ||
        (address.domain.ptr[0] != '[' && dns_name_parse(&domain, address.domain) < 0))
        return smtp_address_fault(m->csv->cells[m->email])->words;
    for (size_t i = 0; i < m->csv->cells_len; i++) {
        const char *heading = json_string_value(json_array_get(m->headings, i));
        json_t *cell = json_stringn(m->csv->cells[i].ptr, m->csv->cells[i].len);

        if (cell == NULL)
            return CSV_NOT_UTF8;
        if (json_object_set_new(i == m->email || i == m->name ? one : variables, heading, cell) < 0)
            return "has a heading that " CSV_NOT_UTF8;
    }
    return NULL;
}

int mailing_next(struct mailing *m, json_t **one, const char **why)
{
    int got = csv_next(m->csv);
    json_t *variables;

    *one = NULL;
    *why = NULL;
    if (got < 0) {
        fprintf(stderr, "hayauma send: %s:%lu: %s\n", m->list_file, m->csv->line, m->csv->error);
        return -EINVAL;
    }
    if (got == 0)
        return 0;
    *one = json_object();
    variables = json_object();
    ASSERT(*one != NULL && variables != NULL);
    *why = take_cells(m, *one, variables);
    if (*why == NULL && json_object_size(variables) > 0)
        json_put(*one, "substitutions", json_incref(variables));
    json_decref(variables);
    if (*why != NULL) {
        json_decref(*one);
        *one = NULL;
    }
    return 1;
}

/* --- letters --- */

static struct str email_of(const json_t *one)
{
    return json_str(json_object_get(one, "email"));
}

static int letter(const struct recipe *r, const json_t *one, const struct config *config,
                  struct buf *out, struct json_mistake *mistake)
{
    static const struct msgid id = {{0}};
    struct template_budget budget = {
        config == NULL ? LETTER_BYTES_MAX : config->http.message_bytes_max, LETTER_STEPS};
    struct recipe_order order = {.email = email_of(one), .one = one, .id = &id, .budget = &budget};

    buf_clear(out);
    return recipe_letter(r, &order, out, mistake);
}

/* The value of a letter's field; without: false. */
static bool find_field(const struct buf *letter, struct str name, struct str *value)
{
    struct header_field field;
    size_t at = 0;

    while (header_field_next(letter->data, letter->len, at, &field)) {
        if (str_eq_nocase(field.name, name)) {
            *value = header_field_value(letter->data, &field);
            return true;
        }
        at = field.end;
    }
    return false;
}

struct check {
    struct mailing *m;
    struct mailing_findings *found;
    const struct config *config;
    uint64_t shown, shown_max;
    struct hashset addresses, ids, authors; /* that there were */
    struct buf letter;
};

static void tell(struct check *c, const char *field, const char *text)
{
    if (c->shown++ >= c->shown_max)
        return;
    fprintf(stderr, "%s:%lu: %s%s%s\n", c->m->list_file, c->m->csv->line, field,
            *field != '\0' ? ": " : "", text);
}

/* Of an address whose domain's case does not matter. */
static uint64_t address_hash(struct str email)
{
    ptrdiff_t at = str_rfind(email, '@');
    char kept[SMTP_PATH_MAX];
    size_t len = email.len < sizeof(kept) ? email.len : sizeof(kept);

    for (size_t i = 0; i < len; i++)
        kept[i] = (ptrdiff_t)i > at ? ascii_lower(email.ptr[i]) : email.ptr[i];
    return hash_bytes(kept, len, HASH_SEED);
}

/* Whether the text is there already. */
static bool is_known(struct hashset *known, uint64_t hash)
{
    int err = hashset_reserve(known, 1);

    ASSERT(err == 0);
    return !hashset_add(known, hash);
}

/* Fields that say the same of each letter, or should not. */
static void check_fields(struct check *c)
{
    struct str value;

    if (find_field(&c->letter, STR("Message-ID"), &value) &&
        is_known(&c->ids, hash_bytes(value.ptr, value.len, HASH_SEED))) {
        c->found->same_id++;
        tell(c, "Message-ID", "is that of another letter: leave the field out, one is added");
    }
    if (c->config != NULL && find_field(&c->letter, STR("From"), &value) &&
        c->authors.count < AUTHORS_MAX &&
        !is_known(&c->authors, hash_bytes(value.ptr, value.len, HASH_SEED))) {
        struct buf lines = {0};

        c->found->authors += author_check(
            c->config, json_str(json_member(c->m->root, "dkim_domain")), &c->letter, &lines);
        fprintf(stderr, "%.*s", STR_FMT(buf_str(&lines)));
        buf_done(&lines);
    }
}

static void check_one(struct check *c, const json_t *one)
{
    struct json_mistake mistake = {0};
    struct str value;

    if (is_known(&c->addresses, address_hash(email_of(one)))) {
        c->found->twice++;
        tell(c, "email", "is there already, and gets one letter");
        return;
    }
    c->found->recipients++;
    buf_clear(&c->letter);
    recipe_put_recipient(one, &c->letter);
    if (c->letter.len > RECIPE_RECIPIENT_MAX) {
        json_mistake(&mistake, 422, "", "name and variables take %zu bytes as JSON, of at most %d",
                     c->letter.len, RECIPE_RECIPIENT_MAX);
        c->found->without_letter++;
        tell(c, mistake.field, mistake.text);
        return;
    }
    if (letter(c->m->recipe, one, c->config, &c->letter, &mistake) < 0) {
        c->found->without_letter++;
        tell(c, mistake.field, mistake.text);
        return;
    }
    if (c->found->letter_bytes_max == 0)
        c->found->has_unsubscribe = find_field(&c->letter, STR("List-Unsubscribe"), &value);
    if (c->letter.len > c->found->letter_bytes_max)
        c->found->letter_bytes_max = c->letter.len;
    check_fields(c);
    if (letter(c->m->strict, one, c->config, &c->letter, &mistake) < 0) {
        c->found->with_missing++;
        tell(c, mistake.field, mistake.text);
    }
}

int mailing_check(struct mailing *m, const struct config *config, uint64_t shown_max,
                  struct mailing_findings *found)
{
    struct check c = {.m = m, .found = found, .config = config, .shown_max = shown_max};
    int got = mailing_rewind(m);
    const char *why;
    json_t *one;

    *found = (struct mailing_findings){0};
    if (got < 0)
        return got;
    while ((got = mailing_next(m, &one, &why)) > 0) {
        if (why != NULL) {
            found->invalid++;
            tell(&c, "", why);
        } else {
            check_one(&c, one);
        }
        json_decref(one);
    }
    if (config != NULL && found->letter_bytes_max > 0 && !found->has_unsubscribe)
        found->has_unsubscribe = author_unsubscribes(config, m->root);
    if (c.shown > shown_max)
        fprintf(stderr, "... and %lu more\n", c.shown - shown_max);
    hashset_done(&c.addresses);
    hashset_done(&c.ids);
    hashset_done(&c.authors);
    buf_done(&c.letter);
    return got;
}

int mailing_preview(struct mailing *m, uint64_t letters, struct buf *out)
{
    struct json_mistake mistake;
    struct buf one_letter = {0};
    int got = mailing_rewind(m);
    const char *why;
    json_t *one;

    if (got < 0)
        return got;
    while (letters > 0 && (got = mailing_next(m, &one, &why)) > 0) {
        if (why == NULL && letter(m->recipe, one, NULL, &one_letter, &mistake) == 0) {
            buf_printf(out, "%s:%lu: %s\n\n", m->list_file, m->csv->line,
                       json_string_value(json_object_get(one, "email")));
            if (screen_width() != 0)
                send_preview_put(out, buf_str(&one_letter));
            else /* programs get the bytes that are sent */
                buf_put(out, one_letter.data, one_letter.len);
            buf_puts(out, "\n");
            letters--;
        }
        json_decref(one);
    }
    buf_done(&one_letter);
    return got < 0 ? got : 0;
}

/* --- */

int mailing_open(struct mailing *m, const char *template_file, const char *list_file)
{
    int err;

    *m = (struct mailing){.template_file = template_file, .list_file = list_file};
    m->csv = calloc(1, sizeof(*m->csv));
    ASSERT(m->csv != NULL);
    err = read_template(m);
    if (err == 0)
        err = input_read("send", list_file, &m->list);
    return err == 0 ? mailing_rewind(m) : err;
}

void mailing_close(struct mailing *m)
{
    json_decref(m->root);
    json_decref(m->places);
    json_decref(m->headings);
    recipe_free(m->recipe);
    recipe_free(m->strict);
    csv_done(m->csv);
    free(m->csv);
    buf_done(&m->list);
}
