/* XCLIENT in the server (Postfix's XCLIENT_README): a proxy says whose commands follow. Whether it
 * may is the caller's to say. */
#include "smtp/server_command.h"

#define VALUE_BYTES_MAX 255

/* What else a proxy knows is checked for its form, and nothing is made of it: the EHLO that follows
 * says name and protocol. LOGIN is no attribute here: who logs in does it himself. */
#define NOTHING SIZE_MAX

static const struct attribute {
    struct str name;
    size_t at; /* in struct smtp_xclient, or NOTHING */
} attributes[] = {
    {{"ADDR", 4}, offsetof(struct smtp_xclient, address)},
    {{"PORT", 4}, offsetof(struct smtp_xclient, port)},
    {{"NAME", 4}, NOTHING},
    {{"HELO", 4}, NOTHING},
    {{"PROTO", 5}, NOTHING},
    {{"DESTADDR", 8}, NOTHING},
    {{"DESTPORT", 8}, NOTHING},
};
_Static_assert(ARRAY_LEN(attributes) <= 32, "a bit for each");

/* token: NAME=xtext. False: it is none that is known, or was there before. */
static bool attribute_take(struct smtp_xclient *x, struct str token, uint32_t *seen)
{
    struct str name = str_take(&token, '=');
    char decoded[VALUE_BYTES_MAX];

    for (size_t i = 0; i < ARRAY_LEN(attributes); i++) {
        const struct attribute *a = &attributes[i];

        if (!str_eq_nocase(name, a->name))
            continue;
        if ((*seen & 1u << i) != 0 || token.len == 0 ||
            smtp_xtext_decode(token, decoded, sizeof(decoded)) <= 0)
            return false;
        *seen |= 1u << i;
        if (a->at != NOTHING)
            memcpy((char *)x + a->at, &token, sizeof(token));
        return true;
    }
    return false;
}

enum smtp_server_want server_xclient(struct smtp_server *s, struct str args, struct buf *out)
{
    uint32_t seen = 0;

    s->xclient = (struct smtp_xclient){0};
    if (s->state > SERVER_READY) {
        server_refuse(s, out, "503 5.5.1 a transaction is open");
        return SMTP_SERVER_INPUT;
    }
    while (args.len > 0) {
        struct str token = str_take(&args, ' ');

        if (token.len > 0 && !attribute_take(&s->xclient, token, &seen)) {
            server_refuse(s, out, "501 5.5.4 bad attribute of XCLIENT");
            return SMTP_SERVER_INPUT;
        }
    }
    if (seen == 0) {
        server_refuse(s, out, "501 5.5.4 syntax: XCLIENT NAME=value ...");
        return SMTP_SERVER_INPUT;
    }
    return SMTP_SERVER_XCLIENT;
}
