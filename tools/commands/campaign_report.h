/* A campaign's report, as text for a terminal and as a page. */
#ifndef HAYAUMA_TOOLS_CAMPAIGN_REPORT_H
#define HAYAUMA_TOOLS_CAMPAIGN_REPORT_H

#include "tools/commands/campaign_figures.h"

/* Appends text of at most columns (at least 60) a line. */
void campaign_report_text(struct buf *out, const struct figures *f, unsigned columns);
/* Appends one HTML page that needs nothing else: plots are SVG in it, it has no script and loads
 * nothing. It is well-formed XML, too. now_s: when it is made. */
void campaign_report_page(struct buf *out, const struct figures *f, int64_t now_s);
/* Appends the campaign's tags, with commas between. */
void campaign_put_tags(struct buf *out, const json_t *campaign);
/* Its style sheet. */
extern const char campaign_page_style[];

#endif
