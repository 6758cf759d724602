/* AUTH of an intake session: the password is checked by the crew, a few at a time, while the
 * session waits (its machine takes no step until the answer). Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_INJECT_LOGIN_H
#define HAYAUMA_ENGINE_INJECT_LOGIN_H

#include "intake/inject_message.h"

/* Of a worker: checks in the crew at once, which leaves the crew to other work; sessions that wait
 * for them to end. Beyond that AUTH gets 454. */
#define LOGIN_CHECKS_MAX  2
#define LOGIN_WAITING_MAX 128

/* The machine asked SMTP_SERVER_AUTH: it is answered, now or later. */
void inject_login(struct inject *s);
/* Whether an answer is to come. */
bool inject_login_pending(const struct inject *s);
/* The session is encrypted from here on: logins can be bound to that. */
void inject_login_secured(struct inject *s);
/* The session ends. */
void inject_login_forget(struct inject *s);
/* Nobody is logged in any more. */
void inject_logout(struct inject *s);
/* Who is logged in, or tries to be (AUTH is at hand), for records of a refusal: only a name that
 * exists, since who types a password in its place should not find it there. Else NULL. */
const char *inject_login_name(const struct inject *s, bool tries);
/* As whom the session's client may send. */
struct config_sender_rule inject_sender_rule(const struct inject *s);
/* Why MAIL of that sender is refused, or NULL. */
const char *inject_sender_refusal(struct inject *s, const struct smtp_address *sender);
#endif
