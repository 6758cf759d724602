/* Each reply of the real replies in rules_replies.txt is read by its rule and by no other, and each
 * shipped rule and wording has one there. */
#include "outcome/rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config/config_load.h"

#define REPLIES    TEST_SOURCE_DIR "/rules_replies.txt"
#define OTHERS_MIN 300 /* replies of other servers, which no rule matches */

/* As the reply would come over the wire. */
static struct smtp_reply parse(const char *line)
{
    struct smtp_reply_parser p = {0};
    char wire[1024];
    size_t used;

    snprintf(wire, sizeof(wire), "%s\r\n", line);
    smtp_reply_parser_reset(&p);
    if (smtp_reply_parse(&p, (const uint8_t *)wire, strlen(wire), &used) != SMTP_REPLY_DONE)
        fail_msg("no reply: %s", line);
    return p.reply;
}

/* A line of the file: who (and where, behind a colon), which rule or '-', the reply. */
struct row {
    char provider[32], rule[48];
    const char *host;
    enum smtp_stage stage;
    struct smtp_reply reply;
};

static bool read_row(FILE *f, struct row *row, char line[1024])
{
    static const struct {
        const char *word;
        enum smtp_stage stage;
    } stages[] = {{"mail", SMTP_STAGE_MAIL},
                  {"rcpt", SMTP_STAGE_RCPT},
                  {"message", SMTP_STAGE_BODY},
                  {"greeting", SMTP_STAGE_BANNER}};
    int at = 0;
    char *stage;

    do {
        if (fgets(line, 1024, f) == NULL)
            return false;
    } while (line[0] == '#' || line[0] == '\n');
    line[strcspn(line, "\n")] = 0;
    assert_int_equal(sscanf(line, "%31s %47s %n", row->provider, row->rule, &at), 2);
    stage = strchr(row->provider, ':');
    row->stage = SMTP_STAGE_MAIL;
    if (stage != NULL)
        *stage++ = 0;
    for (size_t i = 0; stage != NULL && i < ARRAY_LEN(stages); i++)
        if (strcmp(stage, stages[i].word) == 0)
            row->stage = stages[i].stage;
    row->host = strcmp(row->provider, "infosphere") == 0 ? "mx.sphere.ne.jp"
                : strcmp(row->provider, "daum") == 0     ? "mx1.hanmail.net"
                : strcmp(row->provider, "laposte") == 0  ? "smtpz4.laposte.net"
                : strcmp(row->provider, "free") == 0     ? "mx1.free.fr"
                                                         : "mx.example.net";
    row->reply = parse(line + at);
    return true;
}

static struct rule_question question(const struct row *row)
{
    return (struct rule_question){row->provider, row->host, row->stage, &row->reply};
}

/* --- the replies --- */

struct matches {
    const struct row *row;
    const char *line;
    unsigned other;
};

/* A rule without words takes what the rules in front of it, of the same code, do not. */
static void count_other(void *arg, const struct config_rule *rule)
{
    struct matches *m = arg;
    struct rule_question q = question(m->row);

    if (strcmp(rule->name, m->row->rule) == 0 || !rule_matches(rule, &q))
        return;
    if (rule->texts_len == 0 && strcmp(rule->name, "google-rate") == 0 &&
        strncmp(m->row->rule, "google-", 7) == 0)
        return;
    print_error("%s is matched by %s too\n", m->line, rule->name);
    m->other++;
}

static void test_replies(void **state)
{
    struct config *c = config_default();
    FILE *f = fopen(REPLIES, "r");
    unsigned wrong = 0, others = 0;
    struct row row;
    char line[1024];

    (void)state;
    assert_non_null(f);
    while (read_row(f, &row, line)) {
        struct matches m = {.row = &row, .line = line};
        struct rule_question q = question(&row);
        const struct config_rule *rule = rule_find(c, &q);
        const char *name = rule == NULL ? "-" : rule->name;

        if (strcmp(name, row.rule) != 0)
            print_error("%s: %s\n", name, line);
        wrong += strcmp(name, row.rule) != 0;
        config_rules_visit(c, count_other, &m);
        wrong += m.other;
        others += strcmp(row.provider, "default") == 0 && rule == NULL;
    }
    fclose(f);
    assert_int_equal(wrong, 0);
    assert_true(others >= OTHERS_MIN);
    config_unref(c);
}

