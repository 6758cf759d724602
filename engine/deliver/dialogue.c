#include "deliver/dialogue.h"

#include <stdio.h>

#include "deliver/transaction.h"
#include "worker/shared.h"

#define CODE_BYTES 3 /* of a reply */

static bool carries(const void *of, const struct msgid *message)
{
    return transactions_carry(of, message);
}

static void line_put(const struct delivery *d, bool from_us, struct str text)
{
    const struct dialogue_session who = {.id = d->id,
                                         .peer = d->dial.peer_addr,
                                         .site = str_of(d->site->name),
                                         .source = str_of(d->channel->source->name),
                                         .carries = carries,
                                         .of = d};

    dialogues_put(&d->worker->shared->dialogues, &who, worker_wall_ms(d->worker), from_us, text);
}

static void put_content(const struct delivery *d, size_t bytes)
{
    char text[48];
    int n = snprintf(text, sizeof(text), "[%zu bytes of content]", bytes);

    if (bytes > 0)
        line_put(d, true, (struct str){text, (size_t)n});
}

void dialogue_said(const struct delivery *d, size_t pieces)
{
    size_t content = 0;

    if (!dialogues_watched(&d->worker->shared->dialogues))
        return;
    if (smtp_client_stage(d->client) == SMTP_STAGE_AUTH) {
        line_put(d, true, STR("[login]"));
        return;
    }
    for (size_t i = 0; i < pieces; i++) {
        struct str said = smtp_client_said(d->client, &d->iov[i]);

        if (said.len == 0) {
            content += d->iov[i].iov_len;
            continue;
        }
        put_content(d, content);
        content = 0;
        line_put(d, true, said);
    }
    put_content(d, content);
}

void dialogue_heard(const struct delivery *d, const uint8_t *bytes, size_t len)
{
    if (!dialogues_watched(&d->worker->shared->dialogues))
        return;
    /* Who knows what a server says of a password. */
    if (smtp_client_stage(d->client) == SMTP_STAGE_AUTH && len > CODE_BYTES)
        len = CODE_BYTES;
    line_put(d, false, (struct str){(const char *)bytes, len});
}
