/* A control request: its line into a struct, and its filter against rows. Pure. */
#ifndef HAYAUMA_ENGINE_CONTROL_REQUEST_H
#define HAYAUMA_ENGINE_CONTROL_REQUEST_H

#include "control/control.h"
#include "queue/queue.h"

enum control_op {
    CONTROL_OP_STATUS,
    CONTROL_OP_LIST,
    CONTROL_OP_COUNT,
    CONTROL_OP_SUMMARY,
    CONTROL_OP_SHOW,
    CONTROL_OP_CONTENT,
    CONTROL_OP_STORED,
    CONTROL_OP_ACTION,
    CONTROL_OP_QUARANTINE,
    CONTROL_OP_PURGE,
    CONTROL_OP_SUSPEND,
    CONTROL_OP_RESUME,
    CONTROL_OP_SUSPENSIONS,
    CONTROL_OP_WHY,
    CONTROL_OP_ROUTE,
    CONTROL_OP_TRACE,
    CONTROL_OP_SITES,
    CONTROL_OP_WARMUP,
    CONTROL_OP_WARMUP_DAYS,
    CONTROL_OP_WARMUP_ORDER,
    CONTROL_OP_CAMPAIGNS,
    CONTROL_OP_CAMPAIGN_REPORT,
    CONTROL_OP_CAMPAIGN_ORDER,
    CONTROL_OP_SUPPRESSIONS,
    CONTROL_OP_SUPPRESSION_ADD,
    CONTROL_OP_SUPPRESSION_REMOVE,
    CONTROL_OP_RELOAD,
    CONTROL_OP_DRAIN,
    CONTROL_OP_VERSION
};

enum control_state {
    CONTROL_STATE_ANY,
    CONTROL_STATE_READY,
    CONTROL_STATE_DEFERRED,
    CONTROL_STATE_HELD
};

/* ptr NULL = not asked for; "" is a value (the null sender). */
struct control_filter {
    struct str queue, sender, recipient, campaign, tenant, error;
    struct str sender_ascii,
        recipient_ascii; /* with the domain by its A-labels, where it differs */
    struct str record;   /* of quarantine and purge, which have only this, queue and id */
    bool has_id;
    struct msgid id;
    enum control_state state;
    int64_t age_min_ms, age_max_ms; /* max: INT64_MAX = any */
    uint64_t attempts_min, attempts_max;
};

struct control_request {
    enum control_op op;
    enum admin_action action;
    struct control_filter filter;
    bool filtered; /* the filter has members */
    bool all;
    bool data;       /* quarantine: with the bytes; list: with variables of letters */
    struct msgid id; /* of show, content, stored and why */
    uint64_t limit;  /* 0 = none */
    uint32_t destinations;
    struct suspension
        suspension; /* of suspend and resume: scope, name, reason, who; of why: name, scope */
    int64_t for_ms; /* suspend, trace: 0 = until that is ended */
    /* Of route; ptr NULL: not said. */
    struct {
        struct str recipient, sender, pool, campaign, tenant;
        bool engaged;
    } route;
    struct dialogue_filter trace; /* of trace */
    struct warmup_order warmup;   /* of warm-up: source and provider; the order */
    bool has_order;
    struct {
        enum campaign_verb verb;
        int64_t at_ms;         /* of a start: wall clock; 0: now */
        bool open;             /* of a start */
        struct str pool, rate; /* of "set"; ptr NULL: not said */
        uint64_t priority;     /* the same: and 1; 0: not said */
    } campaign;                /* of campaign_order */
    struct {
        struct str tenant; /* ptr NULL: not said: of suppressions all tenants, else everybody */
        struct str email;  /* of suppressions: that alone; ptr NULL: not said */
        const struct json_t *entries; /* of the others: suppress_list_read() */
    } suppress;
    uint64_t days; /* of warmup_days: so far back */
    void *json;    /* what the slices point into; private */
};

/* What is wrong with a request. */
struct control_refusal {
    const char *code;
    char message[240];
    char hint[160]; /* may be empty */
};

/* 0, or -EINVAL with why. On success call control_request_done(). */
int control_request_parse(struct str line, struct control_request *out,
                          struct control_refusal *why) MUST_USE;
void control_request_done(struct control_request *r);

/* --- control_filter.c --- */

enum control_state control_row_state(const struct queue_row_view *row, int64_t now_ms);
const char *control_state_name(enum control_state state);
bool control_filter_match(const struct control_filter *f, const struct queue_row_view *row,
                          int64_t now_ms);
/* Whether it needs what is stored with the message. */
bool control_filter_needs_message(const struct control_filter *f);
/* The one lane it can match, or an empty slice. */
struct str control_filter_lane(const struct control_filter *f);

#endif
