/* hayauma rules: which rules read refusals, and which of them would read a given one. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/suggest.h"
#include "config/config_value.h"
#include "outcome/classify.h"
#include "outcome/rules.h"
#include "tools/commands/commands.h"

static const char help_text[] =
    "usage: hayauma rules [options]           all of them, in their order\n"
    "       hayauma rules 'REPLY' [options]   the one that reads such a reply\n"
    "\n"
    "Those of the configuration come first, then those that come with Hayauma. No\n"
    "engine is needed.\n"
    "\n"
    "  -c, --config FILE       default: " CONFIG_FILE ",\n"
    "                          or no file if there is none\n"
    "      --provider NAME     REPLY is of this provider ('hayauma warmup providers')\n"
    "      --mx HOST           REPLY is of this exchanger\n"
    "      --stage STAGE       and to: greeting, mail, rcpt, data, message (rcpt)\n"
    "      --json              one object a line\n"
    "  -h, --help              this text\n"
    "\n"
    "Examples:\n"
    "  hayauma rules\n"
    "  hayauma rules '421 4.7.28 unusual rate of email' --provider google\n"
    "  hayauma rules '550 Unknown user a@docomo.ne.jp' \\\n"
    "      --mx mfsmax.docomo.ne.jp --stage message\n"
    "\n"
    "Exit codes: 0 done, 1 no rule reads the reply, 2 wrong usage.\n";

enum { OPT_PROVIDER = 300, OPT_MX, OPT_STAGE, OPT_JSON };

static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                      {"provider", required_argument, NULL, OPT_PROVIDER},
                                      {"mx", required_argument, NULL, OPT_MX},
                                      {"stage", required_argument, NULL, OPT_STAGE},
                                      {"json", no_argument, NULL, OPT_JSON},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

struct options {
    const char *file, *provider, *host, *reply;
    enum smtp_stage stage;
    bool json;
};

static const struct {
    const char *word;
    enum smtp_stage stage;
} stages[] = {{"greeting", SMTP_STAGE_BANNER},
              {"mail", SMTP_STAGE_MAIL},
              {"rcpt", SMTP_STAGE_RCPT},
              {"data", SMTP_STAGE_DATA},
              {"message", SMTP_STAGE_BODY}};

/* --- printing --- */

static void put_list(struct buf *out, char *const *list, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, "%s%s", i == 0 ? "" : "|", list[i]);
}

/* "google 421 4.7.28 \"your url domains\"". */
static void put_sign(const struct config_rule *r, struct buf *out)
{
    put_list(out, r->providers, r->providers_len);
    put_list(out, r->mx, r->mx_len);
    if (out->len == 0)
        buf_puts(out, "any");
    if (r->stages != CONFIG_RULE_ANYWHERE)
        buf_printf(out, " %s", r->stage_word);
    if (r->code_word != NULL)
        buf_printf(out, " %s", r->code_word);
    if (r->enhanced_word != NULL)
        buf_printf(out, " %s", r->enhanced_word);
    if (r->texts_len > 0) {
        buf_puts(out, " \"");
        put_list(out, r->texts, r->texts_len);
        buf_putc(out, '"');
    }
}

static const char *scope_name(enum config_rule_scope scope)
{
    static const char *const names[] = {[CONFIG_RULE_SOURCE] = "source",
                                        [CONFIG_RULE_SITE] = "site",
                                        [CONFIG_RULE_CAMPAIGN] = "campaign",
                                        [CONFIG_RULE_TENANT] = "tenant",
                                        [CONFIG_RULE_DOMAIN] = "domain",
                                        [CONFIG_RULE_NETBLOCK] = "netblock",
                                        [CONFIG_RULE_SIGNER] = "signing domain",
                                        [CONFIG_RULE_ENVELOPE] = "envelope domain",
                                        [CONFIG_RULE_SOURCE_AND_DOMAINS] = "source and domains"};

    ASSERT((size_t)scope < ARRAY_LEN(names));
    return names[scope];
}

