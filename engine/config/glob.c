#include "config/glob.h"

bool glob_match(struct str glob, struct str text)
{
    size_t g = 0, t = 0, star = SIZE_MAX, mark = 0;

    while (t < text.len) {
        if (g < glob.len && glob.ptr[g] == '*') {
            star = g++;
            mark = t;
        } else if (g < glob.len && ascii_lower(glob.ptr[g]) == ascii_lower(text.ptr[t])) {
            g++;
            t++;
        } else if (star != SIZE_MAX) {
            /* Let the last star take one byte more. */
            g = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (g < glob.len && glob.ptr[g] == '*')
        g++;
    return g == glob.len;
}
