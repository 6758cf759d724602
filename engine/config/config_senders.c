/* Who may send as whom: what users, networks and listeners say of it, and which of them decides. */
#include <errno.h>

#include "config/config_private.h"
#include "config/config_value.h"
#include "smtp/address.h"

#define NULL_SENDER "<>"

/* --- patterns --- */

/* "a@example.com" with its domain in A-labels and lower case. NULL: it is none. */
static char *normal_address(struct config *c, struct str text, struct buf *why)
{
    struct smtp_address address;
    struct buf whole = {0};
    char *domain, *out;

    if (smtp_address_parse(text, true, &address) < 0) {
        buf_printf(why, "'%.*s' is no address%s", STR_FMT(text),
                   text.len > 0 && text.ptr[0] == '@' ? "; a domain stands without @" : "");
        return NULL;
    }
    domain = config_pattern_normal(c, address.domain, false, why);
    if (domain == NULL)
        return NULL;
    buf_put_str(&whole, address.local_part);
    buf_putc(&whole, '@');
    buf_puts(&whole, domain);
    out = config_dup(c, buf_str(&whole));
    buf_done(&whole);
    return out;
}

int config_set_sender(struct config *c, struct str text, char **out, struct buf *why)
{
    char *sender;

    if (str_eq(text, STR(NULL_SENDER)))
        sender = config_dup(c, text);
    else if (str_find(text, '@') >= 0)
        sender = normal_address(c, text, why);
    else
        sender = config_pattern_normal(c, text, false, why);
    if (sender == NULL)
        return -EINVAL;
    *out = sender;
    return 0;
}

/* "example.com", "*.example.com" or "*", as config_pattern_normal() gives them. */
static bool domain_matches(struct str pattern, struct str domain)
{
    if (str_eq(pattern, STR("*")))
        return true;
    if (pattern.ptr[0] != '*')
        return str_eq_nocase(pattern, domain);
    pattern = (struct str){pattern.ptr + 1, pattern.len - 1}; /* ".example.com" */
    return domain.len > pattern.len &&
           str_eq_nocase(pattern, (struct str){domain.ptr + domain.len - pattern.len, pattern.len});
}

static bool sender_matches(struct str pattern, struct str local_part, struct str domain)
{
    bool is_null = str_eq(pattern, STR(NULL_SENDER));
    ptrdiff_t at = str_rfind(pattern, '@');

    if (is_null || domain.len == 0)
        return is_null && domain.len == 0 && local_part.len == 0;
    if (at < 0)
        return domain_matches(pattern, domain);
    return str_eq_nocase((struct str){pattern.ptr, (size_t)at}, local_part) &&
           str_eq_nocase((struct str){pattern.ptr + at + 1, pattern.len - (size_t)at - 1}, domain);
}

static bool any_matches(char *const *patterns, size_t len, struct str local_part, struct str domain)
{
    for (size_t i = 0; i < len; i++)
        if (sender_matches(str_of(patterns[i]), local_part, domain))
            return true;
    return len == 0;
}

bool config_may_send(const struct config_senders *s, struct str local_part, struct str domain)
{
    return any_matches(s->envelope, s->envelope_len, local_part, domain);
}

bool config_may_write(const struct config_senders *s, struct str local_part, struct str domain)
{
    return s->from_len > 0 ? any_matches(s->from, s->from_len, local_part, domain)
                           : any_matches(s->envelope, s->envelope_len, local_part, domain);
}

/* --- which rule holds --- */

static bool says(const struct config_senders *s)
{
    return s->envelope_len > 0 || s->from_len > 0;
}

/* The narrowest network of the listener that has the client and says anything. */
static const struct config_client *network_that_says(const struct config_listener *l,
                                                     const struct sockaddr *client)
{
    const struct config_client *found = NULL;

    for (size_t i = 0; i < l->clients_len; i++) {
        const struct config_client *c = &l->clients[i];

        if (says(&c->senders) && (found == NULL || c->network.prefix > found->network.prefix) &&
            config_network_match(&c->network, 1, client))
            found = c;
    }
    return found;
}

struct config_sender_rule config_sender_rule(const struct config *c,
                                             const struct config_sender_question *q)
{
    const struct config_share *tenant = q->tenant.len == 0 ? NULL : config_tenant(c, q->tenant);
    const struct config_client *network;

    if (q->user != NULL && says(&q->user->senders))
        return (struct config_sender_rule){.senders = &q->user->senders, .user = q->user};
    if (tenant != NULL && says(&tenant->senders))
        return (struct config_sender_rule){.senders = &tenant->senders, .tenant = tenant};
    if (q->listener == NULL)
        return (struct config_sender_rule){.senders = NULL};
    network = network_that_says(q->listener, q->client);
    if (network != NULL)
        return (struct config_sender_rule){.senders = &network->senders, .network = network};
    if (says(&q->listener->senders))
        return (struct config_sender_rule){.senders = &q->listener->senders,
                                           .listener = q->listener};
    return (struct config_sender_rule){.senders = NULL};
}

void config_put_sender_rule(const struct config_sender_rule *r, struct buf *out)
{
    ASSERT(r->senders != NULL);
    if (r->user != NULL) {
        buf_printf(out, "user %s", r->user->name);
    } else if (r->tenant != NULL) {
        buf_printf(out, "tenant %s", r->tenant->name);
    } else if (r->network != NULL) {
        buf_puts(out, "network ");
        config_format_network(out, &r->network->network);
    } else {
        buf_printf(out, "listener %s",
                   r->listener->name != NULL ? r->listener->name : r->listener->address.text);
    }
}
