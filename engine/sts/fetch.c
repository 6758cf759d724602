#include "sts/fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

#define CONNECT_MS 10000L
#define POLL_MS    1000
#define PATH       "/.well-known/mta-sts.txt"

struct sts_fetcher {
    CURLM *multi; /* the thread's, but for curl_multi_wakeup() */
    pthread_t thread;
    struct list running; /* the thread's: struct transfer */
    unsigned running_len;
    /* Under the lock. */
    pthread_mutex_t lock;
    struct list waiting; /* struct sts_fetch */
    unsigned waiting_len;
    bool started, stopping;
};

struct transfer {
    struct list_node node;
    struct sts_fetch *fetch;
    CURL *curl;
    struct curl_slist *resolve, *headers;
    struct buf body;
    bool too_large;
    char error[CURL_ERROR_SIZE];
};

/* --- one transfer --- */

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;

    ASSERT(t->body.len <= STS_BODY_MAX);
    t->too_large = size * n > STS_BODY_MAX - t->body.len;
    if (t->too_large)
        return 0;
    buf_put(&t->body, bytes, size * n);
    return size * n;
}

static bool is_report(const struct sts_fetch *fetch)
{
    return fetch->post.ptr != NULL;
}

static bool set_report(struct transfer *t)
{
    CURL *c = t->curl;
    unsigned err = CURLE_OK;

    t->headers = curl_slist_append(NULL, "Content-Type: application/tlsrpt+gzip");
    err |= curl_easy_setopt(c, CURLOPT_HTTPHEADER, t->headers);
    err |= curl_easy_setopt(c, CURLOPT_POST, 1L);
    err |= curl_easy_setopt(c, CURLOPT_POSTFIELDS, t->fetch->post.ptr);
    err |= curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)t->fetch->post.len);
    return t->headers != NULL && err == CURLE_OK;
}

static bool set_options(struct transfer *t, const char *url)
{
    CURL *c = t->curl;
    unsigned err = CURLE_OK;

    err |= curl_easy_setopt(c, CURLOPT_URL, url);
    err |= curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
    err |= curl_easy_setopt(c, CURLOPT_RESOLVE, t->resolve);
    err |= curl_easy_setopt(c, CURLOPT_PROXY, "");
    err |= curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    err |= curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    err |= curl_easy_setopt(c, CURLOPT_USERAGENT, "hayauma/" HAYAUMA_VERSION);
    err |= curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    /* As in tls/client.c: without DHE, whose field the server chooses, and all share a thread. */
    err |= curl_easy_setopt(c, CURLOPT_SSL_CIPHER_LIST, "DEFAULT:!kDHE");
    err |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, is_report(t->fetch) ? 0L : 1L);
    err |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, is_report(t->fetch) ? 0L : 2L);
    if (t->fetch->ca_file != NULL) {
        err |= curl_easy_setopt(c, CURLOPT_CAINFO, t->fetch->ca_file);
        err |= curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
    }
    err |= curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L);
    err |= curl_easy_setopt(c, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    err |= curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    err |= curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)STS_FETCH_MS);
    err |= curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    err |= curl_easy_setopt(c, CURLOPT_ERRORBUFFER, t->error);
    err |= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    err |= curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    err |= curl_easy_setopt(c, CURLOPT_PRIVATE, t);
    return err == CURLE_OK && (!is_report(t->fetch) || set_report(t));
}

static void transfer_free(struct sts_fetcher *f, struct transfer *t)
{
    if (list_node_linked(&t->node)) {
        ASSERT(f->running_len > 0);
        list_remove(&t->node);
        f->running_len--;
        (void)curl_multi_remove_handle(f->multi, t->curl);
    }
    curl_easy_cleanup(t->curl);
    curl_slist_free_all(t->resolve);
    curl_slist_free_all(t->headers);
    buf_done(&t->body);
    free(t);
}

/* NULL: no memory. */
static struct transfer *transfer_new(struct sts_fetcher *f, struct sts_fetch *fetch)
{
    struct transfer *t = calloc(1, sizeof(*t));
    struct buf url = {0}, resolve = {0};
    bool good;

