/* `sendmail -bs`: the caller's stdin and stdout are its session of SMTP with the engine. Bytes pass
 * as they are, in both directions at a time. Thread: the caller's, which waits. */
#ifndef HAYAUMA_TOOLS_PASSAGE_H
#define HAYAUMA_TOOLS_PASSAGE_H

#include "tools/commands/endpoint.h"

/* Until the engine has closed the session, or nobody reads stdout any more. 0, or -errno when there
 * was no session: nothing was written then. */
int passage_run(const struct endpoint *to) MUST_USE;

#endif