static void put_lowers(const struct config_rule *r, struct buf *out)
{
    if (r->rate_messages != 0) {
        buf_puts(out, ", rate ");
        config_format_rate(out, r->rate_messages, r->rate_period_ms);
    }
    if (r->sessions_max != 0)
        buf_printf(out, ", sessions_max %u", r->sessions_max);
    if (r->session_messages_max != 0)
        buf_printf(out, ", session_messages_max %u", r->session_messages_max);
    if (config_rule_lowers(r)) {
        buf_puts(out, " for ");
        config_format_duration(out, (uint64_t)r->lowered_s * 1000);
        if (r->scope != CONFIG_RULE_SOURCE)
            buf_printf(out, " of the %s", scope_name(r->scope));
    }
}

static void put_action(const struct config_rule *r, struct buf *out)
{
    if (r->outcome != CONFIG_RULE_AS_SAID)
        buf_printf(out, ", %s", r->outcome_word);
    if (r->suspend_s != 0) {
        buf_printf(out, ", suspend %s ", scope_name(r->scope));
        config_format_duration(out, (uint64_t)r->suspend_s * 1000);
    }
    if (r->slow_down)
        buf_puts(out, ", slow down");
    put_lowers(r, out);
    if (r->retry_s != 0) {
        buf_puts(out, ", retry in ");
        config_format_duration(out, (uint64_t)r->retry_s * 1000);
    }
    if (r->pool != NULL)
        buf_printf(out, ", pool %s", r->pool);
    if (r->alarm)
        buf_puts(out, ", alarm");
    if (r->after > 1) {
        buf_printf(out, " after %u within ", r->after);
        config_format_duration(out, (uint64_t)r->within_s * 1000);
    }
    if (r->no_suppression)
        buf_puts(out, ", no suppression");
    if (r->classification != NULL)
        buf_printf(out, ", %s", r->classification);
}

static void print_rule(void *arg, const struct config_rule *r)
{
    const struct options *o = arg;
    struct buf sign = {0}, action = {0}, line = {0};
    struct str does;

    put_sign(r, &sign);
    put_action(r, &action);
    does = (struct str){(const char *)action.data + 2, action.len - 2};
    if (o->json) {
        buf_puts(&line, "{\"rule\":");
        buf_put_json(&line, str_of(r->name));
        buf_puts(&line, ",\"matches\":");
        buf_put_json(&line, buf_str(&sign));
        buf_puts(&line, ",\"does\":");
        buf_put_json(&line, does);
        buf_puts(&line, ",\"from\":");
        buf_put_json(&line, str_of(r->from != NULL ? r->from : "configuration"));
        buf_puts(&line, "}\n");
    } else {
        buf_printf(&line, "%-26s %.*s\n%-26s %.*s\n", r->name, STR_FMT(buf_str(&sign)), "",
                   STR_FMT(does));
        if (o->reply != NULL)
            buf_printf(&line, "%-26s from %s\n", "",
                       r->from != NULL ? r->from : "the configuration");
    }
    fwrite(line.data, 1, line.len, stdout);
    buf_done(&sign);
    buf_done(&action);
    buf_done(&line);
}

/* --- reading --- */

struct ask_provider {
    const struct config *config;
    struct rule_question question;
    struct buf found;
};

static void ask_provider(void *arg, const char *name, const char *mx)
{
    struct ask_provider *ask = arg;
    const struct config_rule *rule;

    (void)mx;
    ask->question.provider = name;
    rule = rule_find(ask->config, &ask->question);
    if (rule != NULL)
        buf_printf(&ask->found, "%s%s (%s)", ask->found.len > 0 ? ", " : "", name, rule->name);
}

/* What follows where no rule reads a reply. */
static void print_by_code(enum smtp_stage stage, const struct smtp_reply *reply)
{
    struct verdict v = classify(stage, SMTP_FATE_REPLY, SMTP_UNABLE_NONE, reply);
    const struct outcome outcome = {.class = v.class, .stage = stage, .reply = *reply};

    printf("without a rule: %s%s%s; %s\n",
           v.class == OUTCOME_FAILED ? "the recipient bounces" : "the recipient is tried again",
           v.too_many ? ", at once where others were taken" : "",
           v.slow_down ? ", and less is sent there" : "", classify_bounce(&outcome));
}

