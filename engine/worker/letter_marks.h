/* What letters of campaigns get by the domain of their sender (senders in the configuration):
 * chosen when a campaign is made, written when a letter is (mail/letter_mark.h). Any thread. */
#ifndef HAYAUMA_ENGINE_LETTER_MARKS_H
#define HAYAUMA_ENGINE_LETTER_MARKS_H

#include "config/config.h"
#include "mail/letter_mark.h"
#include "mail/recipe.h"
#include "worker/campaigns.h"

/* What a campaign made now gets; of c, and of feedback_id, which is the caller's to free. */
struct recipe_marks letter_marks_choose(const struct config *c, const struct campaign *what,
                                        struct str sender, struct buf *feedback_id);
/* Appends the token that a letter of r has, if any. 0, or -ENOKEY: c has no key any more. */
int letter_marks_token(const struct config *c, const struct recipe *r, const struct msgid *campaign,
                       uint32_t index, struct str address, struct buf *out) MUST_USE;
/* Appends the return path of a letter that goes under sender: its own where r says so. Likewise. */
int letter_marks_sender(const struct config *c, const struct recipe *r,
                        const struct msgid *campaign, uint32_t index, struct str sender,
                        struct buf *out) MUST_USE;

#endif
