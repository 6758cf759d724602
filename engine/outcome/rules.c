#include "outcome/rules.h"

#include <string.h>

#include "base/assert.h"

/* A reply's text in lower case. */
struct lowered {
    char text[SMTP_REPLY_TEXT_MAX];
    size_t len;
};

static void lower(struct lowered *out, const struct smtp_reply *reply)
{
    out->len = reply->text_len < SMTP_REPLY_TEXT_MAX ? reply->text_len : SMTP_REPLY_TEXT_MAX;
    for (size_t i = 0; i < out->len; i++)
        out->text[i] = ascii_lower(reply->text[i]);
}

static uint8_t stage_bit(enum smtp_stage stage)
{
    switch (stage) {
    case SMTP_STAGE_CONNECT:
    case SMTP_STAGE_BANNER:
    case SMTP_STAGE_EHLO:
    case SMTP_STAGE_HELO:
        return CONFIG_RULE_GREETING;
    case SMTP_STAGE_MAIL:
        return CONFIG_RULE_MAIL;
    case SMTP_STAGE_RCPT:
        return CONFIG_RULE_RCPT;
    case SMTP_STAGE_DATA:
        return CONFIG_RULE_DATA;
    case SMTP_STAGE_BODY:
        return CONFIG_RULE_MESSAGE;
    case SMTP_STAGE_STARTTLS: /* about the session's encryption or our login, not about mail */
    case SMTP_STAGE_AUTH:
    case SMTP_STAGE_READY:
    case SMTP_STAGE_RSET:
    case SMTP_STAGE_QUIT:
    case SMTP_STAGES:
        break;
    }
    return 0;
}

bool rule_words_match(const char *words, struct str text)
{
    struct str rest = str_of(words);
    bool bound = rest.len > 0 && rest.ptr[0] == '^';

    if (bound)
        rest = (struct str){rest.ptr + 1, rest.len - 1};
    while (rest.len > 0) {
        struct str piece = str_take(&rest, '*');
        const char *at = memmem(text.ptr, text.len, piece.ptr, piece.len);

        if (at == NULL || (bound && at != text.ptr))
            return false;
        bound = false;
        text.len -= (size_t)(at - text.ptr) + piece.len;
        text.ptr = at + piece.len;
    }
    return true;
}

static bool words_match(const struct config_rule *r, const struct lowered *text)
{
    for (size_t i = 0; i < r->texts_len; i++)
        if (rule_words_match(r->texts[i], (struct str){text->text, text->len}))
            return true;
    return r->texts_len == 0;
}

/* All but the words. */
static bool codes_match(const struct config_rule *r, const struct rule_question *q)
{
    const struct smtp_enhanced *e = &q->reply->enhanced;

    return r->code_first <= q->reply->code && q->reply->code <= r->code_last &&
           (r->enhanced_class == 0 ||
            (r->enhanced_class == e->class && r->subject == e->subject &&
             r->detail_first <= e->detail && e->detail <= r->detail_last)) &&
           (r->stages & stage_bit(q->stage)) != 0 && config_rule_is_for(r, q->provider, q->host);
}

bool rule_matches(const struct config_rule *rule, const struct rule_question *q)
{
    struct lowered text;

    lower(&text, q->reply);
    return codes_match(rule, q) && words_match(rule, &text);
}

const struct config_rule *rule_find(const struct config *c, const struct rule_question *q)
{
    size_t len;
    const struct config_rule *const *rules = config_rules_of(c, q->reply->code, &len);
    struct lowered text;
    bool lowered = false;

    for (size_t i = 0; i < len; i++) {
        if (!codes_match(rules[i], q))
            continue;
        if (!lowered && rules[i]->texts_len > 0)
            lower(&text, q->reply);
        lowered = lowered || rules[i]->texts_len > 0;
        if (rules[i]->texts_len == 0 || words_match(rules[i], &text))
            return rules[i];
    }
    return NULL;
}

bool rule_reply_parse(struct str text, struct smtp_reply_parser *out)
{
    struct buf wire = {0};
    size_t used;
    bool ok;

    buf_printf(&wire, "%.*s\r\n", STR_FMT(text));
    *out = (struct smtp_reply_parser){0};
    smtp_reply_parser_reset(out);
    ok = smtp_reply_parse(out, wire.data, wire.len, &used) == SMTP_REPLY_DONE;
    buf_done(&wire);
    return ok && out->reply.code >= 400;
}

const struct config_rule *rule_of_text(const struct config *c, const char *provider,
                                       const char *host, struct str text)
{
    static const enum smtp_stage stages[] = {SMTP_STAGE_BANNER, SMTP_STAGE_MAIL, SMTP_STAGE_RCPT,
                                             SMTP_STAGE_DATA, SMTP_STAGE_BODY};
    const struct config_rule *found = NULL;
    struct smtp_reply_parser parser;

    if (!rule_reply_parse(text, &parser))
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(stages); i++) {
        const struct rule_question q = {provider, host, stages[i], &parser.reply};
        const struct config_rule *rule = rule_find(c, &q);

        if (rule != NULL && found != NULL && rule != found)
            return NULL;
        found = rule != NULL ? rule : found;
    }
    return found;
}

/* A rule that lowers limits of mail, and not of sources, ends no session. */
static bool is_of_sources(enum config_rule_scope scope)
{
    return scope == CONFIG_RULE_SOURCE || scope == CONFIG_RULE_NETBLOCK ||
           scope == CONFIG_RULE_SITE || scope == CONFIG_RULE_DOMAIN ||
           scope == CONFIG_RULE_SOURCE_AND_DOMAINS;
}

void rule_verdict(const struct config_rule *rule, enum smtp_stage stage, bool paused,
                  struct verdict *v)
{
    bool before_mail = stage <= SMTP_STAGE_READY;

    /* A rule that only names the reply, or raises an alarm, leaves what the reply's words ask for.
     */
    if (rule->outcome == CONFIG_RULE_AS_SAID && rule->suspend_s == 0 && rule->retry_s == 0 &&
        !rule->slow_down && !config_rule_lowers(rule) && rule->pool == NULL)
        return;
    if (rule->outcome == CONFIG_RULE_DEFERRED && v->class == OUTCOME_FAILED)
        v->class = OUTCOME_DEFERRED;
    if (rule->outcome == CONFIG_RULE_FAILED && v->class == OUTCOME_DEFERRED && !before_mail) {
        v->class = OUTCOME_FAILED;
        v->too_many = false;
        v->next_host = false;
    }
    v->slow_down = rule->slow_down;
    v->paused = paused;
    v->lowered = config_rule_lowers(rule) && is_of_sources(rule->scope);
    if (rule->slow_down || paused || v->lowered) {
        v->scope = FAULT_SITE;
        v->next_host = false; /* the other exchangers are of the same house */
        v->too_many = false;  /* not of this transaction: a smaller one hears the same */
    } else if (v->scope == FAULT_SITE) {
        v->scope = before_mail                ? FAULT_HOST
                   : stage == SMTP_STAGE_RCPT ? FAULT_RECIPIENT
                                              : FAULT_MESSAGE;
    }
}
