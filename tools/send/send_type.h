/* The media type of an attachment by the end of its name, from a table of our own: what a system's
 * database says differs from one to the next, and a minimal system has none. Pure. */
#ifndef HAYAUMA_TOOLS_SEND_TYPE_H
#define HAYAUMA_TOOLS_SEND_TYPE_H

/* "image/png"; "application/octet-stream" where the name tells nothing. */
const char *send_type_of(const char *file_name);

#endif
