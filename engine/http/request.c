/* What is asked, by whom, and answers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/log.h"
#include "http/http_private.h"
#include "http/openapi.h"
#include "intake/accept.h"

#define BEARER "Bearer "
#define BASIC  "Basic "

#define KEY_CHARS_MAX 256

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
              {429, "Too Many Requests"},
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
    ASSERT(false); /* each status that is said has its line */
    return "";
}

static void count(struct http_request *r, unsigned status)
{
    struct http *h = r->http;
    enum http_counted which = status < 400 ? HTTP_2XX : status < 500 ? HTTP_4XX : HTTP_5XX;
    size_t n = r->endpoint == NULL ? http_endpoints_len : (size_t)(r->endpoint - http_endpoints);

    ASSERT(n <= http_endpoints_len && n < ENDPOINTS_MAX);
    atomic_fetch_add_explicit(&h->counts[n][which], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->shared->http.requests, 1, memory_order_relaxed);
    if (status >= 400)
        atomic_fetch_add_explicit(&h->shared->http.refused, 1, memory_order_relaxed);
    log_debug("http.request", "peer=%s token=%s endpoint=%s status=%u", r->peer_text, r->token.name,
              r->endpoint == NULL ? "-" : r->endpoint->name, status);
}

/* Allow: the methods of a path. */
static void add_methods(struct MHD_Response *response, const char *path)
{
    char methods[64] = "";

    for (size_t i = 0; i < http_endpoints_len; i++) {
        const struct endpoint *e = &http_endpoints[i];
        size_t len = strlen(methods);

        if (strcmp(e->path, path) == 0)
            snprintf(methods + len, sizeof(methods) - len, "%s%s%s", len > 0 ? ", " : "", e->method,
                     strcmp(e->method, "GET") == 0 ? ", HEAD" : "");
        ASSERT(strlen(methods) < sizeof(methods) - 1);
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, methods);
}

void request_answer(struct http_request *r, unsigned status, const char *type, struct str body)
{
    struct MHD_Response *response;

    ASSERT(!r->answered && r->response == NULL);
    ASSERT(status != 405 || r->endpoint != NULL);
    r->answered = true;
    count(r, status);
    if (r->gone)
        return;
    response = MHD_create_response_from_buffer(body.len, (void *)(uintptr_t)body.ptr,
                                               MHD_RESPMEM_MUST_COPY);
    ASSERT(response != NULL);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (str_starts_nocase(str_of(type), STR("text/html"))) {
        MHD_add_response_header(response, "Content-Security-Policy",
                                "default-src 'none'; style-src 'unsafe-inline'; form-action "
                                "'self'; frame-ancestors 'none'; base-uri 'none'");
        MHD_add_response_header(response, "Referrer-Policy", "no-referrer"); /* a token is in it */
        MHD_add_response_header(response, "X-Robots-Tag", "noindex");
    }
    if (status == 401)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (status == 503)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, HTTP_RETRY_AFTER_S);
    if (status == 429 && r->retry_after_s > 0) {
        char text[16];

        snprintf(text, sizeof(text), "%u", r->retry_after_s);
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, text);
    }
    if (status == 405)
        add_methods(response, r->endpoint->path);
    if (!r->handled && r->endpoint != NULL && r->endpoint->body != BODY_NONE) /* it is not read */
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    r->response = response;
    r->status = status;
    if (r->step == NULL)
        http_response_queue(r);
    else
        http_step_answers(r);
}

