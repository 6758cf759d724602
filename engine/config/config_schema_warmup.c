/* The schema of `warmup`. */
#include "config/config_schema_row.h"

#define AT(member)          .offset = offsetof(struct config, warmup.member)
#define LEN_AT(member)      .offset2 = offsetof(struct config, warmup.member)
#define AT_SOURCE(member)   .offset = offsetof(struct config_warmup_source, member)
#define AT_PROVIDER(member) .offset = offsetof(struct config_warmup_provider, member)
#define PERCENT             100 /* in hundredths */

static const struct config_field schedule_fields[] = {
    {"steps", CONFIG_COUNT_LIST, .required = true,
     .offset = offsetof(struct config_warmup_schedule, steps),
     .offset2 = offsetof(struct config_warmup_schedule, steps_len), RANGE(1, 1000000000),
     .example = "[100, 180, 320, 550, 1000]",
     .doc = "Recipients a day for each provider, stage by stage, each more than the one before. "
            "Behind the last stage there is no cap. A step to twice as much or more gets a "
            "warning: Google limits senders that double their volume at once."},
};
static const struct config_items schedule_items = {
    .bytes = sizeof(struct config_warmup_schedule),
    .key = CONFIG_KEY_NAME,
    .key_offset = offsetof(struct config_warmup_schedule, name),
    .key_word = "NAME",
    .write = "\"mine: {steps: [100, 180, 320]}\""};
static const struct config_section schedule_schema = {
    .doc = "Schedules of your own, by name. Built in are `standard` (31 stages, 200 to 5M a day, "
           "each 1.4 times the one before), `cautious` (55 stages, 50 to 1M, 1.2 times) and `fast` "
           "(15 stages, 500 to 8M, 2 times: for addresses in a range that is known already).",
    .fields = schedule_fields,
    .len = ARRAY_LEN(schedule_fields)};

static const struct config_field source_fields[] = {
    {"schedule", CONFIG_TEXT, AT_SOURCE(schedule), .def = "standard", .example = "cautious",
     .doc = "The schedule that it follows."},
    {"from", CONFIG_DATE, AT_SOURCE(from), .def = "first mail", RANGE(0, 80000),
     .zero = "first mail", .example = "2026-12-01",
     .doc = "The sending day on which its first stage begins; before it nothing of it is sent. "
            "`first mail`: the day of its first mail, for each provider."},
    {"mode", CONFIG_CHOICE, AT_SOURCE(mode), .def = "earned", .choices = "earned, calendar",
     .doc = "`earned`: a stage ends when most of its cap was used and the answers were good. "
            "`calendar`: a stage ends with its day, whatever happened."},
    {"promote", CONFIG_BOOL, AT_SOURCE(promote), .def = "yes",
     .doc = "'no' freezes it at its stages."},
};
static const struct config_items source_items = {.bytes = sizeof(struct config_warmup_source),
                                                 .key = CONFIG_KEY_NAME,
                                                 .key_offset =
                                                     offsetof(struct config_warmup_source, name),
                                                 .key_word = "SOURCE",
                                                 .write = "\"mx-new: {schedule: standard}\""};
static const struct config_section source_schema = {
    .doc =
        "Which sources are being warmed up, by name. A source that is not named here has no cap.",
    .fields = source_fields,
    .len = ARRAY_LEN(source_fields)};

static const struct config_items signer_items = {
    .bytes = sizeof(struct config_warmup_source),
    .key = CONFIG_KEY_NAME,
    .key_offset = offsetof(struct config_warmup_source, name),
    .key_word = "DOMAIN",
    .write = "\"news.example.com: {schedule: standard}\""};
static const struct config_section signer_schema = {
    .doc =
        "Which signing domains (`d=` of the author's signature) are being warmed up, whichever "
        "source sends their mail. What exceeds a cap waits. The domain needs a key in `dkim.keys`.",
    .fields = source_fields,
    .len = ARRAY_LEN(source_fields)};
