/* What workers say of mail that waits: of a lane for the screens, of a subject for `why`. Thread:
 * the lane's worker. */
#ifndef HAYAUMA_ENGINE_BACKEND_WAIT_H
#define HAYAUMA_ENGINE_BACKEND_WAIT_H

#include "control/control.h"
#include "schedule/lane_wait.h"

/* What holds lane's due mail; with source not empty: what keeps that source from taking it. */
void backend_wait(struct lane *lane, struct str source, struct control_wait *out);
/* Adds lane to why if it is mail of the subject, and none of control_why_has_lanes(). Returns what
 * that cost: see lane_wait_cost(). */
uint32_t backend_why(struct control_why *why, struct lane *lane);
/* Adds lane, which is mail of the subject and has so many rows. */
uint32_t backend_why_lane(struct control_why *why, struct lane *lane, uint64_t rows);

#endif