void request_problem(struct http_request *r, unsigned status, const char *field, const char *format,
                     ...)
{
    char detail[400];
    struct buf out = {0};
    va_list args;

    ASSERT(status >= 400);
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

    ASSERT(r->refusal == 0 && !r->answered && !r->handled);
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
enum unique_field {
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    IDEMPOTENCY_KEY,
    TRANSFER_ENCODING,
    UNIQUE_FIELDS
};
static const struct str unique_fields[UNIQUE_FIELDS] = {
    [AUTHORIZATION] = STR("Authorization"),
    [CONTENT_ENCODING] = STR("Content-Encoding"),
    [CONTENT_LENGTH] = STR("Content-Length"),
    [CONTENT_TYPE] = STR("Content-Type"),
    [EXPECT] = STR("Expect"),
    [HOST] = STR("Host"),
    [IDEMPOTENCY_KEY] = STR("Idempotency-Key"),
    [TRANSFER_ENCODING] = STR("Transfer-Encoding")};

struct head {
    unsigned seen[UNIQUE_FIELDS];
    const char *values[UNIQUE_FIELDS];
    bool unclear; /* a name that is none, a field of two lines, or what others read as two */
};

/* A white space in front of the colon is part of the name to the library, and of a field in two
 * lines it puts the second behind the name: "Transfer-Encoding:\r\n chunked" is the field
 * Transfer-Encodingchunked (0.9.75). A proxy in front reads what was meant (RFC 9112, 5.1 and 5.2).
 */
static bool name_clear(struct str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!g_ascii_isalnum(name.ptr[i]) && strchr("!#$%&'*+-.^_`|~", name.ptr[i]) == NULL)
            return false;
    for (enum unique_field i = 0; i < UNIQUE_FIELDS; i++)
        if ((i == CONTENT_LENGTH || i == TRANSFER_ENCODING) && name.len > unique_fields[i].len &&
            str_starts_nocase(name, unique_fields[i]))
            return false;
    return name.len > 0;
}

static enum MHD_Result on_field(void *arg, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    struct str field = str_of(name);
    struct head *head = arg;

    (void)kind;
    head->unclear |= !name_clear(field) || (value != NULL && strchr(value, '\r') != NULL);
    for (size_t i = 0; i < UNIQUE_FIELDS; i++)
        if (field.len == unique_fields[i].len && str_eq_nocase(field, unique_fields[i])) {
            head->seen[i]++;
            head->values[i] = value == NULL ? "" : value;
        }
    return MHD_YES;
}

/* Behind such a head nobody knows where the next request begins: the library ends the connection,
 * as it does whenever the answer comes before the body. */
