/* What is asked, by whom, and answers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "base/log.h"
#include "http/http_private.h"
#include "http/openapi.h"
#include "intake/accept.h"

#define BEARER "Bearer "
#define BASIC  "Basic "

/* --- answers --- */

static const struct {
    unsigned status;
    const char *title;
} titles[] = {{200, "OK"},
              {400, "Bad Request"},
              {401, "Unauthorized"},
              {403, "Forbidden"},
              {404, "Not Found"},
              {405, "Method Not Allowed"},
              {409, "Conflict"},
              {413, "Content Too Large"},
              {415, "Unsupported Media Type"},
              {422, "Unprocessable Content"},
              {501, "Not Implemented"},
              {503, "Service Unavailable"}};

static const char *title_of(unsigned status)
{
    for (size_t i = 0; i < ARRAY_LEN(titles); i++)
        if (titles[i].status == status)
            return titles[i].title;
    return "";
}

static void count(struct http_request *r, unsigned status)
{
    struct http *h = r->http;
    enum http_counted which = status < 400 ? HTTP_2XX : status < 500 ? HTTP_4XX : HTTP_5XX;
    size_t n = r->endpoint == NULL ? http_endpoints_len : (size_t)(r->endpoint - http_endpoints);

    atomic_fetch_add_explicit(&h->counts[n][which], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->shared->http.requests, 1, memory_order_relaxed);
    if (status >= 400)
        atomic_fetch_add_explicit(&h->shared->http.refused, 1, memory_order_relaxed);
    log_debug("http.request", "peer=%s token=%s endpoint=%s status=%u", r->peer_text, r->token.name,
              r->endpoint == NULL ? "-" : r->endpoint->name, status);
}

void request_answer(struct http_request *r, unsigned status, const char *type, struct str body)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        body.len, (void *)(uintptr_t)body.ptr, MHD_RESPMEM_MUST_COPY);

    ASSERT(!r->answered && response != NULL);
    r->answered = true;
    count(r, status);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (status == 401)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (status == 503)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, HTTP_RETRY_AFTER_S);
    if (status == 405)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r->endpoint->methods);
    if (!r->handled && r->endpoint != NULL && r->endpoint->posts) /* its body is not read */
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    (void)MHD_queue_response(r->connection, status, response);
    MHD_destroy_response(response);
}

void request_problem(struct http_request *r, unsigned status, const char *field, const char *format,
                     ...)
{
    char detail[400];
    struct buf out = {0};
    va_list args;

    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    buf_printf(&out, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%u,\"detail\":",
               title_of(status), status);
    buf_put_json(&out, str_of(detail));
    if (*field != '\0') {
        buf_puts(&out, ",\"field\":");
        buf_put_json(&out, str_of(field));
    }
    buf_puts(&out, "}\n");
    request_answer(r, status, "application/problem+json", buf_str(&out));
    buf_done(&out);
}

const char *request_token(const struct http_request *r)
{
    return r->token.name[0] == '\0' ? NULL : r->token.name;
}

void request_refuse(struct http_request *r, unsigned status, const char *format, ...)
{
    va_list args;

    ASSERT(r->refusal == 0);
    r->refusal = status;
    va_start(args, format);
    vsnprintf(r->refusal_text, sizeof(r->refusal_text), format, args);
    va_end(args);
    if (!r->body_follows)
        request_problem(r, status, "", "%s", r->refusal_text);
}

bool request_hold(struct http_request *r, uint64_t bytes)
{
    if (!accept_has_room(r->http->shared, r->config, r->held_bytes, bytes))
        return false;
    atomic_fetch_add_explicit(&r->http->shared->intake_bytes, bytes, memory_order_relaxed);
    r->held_bytes += bytes;
    return true;
}

void request_release(struct http_request *r, uint64_t bytes)
{
    ASSERT(bytes <= r->held_bytes);
    atomic_fetch_sub_explicit(&r->http->shared->intake_bytes, bytes, memory_order_relaxed);
    r->held_bytes -= bytes;
}

/* --- the head --- */

/* Fields that one request may have once: of two the library would take one, and a proxy in front
 * perhaps the other. */
enum once {
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    TRANSFER_ENCODING,
    ONCE
};
static const char *const once[ONCE] = {[AUTHORIZATION] = "Authorization",
                                       [CONTENT_ENCODING] = "Content-Encoding",
                                       [CONTENT_LENGTH] = "Content-Length",
                                       [CONTENT_TYPE] = "Content-Type",
                                       [EXPECT] = "Expect",
                                       [HOST] = "Host",
                                       [TRANSFER_ENCODING] = "Transfer-Encoding"};

