/* What may be changed of a campaign that runs: see campaign.h. */
#include <errno.h>

#include "config/config_value.h"
#include "intake/campaign.h"

int campaign_set_rate(struct campaign_order *order, struct str text)
{
    struct campaign_set *set = &order->set;

    set->rate = 0;
    set->rate_period_ms = 0;
    order->sets_rate = true;
    if (str_eq(text, STR("none")))
        return 0;
    return config_parse_rate(text, &set->rate, &set->rate_period_ms) < 0 || set->rate == 0 ? -EINVAL
                                                                                           : 0;
}

/* What is set to what it was made with is no change. */
void campaign_set_apply(struct campaign *one, const struct campaign_order *order)
{
    const struct campaign_set *to = &order->set;

    if (order->sets_priority)
        one->set.priority = to->priority == one->priority + 1 ? 0 : to->priority;
    if (order->sets_pool) {
        one->set.has_pool = strcmp(to->pool, one->pool) != 0;
        strcpy(one->set.pool, one->set.has_pool ? to->pool : "");
    }
    if (order->sets_rate) {
        one->set.rate = to->rate;
        one->set.rate_period_ms = to->rate_period_ms;
    }
}
