/* stdin: a message; stdout: the same in 7 bits, or with its header fields only in ASCII (argument
 * "headers"). Exit code 3 when it cannot be converted. */
#include <stdio.h>

#include "mail/convert.h"

int main(int argc, char **argv)
{
    struct buf in = {0}, out = {0};
    char chunk[65536];
    enum convert what = argc > 1 && strcmp(argv[1], "headers") == 0 ? CONVERT_HEADERS : CONVERT_ALL;
    size_t n;
    int r;

    while ((n = fread(chunk, 1, sizeof(chunk), stdin)) > 0)
        buf_put(&in, chunk, n);
    r = convert_message(in.data, in.len, what, &out);
    if (r == 0)
        fwrite(out.data, 1, out.len, stdout);
    buf_done(&in);
    buf_done(&out);
    return r == 0 ? 0 : 3;
}
