#include <ares.h>
#include <arpa/nameser.h>
#include <poll.h>

#include "dns/txt.h"

struct question {
    struct buf *out;
    enum dns_answer_status status;
    const char *error;
    bool answered;
};

static void take_records(struct question *q, const unsigned char *bytes, int len)
{
    struct ares_txt_ext *list = NULL;
    int err = ares_parse_txt_reply_ext(bytes, len, &list);

    if (err != ARES_SUCCESS) {
        q->status = err == ARES_ENODATA ? DNS_ANSWER_NO_DATA : DNS_ANSWER_FAILED;
        q->error = ares_strerror(err);
        return;
    }
    for (const struct ares_txt_ext *t = list; t != NULL; t = t->next) {
        if (t->record_start && t != list)
            buf_putc(q->out, 0);
        buf_put(q->out, t->txt, t->length);
    }
    buf_putc(q->out, 0);
    q->status = DNS_ANSWER_RECORDS;
    ares_free_data(list);
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct question *q = arg;

    (void)timeouts;
    q->answered = true;
    switch (status) {
    case ARES_SUCCESS:
        take_records(q, bytes, len);
        break;
    case ARES_ENOTFOUND:
        q->status = DNS_ANSWER_NO_DOMAIN;
        break;
    case ARES_ENODATA:
        q->status = DNS_ANSWER_NO_DATA;
        break;
    default:
        q->status = DNS_ANSWER_FAILED;
        q->error = ares_strerror(status);
    }
}

/* Waits for the sockets of channel once. */
static void turn(ares_channel channel)
{
    ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
    unsigned bits = (unsigned)ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
    struct pollfd fds[ARES_GETSOCK_MAXNUM];
    struct timeval room, *wait = ares_timeout(channel, NULL, &room);
    nfds_t n = 0;

    /* A bit per socket to read from, and above these one to write to. */
    for (unsigned i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
        short events = (short)(((bits >> i & 1) != 0 ? POLLIN : 0) |
                               ((bits >> (i + ARES_GETSOCK_MAXNUM) & 1) != 0 ? POLLOUT : 0));

        if (events != 0)
            fds[n++] = (struct pollfd){.fd = sockets[i], .events = events};
    }
    (void)poll(fds, n, wait == NULL ? 100 : (int)(wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1));
    for (nfds_t i = 0; i < n; i++)
        ares_process_fd(channel,
                        (fds[i].revents & (POLLIN | POLLERR | POLLHUP)) != 0 ? fds[i].fd
                                                                             : ARES_SOCKET_BAD,
                        (fds[i].revents & POLLOUT) != 0 ? fds[i].fd : ARES_SOCKET_BAD);
    ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* what timed out */
}

static int set_servers(ares_channel channel, const char *const *servers, size_t len)
{
    struct buf csv = {0};
    int err;

    if (len == 0)
        return ARES_SUCCESS;
    for (size_t i = 0; i < len; i++)
        buf_printf(&csv, "%s%s", i == 0 ? "" : ",", servers[i]);
    buf_putc(&csv, 0);
    err = ares_set_servers_ports_csv(channel, (const char *)csv.data);
    buf_done(&csv);
    return err;
}

enum dns_answer_status dns_txt(const char *const *servers, size_t servers_len, uint32_t timeout_ms,
                               uint32_t tries, const char *name, struct buf *out,
                               const char **error)
{
    struct ares_options options = {.timeout = (int)timeout_ms, .tries = (int)tries};
    struct question q = {.out = out, .status = DNS_ANSWER_FAILED};
    ares_channel channel = NULL;
    int err = ares_library_init(ARES_LIB_INIT_ALL);

    if (err == ARES_SUCCESS)
        err = ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
    if (err == ARES_SUCCESS)
        err = set_servers(channel, servers, servers_len);
    if (err == ARES_SUCCESS) {
        ares_query(channel, name, ns_c_in, ns_t_txt, on_answer, &q);
        while (!q.answered)
            turn(channel);
    } else {
        q.error = ares_strerror(err);
    }
    if (channel != NULL)
        ares_destroy(channel);
    ares_library_cleanup();
    *error = q.error;
    return q.status;
}