struct wording {
    const struct config_rule *rule;
    const char *words; /* NULL: it has none */
    bool found;
};

static void look_for(struct wording *w)
{
    FILE *f = fopen(REPLIES, "r");
    struct row row;
    char line[1024], lower[SMTP_REPLY_TEXT_MAX];

    assert_non_null(f);
    while (!w->found && read_row(f, &row, line)) {
        for (size_t i = 0; i < row.reply.text_len; i++)
            lower[i] = ascii_lower(row.reply.text[i]);
        w->found = strcmp(row.rule, w->rule->name) == 0 &&
                   (w->words == NULL ||
                    rule_words_match(w->words, (struct str){lower, row.reply.text_len}));
    }
    fclose(f);
}

static void visit_wordings(void *arg, const struct config_rule *rule)
{
    unsigned *missing = arg;

    assert_non_null(rule->from);
    for (size_t i = 0; i < rule->texts_len || (i == 0 && rule->texts_len == 0); i++) {
        struct wording w = {rule, rule->texts_len == 0 ? NULL : rule->texts[i], false};

        look_for(&w);
        if (!w.found)
            print_error("%s: no reply for '%s'\n", rule->name, w.words == NULL ? "" : w.words);
        *missing += !w.found;
    }
}

/* A wording that no real reply has is a rule that may never match. */
static void test_each_wording_is_real(void **state)
{
    struct config *c = config_default();
    unsigned missing = 0;

    (void)state;
    config_rules_visit(c, visit_wordings, &missing);
    assert_int_equal(missing, 0);
    config_unref(c);
}

/* --- words --- */

