#include "http/coding.h"

#include <errno.h>

#include <zlib.h>

#define STEP_BYTES  (64u << 10)
#define WINDOW_BITS (15 + 32) /* gzip or zlib, as the head says */
#define MEMBERS_MAX 4096      /* of gzip */

/* RFC 1952: files that were put together (cat a.gz b.gz) are one. */
static bool next_member(z_stream *z, unsigned *members)
{
    return z->avail_in > 0 && *z->next_in == 0x1f && ++*members < MEMBERS_MAX &&
           inflateReset(z) == Z_OK;
}

static int inflate_all(z_stream *z, uint64_t max, bool (*hold)(void *, uint64_t), void *arg,
                       struct buf *out)
{
    unsigned members = 0;
    int said = Z_OK;

    while (said == Z_OK) {
        if (out->len > max)
            return -EFBIG;
        if (out->cap - out->len < STEP_BYTES) {
            size_t more = out->cap > STEP_BYTES ? out->cap : STEP_BYTES;

            if (!hold(arg, more) || buf_reserve(out, more) < 0)
                return -ENOMEM;
        }
        z->next_out = out->data + out->len;
        z->avail_out = STEP_BYTES;
        said = inflate(z, Z_NO_FLUSH);
        out->len += STEP_BYTES - z->avail_out;
        if (said == Z_STREAM_END && next_member(z, &members))
            said = Z_OK;
        else if (said == Z_OK && z->avail_in == 0 && z->avail_out > 0) /* it ends in the middle */
            return -EINVAL;
    }
    if (said != Z_STREAM_END || z->avail_in > 0)
        return -EINVAL;
    return out->len > max ? -EFBIG : 0;
}

int coding_inflate(struct str in, uint64_t max, bool (*hold)(void *arg, uint64_t bytes), void *arg,
                   struct buf *out)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in.ptr, .avail_in = (uInt)in.len};
    int err;

    ASSERT(in.len <= UINT32_MAX);
    if (in.len == 0)
        return -EINVAL;
    if (inflateInit2(&z, WINDOW_BITS) != Z_OK)
        return -ENOMEM;
    err = inflate_all(&z, max, hold, arg, out);
    inflateEnd(&z);
    return err;
}
