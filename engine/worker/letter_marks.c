#include "worker/letter_marks.h"

#include <errno.h>

#include "worker/queue_name.h"

/* A value may not stand in two fields of one Feedback-ID (support.google.com/mail/answer/6254652).
 */
static void put_field(struct buf *out, const char *value, const char *other, const char *sender)
{
    if (*value != '\0' && strcmp(value, other) != 0 && strcmp(value, sender) != 0)
        buf_printf(out, "%s:", value);
}

static struct str text_of(const char *text)
{
    return text == NULL ? STR("") : str_of(text);
}

struct recipe_marks letter_marks_choose(const struct config *c, const struct campaign *what,
                                        struct str sender, struct buf *feedback_id)
{
    const struct config_sender *s = config_sender_for(c, queue_name_domain(sender));

    if (s == NULL)
        return (struct recipe_marks){0};
    if (s->feedback_id != NULL) {
        put_field(feedback_id, what->name, what->tenant, s->feedback_id);
        put_field(feedback_id, what->tenant, "", s->feedback_id);
        buf_puts(feedback_id, s->feedback_id);
    }
    return (struct recipe_marks){.return_path = text_of(s->return_path),
                                 .unsubscribe = text_of(s->unsubscribe),
                                 .unsubscribe_mailto = text_of(s->unsubscribe_mailto),
                                 .feedback_id = buf_str(feedback_id)};
}

int letter_marks_token(const struct config *c, const struct recipe *r, const struct msgid *campaign,
                       uint32_t index, struct str address, struct buf *out)
{
    const uint8_t *key;

    if (!recipe_wants_token(r))
        return 0;
    key = config_letter_key(c, msgid_ms(campaign));
    if (key == NULL)
        return -ENOKEY;
    letter_mark_put_token(out, key, campaign, index, address);
    return 0;
}

int letter_marks_sender(const struct config *c, const struct recipe *r,
                        const struct msgid *campaign, uint32_t index, struct str sender,
                        struct buf *out)
{
    struct str prefix = recipe_marks(r).return_path;
    const uint8_t *key;

    if (prefix.len == 0 || sender.len == 0) {
        buf_put_str(out, sender);
        return 0;
    }
    key = config_letter_key(c, msgid_ms(campaign));
    if (key == NULL)
        return -ENOKEY;
    buf_put_str(out, prefix);
    letter_mark_put_return(out, key, campaign, index);
    buf_putc(out, '@');
    buf_put_str(out, queue_name_domain(sender));
    return 0;
}
