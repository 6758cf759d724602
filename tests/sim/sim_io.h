/* What the simulation sees of io.h's implementation for it (sim_io.c). */
#ifndef HAYAUMA_TESTS_SIM_SIM_IO_H
#define HAYAUMA_TESTS_SIM_SIM_IO_H

#include "io/io.h"
#include "tests/sim/net.h"

/* The engine's side of the network. */
struct sim_io_limits {
    uint32_t fds_max; /* descriptors of the process; -EMFILE beyond */
    /* The path to an address, and what is told of sessions there: opened true at the connect, false
     * at the close. */
    void (*path)(const struct sockaddr *to, struct net_path *path);
    void (*session)(const struct sockaddr *from, const struct sockaddr *to, bool opened);
    /* Whether the machine holds the address, and has a route from it. */
    bool (*here)(const struct sockaddr *source);
    bool (*routed)(const struct sockaddr *source);
};
void sim_io_limit(const struct sim_io_limits *limits);

/* on_ready: io has something to do; not from inside a turn of it. */
void sim_io_watch(struct io *io, void (*on_ready)(void *arg), void *arg);
/* When io has to turn next, UINT64_MAX: not before on_ready. */
uint64_t sim_io_next_ns(const struct io *io);
/* The process dies: its descriptors are closed as the kernel closes them. */
void sim_io_kill(void);
uint32_t sim_io_fds(void);

#endif
