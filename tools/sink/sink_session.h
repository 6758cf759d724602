/* One SMTP or LMTP session of the sink: steps the server machine, asks the behaviour, delays
 * answers by a timer. Owned by its worker; dies in two phases (cancel, then free on the last
 * completion). */
#ifndef HAYAUMA_TOOLS_SINK_SESSION_H
#define HAYAUMA_TOOLS_SINK_SESSION_H

#include "tools/sink/sink_worker.h"

size_t sink_session_bytes(void);
/* Takes fd over; closes it when there is no room for another session. */
void sink_session_start(struct sink_worker *w, int fd);
/* Sends what this turn's steps have written; called when the ledger is out. */
void sink_session_flush_all(struct sink_worker *w);
/* Begins to close every session, without a word to the peers. */
void sink_session_abort_all(struct sink_worker *w);

#endif