struct head {
    unsigned seen[ONCE];
    const char *values[ONCE];
};

static enum MHD_Result on_field(void *arg, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    struct head *head = arg;

    (void)kind;
    for (size_t i = 0; i < ONCE; i++)
        if (str_eq_nocase(str_of(name), str_of(once[i]))) {
            head->seen[i]++;
            head->values[i] = value == NULL ? "" : value;
        }
    return MHD_YES;
}

static bool framing_refused(struct http_request *r, const struct head *head)
{
    const char *coding = head->values[TRANSFER_ENCODING];

    for (size_t i = 0; i < ONCE; i++)
        if (head->seen[i] > 1) {
            request_problem(r, 400, "", "the field %s is there %u times", once[i], head->seen[i]);
            return true;
        }
    if (head->seen[TRANSFER_ENCODING] > 0 && head->seen[CONTENT_LENGTH] > 0) {
        request_problem(r, 400, "", "Content-Length beside Transfer-Encoding");
        return true;
    }
    if (coding != NULL && !str_eq_nocase(str_of(coding), STR("chunked"))) {
        request_problem(r, 501, "", "of transfer codings only chunked is taken");
        return true;
    }
    return false;
}

static const struct endpoint *endpoint_find(const char *url)
{
    for (size_t i = 0; i < http_endpoints_len; i++)
        if (strcmp(url, http_endpoints[i].path) == 0)
            return &http_endpoints[i];
    return NULL;
}

/* --- who asks --- */

/* The password of "Basic": whoever can say nothing else says any user and the token. */
static char *basic_token(const char *coded)
{
    gsize len;
    guchar *text;
    char *colon, *token = NULL;

    if (*coded == '\0')
        return NULL;
    text = g_base64_decode(coded, &len);
    colon = len == 0 ? NULL : memchr(text, ':', len);
    if (colon != NULL)
        token = strndup(colon + 1, len - (size_t)(colon + 1 - (char *)text));
    g_free(text);
    return token;
}

/* As tokens_find(). */
static int token_of(struct http_request *r, const char *authorization)
{
    char *text = NULL;
    int err;

    if (authorization == NULL)
        return -ENOENT;
    if (str_starts_nocase(str_of(authorization), STR(BEARER)))
        text = strdup(authorization + sizeof(BEARER) - 1);
    else if (str_starts_nocase(str_of(authorization), STR(BASIC)))
        text = basic_token(authorization + sizeof(BASIC) - 1);
    err = text == NULL
              ? -ENOENT
              : tokens_find(&r->http->tokens, r->config->http.tokens, str_of(text), &r->token);
    free(text);
    return err;
}

static bool client_refused(struct http_request *r, const char *authorization)
{
    const struct config *c = r->config;
    bool trusted = config_network_match(c->http.trusted_networks, c->http.trusted_networks_len,
                                        (const struct sockaddr *)&r->peer);
    int err;

    r->token = (struct token){.scopes = TOKEN_ADMIN};
    if (r->endpoint->scope == 0)
        return false;
    if (authorization == NULL && trusted)
        return false;
    r->token.scopes = 0;
    err = token_of(r, authorization);
    if (err == -ENOENT) {
        request_refuse(r, 401,
                       authorization == NULL
                           ? "a token is missing: \"Authorization: Bearer hym_...\""
                           : "no such token");
        return true;
    }
    if (err < 0) {
        request_refuse(r, 503, "the file of tokens cannot be read; the engine's log says why");
        return true;
    }
    if ((r->token.scopes & (r->endpoint->scope | TOKEN_ADMIN)) == 0) {
        request_refuse(r, 403, "this token may not do that; see 'hayauma token list'");
        return true;
    }
    return false;
}

/* --- the body to come --- */

static bool is_json(const char *type)
{
    struct str s = str_of(type);
    ptrdiff_t end = str_find(s, ';');

    s = str_trim((struct str){s.ptr, end < 0 ? s.len : (size_t)end});
    return str_eq_nocase(s, STR("application/json")) ||
           (str_starts_nocase(s, STR("application/")) && s.len > 5 &&
            str_eq_nocase((struct str){s.ptr + s.len - 5, 5}, STR("+json")));
}

