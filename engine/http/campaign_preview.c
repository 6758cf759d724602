/* POST /api/campaigns/v1/ID/preview: the letter of a recipient, of the campaign's stored content.
 */
#include <errno.h>

#include <jansson.h>

#include "http/campaign.h"
#include "mail/recipe.h"
#include "smtp/address.h"
#include "worker/letter_marks.h"

#define LETTER_STEPS 2000000 /* of a template: 100 ms */

static void preview(struct http_request *r, const struct recipe *recipe, const json_t *one)
{
    struct template_budget budget = {r->config->http.message_bytes_max, LETTER_STEPS};
    struct recipe_order order = {.email = json_str(json_object_get(one, "email")),
                                 .one = one,
                                 .id = &r->id,
                                 .budget = &budget};
    struct json_mistake mistake;
    struct buf out = {0}, token = {0};
    int err =
        letter_marks_token(r->config, recipe, &r->id, LETTER_MARK_PREVIEW, order.email, &token);

    order.token = buf_str(&token);
    if (err < 0)
        request_problem(r, 503, "", "letter_keys of the configuration has no key any more");
    else if (recipe_letter(recipe, &order, &out, &mistake) < 0)
        campaign_mistake(r, &mistake);
    else
        request_answer(r, 200, "message/rfc822", buf_str(&out));
    buf_done(&token);
    buf_done(&out);
}

/* The recipe as it is stored, which is there until the last recipient has had an end. NULL: it is
 * answered. */
static struct recipe *stored_recipe(struct http_request *r)
{
    int err;
    struct message *m = queue_message(r->http->shared->queue, &r->id, &err);
    struct recipe *recipe = NULL;
    struct json_mistake mistake;

    if (m == NULL && err == -ENOENT)
        request_problem(r, 409, "", "the campaign is over, and its content is gone");
    else if (m == NULL ||
             recipe_parse((struct str){(char *)m->content, m->content_len}, &recipe, &mistake) < 0)
        request_problem(r, 503, "", "the campaign's content cannot be read");
    message_unref(m);
    return recipe;
}

void handle_campaign_preview(struct http_request *r)
{
    struct json_mistake mistake;
    struct smtp_address address;
    struct recipe *recipe;
    struct campaign c;
    json_t *one;

    if (!campaign_of_request(r, &c) || (one = campaign_body(r)) == NULL)
        return;
    if (recipe_check_recipient(one, "", &mistake) < 0) {
        campaign_mistake(r, &mistake);
    } else if (smtp_address_parse(json_str(json_object_get(one, "email")), true, &address) < 0 ||
               address.text.len > SMTP_PATH_MAX) {
        request_problem(r, 422, "email", "email: is no mail address");
    } else if ((recipe = stored_recipe(r)) != NULL) {
        preview(r, recipe, one);
        recipe_free(recipe);
    }
    json_decref(one);
}