static void test_words(void **state)
{
    static const struct {
        const char *words, *text;
        bool matches;
    } rows[] = {
        {"busy", "busy", true},
        {"busy", "too busy today", true},
        {"busy", "bus", false},
        {"busy", "", false},
        {"too * connections", "too many connections from you", true},
        {"too * connections", "connections: too many", false},
        {"a*b*c", "a-b-c", true},
        {"a*b*c", "a-c-b", false},
        {"aa*aa", "aaa", false}, /* pieces do not share bytes */
        {"aa*aa", "aaaa", true},
        {"^busy", "busy", true},
        {"^busy", "too busy", false},
        {"^a*b", "xab", false},
        {"^a*b", "acb", true},
        {"^: user unknown", "<a@b>: user unknown", false},
        {"**a", "a", true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rule_words_match(rows[i].words, str_of(rows[i].text)) != rows[i].matches)
            fail_msg("'%s' in '%s'", rows[i].words, rows[i].text);
}

/* --- order, stages, verdicts --- */

static struct config *config_of(const char *text)
{
    struct buf errors = {0};
    struct config *c = NULL;

    if (config_load_text("test.yaml", str_of(text), &c, &errors) != 0)
        fail_msg("%.*s", STR_FMT(buf_str(&errors)));
    return c;
}

static const char *found(const struct config *c, const char *provider, enum smtp_stage stage,
                         const char *line)
{
    struct smtp_reply reply = parse(line);
    struct rule_question q = {provider, "mx1.Example.NET.", stage, &reply};
    const struct config_rule *rule = rule_find(c, &q);

    return rule == NULL ? "-" : rule->name;
}

static void test_order(void **state)
{
    struct config *c = config_of("rules:\n"
                                 "  mine: {mx: [example.net], code: 4xx, text: [Busy], retry: 5m}\n"
                                 "  at-rcpt: {code: 550-553, stage: rcpt, alarm: yes}\n"
                                 "  google-source: {code: 421, enhanced: 4.7.28, suspend: 1h}\n"
                                 "  google-links: {enabled: no}\n");

    (void)state;
    assert_string_equal(found(c, "default", SMTP_STAGE_DATA, "450 4.1.1 too BUSY"), "mine");
    assert_string_equal(found(c, "default", SMTP_STAGE_DATA, "550 too busy"), "-");
    assert_string_equal(found(c, "default", SMTP_STAGE_RCPT, "552 no"), "at-rcpt");
    assert_string_equal(found(c, "default", SMTP_STAGE_RCPT, "554 no"), "-");
    assert_string_equal(found(c, "default", SMTP_STAGE_BODY, "552 no"), "-");
    assert_string_equal(found(c, "yahoo", SMTP_STAGE_RCPT, "421 4.7.28 your URL domains"),
                        "google-source");
    assert_string_equal(found(c, "default", SMTP_STAGE_AUTH, "421 4.7.28 no"), "-");
    assert_string_equal(found(c, "google", SMTP_STAGE_MAIL, "421 4.7.23 no"), "-");
    config_unref(c);
}

static struct verdict read_by(const struct config *c, enum smtp_stage stage, bool paused,
                              const char *line)
{
    struct smtp_reply reply = parse(line);
    struct rule_question q = {"default", NULL, stage, &reply};
    struct verdict v = classify(stage, SMTP_FATE_REPLY, SMTP_UNABLE_NONE, &reply);
    const struct config_rule *rule = rule_find(c, &q);

    assert_non_null(rule);
    rule_verdict(rule, stage, paused, &v);
    return v;
}

static void test_verdicts(void **state)
{
    struct config *c = config_of("rules:\n"
                                 "  later: {code: 550, text: [later], outcome: deferred}\n"
                                 "  never: {code: 4xx, text: [never], outcome: failed}\n"
                                 "  slow: {code: 4xx, text: [lentement], slow_down: yes}\n"
                                 "  pause: {code: 4xx, text: [pause], suspend: 5m}\n"
                                 "  one: {code: 4xx, text: [this mailbox], retry: 5m}\n"
                                 "  cap: {code: 4xx, text: [cap], rate: 60/min}\n"
                                 "  mail: {code: 4xx, text: [mine], rate: 60/min, scope: "
                                 "signing_domain}\n"
                                 "  look: {code: 4xx, text: [look], alarm: yes}\n");
    struct verdict v;

    (void)state;
    v = read_by(c, SMTP_STAGE_RCPT, false, "550 5.7.1 later, blacklisted");
    assert_int_equal(v.class, OUTCOME_DEFERRED);
    assert_int_equal(v.scope, FAULT_RECIPIENT);
    assert_false(v.slow_down);
    v = read_by(c, SMTP_STAGE_BODY, false, "452 4.3.1 never");
    assert_int_equal(v.class, OUTCOME_FAILED);
    assert_false(v.next_host);
    v = read_by(c, SMTP_STAGE_BANNER, false, "421 never");
    assert_int_equal(v.class, OUTCOME_DEFERRED); /* nobody's mail was refused */
    v = read_by(c, SMTP_STAGE_MAIL, false, "451 lentement");
    assert_true(v.slow_down);
    assert_int_equal(v.scope, FAULT_SITE);
    v = read_by(c, SMTP_STAGE_MAIL, true, "451 too fast, pause");
    assert_true(v.paused);
    assert_false(v.slow_down);
    assert_false(v.next_host);
    v = read_by(c, SMTP_STAGE_RCPT, false, "450 this mailbox gets mail too quickly");
    assert_false(v.slow_down); /* by its words it would */
    assert_int_equal(v.scope, FAULT_RECIPIENT);
    v = read_by(c, SMTP_STAGE_RCPT, false, "450 look, too fast");
    assert_true(v.slow_down);
    assert_false(v.lowered);
    v = read_by(c, SMTP_STAGE_RCPT, false, "450 cap, too fast");
    assert_true(v.lowered);
    assert_false(v.slow_down || v.next_host);
    assert_int_equal(v.scope, FAULT_SITE);
    v = read_by(c, SMTP_STAGE_RCPT, false, "450 mine, too fast");
    assert_false(v.lowered || v.slow_down); /* other mail goes on in the session */
    assert_int_equal(v.scope, FAULT_RECIPIENT);
    config_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_replies),
                                       cmocka_unit_test(test_each_wording_is_real),
                                       cmocka_unit_test(test_words), cmocka_unit_test(test_order),
                                       cmocka_unit_test(test_verdicts)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
