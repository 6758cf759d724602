/* The socket calls of io.h that do not wait, and the words for a machine without io_uring. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "io/io.h"

#define DISABLED_SYSCTL "/proc/sys/kernel/io_uring_disabled"
#define REASON_BYTES    256
/* The kernel takes down the ring of a killed process, and with it the listeners that it accepted
 * on, a little after the process is gone. */
#define ADDRESS_WAIT_MS  2000
#define ADDRESS_PAUSE_MS 50
#define WATCH_NEWS_MAX   4096 /* read at a time; the rest next time */

static int set_on(int fd, int level, int option)
{
    int on = 1;

    return setsockopt(fd, level, option, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* Accepted sockets inherit TCP_NODELAY from their listener. */
static int stream_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = 0;

    if (fd < 0)
        return -errno;
    if (family == AF_INET || family == AF_INET6)
        rc = set_on(fd, IPPROTO_TCP, TCP_NODELAY);
    if (rc == 0 && family == AF_INET6)
        rc = set_on(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

bool io_remove_stale(const struct sockaddr *addr, socklen_t len)
{
    const struct sockaddr_un *un = (const void *)addr;
    struct stat st;
    bool stale;
    int fd;

    if (addr->sa_family != AF_UNIX)
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    stale = connect(fd, addr, len) < 0 && errno == ECONNREFUSED && un->sun_path[0] != '\0' &&
            lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) && unlink(un->sun_path) == 0;
    close(fd);
    return stale;
}

static int bind_fresh(int fd, const struct sockaddr *addr, socklen_t len)
{
    if (bind(fd, addr, len) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    if (!io_remove_stale(addr, len))
        return -EADDRINUSE;
    return bind(fd, addr, len) < 0 ? -errno : 0;
}

int io_listen(struct io *io, const struct sockaddr *addr, socklen_t len, int backlog,
              bool reuse_port)
{
    int fd = stream_socket(addr->sa_family), rc = 0;

    (void)io;
    if (fd < 0)
        return fd;
    if (addr->sa_family != AF_UNIX)
        rc = set_on(fd, SOL_SOCKET, SO_REUSEADDR);
    if (rc == 0 && reuse_port && addr->sa_family != AF_UNIX)
        rc = set_on(fd, SOL_SOCKET, SO_REUSEPORT);
    if (rc == 0)
        rc = bind_fresh(fd, addr, len);
    if (rc == 0 && listen(fd, backlog) < 0)
        rc = -errno;
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

static int bind_alone(const struct sockaddr *addr, socklen_t len)
{
    int fd = stream_socket(addr->sa_family), rc;

    if (fd < 0)
        return fd;
    rc = set_on(fd, SOL_SOCKET, SO_REUSEADDR);
    if (rc == 0 && bind(fd, addr, len) < 0)
        rc = -errno;
    close(fd);
    return rc;
}

int io_address_free(const struct sockaddr *addr, socklen_t len)
{
    const struct timespec pause = {.tv_nsec = ADDRESS_PAUSE_MS * 1000000L};
    int rc = 0;

    if (addr->sa_family == AF_UNIX)
        return 0;
    for (int ms = 0; ms <= ADDRESS_WAIT_MS; ms += ADDRESS_PAUSE_MS) {
        rc = bind_alone(addr, len);
        if (rc != -EADDRINUSE)
            break;
        nanosleep(&pause, NULL);
    }
    return rc;
}

int io_stream(struct io *io, int family, const struct sockaddr *source, socklen_t len)
{
    int fd = stream_socket(family), rc = 0;

    (void)io;
    if (fd < 0 || source == NULL)
        return fd;
    /* The port is chosen at connect, when the peer is known: 28,000 ports per source and peer
     * instead of 28,000 per source. */
    if (family != AF_UNIX)
        rc = set_on(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    if (rc == 0 && bind(fd, source, len) < 0)
        rc = -errno;
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

int io_route(struct io *io, const struct sockaddr *addr, socklen_t len,
             const struct sockaddr *source, socklen_t source_len)
{
    int fd = socket(addr->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), rc = 0;

    (void)io;
    if (fd < 0)
        return errno == EAFNOSUPPORT ? -EAFNOSUPPORT : 0;
    if ((source != NULL && bind(fd, source, source_len) < 0) || connect(fd, addr, len) < 0)
        rc = -errno;
    close(fd);
    return rc;
}

/* Where a link goes down IPv4's routes over it go without a word. */
int io_watch(struct io *io, enum io_watched what)
{
    const struct sockaddr_nl to = {
        .nl_family = AF_NETLINK,
        .nl_groups = what == IO_ADDRESSES ? RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
                                          : RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_LINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE), err;

    (void)io;
    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    err = -errno;
    close(fd);
    return err;
}

/* What has changed is not read: who asks looks himself. */
bool io_watch_news(struct io *io, int fd)
{
    bool changed = false;
    char byte;

    (void)io;
    for (int i = 0; i < WATCH_NEWS_MAX && recv(fd, &byte, 1, MSG_TRUNC) >= 0; i++)
        changed = true;
    return changed || errno == ENOBUFS; /* there were too many */
}

int io_peer_name(struct io *io, int fd, struct sockaddr_storage *peer)
{
    socklen_t len = sizeof(*peer);

    (void)io;
    memset(peer, 0, sizeof(*peer));
    return getpeername(fd, (struct sockaddr *)peer, &len) < 0 ? -errno : 0;
}

void io_send_end(struct io *io, int fd)
{
    (void)io;
    (void)shutdown(fd, SHUT_WR); /* fails only when the connection is gone */
}

int io_local_name(struct io *io, int fd, struct sockaddr_storage *local)
{
    socklen_t len = sizeof(*local);

    (void)io;
    memset(local, 0, sizeof(*local));
    return getsockname(fd, (struct sockaddr *)local, &len) < 0 ? -errno : 0;
}

void io_send_progress(struct io *io, int fd, struct io_progress *out)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    int left = 0;

    (void)io;
    /* Each leaves its zero where it fails: a Unix socket has no TCP_INFO. */
    (void)getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
    (void)ioctl(fd, SIOCOUTQ, &left);
    *out = (struct io_progress){.taken_bytes = info.tcpi_bytes_acked,
                                .left_bytes = (uint64_t)left,
                                .unsent_bytes = info.tcpi_notsent_bytes};
}

/* The sysctl's value, '0' where it does not exist (before Linux 6.6). */
static char disabled_sysctl(void)
{
    FILE *file = fopen(DISABLED_SYSCTL, "re");
    int c;

    if (file == NULL)
        return '0';
    c = fgetc(file);
    fclose(file);
    return c == EOF ? '0' : (char)c;
}

const char *io_why_unavailable(int err)
{
    static _Thread_local char text[REASON_BYTES];
    struct utsname system;
    char disabled = disabled_sysctl();

    if (uname(&system) < 0)
        strcpy(system.release, "?");
    switch (-err) {
    case EPERM:
    case EACCES:
        if (disabled != '0')
            snprintf(text, sizeof(text),
                     "io_uring is switched off (kernel.io_uring_disabled=%c): set it to 0 with "
                     "'sysctl kernel.io_uring_disabled=0'%s",
                     disabled,
                     disabled == '1' ? ", or run in the group kernel.io_uring_group" : "");
        else
            snprintf(
                text, sizeof(text),
                "io_uring is forbidden here, most likely by the seccomp profile of a container "
                "or service: allow io_uring_setup, io_uring_enter and io_uring_register");
        break;
    case ENOSYS:
        snprintf(
            text, sizeof(text),
            "this kernel (%.64s) has no io_uring, or seccomp hides it: Linux 6.1 or newer with "
            "CONFIG_IO_URING is needed",
            system.release);
        break;
    case EINVAL:
        snprintf(
            text, sizeof(text),
            "this kernel (%.64s) is too old for the io_uring features used: Linux 6.1 or newer "
            "is needed",
            system.release);
        break;
    case ENOMEM:
        snprintf(text, sizeof(text),
                 "not enough memory for io_uring: raise the memory limit of the service or "
                 "RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=)");
        break;
    default:
        snprintf(text, sizeof(text), "io_uring could not be opened: %s", strerror(-err));
        break;
    }
    return text;
}