static bool framing_refused(struct http_request *r, const struct head *head)
{
    const char *coding = head->values[TRANSFER_ENCODING];

    if (head->unclear) {
        request_problem(r, 400, "",
                        "a field's name is none, or a field has two lines, or a bare CR");
        return true;
    }
    for (size_t i = 0; i < UNIQUE_FIELDS; i++)
        if (head->seen[i] > 1) {
            request_problem(r, 400, "", "the field %s is there %u times", unique_fields[i].ptr,
                            head->seen[i]);
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

const char *request_field(const struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const char *request_argument(const struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
}

struct known {
    const char *const *names;
    size_t len;
    unsigned seen;       /* bits */
    const char *refused; /* or NULL */
    const char *why;
};

static enum MHD_Result on_argument(void *arg, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct known *known = arg;
    size_t i = 0;

    (void)kind;
    while (i < known->len && strcmp(known->names[i], name) != 0)
        i++;
    known->why = i == known->len                ? "unknown parameter"
                 : value == NULL                ? "has no value"
                 : (known->seen & 1u << i) != 0 ? "is there twice"
                                                : NULL;
    known->seen |= i < known->len ? 1u << i : 0;
    known->refused = known->why != NULL ? name : NULL;
    return known->why == NULL ? MHD_YES : MHD_NO;
}

bool request_arguments_refused(struct http_request *r, const char *const *names, size_t len)
{
    struct known known = {.names = names, .len = len};

    ASSERT(len < 32);
    (void)MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, on_argument, &known);
    if (known.refused != NULL)
        request_problem(r, 400, known.refused, "%.64s: %s", known.refused, known.why);
    return r->answered;
}

bool request_key_refused(struct http_request *r)
{
    const char *key = request_field(r, "Idempotency-Key");

    if (key == NULL ||
        (*key != '\0' && g_utf8_validate(key, -1, NULL) && g_utf8_strlen(key, -1) <= KEY_CHARS_MAX))
        return false;
    request_problem(r, 400, "", "Idempotency-Key is not 1 to %d characters", KEY_CHARS_MAX);
    return true;
}

#define ID          "{id}"
#define TOKEN       "{token}"
#define UNSUBSCRIBE "/u/"

static bool path_matches(const char *path, struct str url, struct msgid *id)
{
    const char *at = strstr(path, ID);
    size_t before = at == NULL ? 0 : (size_t)(at - path), after;

    if (at == NULL && strstr(path, TOKEN) != NULL)
        return url.len >= strlen(path) - strlen(TOKEN) &&
               memcmp(url.ptr, path, strlen(path) - strlen(TOKEN)) == 0;
    if (at == NULL)
        return str_eq(url, str_of(path));
    at += sizeof(ID) - 1;
    after = strlen(at);
    return url.len == before + MSGID_TEXT_BYTES - 1 + after && memcmp(url.ptr, path, before) == 0 &&
           memcmp(url.ptr + url.len - after, at, after) == 0 &&
           msgid_parse((struct str){url.ptr + before, MSGID_TEXT_BYTES - 1}, id) == 0;
}

static bool method_matches(const struct endpoint *e, const char *method)
{
    return strcmp(method, e->method) == 0 ||
           (strcmp(e->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

/* *method_known: whether the path takes the request's method; if not, what is returned is another
 * endpoint of the path. */
static const struct endpoint *endpoint_find(struct http_request *r, const char *url,
                                            bool *method_known)
{
    const struct endpoint *found = NULL;

    *method_known = false;
    for (size_t i = 0; i < http_endpoints_len && !*method_known; i++)
        if (path_matches(http_endpoints[i].path, str_of(url), &r->id)) {
            found = &http_endpoints[i];
            *method_known = method_matches(found, r->method);
        }
    if (found == NULL || strcmp(found->path, UNSUBSCRIBE TOKEN) != 0)
        return found;
    if (!r->config->http.unsubscribe) {
        *method_known = false;
        return NULL;
    }
    ASSERT(r->rest == NULL);
    r->rest = strdup(url + strlen(UNSUBSCRIBE));
    ASSERT(r->rest != NULL);
    return found;
}

/* --- who asks --- */

/* The password of "Basic": whoever can say nothing else says any user and the token. */
static char *basic_token(const char *coded)
{
    struct buf text = {0};
    char *token = NULL;
    ptrdiff_t colon;

    if (base64_decode(&text, str_of(coded)) == 0 && (colon = str_find(buf_str(&text), ':')) >= 0)
        token = strndup((char *)text.data + colon + 1, text.len - (size_t)colon - 1);
    buf_wipe(&text);
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
    err = text == NULL ? -ENOENT
                       : tokens_find(&r->http->tokens, r->config->http.tokens, str_of(text),
                                     r->thread->pass_ns, &r->token);
    free(text);
    return err;
}

static bool rate_refused(struct http_request *r)
{
    uint64_t wait_ms = tokens_take(&r->http->tokens, &r->token, clock_mono_ns());

    if (wait_ms == 0)
        return false;
    r->retry_after_s = (uint32_t)(wait_ms / 1000 + 1);
    request_refuse(r, 429, "this token has used its rate, try again in %u seconds",
                   r->retry_after_s);
    return true;
}

void request_charge(struct http_request *r, uint64_t n)
{
    if (n > 0)
        tokens_charge(&r->http->tokens, &r->token, n - 1, clock_mono_ns());
    else
        tokens_give_back(&r->http->tokens, &r->token);
}

static bool client_refused(struct http_request *r, const char *authorization)
{
    const struct config *c = r->config;
    bool trusted = config_network_match(c->http.trusted_networks, c->http.trusted_networks_len,
                                        (const struct sockaddr *)&r->peer);
    struct buf scopes = {0};
    int err;

    r->token = (struct token){.scopes = TOKEN_ADMIN};
    if (r->endpoint->scopes == 0)
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
    if ((r->token.scopes & (r->endpoint->scopes | TOKEN_ADMIN)) == 0) {
        token_scopes_put(&scopes, r->endpoint->scopes);
        request_refuse(r, 403, "this takes a token with the scope %.*s; see 'hayauma token list'",
                       STR_FMT(buf_str(&scopes)));
        buf_done(&scopes);
        return true;
    }
    return rate_refused(r);
}

/* --- the body to come --- */

static bool is_json(struct str s)
{
    return str_eq_nocase(s, STR("application/json")) ||
           (str_starts_nocase(s, STR("application/")) && s.len > 5 &&
            str_eq_nocase((struct str){s.ptr + s.len - 5, 5}, STR("+json")));
}

static bool is_ndjson(struct str s)
{
    return str_eq_nocase(s, STR("application/x-ndjson")) ||
           str_eq_nocase(s, STR("application/ndjson")) ||
           str_eq_nocase(s, STR("application/jsonl"));
}

/* Whether the endpoint takes a body of this type. A page in a browser may send other types than
 * these to this host without asking first. */
static bool take_type(struct http_request *r, const char *type)
{
    struct str rest = str_of(type), s;

    s = str_trim(str_take(&rest, ';'));
    if (r->endpoint->body == BODY_FORM)
        return str_eq_nocase(s, STR("application/x-www-form-urlencoded")) ||
               str_eq_nocase(s, STR("multipart/form-data"));
    if (r->endpoint->body != BODY_ROWS && is_json(s))
        return true;
    r->csv = r->endpoint->body == BODY_ROWS && str_eq_nocase(s, STR("text/csv"));
    r->ndjson = r->endpoint->body != BODY_JSON && is_ndjson(s);
    return r->csv || r->ndjson;
}

/* Whether the type names another charset than ours: its bytes might be taken for other letters. */
static bool charset_refused(const char *type)
{
    struct str rest = str_of(type);

    (void)str_take(&rest, ';');
    while (rest.len > 0) {
        struct str value = str_trim(str_take(&rest, ';')), name = str_trim(str_take(&value, '='));

        value = str_trim(value);
        if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"')
            value = (struct str){value.ptr + 1, value.len - 2};
        if (str_eq_nocase(name, STR("charset")) && !str_eq_nocase(value, STR("utf-8")) &&
            !str_eq_nocase(value, STR("utf8")) && !str_eq_nocase(value, STR("us-ascii")))
            return true;
    }
    return false;
}

static bool take_coding(struct http_request *r, struct str coding)
{
    r->coded = str_eq_nocase(coding, STR("gzip")) || str_eq_nocase(coding, STR("x-gzip")) ||
               str_eq_nocase(coding, STR("deflate"));
    return r->coded || str_eq_nocase(coding, STR("identity"));
}

uint64_t request_body_max(const struct http_request *r)
{
    uint64_t max = r->config->http.body_bytes_max;

    return r->endpoint->body == BODY_FORM && max > HTTP_FORM_MAX ? HTTP_FORM_MAX : max;
}

static void check_body(struct http_request *r, const struct head *head)
{
    const char *type = head->values[CONTENT_TYPE], *coding = head->values[CONTENT_ENCODING];
    bool form = r->endpoint->body == BODY_FORM;
    uint64_t len = 0, max = request_body_max(r);

    ASSERT(r->body_length == 0 && !r->coded);
    if (type == NULL || !take_type(r, type))
        request_refuse(r, 415,
                       form ? "the body must be a form: \"Content-Type: "
                              "application/x-www-form-urlencoded\", or multipart/form-data"
                       : r->endpoint->body != BODY_ROWS
                           ? "the body must be JSON: \"Content-Type: application/json\""
                           : "the body must be lines of JSON or CSV: \"Content-Type: "
                             "application/x-ndjson\", or text/csv");
    else if (!form && charset_refused(type))
        request_refuse(r, 415, "of charsets UTF-8 is taken");
    else if (coding != NULL && (form || !take_coding(r, str_of(coding))))
        request_refuse(r, 415, "of content codings gzip and deflate are taken, one of them");
    else if (head->seen[CONTENT_LENGTH] > 0 &&
             str_to_u64(str_of(head->values[CONTENT_LENGTH]), UINT64_MAX / 2, &len) < 0)
        request_refuse(r, 400, "Content-Length is no number");
    else if (len > max)
        request_refuse(r, 413, "the body is longer than %llu bytes", (unsigned long long)max);
    else if (!accept_has_room(r->http->shared, r->config, 0, len))
        request_refuse(r, 503, HTTP_NO_ROOM);
    else
        r->body_length = (size_t)len;
}

/* Whether the body, which may be none, can be read to its end, and its client waits for no word of
 * ours before it sends it. An answer in front of that end ends the connection. */
static bool body_follows(const struct http_request *r, const struct head *head)
{
    uint64_t len = 0;

    if (head->seen[EXPECT] > 0)
        return false;
    if (head->seen[TRANSFER_ENCODING] > 0)
        return true;
    return head->seen[CONTENT_LENGTH] == 0 ||
           (str_to_u64(str_of(head->values[CONTENT_LENGTH]), UINT64_MAX / 2, &len) == 0 &&
            len <= HTTP_DROPPED_TIMES * r->config->http.body_bytes_max);
}

/* RFC 9112 3.2.2: a client that knows a proxy may say a whole URL, whatever its host. */
static const char *path_of(const char *url)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
        if (str_starts_nocase(str_of(url), str_of(schemes[i]))) {
            url = strchr(url + strlen(schemes[i]), '/');
            return url == NULL ? "/" : url;
        }
    return url;
}

void request_begin(struct http_request *r, const char *url)
{
    struct head head = {0};
    bool method_known;

    ASSERT(r->endpoint == NULL && r->body.len == 0);
    (void)MHD_get_connection_values(r->connection, MHD_HEADER_KIND, on_field, &head);
    r->endpoint = endpoint_find(r, path_of(url), &method_known);
    if (framing_refused(r, &head))
        return;
    r->body_follows = body_follows(r, &head);
    if (r->endpoint == NULL)
        request_refuse(r, 404, "there is nothing at this path; see docs/http.md");
    else if (!method_known)
        request_refuse(r, 405, "this path takes no %.20s; see docs/http.md", r->method);
    else if (!client_refused(r, head.values[AUTHORIZATION]) && r->endpoint->body != BODY_NONE)
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

#define CAMPAIGNS   "/api/campaigns/v1"
#define SUPPRESSION "/api/suppression/v1"
#define TOKEN_ANY   (TOKEN_INJECT | TOKEN_READ)

const struct endpoint http_endpoints[] = {
    {"/api/inject/v1", "POST", "inject", TOKEN_INJECT, BODY_JSON, handle_injection},
    {CAMPAIGNS, "POST", "campaign_create", TOKEN_INJECT, BODY_JSON_ROWS, handle_campaign_create},
    {CAMPAIGNS, "GET", "campaign_list", TOKEN_ANY, BODY_NONE, handle_campaign_list},
    {CAMPAIGNS "/" ID, "GET", "campaign_show", TOKEN_ANY, BODY_NONE, handle_campaign_show},
    {CAMPAIGNS "/" ID, "PATCH", "campaign_set", TOKEN_INJECT, BODY_JSON, handle_campaign_set},
    {CAMPAIGNS "/" ID "/recipients", "POST", "campaign_recipients", TOKEN_INJECT, BODY_ROWS,
     handle_campaign_recipients},
    {CAMPAIGNS "/" ID "/recipients", "GET", "campaign_rows", TOKEN_ANY, BODY_NONE,
     handle_campaign_rows},
    {CAMPAIGNS "/" ID "/start", "POST", "campaign_start", TOKEN_INJECT, BODY_JSON,
     handle_campaign_start},
    {CAMPAIGNS "/" ID "/pause", "POST", "campaign_pause", TOKEN_INJECT, BODY_JSON,
     handle_campaign_pause},
    {CAMPAIGNS "/" ID "/resume", "POST", "campaign_resume", TOKEN_INJECT, BODY_JSON,
     handle_campaign_resume},
    {CAMPAIGNS "/" ID "/cancel", "POST", "campaign_cancel", TOKEN_INJECT, BODY_JSON,
     handle_campaign_cancel},
    {CAMPAIGNS "/" ID "/close", "POST", "campaign_close", TOKEN_INJECT, BODY_JSON,
     handle_campaign_close},
    {CAMPAIGNS "/" ID "/preview", "POST", "campaign_preview", TOKEN_INJECT, BODY_JSON,
     handle_campaign_preview},
    {SUPPRESSION, "GET", "suppression_list", TOKEN_ANY, BODY_NONE, handle_suppression_list},
    {SUPPRESSION, "POST", "suppression_add", TOKEN_INJECT, BODY_JSON, handle_suppression_add},
    {SUPPRESSION, "DELETE", "suppression_remove", TOKEN_INJECT, BODY_NONE,
     handle_suppression_remove},
    {UNSUBSCRIBE TOKEN, "GET", "unsubscribe_page", 0, BODY_NONE, handle_unsubscribe_page},
    {UNSUBSCRIBE TOKEN, "POST", "unsubscribe", 0, BODY_FORM, handle_unsubscribe},
    {"/metrics", "GET", "metrics", TOKEN_READ, BODY_NONE, handle_metrics},
    {"/health/live", "GET", "live", 0, BODY_NONE, handle_live},
    {"/health/ready", "GET", "ready", 0, BODY_NONE, handle_ready},
    {"/api/openapi.json", "GET", "openapi", 0, BODY_NONE, handle_openapi},
};
const size_t http_endpoints_len = ARRAY_LEN(http_endpoints);
_Static_assert(ARRAY_LEN(http_endpoints) < ENDPOINTS_MAX, "one more counts unknown paths");
