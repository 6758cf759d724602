/* Logging in at a next hop by what does not show the password: SCRAM-SHA-256, bound to the
 * session's TLS where the server offers that, and CRAM-MD5. Answers are computed here, those that
 * take CPU in the crew. Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_LOGIN_H
#define HAYAUMA_ENGINE_LOGIN_H

#include "smtp/client.h"

struct delivery;

/* Whether a login of the session, whose handshake is complete, can be bound to it. */
bool login_binds(const struct delivery *d);
/* SMTP_EVENT_AUTH: the client is answered, now or later; delivery_logged_on() follows then. */
void login_step(struct delivery *d, const struct smtp_event *event);
/* The session ends, or goes on to another address. */
void login_forget(struct delivery *d);

#endif
