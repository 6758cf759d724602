/* Which rows of the queue a filter of control_request.h means. */
#include "base/assert.h"
#include "config/glob.h"
#include "control/control_request.h"

static const char *const state_names[] = {[CONTROL_STATE_ANY] = "any",
                                          [CONTROL_STATE_READY] = "ready",
                                          [CONTROL_STATE_DEFERRED] = "deferred",
                                          [CONTROL_STATE_HELD] = "held"};

enum control_state control_row_state(const struct queue_row_view *row, int64_t now_ms)
{
    if ((row->flags & RECIPIENT_HELD) != 0)
        return CONTROL_STATE_HELD;
    return row->due_ms <= now_ms ? CONTROL_STATE_READY : CONTROL_STATE_DEFERRED;
}

const char *control_state_name(enum control_state state)
{
    ASSERT((size_t)state < ARRAY_LEN(state_names));
    return state_names[state];
}

static bool contains_nocase(struct str text, struct str part)
{
    for (size_t i = 0; i + part.len <= text.len; i++)
        if (str_eq_nocase((struct str){text.ptr + i, part.len}, part))
            return true;
    return false;
}

static bool text_matches(struct str pattern, struct str text)
{
    return pattern.ptr == NULL || glob_match(pattern, text);
}

static bool address_matches(struct str pattern, struct str ascii, struct str address)
{
    return text_matches(pattern, address) || (ascii.ptr != NULL && glob_match(ascii, address));
}

bool control_filter_match(const struct control_filter *f, const struct queue_row_view *row,
                          int64_t now_ms)
{
    int64_t age_ms = now_ms - row->created_ms;

    /* Cheapest first. */
    if (f->has_id && memcmp(&f->id, &row->id, sizeof(row->id)) != 0)
        return false;
    if (row->attempts < f->attempts_min || row->attempts > f->attempts_max)
        return false;
    if (f->state != CONTROL_STATE_ANY && control_row_state(row, now_ms) != f->state)
        return false;
    if (f->age_min_ms != 0 && age_ms < f->age_min_ms)
        return false;
    if (f->age_max_ms != INT64_MAX && age_ms > f->age_max_ms)
        return false;
    return text_matches(f->queue, row->queue) &&
           address_matches(f->sender, f->sender_ascii, row->sender) &&
           address_matches(f->recipient, f->recipient_ascii, row->address) &&
           text_matches(f->campaign, row->campaign) && text_matches(f->tenant, row->tenant) &&
           (f->error.ptr == NULL || contains_nocase(row->last_error, f->error));
}

bool control_filter_needs_message(const struct control_filter *f)
{
    return f->sender.ptr != NULL || f->campaign.ptr != NULL || f->tenant.ptr != NULL ||
           f->age_min_ms != 0 || f->age_max_ms != INT64_MAX;
}

struct str control_filter_lane(const struct control_filter *f)
{
    if (f->queue.ptr == NULL)
        return (struct str){NULL, 0};
    /* Names are stored in lower case: another spelling is found by looking at all of them. */
    for (size_t i = 0; i < f->queue.len; i++)
        if (f->queue.ptr[i] == '*' || ascii_lower(f->queue.ptr[i]) != f->queue.ptr[i])
            return (struct str){NULL, 0};
    return f->queue;
}
