/* What letters of campaigns get by the domain of their sender, and the file of keys for it
 * (letter_keys): a line each, the oldest first, with the Unix time from which campaigns use the
 * key, and its 32 bytes as hex digits.
 *
 *   0           6f1d…
 *   1795308557  c05b…
 */
#include <errno.h>

#include "config/config_private.h"
#include "config/config_secret.h"

#define KEYS_MAX        64
#define RETURN_PATH_MAX 19  /* of 64 bytes of a local part; 45 follow (mail/letter_mark.h) */
#define URL_MAX         300 /* a field cannot be folded within one */
#define MAILTO_MAX      254
#define FEEDBACK_MIN    5 /* support.google.com/mail/answer/6254652 */
#define FEEDBACK_MAX    15

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* Whether text has nothing but letters, digits and those of others. */
static bool is_of(const char *text, const char *others)
{
    for (; *text != '\0'; text++)
        if (!is_alnum(*text) && strchr(others, *text) == NULL)
            return false;
    return true;
}

static bool return_path_valid(const char *text)
{
    size_t len = strlen(text);

    return len > 0 && len <= RETURN_PATH_MAX && text[0] != '.' && strstr(text, "..") == NULL &&
           is_of(text, "!#$%&'*+-/=?^_`{|}~.");
}

static bool url_valid(const char *text)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~' || strchr("<>\"\\", text[i]) != NULL)
            return false;
    return len <= URL_MAX && str_starts_nocase(str_of(text), STR("https://")) &&
           strchr(text + 8, '/') != NULL;
}

static unsigned line_of(const struct config_checker *k, const struct config_sender *s,
                        const char *key)
{
    const struct config_field *senders = config_key(&config_schema, "senders");

    return config_line_of(k->c, s, config_key(senders->section, key));
}

void config_check_letters(const struct config_checker *k, const struct config_sender *s)
{
    const char *needs = s->return_path != NULL          ? "return_path"
                        : s->unsubscribe != NULL        ? "unsubscribe"
                        : s->unsubscribe_mailto != NULL ? "unsubscribe_mailto"
                                                        : NULL;

    if (s->return_path != NULL && !return_path_valid(s->return_path))
        config_mistake(k, line_of(k, s, "return_path"),
                       "senders['%s'].return_path is no beginning of an address of at most %d "
                       "characters; write \"bounce+\"",
                       s->pattern, RETURN_PATH_MAX);
    if (s->unsubscribe != NULL && !url_valid(s->unsubscribe))
        config_mistake(k, line_of(k, s, "unsubscribe"),
                       "senders['%s'].unsubscribe is no URL of https of at most %d characters; "
                       "write \"https://example.com/u/\"",
                       s->pattern, URL_MAX);
    if (s->unsubscribe_mailto != NULL &&
        (strlen(s->unsubscribe_mailto) > MAILTO_MAX || !is_of(s->unsubscribe_mailto, "@.-_+=")))
        config_mistake(k, line_of(k, s, "unsubscribe_mailto"),
                       "senders['%s'].unsubscribe_mailto has characters that a URL has another "
                       "meaning for, or more than %d; write unsubscribe@example.com",
                       s->pattern, MAILTO_MAX);
    if (s->feedback_id != NULL &&
        (strlen(s->feedback_id) < FEEDBACK_MIN || strlen(s->feedback_id) > FEEDBACK_MAX ||
         !is_of(s->feedback_id, "-_")))
        config_mistake(k, line_of(k, s, "feedback_id"),
                       "senders['%s'].feedback_id has not %d to %d letters, digits, '-' or '_'",
                       s->pattern, FEEDBACK_MIN, FEEDBACK_MAX);
    if (needs != NULL && k->c->letter_keys_file == NULL)
        config_mistake(k, line_of(k, s, needs),
                       "senders['%s'].%s needs keys; run hayauma letters keygen, and write "
                       "letter_keys: /etc/hayauma/letter.keys",
                       s->pattern, needs);
}

/* --- keys --- */

bool config_letter_key_parse(struct str entry, struct config_letter_key *out)
{
    struct str from = str_take(&entry, ' '), hex = str_trim(entry);
    uint64_t from_s;

    if (str_to_u64(from, INT64_MAX / 1000, &from_s) < 0 || hex.len != 2 * sizeof(out->bytes))
        return false;
    out->from_s = (int64_t)from_s;
    for (size_t i = 0; i < sizeof(out->bytes); i++) {
        int high = ascii_hex_value(hex.ptr[2 * i]), low = ascii_hex_value(hex.ptr[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        out->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static const char *add_key(struct config *c, struct str entry)
{
    struct config_letter_key *key;

    if (c->letter_keys_len == KEYS_MAX)
        return "has more than 64 keys; take the oldest away, if no letter of its time counts any "
               "more";
    key = &c->letter_keys[c->letter_keys_len];
    if (!config_letter_key_parse(entry, key))
        return "is no key; hayauma letters keygen writes such lines";
    if (c->letter_keys_len > 0 && key->from_s <= key[-1].from_s)
        return "is of no later time than the key above it";
    c->letter_keys_len++;
    return NULL;
}

int config_load_letter_keys(struct config *c, struct buf *errors)
{
    const char *wrong = NULL;
    struct buf text = {0};
    struct str entry;
    unsigned line = 0;
    size_t at = 0;
    int err;

    if (c->letter_keys_file == NULL)
        return 0;
    c->letter_keys = config_alloc(c, KEYS_MAX * sizeof(*c->letter_keys));
    err = config_secret_read(c, c->letter_keys_file, &text, errors);
    while (err == 0 && wrong == NULL && config_secret_next(buf_str(&text), &at, &line, &entry))
        wrong = add_key(c, entry);
    config_secret_done(&text);
    if (err == 0 && wrong == NULL && c->letter_keys_len == 0)
        wrong = "has no key";
    if (err == -ENOENT || (wrong != NULL && c->letter_keys_len == 0))
        buf_printf(errors, "%s: 'hayauma letters keygen' makes it\n", c->letter_keys_file);
    if (wrong == NULL)
        return err;
    buf_printf(errors, "%s:%u: %s\n", c->letter_keys_file, line, wrong);
    return -EINVAL;
}

void config_wipe_letter_keys(struct config *c)
{
    if (c->letter_keys != NULL)
        explicit_bzero(c->letter_keys, KEYS_MAX * sizeof(*c->letter_keys));
}

const uint8_t *config_letter_key(const struct config *c, int64_t wall_ms)
{
    size_t at = c->letter_keys_len;

    while (at > 1 && c->letter_keys[at - 1].from_s > wall_ms / 1000)
        at--;
    return at == 0 ? NULL : c->letter_keys[at - 1].bytes;
}