/* Most rules are for one provider: of whom the reply would be read. */
static void print_unread(const struct config *c, const struct options *o,
                         const struct rule_question *q)
{
    struct ask_provider ask = {.config = c, .question = *q};

    if (o->provider == NULL && o->host == NULL)
        config_providers_visit(c, ask_provider, &ask);
    if (ask.found.len == 0)
        fputs("no rule reads it\n", stderr);
    else
        fprintf(stderr,
                "no rule reads it from a host of no known provider; --provider or --mx says whose "
                "it is. Rules read it from: %.*s\n",
                STR_FMT(buf_str(&ask.found)));
    if (!o->json)
        print_by_code(o->stage, q->reply);
    buf_done(&ask.found);
}

static void offer_provider(void *arg, const char *name, const char *mx)
{
    (void)mx;
    suggest_offer(arg, name);
}

static int no_provider(const struct config *c, const char *name)
{
    struct suggest s;

    suggest_init(&s, str_of(name));
    config_providers_visit(c, offer_provider, &s);
    fprintf(stderr, "hayauma rules: there is no provider '%s'; ", name);
    if (s.best != NULL)
        fprintf(stderr, "did you mean '%s'?\n", s.best);
    else
        fputs("'hayauma warmup providers' lists them\n", stderr);
    return EXIT_USAGE;
}

static int read_reply(const struct config *c, const struct options *o)
{
    struct smtp_reply_parser parser = {0};
    struct rule_question q = {.host = o->host, .stage = o->stage, .reply = &parser.reply};
    const struct config_rule *rule;

    if (o->provider != NULL && strcmp(o->provider, "default") != 0 &&
        config_provider_find(c, str_of(o->provider)) == NULL)
        return no_provider(c, o->provider);

    if (!rule_reply_parse(str_of(o->reply), &parser)) {
        fprintf(stderr, "hayauma rules: '%s' is no refusal; write '421 4.7.28 text'\n", o->reply);
        return EXIT_USAGE;
    }
    q.provider = o->provider != NULL
                     ? o->provider
                     : config_provider_of(c, o->host != NULL ? str_of(o->host) : STR(""));
    rule = rule_find(c, &q);
    if (rule == NULL) {
        print_unread(c, o, &q);
        return EXIT_FAILED;
    }
    print_rule((void *)(uintptr_t)o, rule);
    return EXIT_OK;
}

static struct config *load(const struct options *o)
{
    struct config *c = NULL;
    struct buf errors = {0};

    if (o->file == NULL && access(CONFIG_FILE, R_OK) != 0)
        return config_default();
    if (config_load_file(o->file != NULL ? o->file : CONFIG_FILE, &c, &errors) != 0)
        fwrite(errors.data, 1, errors.len, stderr);
    buf_done(&errors);
    return c;
}

static int usage_error(const char *what)
{
    fprintf(stderr, "hayauma rules: %s\n'hayauma rules --help' shows the options.\n", what);
    return EXIT_USAGE;
}

static int take_stage(struct options *o)
{
    for (size_t i = 0; i < ARRAY_LEN(stages); i++) {
        if (strcmp(stages[i].word, optarg) != 0)
            continue;
        o->stage = stages[i].stage;
        return 0;
    }
    return usage_error("--stage is greeting, mail, rcpt, data or message");
}

/* 0; -1: --help. */
static int options_parse(struct options *o, int argc, char **argv)
{
    int c, code = 0;

    while (code == 0 && (c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->file = optarg;
            break;
        case OPT_PROVIDER:
            o->provider = optarg;
            break;
        case OPT_MX:
            o->host = optarg;
            break;
        case OPT_STAGE:
            code = take_stage(o);
            break;
        case OPT_JSON:
            o->json = true;
            break;
        case 'h':
            return -1;
        default:
            fputs("'hayauma rules --help' shows the options.\n", stderr);
            return EXIT_USAGE;
        }
    }
    if (code == 0 && argc - optind > 1)
        return usage_error("one REPLY, in quotes");
    o->reply = optind < argc ? argv[optind] : NULL;
    return code;
}

int cmd_rules(int argc, char **argv)
{
    struct options o = {.stage = SMTP_STAGE_RCPT};
    int code = options_parse(&o, argc, argv);
    struct config *c;

    if (code < 0) {
        fputs(help_text, stdout);
        return EXIT_OK;
    }
    if (code != 0)
        return code;
    c = load(&o);
    if (c == NULL)
        return EXIT_FAILED;
    if (o.reply != NULL)
        code = read_reply(c, &o);
    else
        config_rules_visit(c, print_rule, &o);
    config_unref(c);
    return code;
}
