/* An operator who suspends and resumes mail, and the book of what is suspended: from the answer to
 * a suspension on no transaction with mail of its name begins. */
#ifndef HAYAUMA_TESTS_SIM_SUSPENDER_H
#define HAYAUMA_TESTS_SIM_SUSPENDER_H

#include "run/engine.h"

/* Orders something; jobs counts what is under way. */
void suspender_order(struct engine *e, uint32_t *jobs);
/* Resumes one, if something is suspended. */
void suspender_resume_one(struct engine *e, uint32_t *jobs);
/* Behind each change of the wall clock, and now and then: what has ended does not hold any more. */
void suspender_time(void);
/* The process died: answers to what was under way will not come. */
void suspender_killed(void);

#endif
