/* The inside of engine/http: http.c (the server), thread.c (its threads), request.c (what is asked,
 * by whom, answers), submission.c (mail to the workers), campaign.c, metrics.c. */
#ifndef HAYAUMA_ENGINE_HTTP_PRIVATE_H
#define HAYAUMA_ENGINE_HTTP_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include <microhttpd.h>

#include "base/list.h"
#include "base/msgid.h"
#include "dns/name.h"
#include "http/http.h"
#include "http/tokens.h"
#include "limits/quota.h"
#include "queue/mailbox.h"
#include "worker/clients.h"
#include "worker/crew.h"
#include "worker/peer_text.h"
#include "worker/worker.h"

#define HTTP_RETRY_AFTER_S "5"

#define UNSUBSCRIBES_A_SECOND 500 /* requests of one client address */
#define HTTP_DROPPED_TIMES    4   /* body_max: of a refused body, then its connection is cut */
#define HTTP_FORM_MAX         16384
#define HTTP_NO_ROOM          "too much mail is being received, try again later"

struct http_request;

enum http_counted { HTTP_2XX, HTTP_4XX, HTTP_5XX, HTTP_COUNTED };

enum endpoint_body {
    BODY_NONE, /* of GET: what comes is dropped */
    BODY_JSON,
    BODY_ROWS,      /* NDJSON or CSV */
    BODY_JSON_ROWS, /* JSON, or NDJSON whose first line is such an object */
    BODY_FORM,      /* of a page */
};

struct endpoint {
    const char *path;   /* "{id}" in it: a message id, request's id; "{token}" at its end: rest */
    const char *method; /* "GET": HEAD too */
    const char *name;   /* of metrics */
    unsigned scopes;    /* one of these is needed (enum token_scope); 0: open to all */
    enum endpoint_body body;
    /* The request is here whole. Answers it, or suspends it and has it resumed. */
    void (*handle)(struct http_request *r);
};

#define ENDPOINTS_MAX 24

/* One of http.threads: a daemon of the library without a thread of its own, in a loop of ours, so
 * that what is handed over between threads goes by the many, with a wake for all of it: to workers
 * at the end of a pass, from workers at the beginning of the next one. Connections are accepted by
 * whichever thread hears of them, and go to the one that has the fewest. */
struct http_thread {
    struct http *http;
    struct MHD_Daemon *daemon;
    pthread_t thread;
    bool runs;
    bool listens;                 /* the listening socket is waited for, too */
    bool told;                    /* by the library of a connection that it was given */
    bool complained;              /* of no descriptor for a connection */
    bool active;                  /* a request went on in this pass: the library has more to do */
    uint32_t idle_passes;         /* since something happened */
    uint32_t awaiting;            /* requests that request_await() keeps */
    uint64_t pass_ns;             /* when this pass began */
    uint64_t paused_until_ns;     /* for that: it does not listen; 0: it does */
    int epoll_fd, wake_fd;        /* what it waits for: the daemon's sockets, and word of others */
    uint32_t connections_max;     /* it listens while it has less */
    _Atomic uint32_t connections; /* that it has, or will have of arrived */
    struct mailbox arrived;       /* connections that another thread accepted, */
    struct mailbox resumed;       /* requests to go on with; from any thread */
    struct crew_desk desk;        /* large requests, of the crew */
    struct list notes[WORKERS_MAX]; /* for each worker, to be sent at the end of the pass, */
    uint64_t notes_ns;              /* or a while behind the first of them */
    struct rng rng;
};

struct http {
    struct shared *shared;
    int listen_fd;
    struct http_thread *threads; /* [threads_len] */
    uint32_t threads_len;
    struct crew *crew;      /* for large requests: others of their threads go on */
    struct clients clients; /* connections of each client, */
    uint32_t clients_max;   /* at most so many */
    struct tokens tokens;
    pthread_mutex_t lock;  /* of config and connections */
    struct config *config; /* a reference: what new requests use */
    struct list connections;
    _Atomic bool draining;
    _Atomic bool closing;         /* threads take no further connections, */
    _Atomic bool closed;          /* or end */
    _Atomic uint32_t requests;    /* under way */
    _Atomic uint32_t resuming;    /* threads that hand one of them back */
    _Atomic uint32_t next_worker; /* letters go to the workers in turn */
    _Atomic uint32_t walks;       /* of metrics, under way */
    struct quota unsubscribes;    /* of each client; under the lock */
    _Atomic uint64_t counts[ENDPOINTS_MAX][HTTP_COUNTED];
};