static bool take_coding(struct http_request *r, struct str coding)
{
    r->coded = str_eq_nocase(coding, STR("gzip")) || str_eq_nocase(coding, STR("x-gzip")) ||
               str_eq_nocase(coding, STR("deflate"));
    return r->coded || str_eq_nocase(coding, STR("identity"));
}

static void check_body(struct http_request *r, const struct head *head)
{
    const char *type = head->values[CONTENT_TYPE], *coding = head->values[CONTENT_ENCODING];
    uint64_t len = 0, max = r->config->http.body_bytes_max;

    /* A page in a browser may send other types to this host without asking first. */
    if (type == NULL || !is_json(type))
        request_refuse(r, 415, "the body must be JSON: \"Content-Type: application/json\"");
    else if (coding != NULL && !take_coding(r, str_of(coding)))
        request_refuse(r, 415, "of content codings gzip and deflate are taken, one of them");
    else if (head->seen[CONTENT_LENGTH] > 0 &&
             str_to_u64(str_of(head->values[CONTENT_LENGTH]), UINT64_MAX / 2, &len) < 0)
        request_refuse(r, 400, "Content-Length is no number");
    else if (len > max)
        request_refuse(r, 413, "the body is longer than %llu bytes", (unsigned long long)max);
    else if (!accept_has_room(r->http->shared, r->config, 0, len))
        request_refuse(r, 503, HTTP_NO_ROOM);
}

/* Whether the body can be read to its end, and its client waits for no word of ours before it sends
 * it. */
static bool body_follows(const struct http_request *r, const struct head *head)
{
    uint64_t len = 0;

    if (head->seen[EXPECT] > 0)
        return false;
    if (head->seen[TRANSFER_ENCODING] > 0)
        return true;
    return head->seen[CONTENT_LENGTH] > 0 &&
           str_to_u64(str_of(head->values[CONTENT_LENGTH]), UINT64_MAX / 2, &len) == 0 && len > 0 &&
           len <= HTTP_DROPPED_TIMES * r->config->http.body_bytes_max;
}

void request_begin(struct http_request *r, const char *url)
{
    struct head head = {0};

    (void)MHD_get_connection_values(r->connection, MHD_HEADER_KIND, on_field, &head);
    r->endpoint = endpoint_find(url);
    if (framing_refused(r, &head))
        return;
    r->body_follows = body_follows(r, &head);
    if (r->endpoint == NULL)
        request_refuse(r, 404, "there is nothing at this path; see docs/http.md");
    else if (strcmp(r->method, r->endpoint->posts ? "POST" : "GET") != 0 &&
             (r->endpoint->posts || strcmp(r->method, "HEAD") != 0))
        request_refuse(r, 405, "this path takes %s", r->endpoint->methods);
    else if (!client_refused(r, head.values[AUTHORIZATION]) && r->endpoint->posts)
        check_body(r, &head);
}

/* --- small endpoints --- */

static void handle_live(struct http_request *r)
{
    request_answer(r, 200, "text/plain", STR("live\n"));
}

static void handle_ready(struct http_request *r)
{
    static const char *const words[] = {
        [QUEUE_INTAKE_OK] = "ready",
        [QUEUE_INTAKE_MAP_FULL] = "the queue is full",
        [QUEUE_INTAKE_DISK_FULL] = "the disk is full",
        [QUEUE_INTAKE_FAILED] = "the queue has failed",
    };
    enum queue_intake intake = accept_intake(r->http->shared->queue);

    if (atomic_load(&r->http->draining))
        request_problem(r, 503, "", "draining");
    else if (intake != QUEUE_INTAKE_OK)
        request_problem(r, 503, "", "%s", words[intake]);
    else
        request_answer(r, 200, "text/plain", STR("ready\n"));
}

static void handle_openapi(struct http_request *r)
{
    request_answer(r, 200, "application/json", (struct str){http_openapi, http_openapi_len});
}

const struct endpoint http_endpoints[] = {
    {"/api/inject/v1", "inject", "POST", TOKEN_INJECT, true, handle_injection},
    {"/metrics", "metrics", "GET, HEAD", TOKEN_READ, false, handle_metrics},
    {"/health/live", "live", "GET, HEAD", 0, false, handle_live},
    {"/health/ready", "ready", "GET, HEAD", 0, false, handle_ready},
    {"/api/openapi.json", "openapi", "GET, HEAD", 0, false, handle_openapi},
};
const size_t http_endpoints_len = ARRAY_LEN(http_endpoints);
_Static_assert(ARRAY_LEN(http_endpoints) < ENDPOINTS_MAX, "one more counts unknown paths");
