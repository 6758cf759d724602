/* systemd's notification protocol (sd_notify(3)): state and watchdog, one datagram each. Does
 * nothing when the process was not started by systemd. Main thread. */
#ifndef HAYAUMA_ENGINE_NOTIFY_H
#define HAYAUMA_ENGINE_NOTIFY_H

#include <stdint.h>

/* state: "READY=1", "STOPPING=1", "STATUS=...", "WATCHDOG=1". */
void notify_state(const char *state);
/* With the time, which Type=notify-reload asks for; "READY=1" ends it. */
void notify_reloading(void);
/* How often WATCHDOG=1 is due, in ms: half of what systemd asked for; 0: not at all. */
uint64_t notify_watchdog_ms(void);

#endif
