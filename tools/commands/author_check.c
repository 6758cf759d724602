#include "tools/commands/author_check.h"

#include <stdio.h>

#include <jansson.h>

#include "config/config.h"
#include "dns/txt.h"
#include "mail/author.h"
#include "tools/commands/dkim_record.h"
#include "worker/keyring.h"
#include "worker/letter_marks.h"
#include "worker/queue_name.h"

int author_check_open(const char *file, struct config **out, struct buf *errors)
{
    int err = config_load(file, out, errors);

    if (err == 0)
        err = keyring_open(*out, errors);
    if (err < 0) {
        config_unref(*out);
        *out = NULL;
    }
    return err;
}

/* Whether receivers take a signature of domain for one of the author's (RFC 7489 3.1.1): it is the
 * author's domain, or one above it. */
static bool is_of(const struct dns_name *author, struct str domain)
{
    struct str name = {author->text, author->len};
    size_t above = name.len > domain.len ? name.len - domain.len : 0;

    return domain.len > 0 && name.len >= domain.len &&
           str_eq_nocase((struct str){name.ptr + above, domain.len}, domain) &&
           (above == 0 || name.ptr[above - 1] == '.');
}

/* Why receivers do not find the key of s, or NULL. */
static const char *why_not_found(const struct config *c, const struct dkim_signer *s,
                                 const char *name)
{
    enum dkim_record_fault fault = DKIM_RECORD_GOOD;
    const char *error = NULL, *why = NULL;
    struct buf records = {0};

    switch (dns_txt((const char *const *)c->dns.servers, c->dns.servers_len, c->dns.timeout_ms,
                    c->dns.tries, name, &records, &error)) {
    case DNS_ANSWER_RECORDS:
        fault = dkim_record_check(str_of((char *)records.data), s->key);
        why = fault == DKIM_RECORD_GOOD ? NULL : dkim_record_fault_text(fault);
        break;
    case DNS_ANSWER_NO_DATA:
    case DNS_ANSWER_NO_DOMAIN:
        why = "not in DNS";
        break;
    case DNS_ANSWER_FAILED:
        why = error;
        break;
    }
    buf_done(&records);
    return why;
}

static uint64_t check_records(const struct config *c, const struct dkim_signer *s, struct buf *out)
{
    char name[2 * DNS_NAME_MAX];
    const char *why;

    snprintf(name, sizeof(name), "%s._domainkey.%s", s->selector, s->domain);
    why = why_not_found(c, s, name);
    if (why != NULL)
        buf_printf(out, "From: the DKIM key %s: %s; 'hayauma dkim check' says what to publish\n",
                   name, why);
    return why != NULL;
}

uint64_t author_check(const struct config *c, struct str dkim_domain, const struct buf *letter,
                      struct buf *out)
{
    struct dkim_signer signers[DKIM_SIGNERS_MAX];
    struct dns_name author, chosen = {0};
    uint64_t found = 0;
    bool own = false;
    size_t n;

    if (!author_domain(letter->data, letter->len, &author)) {
        buf_puts(out, "From: names no author with a domain\n");
        return 1;
    }
    if (dkim_domain.len > 0 && (queue_name_of(dkim_domain, &chosen) < 0 ||
                                !keyring_has(c->keyring, (struct str){chosen.text, chosen.len}))) {
        buf_printf(out, "dkim_domain: no key of dkim.keys is of %.*s: the engine refuses it\n",
                   STR_FMT(dkim_domain));
        return 1;
    }
    n = c->keyring == NULL ? 0
                           : keyring_signers(c->keyring, (struct str){chosen.text, chosen.len},
                                             letter->data, letter->len, signers);
    for (size_t i = 0; i < n; i++) {
        own |= is_of(&author, str_of(signers[i].domain));
        found += check_records(c, &signers[i], out);
    }
    if (own)
        return found;
    buf_printf(out, "From: %s has no DKIM key (dkim.keys): letters go out %s\n", author.text,
               n == 0 ? "without a signature" : "with another domain's signature alone");
    return found + 1;
}

static struct str text_of(const json_t *root, const char *member)
{
    const char *text = json_string_value(json_object_get(root, member));

    return text == NULL ? STR("") : str_of(text);
}

bool author_unsubscribes(const struct config *c, const json_t *root)
{
    struct str name = text_of(root, "name"), tenant = text_of(root, "tenant");
    struct campaign what = {0};
    struct recipe_marks marks;
    struct buf feedback_id = {0};

    snprintf(what.name, sizeof(what.name), "%.*s", STR_FMT(name));
    snprintf(what.tenant, sizeof(what.tenant), "%.*s", STR_FMT(tenant));
    marks = letter_marks_choose(c, &what, text_of(root, "envelope_sender"), &feedback_id);
    buf_done(&feedback_id);
    return marks.unsubscribe.len > 0 || marks.unsubscribe_mailto.len > 0;
}
