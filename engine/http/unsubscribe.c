/* /u/TOKEN: who got a letter of a campaign unsubscribes here, by the link in it (GET shows a page
 * with a button) or by one click in the mail program, which posts for its user (RFC 8058). A GET
 * never unsubscribes: filters follow links.
 *
 * Open to all: the token says who it is, with a code that nobody makes without the key. An answer
 * does not tell whether the address was on the list before. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "http/http_private.h"
#include "mail/letter_mark.h"
#include "outcome/report.h"
#include "outcome/suppress.h"

#define FIELD      "List-Unsubscribe"
#define VALUE      "One-Click"
#define FORM_BYTES 1024 /* of the library's reader, at a time */

struct unsubscribing {
    struct http_request *request;
    int result;
};

/* --- pages --- */

enum page { PAGE_ASK, PAGE_DONE, PAGE_WRONG, PAGES };

static const struct page_text {
    const char *title, *text, *button;
} pages[2][PAGES] = {
    {[PAGE_ASK] = {"Unsubscribe", "You get no more letters of this kind if you press the button.",
                   "Unsubscribe"},
     [PAGE_DONE] = {"Unsubscribed", "You will get no more letters of this kind.", NULL},
     [PAGE_WRONG] = {"Not valid", "This link is not valid. Is all of it in the address?", NULL}},
    {[PAGE_ASK] = {"配信停止", "ボタンを押すと、このメールの配信を停止します。", "配信を停止する"},
     [PAGE_DONE] = {"配信を停止しました", "今後、このメールは届きません。", NULL},
     [PAGE_WRONG] = {"無効なリンク",
                     "このリンクは無効です。アドレスの全体が入力されているかご確認ください。",
                     NULL}}};

/* Whether Japanese comes before English in what the client would read; without either English does.
 * Weights are not looked at: browsers put the best language first. */
static bool wants_japanese(const struct http_request *r)
{
    const char *field = request_field(r, "Accept-Language");
    struct str rest = field == NULL ? STR("") : str_of(field);

    while (rest.len > 0) {
        struct str language = str_trim(str_take(&rest, ','));

        if (str_starts_nocase(language, STR("ja")))
            return true;
        if (str_starts_nocase(language, STR("en")))
            return false;
    }
    return false;
}

static void answer(struct http_request *r, unsigned status, enum page page)
{
    bool japanese = wants_japanese(r);
    const struct page_text *text = &pages[japanese][page];
    struct buf out = {0};

    buf_printf(&out,
               "<!doctype html>\n<html lang=\"%s\"><meta charset=\"utf-8\">\n"
               "<meta name=\"viewport\" content=\"width=device-width\">\n<title>%s</title>\n"
               "<body style=\"font-family:sans-serif;max-width:32em;margin:15%% auto;padding:0 "
               "1em\">\n<h1>%s</h1>\n<p>%s</p>\n",
               japanese ? "ja" : "en", text->title, text->title, text->text);
    if (text->button != NULL)
        buf_printf(&out,
                   "<form method=\"post\"><input type=\"hidden\" name=\"" FIELD "\" value=\"" VALUE
                   "\"><button>%s</button></form>\n",
                   text->button);
    request_answer(r, status, "text/html; charset=utf-8", buf_str(&out));
    buf_done(&out);
}

/* --- whose --- */

static bool rate_refused(struct http_request *r)
{
    struct http *h = r->http;
    bool refused;

    pthread_mutex_lock(&h->lock);
    refused = !quota_take(&h->unsubscribes, str_of(r->peer_ip), clock_wall_ms() / 1000,
                          UNSUBSCRIBES_A_SECOND);
    pthread_mutex_unlock(&h->lock);
    if (!refused)
        return false;
    r->retry_after_s = 1;
    request_problem(r, 429, "", "too many requests, try again in a second");
    return true;
}

static bool is_ours(const struct letter_mark *m, const struct config *c)
{
    bool ours = false;

    for (size_t i = 0; i < c->letter_keys_len; i++)
        ours |= letter_mark_is_of(m, c->letter_keys[i].bytes);
    return ours;
}

static enum MHD_Result take_last(void *arg, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    (void)kind, (void)name;
    *(const char **)arg = value;
    return MHD_YES;
}

/* Whose letter the address is of: its token is the path's end, or an argument's value. False: it is
 * answered. The token of a preview is nobody's. */
