/* /api/suppression/v1: the suppression list (worker/suppressions.h). A token that has a tenant sees
 * and changes what is of that tenant. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "base/clock.h"
#include "http/campaign.h"
#include "http/http_private.h"
#include "http/mail_fields.h"
#include "outcome/suppress_list.h"

#define LIST_DEFAULT 1000
#define LIST_MAX     10000

struct change {
    struct http_request *request;
    struct suppress_told told;
    bool remove;
    int result;
};

static void unreadable(struct http_request *r)
{
    request_problem(r, 503, "", "the suppression list cannot be read, try again later");
}

static struct suppressions *list_of(const struct http_request *r)
{
    return &r->http->shared->suppressions;
}

/* Whose entries are meant: the token's tenant, or what the request says; ptr NULL: it says nothing.
 * False: it is answered. */
static bool take_tenant(struct http_request *r, struct str said, struct str *out)
{
    if (said.len > FLOW_NAME_MAX) {
        request_problem(r, 422, "tenant", "tenant: is longer than %d characters", FLOW_NAME_MAX);
        return false;
    }
    if (tenant_refused(r, said))
        return false;
    *out = r->token.tenant[0] != '\0' ? str_of(r->token.tenant) : said;
    return true;
}

static struct str argument(const struct http_request *r, const char *name)
{
    const char *text = request_argument(r, name);

    return text == NULL ? (struct str){NULL, 0} : str_of(text);
}

/* --- what is there --- */

struct listing {
    struct buf out;
    size_t len;
};

static void put_one(void *arg, const struct suppression *one)
{
    struct listing *l = arg;

    if (l->len++ > 0)
        buf_putc(&l->out, ',');
    suppression_put(&l->out, one);
}

/* "TENANT:ADDRESS", the `next` of the answer before. */
static bool take_after(struct http_request *r, struct suppression *out)
{
    struct str text = argument(r, "after"), tenant = str_take(&text, ':');

    if (tenant.len > FLOW_NAME_MAX || text.len == 0 || text.len > SUPPRESSION_ADDRESS_MAX) {
        request_problem(r, 422, "after", "after: is no `next` of an answer");
        return false;
    }
    *out = (struct suppression){0};
    memcpy(out->tenant, tenant.ptr, tenant.len);
    memcpy(out->address, text.ptr, text.len);
    return true;
}

static bool take_limit(struct http_request *r, uint64_t *out)
{
    struct str text = argument(r, "limit");

    *out = LIST_DEFAULT;
    if (text.ptr == NULL || (str_to_u64(text, LIST_MAX, out) == 0 && *out > 0))
        return true;
    request_problem(r, 422, "limit", "limit: is 1 to %d", LIST_MAX);
    return false;
}

static int list_some(struct http_request *r, struct str tenant, struct listing *l)
{
    struct suppression after, next;
    bool goes_on = argument(r, "after").ptr != NULL;
    uint64_t limit;
    ptrdiff_t n;

    if (!take_limit(r, &limit) || (goes_on && !take_after(r, &after)))
        return 0;
    n = suppressions_visit(list_of(r), tenant, goes_on ? &after : NULL, limit, put_one, l, &next);
    if (n < 0)
        return (int)n;
    ASSERT((uint64_t)n <= limit);
    buf_putc(&l->out, ']');
    if ((uint64_t)n == limit) {
        char text[FLOW_NAME_MAX + SUPPRESSION_ADDRESS_MAX + 2];

        snprintf(text, sizeof(text), "%s:%s", next.tenant, next.address);
        buf_puts(&l->out, ",\"next\":");
        buf_put_json(&l->out, str_of(text));
    }
    return 0;
}

static int list_one(struct http_request *r, struct str tenant, struct listing *l)
{
    char address[SUPPRESSION_ADDRESS_MAX + 1];
    struct suppression one;
    int err;

    if (suppression_address(argument(r, "email"), address) < 0) {
        request_problem(r, 422, "email", "email: is no mail address");
        return 0;
    }
    if (tenant.ptr == NULL) {
        err = suppressions_visit_address(list_of(r), address, put_one, l);
    } else {
        err = suppressions_get(list_of(r), tenant, address, &one);
        if (err == 0)
            put_one(l, &one);
    }
    buf_putc(&l->out, ']');
    return err == -ENOENT ? 0 : err;
}

