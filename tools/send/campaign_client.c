#include "tools/send/campaign_client.h"
#include "tools/commands/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "tools/send/send_list.h"

#define PATH         "/api/campaigns/v1"
#define TRIES        30 /* a second between two */
#define ANSWER_BYTES (16u << 20)

int campaign_client_open(struct campaign_client *c, const char *url, const char *token_file)
{
    struct buf token = {0};
    int err = 0;

    *c = (struct campaign_client){.url = url, .curl = curl_easy_init()};
    if (c->curl == NULL)
        return -ENOMEM;
    if (token_file != NULL)
        err = input_read("send", token_file, &token);
    if (err == 0 && token.len > 0) {
        buf_putc(&token, '\0');
        c->token = strndup((char *)token.data, strcspn((char *)token.data, "\r\n"));
    }
    buf_wipe(&token);
    return err;
}

void campaign_client_close(struct campaign_client *c)
{
    curl_easy_cleanup(c->curl);
    if (c->token != NULL)
        explicit_bzero(c->token, strlen(c->token));
    free(c->token);
    buf_done(&c->answer);
}

static size_t on_answer(char *bytes, size_t size, size_t len, void *arg)
{
    struct campaign_client *c = arg;

    if (c->answer.len + size * len > ANSWER_BYTES)
        return 0;
    buf_put(&c->answer, bytes, size * len);
    return size * len;
}

static struct curl_slist *header(struct curl_slist *list, const char *name, const char *value)
{
    char line[400];

    snprintf(line, sizeof(line), "%s: %s", name, value);
    list = curl_slist_append(list, line);
    explicit_bzero(line, sizeof(line));
    ASSERT(list != NULL);
    return list;
}

static CURLcode try_once(struct campaign_client *c, const char *method, const char *url,
                         const char *type, const struct str *body, long *status)
{
    struct curl_slist *headers = header(NULL, "Expect", "");
    char bearer[300];
    CURLcode result;

    if (c->token != NULL) {
        snprintf(bearer, sizeof(bearer), "Bearer %s", c->token);
        headers = header(headers, "Authorization", bearer);
        explicit_bzero(bearer, sizeof(bearer));
    }
    if (body != NULL)
        headers = header(headers, "Content-Type", type);
    curl_easy_reset(c->curl);
    buf_clear(&c->answer);
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, 300L);
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    if (body != NULL) {
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body->len == 0 ? "" : body->ptr);
    }
    result = curl_easy_perform(c->curl);
    *status = 0;
    if (result == CURLE_OK)
        curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, status);
    curl_slist_free_all(headers);
    return result;
}

/* Whether a failure is one that a restart of the engine makes, and ends. */
static bool may_pass(CURLcode result)
{
    return result == CURLE_COULDNT_CONNECT || result == CURLE_OPERATION_TIMEDOUT ||
           result == CURLE_SEND_ERROR || result == CURLE_RECV_ERROR ||
           result == CURLE_GOT_NOTHING || result == CURLE_PARTIAL_FILE;
}

int campaign_request(struct campaign_client *c, const char *method, const char *path,
                     const char *type, const struct str *body, json_t **answer)
{
    struct buf url = {0};
    CURLcode result = CURLE_OK;
    long status = 0;

    buf_printf(&url, "%s" PATH "%s", c->url, path);
    buf_putc(&url, '\0');
    for (int i = 0; i < TRIES; i++) {
        if (i > 0)
            sleep(1);
        result = try_once(c, method, (char *)url.data, type, body, &status);
        if (result == CURLE_OK ? status != 503 : !may_pass(result))
            break;
        if (i == 0)
            fprintf(stderr, "hayauma send: %s: %s; trying again for %d s\n", c->url,
                    result == CURLE_OK ? "HTTP status 503" : curl_easy_strerror(result), TRIES);
    }
    buf_done(&url);
    *answer = NULL;
    if (result != CURLE_OK) {
        fprintf(stderr, "hayauma send: %s: %s%s\n", c->url, curl_easy_strerror(result),
                result == CURLE_COULDNT_CONNECT ? "; http.listen says where the engine takes HTTP"
                                                : "");
        return -EIO;
    }
    *answer = json_loadb((char *)c->answer.data, c->answer.len, 0, NULL);
    return (int)status;
}