struct http_connection {
    struct list_node node;
    int fd;
    bool counted; /* in http's clients; if not, its client has too many, and it is to be closed */
    /* Monotonic: when waiting for the present request began. 0: it is here, and worked on. */
    _Atomic uint64_t since_ms;
    _Atomic uint64_t came_bytes; /* of its body since then */
};

struct http_step;

struct http_request {
    struct http *http;
    struct http_thread *thread; /* that it belongs to */
    struct list_node node;      /* of the thread's resumed */
    struct MHD_Connection *connection;
    struct http_connection *client;
    struct config *config; /* a reference */
    const struct endpoint *endpoint;
    const char *method;
    struct msgid id;    /* of the path, if the endpoint's has one */
    char *rest;         /* of the path, behind what the endpoint's has; or NULL */
    bool csv, ndjson;   /* of BODY_ROWS, BODY_JSON_ROWS */
    struct token token; /* whose request it is; no name: of a trusted network */
    struct sockaddr_storage peer;
    char peer_ip[INET6_ADDRSTRLEN], peer_text[PEER_TEXT_BYTES];
    struct buf body;
    uint64_t held_bytes; /* of shared->intake_bytes */
    size_t body_room;    /* bytes of the body that are held */
    size_t body_length;  /* Content-Length, within what is taken; 0: it says none */
    bool body_follows;   /* and is read before a refusal, whose client would not see it else */
    uint64_t dropped;    /* bytes of such a body */
    unsigned refusal;    /* the status of that; 0: none */
    char refusal_text[160];
    uint32_t retry_after_s; /* with 429; 0: nobody knows */
    bool coded;             /* the body, by gzip or deflate */
    bool handled;           /* endpoint->handle() was called */
    bool answered;
    bool large;                    /* what it does is done by the crew, */
    struct http_step *step;        /* which has it while this is not NULL; */
    bool away;                     /* it is not its thread that goes on with it */
    struct MHD_Response *response; /* that the crew made; */
    unsigned status;               /* of it */
    uint64_t await_until_ns;       /* what it waits for is away, and it is not suspended; or 0 */
    bool gone; /* while it waited so its connection ended: nobody hears the answer */
    /* Of a campaign that comes with its list. */
    struct {
        bool is_on, starts, again; /* again: the campaign was there */
        int64_t starts_ms;
        struct buf told; /* what became of the list, JSON */
    } upload;
    /* After a suspension, or a wait: goes on. */
    void (*resumed)(struct http_request *r);
    void (*done)(struct http_request *r); /* frees work; NULL: there is none */
    void *work;
};

extern const struct endpoint http_endpoints[];
extern const size_t http_endpoints_len;

/* --- request.c --- */

/* Reads a request's head. What is refused is answered, or will be at the body's end: refusal. Else
 * endpoint and token are known. */