    if (t == NULL)
        return NULL;
    t->fetch = fetch;
    t->curl = curl_easy_init();
    buf_printf(&url, "https://%s:%u%s", fetch->host, fetch->port,
               is_report(fetch) ? fetch->path : PATH);
    buf_putc(&url, '\0');
    /* With the sign it is forgotten after a minute. */
    buf_printf(&resolve, "+%s:%u:%s", fetch->host, fetch->port, fetch->addresses);
    buf_putc(&resolve, '\0');
    t->resolve = curl_slist_append(NULL, (const char *)resolve.data);
    good = t->curl != NULL && t->resolve != NULL && set_options(t, (const char *)url.data) &&
           curl_multi_add_handle(f->multi, t->curl) == CURLM_OK;
    buf_done(&url);
    buf_done(&resolve);
    if (!good) {
        transfer_free(f, t);
        return NULL;
    }
    ASSERT(f->running_len < STS_FETCHES_MAX);
    list_push_back(&f->running, &t->node);
    f->running_len++;
    return t;
}

/* --- what came of it --- */

/* RFC 8461 3.3: others than text/plain may be what a user of the host has put there. */
static bool is_plain_text(const char *type)
{
    size_t len = strlen("text/plain");

    return type != NULL && str_starts_nocase(str_of(type), STR("text/plain")) &&
           (type[len] == '\0' || type[len] == ';' || type[len] == ' ');
}

/* The server had a hand in some of these words. */
static void say(struct sts_fetch *fetch, enum sts_fault fault, const char *why)
{
    size_t len;

    fetch->fault = fault;
    snprintf(fetch->why, sizeof(fetch->why), "%s", why);
    len = strlen(fetch->why);
    for (size_t i = 0; i < len; i++)
        if (ascii_is_control(fetch->why[i]) || (unsigned char)fetch->why[i] >= 0x80 ||
            fetch->why[i] == '"')
            fetch->why[i] = '?';
}

static void judge(struct transfer *t, CURLcode result)
{
    struct sts_fetch *fetch = t->fetch;
    const char *why = NULL, *type = NULL;
    char text[64];
    long code = 0;

    (void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &code);
    (void)curl_easy_getinfo(t->curl, CURLINFO_CONTENT_TYPE, &type);
    if (is_report(fetch) && result == CURLE_OK && code / 100 == 2)
        return;
    if (t->too_large) {
        say(fetch, STS_FAULT_POLICY, "it is larger than 64 KiB");
    } else if (result != CURLE_OK) {
        say(fetch,
            result == CURLE_PEER_FAILED_VERIFICATION ? STS_FAULT_CERTIFICATE : STS_FAULT_FETCH,
            t->error[0] != '\0' ? t->error : curl_easy_strerror(result));
    } else if (code != 200) {
        snprintf(text, sizeof(text), "HTTP status %ld%s", code,
                 code >= 300 && code < 400 ? ": redirects are not followed" : "");
        say(fetch, STS_FAULT_FETCH, text);
    } else if (!is_plain_text(type)) {
        say(fetch, STS_FAULT_FETCH, "it is not text/plain");
    } else if (sts_policy_parse(buf_str(&t->body), fetch->id, clock_wall_ms(), &fetch->policy,
                                &why) < 0) {
        fetch->policy = NULL;
        say(fetch, STS_FAULT_POLICY, why != NULL ? why : "out of memory");
    }
}

/* --- the thread --- */

static void fetch_done(struct sts_fetch *fetch)
{
    ASSERT(is_report(fetch) || (fetch->policy == NULL) == (fetch->why[0] != '\0'));
    fetch->on_done(fetch);
}

/* Begins what waits, as far as there is room. False: it is to end. */
static bool begin_waiting(struct sts_fetcher *f)
{
    bool stopping;

    for (;;) {
        struct list_node *node = NULL;

        pthread_mutex_lock(&f->lock);
        stopping = f->stopping;
        if (!stopping && f->running_len < STS_FETCHES_MAX)
            node = list_pop_front(&f->waiting);
        ASSERT(node == NULL || f->waiting_len > 0);
        f->waiting_len -= node != NULL;
        pthread_mutex_unlock(&f->lock);
        if (node == NULL)
            return !stopping;
        if (transfer_new(f, LIST_ENTRY(node, struct sts_fetch, node)) == NULL) {
            struct sts_fetch *fetch = LIST_ENTRY(node, struct sts_fetch, node);

            say(fetch, STS_FAULT_FETCH, "out of memory");
            fetch_done(fetch);
        }
    }
}

static void end_done(struct sts_fetcher *f)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(f->multi, &left)) != NULL) {
        struct sts_fetch *fetch;
        struct transfer *t;
        char *private = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
        t = (struct transfer *)(void *)private;
        ASSERT(t != NULL && t->curl == message->easy_handle && list_node_linked(&t->node));
        fetch = t->fetch;
        judge(t, message->data.result);
        transfer_free(f, t);
        fetch_done(fetch);
    }
}

