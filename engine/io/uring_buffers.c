#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "io/uring.h"

#define CIRCULATING_MIN 32
#define ADAPT_NS        UINT64_C(200000000)

static void buffer_give(struct io *io, uint16_t index)
{
    struct buffers *b = &io->buffers;

    io_uring_buf_ring_add(b->ring, buffer_data(io, index), io->options.buffer_bytes, index,
                          io_uring_buf_ring_mask(io->options.buffers), 0);
    io_uring_buf_ring_advance(b->ring, 1);
}

static void top_up(struct io *io)
{
    struct buffers *b = &io->buffers;

    while (b->circulating < b->target && b->spare_len > 0) {
        buffer_give(io, b->spare[--b->spare_len]);
        b->circulating++;
    }
    ASSERT(b->circulating + b->spare_len == io->options.buffers); /* each is one or the other */
}

static void *map_pages(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

static size_t ring_bytes(const struct io *io)
{
    return (size_t)io->options.buffers * sizeof(struct io_uring_buf);
}

static size_t data_bytes(const struct io *io)
{
    return (size_t)io->options.buffers * io->options.buffer_bytes;
}

int buffers_open(struct io *io)
{
    struct buffers *b = &io->buffers;
    uint32_t count = io->options.buffers;
    struct io_uring_buf_reg reg = {.ring_entries = count, .bgid = BUFFER_GROUP};

    ASSERT((count & (count - 1)) == 0 && count <= 32768); /* the kernel's limit */
    b->ring = map_pages(ring_bytes(io));
    b->data = map_pages(data_bytes(io)); /* resident as they are used */
    b->spare = calloc(count, sizeof(*b->spare));
    if (b->ring == NULL || b->data == NULL || b->spare == NULL)
        return -ENOMEM;
    io_uring_buf_ring_init(b->ring);
    reg.ring_addr = (uintptr_t)b->ring;
    for (uint32_t i = 0; i < count; i++)
        b->spare[i] = (uint16_t)(count - 1 - i);
    b->spare_len = count;
    b->target = count < CIRCULATING_MIN ? count : CIRCULATING_MIN;
    top_up(io);
    return io_uring_register_buf_ring(&io->ring, &reg, 0);
}

void buffers_close(struct io *io)
{
    struct buffers *b = &io->buffers;

    if (b->ring != NULL)
        munmap(b->ring, ring_bytes(io));
    if (b->data != NULL)
        munmap(b->data, data_bytes(io));
    free(b->spare);
}

void buffers_want_more(struct io *io)
{
    struct buffers *b = &io->buffers;

    /* Doubled once for all receives that were refused together. */
    if (b->circulating < b->target || b->target == io->options.buffers)
        return;
    b->target *= 2;
    ASSERT(b->target <= io->options.buffers);
}

void buffers_adapt(struct io *io)
{
    struct buffers *b = &io->buffers;

    if (b->used > b->used_max)
        b->used_max = b->used;
    b->used = 0;
    top_up(io);
    if (io->now_ns - b->adapted_ns < ADAPT_NS)
        return;
    if (b->target > CIRCULATING_MIN && b->used_max < b->target / 4)
        b->target /= 2;
    b->adapted_ns = io->now_ns;
    b->used_max = 0;
}

void buffer_return(struct io *io, uint16_t index)
{
    struct buffers *b = &io->buffers;

    b->used++;
    if (b->circulating > b->target) {
        b->spare[b->spare_len++] = index;
        b->circulating--;
        /* A burst has used it; the memory goes back to the system. */
        (void)madvise(buffer_data(io, index), io->options.buffer_bytes, MADV_DONTNEED);
        return;
    }
    buffer_give(io, index);
}
