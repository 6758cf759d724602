/* One recipient's letter, made of a recipe when it is to be sent. It is a function of the recipe's
 * message, the recipient's index and variables, and the key of the campaign's time: Message-ID,
 * Date and return path too, so that a retry sends the same bytes. The same code renders at
 * acceptance (http/submission.c): recipe_letter(), and trace_finish() behind it. Pure but for
 * memory; any thread. */
#ifndef HAYAUMA_ENGINE_RENDER_H
#define HAYAUMA_ENGINE_RENDER_H

#include "config/config.h"
#include "mail/recipe.h"
#include "queue/message.h"

#define RENDER_STEPS_MAX 2000000 /* of a template: 100 ms */

struct render_order {
    const struct recipe *recipe;
    struct message *message; /* that the recipe is of */
    const struct config *config;
    struct str address, variables; /* of the recipient */
    uint32_t index;
    struct template_budget budget; /* counts down */
    uint64_t bytes;                /* of the letter, about: room for so many is made at once */
};

/* *letter: a message with one reference, which has one of its own to order->message. 0, or -errno
 * with the words behind what why has: -EINVAL, no letter can be made; -E2BIG, not with that budget;
 * -ENOKEY, not before there is a key for what it bears; -ENOMEM. */
int render_letter(struct render_order *order, struct message **letter, struct buf *why) MUST_USE;

#endif
