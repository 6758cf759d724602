#include "tools/send/passage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#define HELD_BYTES 65536

/* One direction: bytes that were read from one descriptor and not yet written to the other. */
struct way {
    int from, to;
    char held[HELD_BYTES];
    size_t begin, end;
    bool ended; /* nothing more comes */
};

static bool way_over(const struct way *w)
{
    return w->ended && w->begin == w->end;
}

/* The descriptor that it waits for, -1: none. */
static struct pollfd way_wait(const struct way *w)
{
    bool holds = w->begin < w->end;

    return (struct pollfd){.fd = way_over(w) ? -1
                                 : holds     ? w->to
                                             : w->from,
                           .events = holds ? POLLOUT : POLLIN};
}

/* Behind a poll that said that it need not wait. */
static void way_move(struct way *w)
{
    bool holds = w->begin < w->end;
    ssize_t n = holds ? write(w->to, w->held + w->begin, w->end - w->begin)
                      : read(w->from, w->held, sizeof(w->held));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (holds && n > 0) {
        w->begin += (size_t)n;
        return;
    }
    w->begin = 0;
    w->end = n > 0 ? (size_t)n : 0;
    w->ended = n <= 0;
}

static void pass(int fd)
{
    static struct way in = {.from = STDIN_FILENO}, out = {.to = STDOUT_FILENO};
    bool told = false;

    in.to = out.from = fd;
    while (!way_over(&out)) {
        struct pollfd waits[] = {way_wait(&in), way_wait(&out)};

        if (poll(waits, 2, -1) < 0)
            continue;
        if (waits[0].revents != 0)
            way_move(&in);
        if (waits[1].revents != 0)
            way_move(&out);
        if (way_over(&in) && !told)
            told = shutdown(fd, SHUT_WR) == 0 || errno != EINTR;
    }
}

int passage_run(const struct endpoint *to)
{
    int fd = socket(to->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err = 0;

    if (fd < 0)
        return -errno;
    /* A write to the engine does not wait: the engine may be waiting for its answers to be read. */
    if (connect(fd, (const struct sockaddr *)&to->addr, to->len) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        err = -errno;
    signal(SIGPIPE, SIG_IGN);
    if (err == 0)
        pass(fd);
    close(fd);
    return err;
}