void handle_suppression_list(struct http_request *r)
{
    static const char *const known[] = {"tenant", "email", "after", "limit"};
    struct listing l = {0};
    struct str tenant;
    int err;

    if (request_arguments_refused(r, known, ARRAY_LEN(known)) ||
        !take_tenant(r, argument(r, "tenant"), &tenant))
        return;
    buf_puts(&l.out, "{\"suppressions\":[");
    err = argument(r, "email").ptr != NULL ? list_one(r, tenant, &l) : list_some(r, tenant, &l);
    buf_puts(&l.out, "}\n");
    if (err < 0)
        unreadable(r);
    else if (!r->answered)
        request_answer(r, 200, "application/json", buf_str(&l.out));
    buf_done(&l.out);
}

/* --- changes --- */

static void change_free(struct http_request *r)
{
    struct change *c = r->work;

    suppress_told_done(&c->told);
    free(c);
}

static void on_changed(void *arg, int result)
{
    struct change *c = arg;

    ASSERT(result <= 0);
    c->result = result;
    request_resume(c->request);
}

static void changed(struct http_request *r)
{
    const struct change *c = r->work;
    struct buf out = {0};

    if (c->result < 0) {
        campaign_shortage(r, c->result);
        return;
    }
    suppress_told_put(&out, &c->told, c->remove);
    buf_putc(&out, '\n');
    request_answer(r, 200, "application/json", buf_str(&out));
    buf_done(&out);
}

static void change(struct http_request *r, const json_t *entries, struct str tenant, bool remove)
{
    struct suppress_order *order = suppress_order_new();
    struct change *c = calloc(1, sizeof(*c));
    struct suppression as = {.reason = SUPPRESSION_MANUAL, .at_ms = clock_wall_ms()};
    const char *token = request_token(r);
    int err = atomic_load(&r->http->draining) ? -ESHUTDOWN : 0;

    ASSERT(c != NULL && r->work == NULL);
    c->request = r;
    c->remove = remove;
    r->work = c;
    r->done = change_free;
    if (tenant.len > 0)
        memcpy(as.tenant, tenant.ptr, tenant.len);
    snprintf(as.who, sizeof(as.who), "token %.64s", token == NULL ? "(none)" : token);
    if (err == 0) /* who closes waits for no request that comes then */
        err = suppress_list_read(list_of(r), entries, &as, remove, order, &c->told);
    if (err == 0 && suppress_order_len(order) > 0) {
        request_charge(r, suppress_order_len(order));
        request_suspend(r, changed);
        suppress_submit(r->http->shared, order, on_changed, c);
        return;
    }
    suppress_order_free(order);
    if (err == -EINVAL)
        request_problem(r, 422, "suppressions", "suppressions: more than %d of one request",
                        SUPPRESS_ENTRIES_MAX);
    else if (err == -ESHUTDOWN)
        campaign_shortage(r, err);
    else if (err < 0)
        unreadable(r);
    else
        changed(r);
}

void handle_suppression_add(struct http_request *r)
{
    static const struct json_field fields[] = {{"suppressions", JSON_IS_LIST},
                                               {"tenant", JSON_IS_STRING | JSON_MAY_MISS}};
    struct json_mistake mistake;
    struct str said, tenant;
    json_t *root = campaign_body(r);

    if (root == NULL)
        return;
    if (json_fields_check(root, "", fields, ARRAY_LEN(fields), &mistake) < 0 ||
        mail_field_name(root, "tenant", &said, &mistake) < 0)
        campaign_mistake(r, &mistake);
    else if (take_tenant(r, said, &tenant))
        change(r, json_object_get(root, "suppressions"), tenant, false);
    json_decref(root);
}

void handle_suppression_remove(struct http_request *r)
{
    struct str email = argument(r, "email"), tenant;
    char address[SUPPRESSION_ADDRESS_MAX + 1];
    static const char *const known[] = {"tenant", "email"};
    json_t *entries;

    if (request_arguments_refused(r, known, ARRAY_LEN(known)) ||
        !take_tenant(r, argument(r, "tenant"), &tenant))
        return;
    if (suppression_address(email, address) < 0) {
        request_problem(r, 422, "email", "email: is no mail address");
        return;
    }
    entries = json_pack("[{s:s}]", "email", address);
    ASSERT(entries != NULL);
    change(r, entries, tenant, true);
    json_decref(entries);
}