static bool take_whose(struct http_request *r, struct suppression *out, struct letter_mark *mark)
{
    const char *token = r->rest;
    struct campaign campaign;
    bool valid;

    ASSERT(token != NULL); /* the path's end, which may be empty */
    *out = (struct suppression){
        .reason = SUPPRESSION_UNSUBSCRIBED, .at_ms = clock_wall_ms(), .who = "one click"};
    *mark = (struct letter_mark){0};
    if (rate_refused(r))
        return false;
    if (*token == '\0')
        (void)MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, take_last, &token);
    valid = token != NULL && letter_mark_parse(str_of(token), mark) == 0 &&
            mark->kind == LETTER_MARK_TOKEN && mark->index != LETTER_MARK_PREVIEW &&
            is_ours(mark, r->config) &&
            suppression_address(buf_str(&mark->address), out->address) == 0;
    if (valid && campaigns_get(&r->http->shared->campaigns, &mark->campaign, &campaign)) {
        memcpy(out->tenant, campaign.tenant, sizeof(out->tenant));
        memcpy(out->campaign, campaign.name, sizeof(out->campaign));
    }
    if (!valid)
        answer(r, 404, PAGE_WRONG);
    return valid;
}

void handle_unsubscribe_page(struct http_request *r)
{
    struct suppression one;
    struct letter_mark mark;

    if (take_whose(r, &one, &mark))
        answer(r, 200, PAGE_ASK);
    letter_mark_done(&mark);
}

/* --- the click --- */

struct form {
    char value[sizeof(VALUE)];
    bool clicked;
};

static enum MHD_Result on_form(void *arg, enum MHD_ValueKind kind, const char *key,
                               const char *file, const char *type, const char *coding,
                               const char *data, uint64_t at, size_t len)
{
    struct form *f = arg;

    (void)kind, (void)file, (void)type, (void)coding;
    if (!str_eq_nocase(str_of(key), STR(FIELD)) || at + len >= sizeof(f->value))
        return MHD_YES;
    memcpy(f->value + at, data, len);
    f->value[at + len] = '\0';
    f->clicked |= str_eq_nocase(str_of(f->value), STR(VALUE));
    return MHD_YES;
}

/* Some send a line end behind the words. */
static bool is_click(const struct http_request *r)
{
    struct MHD_PostProcessor *reader;
    struct form form = {0};

    if (str_eq_nocase(str_trim(buf_str(&r->body)), STR(FIELD "=" VALUE)))
        return true;
    reader = MHD_create_post_processor(r->connection, FORM_BYTES, on_form, &form);
    if (reader == NULL)
        return false;
    (void)MHD_post_process(reader, (const char *)r->body.data, r->body.len);
    MHD_destroy_post_processor(reader);
    return form.clicked;
}

static void unsubscribing_free(struct http_request *r)
{
    free(r->work);
}

static void on_stored(void *arg, int result)
{
    struct unsubscribing *u = arg;

    ASSERT(result <= 0);
    u->result = result;
    request_resume(u->request);
}

static void stored(struct http_request *r)
{
    const struct unsubscribing *u = r->work;

    if (u->result < 0)
        request_problem(r, 503, "", "it could not be stored, try again later");
    else
        answer(r, 200, PAGE_DONE);
}

static void store(struct http_request *r, const struct suppression *one,
                  const struct letter_mark *mark)
{
    struct suppress_order *order = suppress_order_new();
    struct unsubscribing *u = calloc(1, sizeof(*u));
    struct shared *shared = r->http->shared;

    ASSERT(u != NULL && r->work == NULL);
    u->request = r;
    r->work = u;
    r->done = unsubscribing_free;
    suppress_order_put(order, &shared->suppressions, one);
    report_unsubscription(suppress_order_records(order), r->config->node_id, one, &mark->campaign);
    request_suspend(r, stored);
    suppress_submit(shared, order, on_stored, u);
}

static void take_click(struct http_request *r, const struct suppression *one,
                       const struct letter_mark *mark)
{
    int news = suppress_is_news(&r->http->shared->suppressions, one);

    if (news < 0)
        request_problem(r, 503, "", "the suppression list cannot be read, try again later");
    else if (news == 0)
        answer(r, 200, PAGE_DONE);
    else
        store(r, one, mark);
}

void handle_unsubscribe(struct http_request *r)
{
    struct suppression one;
    struct letter_mark mark;

    if (take_whose(r, &one, &mark)) {
        if (!is_click(r))
            request_problem(r, 400, "", "the body must be " FIELD "=" VALUE " (RFC 8058)");
        else if (atomic_load(&r->http->draining)) /* who closes waits for none that comes now */
            request_problem(r, 503, "", "shutting down, try again shortly");
        else
            take_click(r, &one, &mark);
    }
    letter_mark_done(&mark);
}