static const struct config_items campaign_items = {.bytes = sizeof(struct config_warmup_source),
                                                   .key = CONFIG_KEY_NAME,
                                                   .key_offset =
                                                       offsetof(struct config_warmup_source, name),
                                                   .key_word = "CAMPAIGN",
                                                   .write = "\"spring: {schedule: fast}\""};
static const struct config_section campaign_schema = {
    .doc = "Which campaigns are being warmed up, as one whose letters have a new format, whichever "
           "source sends their mail. What exceeds a cap waits.",
    .fields = source_fields,
    .len = ARRAY_LEN(source_fields)};

#define SHARE(name_, member, doc_)                                                                 \
    {                                                                                              \
        name_, CONFIG_HUNDREDTHS, AT_PROVIDER(member), .def = "0", RANGE(0, 100 * PERCENT),        \
                                                       .zero = "as for all", .doc = (doc_)         \
    }
static const struct config_field provider_fields[] = {
    {"pace", CONFIG_PERCENT, AT_PROVIDER(pace), .def = "0", RANGE(0, 100), .zero = "as shipped",
     .doc = "Its part of each cap. Shipped: 50% for `microsoft`, 100% for all others."},
    {"top_of_hour", CONFIG_SECONDS, AT_PROVIDER(top_of_hour_s), .def = "0", RANGE(0, 1800),
     .zero = "as shipped",
     .doc = "Nothing is sent for so long at the top of each hour, when everybody sends. Shipped: "
            "2m for `docomo`, `au`, `softbank`, `ymobile` and `apple`, nothing for all others."},
    {"promote", CONFIG_BOOL, AT_PROVIDER(promote), .def = "yes",
     .doc = "'no' freezes all at their stages there."},
    SHARE("hold_deferred", hold[CONFIG_WARMUP_DEFERRED], "As `warmup.hold_deferred`."),
    SHARE("hold_bounced", hold[CONFIG_WARMUP_BOUNCED], "As `warmup.hold_bounced`."),
    SHARE("hold_complained", hold[CONFIG_WARMUP_COMPLAINED], "As `warmup.hold_complained`."),
    SHARE("fall_deferred", fall[CONFIG_WARMUP_DEFERRED], "As `warmup.fall_deferred`."),
    SHARE("fall_bounced", fall[CONFIG_WARMUP_BOUNCED], "As `warmup.fall_bounced`."),
    SHARE("fall_complained", fall[CONFIG_WARMUP_COMPLAINED], "As `warmup.fall_complained`."),
};
#undef SHARE
static const struct config_items provider_items = {
    .bytes = sizeof(struct config_warmup_provider),
    .key = CONFIG_KEY_NAME,
    .key_offset = offsetof(struct config_warmup_provider, name),
    .key_word = "PROVIDER",
    .write = "\"microsoft: {pace: 50%}\""};
static const struct config_section provider_schema = {
    .doc = "What differs at a provider, by its name: one that is shipped (`hayauma warmup "
           "providers` lists them), one of your own in `providers`, or `default`, which is what "
           "serves all other domains.",
    .fields = provider_fields,
    .len = ARRAY_LEN(provider_fields)};