static void *fetcher_main(void *arg)
{
    struct sts_fetcher *f = arg;
    struct list_node *node;
    int running;

    pthread_setname_np(pthread_self(), "sts");
    while (begin_waiting(f)) {
        (void)curl_multi_perform(f->multi, &running);
        end_done(f);
        (void)curl_multi_poll(f->multi, NULL, 0, POLL_MS, NULL);
    }
    while ((node = list_first(&f->running)) != NULL)
        transfer_free(f, LIST_ENTRY(node, struct transfer, node));
    ASSERT(f->running_len == 0);
    return NULL;
}

/* --- life --- */

int sts_fetcher_open(struct sts_fetcher **out)
{
    struct sts_fetcher *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return -ENOMEM;
    list_init(&f->running);
    list_init(&f->waiting);
    pthread_mutex_init(&f->lock, NULL);
    *out = f;
    return 0;
}

static int global_result;

static void global_init(void)
{
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -ENOMEM;
}

/* Under the lock. 0 or -errno. */
static int start(struct sts_fetcher *f)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sigset_t all, before;
    int err;

    pthread_once(&once, global_init);
    if (global_result < 0)
        return global_result;
    if (f->multi == NULL)
        f->multi = curl_multi_init();
    if (f->multi == NULL)
        return -ENOMEM;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = -pthread_create(&f->thread, NULL, fetcher_main, f);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    f->started = err == 0;
    return err;
}

int sts_fetcher_submit(struct sts_fetcher *f, struct sts_fetch *fetch)
{
    int err = 0;

    fetch->policy = NULL;
    fetch->fault = STS_FAULT_NONE;
    fetch->why[0] = '\0';
    pthread_mutex_lock(&f->lock);
    if (f->stopping || f->waiting_len >= STS_FETCHES_WAITING)
        err = -EAGAIN;
    else if (!f->started)
        err = start(f);
    if (err == 0) {
        ASSERT(fetch->on_done != NULL && (is_report(fetch) ? fetch->path : fetch->id) != NULL);
        fetch->node = (struct list_node){0};
        list_push_back(&f->waiting, &fetch->node);
        f->waiting_len++;
        (void)curl_multi_wakeup(f->multi);
    }
    pthread_mutex_unlock(&f->lock);
    return err;
}

void sts_fetcher_stop(struct sts_fetcher *f)
{
    bool started;

    if (f == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    started = f->started && !f->stopping;
    f->stopping = true;
    if (started)
        (void)curl_multi_wakeup(f->multi);
    pthread_mutex_unlock(&f->lock);
    if (started)
        pthread_join(f->thread, NULL);
}

void sts_fetcher_close(struct sts_fetcher *f)
{
    if (f == NULL)
        return;
    sts_fetcher_stop(f);
    if (f->multi != NULL)
        (void)curl_multi_cleanup(f->multi);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* --- addresses --- */

static bool in_network(uint32_t address, uint32_t network, int bits)
{
    ASSERT(bits > 0 && bits <= 32);
    return (address ^ network) >> (32 - bits) == 0;
}

/* RFC 6890. */
static bool v4_is_public(uint32_t a)
{
    static const struct {
        uint32_t network;
        int bits;
    } reserved[] = {
        {0x00000000, 8},  {0x0a000000, 8},  {0x64400000, 10}, {0x7f000000, 8},  {0xa9fe0000, 16},
        {0xac100000, 12}, {0xc0000000, 24}, {0xc0000200, 24}, {0xc0a80000, 16}, {0xc6120000, 15},
        {0xc6336400, 24}, {0xcb007100, 24}, {0xe0000000, 3},
    };

    for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
        if (in_network(a, reserved[i].network, reserved[i].bits))
            return false;
    return true;
}

/* Global unicast, but for documentation, Teredo and 6to4, which lead to IPv4 addresses; or NAT64's,
 * by the IPv4 address in it. */
static bool v6_is_public(const uint8_t a[16])
{
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    uint32_t first = (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3];

    if (memcmp(a, nat64, sizeof(nat64)) == 0)
        return v4_is_public((uint32_t)a[12] << 24 | (uint32_t)a[13] << 16 | (uint32_t)a[14] << 8 |
                            a[15]);
    return in_network(first, 0x20000000, 3) && first != 0x20010db8 && first != 0x20010000 &&
           first >> 16 != 0x2002;
}

bool sts_address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return v4_is_public(
            ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr));
    return address->sa_family == AF_INET6 &&
           v6_is_public(((const struct sockaddr_in6 *)(const void *)address)->sin6_addr.s6_addr);
}
