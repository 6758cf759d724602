/* The keys that sign mail, read from the files that the configuration names (`dkim.keys`), and
 * whose keys sign what. A keyring belongs to its configuration and lives as long; it never changes,
 * so any thread may use it. */
#ifndef HAYAUMA_ENGINE_KEYRING_H
#define HAYAUMA_ENGINE_KEYRING_H

#include "config/config.h"
#include "mail/dkim.h"

#define KEYRING_FILE_BYTES_MAX 16384

/* Reads the keys of c->dkim into c->keyring, which stays NULL when there are none. Not for a
 * worker: it reads files. 0, or -EINVAL with a line in errors for each mistake. */
int keyring_open(struct config *c, struct buf *errors) MUST_USE;

/* Whether there is a key of just this domain, which is in lower case. NULL k: there is none. */
bool keyring_has(const struct keyring *k, struct str domain);
/* Who signs content, RSA first: the chosen domain, where it has a key; else its author's domain or
 * the nearest above it that signs for it, or the default; and the platform. 0: nobody. */
size_t keyring_signers(const struct keyring *k, struct str chosen, const uint8_t *content,
                       size_t len, struct dkim_signer out[DKIM_SIGNERS_MAX]);
/* The domain of the chosen or the author's signature (the default's, where the author's domain has
 * no key; of the platform's, where there is no other), in lower case; empty: nobody signs. It lives
 * as long as k. */
struct str keyring_signing_domain(const struct keyring *k, struct str chosen,
                                  const uint8_t *content, size_t len);
/* The domain that signs all mail beside its author's, in lower case; empty: none does. */
struct str keyring_platform(const struct keyring *k);
const struct dkim_options *keyring_options(const struct keyring *k);

/* The keys in the order of the configuration, for tools. */
size_t keyring_len(const struct keyring *k);
const struct dkim_signer *keyring_at(const struct keyring *k, size_t i);

#endif