static const struct config_field fields[] = {
    {"time_zone", CONFIG_ZONE, AT(time_zone), .def = "UTC", .example = "Asia/Tokyo",
     .doc = "Where sending days and hours are told. A day of 23 or 25 hours, when clocks change, "
            "has the same cap in as many hours."},
    {"day_hour", CONFIG_COUNT, AT(day_hour), .def = "0", RANGE(0, 23),
     .doc = "The hour at which a sending day begins."},
    {"quiet_hours", CONFIG_HOURS, AT(quiet_hours), .def = "none", RANGE(0, 0xFFFFFF),
     .zero = "none", .example = "22-7",
     .doc =
         "Hours in which what is being warmed up sends nothing; the day's cap goes to the others."},
    {"advance_used", CONFIG_PERCENT, AT(advance_used), .def = "90%", RANGE(1, 100),
     .doc = "A stage ends with a day in which so much of its cap was used."},
    {"hold_deferred", CONFIG_HUNDREDTHS, AT(hold[CONFIG_WARMUP_DEFERRED]), .def = "0.5%",
     RANGE(1, 100 * PERCENT),
     .doc = "A stage stays when so many attempts of a day at the provider were deferred (4xx), at "
            "least three."},
    {"hold_bounced", CONFIG_HUNDREDTHS, AT(hold[CONFIG_WARMUP_BOUNCED]), .def = "3%",
     RANGE(1, 100 * PERCENT), .doc = "The same of what the provider refused for good (5xx)."},
    {"hold_complained", CONFIG_HUNDREDTHS, AT(hold[CONFIG_WARMUP_COMPLAINED]), .def = "0.1%",
     RANGE(1, 100 * PERCENT),
     .doc = "The same of complaints, in parts of what was delivered; `hayauma feedback` tells the "
            "engine of them. Google wants less than 0.1%."},
    {"fall_deferred", CONFIG_HUNDREDTHS, AT(fall[CONFIG_WARMUP_DEFERRED]), .def = "10%",
     RANGE(1, 100 * PERCENT), .doc = "From so many on it goes back `fall_stages`."},
    {"fall_bounced", CONFIG_HUNDREDTHS, AT(fall[CONFIG_WARMUP_BOUNCED]), .def = "10%",
     RANGE(1, 100 * PERCENT), .doc = "The same of what was refused for good."},
    {"fall_complained", CONFIG_HUNDREDTHS, AT(fall[CONFIG_WARMUP_COMPLAINED]), .def = "0.3%",
     RANGE(1, 100 * PERCENT), .doc = "The same of complaints. Google wants never 0.3%."},
    {"fall_stages", CONFIG_COUNT, AT(fall_stages), .def = "2", RANGE(1, 100),
     .doc = "How many stages it goes back behind a bad day."},
    {"rewarm_after", CONFIG_SECONDS, AT(rewarm_after_s), .def = "14d", RANGE(0, 3650 * DAY_S),
     .zero = "never",
     .doc = "A source that sent nothing to a provider for so long goes on at half of its stage; "
            "for twice as long, at the first. What had no cap any more gets one again."},
    {"schedules", CONFIG_MAP, AT(schedules), LEN_AT(schedules_len), .section = &schedule_schema,
     .items = &schedule_items},
    {"sources", CONFIG_MAP, AT(sources), LEN_AT(sources_len), .section = &source_schema,
     .items = &source_items},
    {"signing_domains", CONFIG_MAP, AT(signers), LEN_AT(signers_len), .section = &signer_schema,
     .items = &signer_items},
    {"campaigns", CONFIG_MAP, AT(campaigns), LEN_AT(campaigns_len), .section = &campaign_schema,
     .items = &campaign_items},
    {"providers", CONFIG_MAP, AT(providers), LEN_AT(providers_len), .section = &provider_schema,
     .items = &provider_items},
};

const struct config_section config_warmup_schema = {
    .doc = "New sources earn their volume: each may send so much a day to each provider, more from "
           "stage to stage (see Warm-up in the manual). So may signing domains and campaigns. A "
           "cap counts recipients, is spread over the hours of the day, and is never exceeded.",
    .example =
        "sources:\n  mx-new: {ipv4: 192.0.2.11}\nwarmup:\n  time_zone: Asia/Tokyo\n  quiet_hours: "
        "22-7\n  sources:\n    mx-new: {schedule: standard, from: 2026-12-01}\n  providers:\n    "
        "microsoft: {pace: 50%}\n    docomo: {top_of_hour: 5m}\n",
    .fields = fields,
    .len = ARRAY_LEN(fields)};