void request_begin(struct http_request *r, const char *url);
/* The request is refused: now, or at the end of its body. */
void request_refuse(struct http_request *r, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Answers, once. type: of the body. */
void request_answer(struct http_request *r, unsigned status, const char *type, struct str body);
/* A problem (RFC 9457); field: the path in the request's JSON, or "". */
void request_problem(struct http_request *r, unsigned status, const char *field, const char *format,
                     ...) __attribute__((format(printf, 4, 5)));
/* A field of the head that may be there once, or NULL; while no answer is given. */
const char *request_field(const struct http_request *r, const char *name);
/* Behind the path's '?', decoded; or NULL. */
const char *request_argument(const struct http_request *r, const char *name);
/* Whether there is one that is none of these, or has no value, or is there twice; then it is
 * answered. */
bool request_arguments_refused(struct http_request *r, const char *const *known, size_t len);
/* Whether the request's Idempotency-Key is none; then it is answered. */
bool request_key_refused(struct http_request *r);
/* The name of the token, or NULL: a trusted client without one. */
const char *request_token(const struct http_request *r);
/* Once: the request counts as n of its token's rate, in place of the one that its head took. 0: it
 * repeats another, and brings nothing new. */
void request_charge(struct http_request *r, uint64_t n);
/* Bytes of a body that are taken; of a form, which is anybody's, few. */
uint64_t request_body_max(const struct http_request *r);
/* Whether the request may hold so many bytes more; they count until it is done. */
bool request_hold(struct http_request *r, uint64_t bytes);
/* Gives so many of them back. */
void request_release(struct http_request *r, uint64_t bytes);
/* The request waits, holding no thread, until request_resume(), which any thread may call. Nothing
 * of r may be touched behind the one and before the other. */
void request_suspend(struct http_request *r, void (*resumed)(struct http_request *r));
void request_resume(struct http_request *r);
/* The same for a wait of some milliseconds, behind which resumed() answers. The library asks for
 * the request in each pass of the thread, for 60 ns. A suspension takes the socket out of its set,
 * puts it back and reads it in vain: three calls of the kernel, 7 % of what a single letter costs.
 */
void request_await(struct http_request *r, void (*resumed)(struct http_request *r));
/* Sends note to a worker, soon: with those of the thread's other requests. */
void request_send(struct http_request *r, uint32_t worker, struct worker_note *note);

/* A number by chance. */
uint64_t request_random(struct http_request *r);

/* --- thread.c --- */

/* 0 or -errno: http.threads threads serve, each with its part of the connections. */
int http_threads_start(struct http *h) MUST_USE;
/* They take no further connections. */
void http_threads_quiesce(struct http *h);
/* No request is under way. */
void http_threads_stop(struct http *h);
/* A connection that the thread had has ended. */
void http_thread_left(struct http_thread *t);
/* Another request has its turn: what has waited for long enough is sent. */
void http_thread_look(struct http_thread *t);
/* Hands a request that was suspended back to its thread. Any thread. */
void http_thread_resume(struct http_thread *t, struct http_request *r);

/* --- http.c --- */

/* The library has r's response from here on. The request's thread. */
void http_response_queue(struct http_request *r);
/* The crew is through with r, and has a response for it. */
void http_step_answers(struct http_request *r);
/* What a request waited for is here. The request's thread. */
void http_resumed(struct http_request *r);
/* What the library calls; arg is a struct http_thread. */
enum MHD_Result http_on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_len, void **context);
void http_on_completed(void *arg, struct MHD_Connection *connection, void **context,
                       enum MHD_RequestTerminationCode code);
void http_on_connection(void *arg, struct MHD_Connection *connection, void **context,
                        enum MHD_ConnectionNotificationCode code);

/* --- submission.c --- */

void handle_injection(struct http_request *r);
/* Whether the token may not send such mail, or there is no such pool; then it is answered. sender:
 * as mail_field_sender() gives it. */
bool mail_refused(struct http_request *r, struct str sender, struct str tenant, struct str pool);
/* Whether the request is of a tenant that the token is not of; then it is answered. */
bool tenant_refused(struct http_request *r, struct str tenant);
/* The same of the pool alone. chosen: the request says one; empty: that it goes by none of its own.
 */
bool pool_refused(struct http_request *r, bool chosen, struct str pool);

/* Whether expires (0: there is none) is over, or not behind begin, which is at that field (0: there
 * is none); then it is answered. */
bool expires_refused(struct http_request *r, int64_t expires_ms, int64_t begin_ms,
                     const char *field);
/* Whether no key signs for the domain that a request names (empty: none), or the token's mail may
 * not be of it; then it is answered. out: the domain as it is kept. */
bool dkim_refused(struct http_request *r, struct str domain, struct dns_name *out);

/* --- campaign.c, campaign_rows.c --- */

struct campaign;
/* Whether it is there for the token: the campaigns of its tenant are, or all. */
bool campaign_may_see(const struct http_request *r, const struct campaign *one);
void handle_campaign_create(struct http_request *r);
void handle_campaign_list(struct http_request *r);
void handle_campaign_show(struct http_request *r);
void handle_campaign_set(struct http_request *r);
void handle_campaign_recipients(struct http_request *r);
void handle_campaign_rows(struct http_request *r);
void handle_campaign_start(struct http_request *r);
void handle_campaign_pause(struct http_request *r);
void handle_campaign_resume(struct http_request *r);
void handle_campaign_cancel(struct http_request *r);
void handle_campaign_close(struct http_request *r);
void handle_campaign_preview(struct http_request *r);

/* --- suppression.c, unsubscribe.c --- */

void handle_suppression_list(struct http_request *r);
void handle_suppression_add(struct http_request *r);
void handle_suppression_remove(struct http_request *r);
void handle_unsubscribe_page(struct http_request *r);
void handle_unsubscribe(struct http_request *r);

/* --- metrics.c --- */

void handle_metrics(struct http_request *r);

#endif
