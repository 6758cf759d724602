/* AUTH of an intake session: the password is checked by the crew, a few at a time, while the
 * session waits (its machine takes no step until the answer). Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_INJECT_LOGIN_H
#define HAYAUMA_ENGINE_INJECT_LOGIN_H

#include "intake/inject_message.h"

/* How many checks of a worker are with the crew at once, so that the crew has time for other work;
 * and how many sessions may wait for theirs. Beyond that AUTH gets 454. */
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
/* The user who is logged in or (tries) about to be, for the record of a refusal. Only a name that
 * exists: somebody may type a password in its place, which no record should have. Else NULL. */
const char *inject_login_name(const struct inject *s, bool tries);
/* Which senders the session's client may have. */
struct config_sender_rule inject_sender_rule(const struct inject *s);
/* Why MAIL of that sender is refused, or NULL. */
const char *inject_sender_refusal(struct inject *s, const struct smtp_address *sender);
#endif
