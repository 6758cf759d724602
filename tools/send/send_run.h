/* The run of `hayauma send`: one message, or a copy for each recipient, through SMTP sessions, with
 * what is deferred or was not sent tried again. One thread; lives as long as the command. */
#ifndef HAYAUMA_TOOLS_SEND_RUN_H
#define HAYAUMA_TOOLS_SEND_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "io/io.h"
#include "tools/send/send_list.h"
#include "tools/send/send_message.h"
#include "tools/send/submit.h"

#define SEND_TROUBLE_BYTES 700

struct send {
    const char *eml_file, *to_file, *csv_file, *column, *from;
    struct send_parts parts;
    struct submit_options submit_options;
    uint32_t batch;
    uint8_t notify; /* enum smtp_dsn_notify bits, of each recipient */
    enum smtp_ret ret;
    const char *envid; /* or NULL */
    bool quiet, json;

    struct send_list list;
    struct send_message message;
    char *sender;
    struct str id_domain;
    struct msgid_source ids;

    struct io *io;
    struct submit *submit;
    struct list idle;
    size_t next;       /* first recipient not yet tried */
    struct buf again;  /* struct send_again, oldest first */
    size_t again_at;   /* of its bytes */
    uint8_t *attempts; /* per recipient */
    size_t accepted, refused, messages, under_way;
    size_t temporary; /* of refused: by 4xx, or without an answer */
    uint64_t started_ns, ended_ns, progress_ns;
    char trouble[SEND_TROUBLE_BYTES];
    bool progress, progress_shown;
};

/* Whether somebody pressed ^C. */
bool send_interrupted(void);
/* Ends the progress line, if there is one. */
void send_clear_progress(struct send *c);
/* Sends to the whole list; 0 or -errno. What came of it is in the counters. */
int send_run(struct send *c) MUST_USE;
void send_done(struct send *c);

#endif
