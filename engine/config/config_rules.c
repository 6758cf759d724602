/* Rules: their words read, those of the file checked, all indexed by code. */
#include <stdarg.h>
#include <stdio.h>

#include "base/suggest.h"
#include "config/config_private.h"
#include "config/config_walk.h"

#define CODE_FIRST 400
#define CODE_LAST  599
#define LOWERED_S  600
#define TEXT_MAX   500 /* of a reply: SMTP_REPLY_TEXT_MAX */

/* --- words --- */

static bool take_number(struct str *s, unsigned max, uint16_t *out)
{
    unsigned v = 0;
    size_t n = 0;

    while (n < s->len && n < 4 && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        v = v * 10 + (unsigned)(s->ptr[n++] - '0');
    *s = (struct str){s->ptr + n, s->len - n};
    *out = (uint16_t)v;
    return n > 0 && v <= max;
}

static bool take_char(struct str *s, char c)
{
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    *s = (struct str){s->ptr + 1, s->len - 1};
    return true;
}

/* "421", "550-554", "4xx". */
static bool read_code(const char *word, uint16_t *first, uint16_t *last)
{
    struct str s = str_of(word);

    *first = CODE_FIRST;
    *last = CODE_LAST;
    if (word == NULL)
        return true;
    if (s.len == 3 && str_eq_nocase((struct str){s.ptr + 1, 2}, STR("xx"))) {
        *first = (uint16_t)((s.ptr[0] - '0') * 100);
        *last = (uint16_t)(*first + 99);
        return s.ptr[0] >= '2' && s.ptr[0] <= '5';
    }
    if (!take_number(&s, 999, first))
        return false;
    *last = *first;
    if (take_char(&s, '-') && !take_number(&s, 999, last))
        return false;
    return s.len == 0;
}

/* "4.7.28", "5.7.606-649". */
static bool read_enhanced(const char *word, struct config_rule *r)
{
    struct str s = str_of(word);

    r->enhanced_class = r->subject = r->detail_first = r->detail_last = 0;
    if (word == NULL)
        return true;
    if (!take_number(&s, 9, &r->enhanced_class) || !take_char(&s, '.') ||
        !take_number(&s, 999, &r->subject) || !take_char(&s, '.') ||
        !take_number(&s, 999, &r->detail_first))
        return false;
    r->detail_last = r->detail_first;
    if (take_char(&s, '-') && !take_number(&s, 999, &r->detail_last))
        return false;
    return s.len == 0;
}

static int word_at(const char *word, const char *const *words, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (word != NULL && strcmp(word, words[i]) == 0)
            return (int)i;
    return 0; /* of a shipped rule: left out */
}

static const char *const stage_words[] = {"any", "greeting", "mail", "rcpt", "data", "message"};
static const char *const outcome_words[] = {"said", "deferred", "failed"};
static const char *const scope_words[] = {"source",
                                          "site",
                                          "campaign",
                                          "tenant",
                                          "domain",
                                          "netblock",
                                          "signing_domain",
                                          "envelope_domain",
                                          "source_and_domains"};

static void read_words(struct config *c, struct config_rule *r)
{
    int stage = word_at(r->stage_word, stage_words, ARRAY_LEN(stage_words));
    char **texts = config_alloc(c, (r->texts_len + 1) * sizeof(*texts));

    r->stages = stage == 0 ? CONFIG_RULE_ANYWHERE : (uint8_t)(1 << (stage - 1));
    r->outcome =
        (enum config_rule_outcome)word_at(r->outcome_word, outcome_words, ARRAY_LEN(outcome_words));
    r->scope = (enum config_rule_scope)word_at(r->scope_word, scope_words, ARRAY_LEN(scope_words));
    if (r->after == 0)
        r->after = 1;
    if (r->lowered_s == 0) /* of a shipped rule: left out */
        r->lowered_s = LOWERED_S;
    for (size_t i = 0; i < r->texts_len; i++) {
        texts[i] = config_dup(c, str_of(r->texts[i]));
        for (char *at = texts[i]; *at != 0; at++)
            *at = ascii_lower(*at);
    }
    r->texts = texts;
}

static bool read_codes(struct config_rule *r)
{
    return read_code(r->code_word, &r->code_first, &r->code_last) &&
           read_enhanced(r->enhanced_word, r);
}

/* --- the index --- */

static const struct config_rule *file_rule(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->rules_len; i++)
        if (strcmp(c->rules[i].name, name) == 0)
            return &c->rules[i];
    return NULL;
}

static void add_rule(struct config *c, struct config_rule *r)
{
    struct config_owner *owner = (struct config_owner *)c;

    read_words(c, r);
    ASSERT(r->code_first <= 999 && r->code_last <= 999);
    ASSERT(owner->rules_len < c->rules_len + config_rules_shipped_len);
    if (!r->disabled)
        owner->rules[owner->rules_len++] = r;
}

static bool is_of(const struct config_rule *r, unsigned code)
{
    return r->code_first <= code && code <= r->code_last &&
           (r->enhanced_class == 0 || r->enhanced_class == code / 100);
}

static void index_codes(struct config *c)
{
    struct config_owner *owner = (struct config_owner *)c;

    owner->rules_of = config_alloc(c, (CODE_LAST - CODE_FIRST + 1) * sizeof(*owner->rules_of));
    for (unsigned code = CODE_FIRST; code <= CODE_LAST; code++) {
        struct config_rules_of_code *of = &owner->rules_of[code - CODE_FIRST];

        for (size_t i = 0; i < owner->rules_len; i++)
            of->len += is_of(owner->rules[i], code);
        of->list = config_alloc(c, (of->len + 1) * sizeof(const struct config_rule *));
        for (size_t i = 0, n = 0; i < owner->rules_len; i++)
            if (is_of(owner->rules[i], code))
                of->list[n++] = owner->rules[i];
    }
}

void config_finish_rules(struct config *c)
{
    struct config_owner *owner = (struct config_owner *)c;
    struct config_rule *shipped =
        config_alloc(c, config_rules_shipped_len * sizeof(*config_rules_shipped));

    owner->rules = config_alloc(c, (c->rules_len + config_rules_shipped_len) *
                                       sizeof(const struct config_rule *));
    owner->rules_len = 0;
    for (size_t i = 0; i < c->rules_len; i++) {
        if (read_codes(&c->rules[i])) /* else config_rules_check() complains */
            add_rule(c, &c->rules[i]);
    }
    for (size_t i = 0; i < config_rules_shipped_len; i++) {
        bool ok;

        shipped[i] = config_rules_shipped[i];
        ok = read_codes(&shipped[i]);
        ASSERT(ok);
        if (file_rule(c, shipped[i].name) == NULL)
            add_rule(c, &shipped[i]);
    }
    index_codes(c);
}

const struct config_rule *const *config_rules_of(const struct config *c, uint16_t code, size_t *len)
{
    const struct config_owner *owner = (const struct config_owner *)c;
    const struct config_rules_of_code *of;

    *len = 0;
    if (code < CODE_FIRST || code > CODE_LAST)
        return NULL;
    ASSERT(owner->rules_of != NULL); /* config_finish_rules() was here */
    of = &owner->rules_of[code - CODE_FIRST];
    *len = of->len;
    return of->list;
}

void config_rules_visit(const struct config *c,
                        void (*visit)(void *arg, const struct config_rule *rule), void *arg)
{
    const struct config_owner *owner = (const struct config_owner *)c;

    for (size_t i = 0; i < owner->rules_len; i++)
        visit(arg, owner->rules[i]);
}

/* At the border of a label. The final dot of a name says nothing. */
static bool host_ends_in(struct str host, struct str suffix)
{
    struct str tail;

    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    if (suffix.len > 0 && suffix.ptr[suffix.len - 1] == '.')
        suffix.len--;
    if (suffix.len == 0 || host.len < suffix.len)
        return false;
    tail = (struct str){host.ptr + host.len - suffix.len, suffix.len};
    return str_eq_nocase(tail, suffix) && (tail.ptr == host.ptr || tail.ptr[-1] == '.');
}

bool config_rule_is_for(const struct config_rule *r, const char *provider, const char *host)
{
    bool known = r->providers_len == 0, named = r->mx_len == 0;

    for (size_t i = 0; i < r->providers_len && !known; i++)
        known = strcmp(r->providers[i], provider) == 0;
    for (size_t i = 0; i < r->mx_len && !named && known && host != NULL; i++)
        named = host_ends_in(str_of(host), str_of(r->mx[i]));
    return known && named;
}

/* --- mistakes --- */

struct checked {
    struct config_loader *l;
    struct config_rule *rule;
};

static void complain(const struct checked *k, const char *member, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* At the line of the member, or of the rule (""). */
static void complain(const struct checked *k, const char *member, const char *fmt, ...)
{
    const struct config *c = k->l->c;
    unsigned line =
        *member == '\0' ? 0 : config_line_of(c, k->rule, config_key(&config_rule_schema, member));
    char text[512];
    va_list args;

    if (line == 0)
        line = config_line_of(c, k->rule, config_key(&config_schema, "rules"));
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    config_complain(k->l, (struct config_place){(int)line, 1}, "rules.%s: %s", k->rule->name, text);
}

/* A shipped rule is taken out: nothing else is said. */
static bool is_taken_out(const struct checked *k)
{
    struct suggest near;

    if (!k->rule->disabled)
        return false;
    suggest_init(&near, str_of(k->rule->name));
    for (size_t i = 0; i < config_rules_shipped_len; i++) {
        if (strcmp(config_rules_shipped[i].name, k->rule->name) == 0)
            return true;
        suggest_offer(&near, config_rules_shipped[i].name);
    }
    complain(k, "enabled", "no rule of this name is shipped; %s%s%s",
             near.best != NULL ? "did you mean '" : "'hayauma rules' lists them",
             near.best != NULL ? near.best : "", near.best != NULL ? "'?" : "");
    return true;
}

static void check_codes(const struct checked *k)
{
    struct config_rule *r = k->rule;

    if (!read_code(r->code_word, &r->code_first, &r->code_last))
        complain(k, "code", "'%s' is no code; write 421, 550-554 or 4xx", r->code_word);
    else if (r->code_first > r->code_last || r->code_last < CODE_FIRST || r->code_first > CODE_LAST)
        complain(k, "code", "'%s' matches nothing: refusals have codes from 400 to 599",
                 r->code_word);
    if (!read_enhanced(r->enhanced_word, r))
        complain(k, "enhanced", "'%s' is no enhanced code; write 4.7.28 or 5.7.606-649",
                 r->enhanced_word);
    else if (r->enhanced_word != NULL &&
             ((r->enhanced_class != 4 && r->enhanced_class != 5) ||
              r->detail_first > r->detail_last || r->code_first / 100 > r->enhanced_class ||
              r->code_last / 100 < r->enhanced_class))
        complain(k, "enhanced",
                 "'%s' matches nothing: refusals have 4.x.x with codes of 4xx, and 5.x.x with 5xx",
                 r->enhanced_word);
}

struct provider_search {
    const char *name;
    struct suggest near;
    bool found;
};

static void look_at_provider(void *arg, const char *name, const char *mx)
{
    struct provider_search *s = arg;

    (void)mx;
    s->found = s->found || strcmp(s->name, name) == 0;
    suggest_offer(&s->near, name);
}

static void check_where(const struct checked *k)
{
    const struct config_rule *r = k->rule;

    for (size_t i = 0; i < r->providers_len; i++) {
        struct provider_search s = {.name = r->providers[i]};

        suggest_init(&s.near, str_of(s.name));
        config_providers_visit(k->l->c, look_at_provider, &s);
        if (!s.found)
            complain(k, "provider", "there is no provider '%s'; %s%s%s", s.name,
                     s.near.best != NULL ? "did you mean '"
                                         : "'hayauma warmup providers' lists them",
                     s.near.best != NULL ? s.near.best : "", s.near.best != NULL ? "'?" : "");
    }
    for (size_t i = 0; i < r->mx_len; i++) {
        struct str mx = str_of(r->mx[i]);

        if (mx.len > 0 && mx.ptr[mx.len - 1] == '.')
            mx.len--;
        if (!config_host_name_valid(mx))
            complain(k, "mx", "'%s' is not the end of a host name; write mx.example.net", r->mx[i]);
    }
}

/* KumoMTA's names, of outcome/classify.h and of the words behind them. */
bool config_classification_known(const char *name)
{
    static const char *const names[] = {
        "AuthenticationFailed", "BadConfiguration", "BadConnection",    "BadDomain",
        "ContentRelated",       "InactiveMailbox",  "InvalidRecipient", "InvalidSender",
        "PolicyRelated",        "ProtocolErrors",   "QuotaIssues",      "RelayDenied",
        "RoutingErrors",        "SpamBlock",        "SpamContent",      "TransientFailure",
        "Uncategorized",        "VirusRelated"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void check_pool(const struct checked *k)
{
    const struct config *c = k->l->c;
    const struct config_rule *r = k->rule;
    struct suggest near;

    if (r->pool != NULL && strcmp(r->outcome_word, "failed") == 0)
        complain(k, "pool", "who is failed goes on by no pool");
    if (r->pool == NULL || config_pool_find(c, str_of(r->pool)) != NULL)
        return;
    suggest_init(&near, str_of(r->pool));
    for (size_t i = 0; i < c->pools_len; i++)
        suggest_offer(&near, c->pools[i].name);
    complain(k, "pool", "there is no pool '%s'; %s%s%s", r->pool,
             near.best != NULL ? "did you mean '" : "'pools' has none",
             near.best != NULL ? near.best : "", near.best != NULL ? "'?" : " of that name");
}

static void check_texts(const struct checked *k)
{
    const struct config_rule *r = k->rule;

    for (size_t i = 0; i < r->texts_len; i++) {
        struct str text = str_of(r->texts[i]);

        if (strspn(text.ptr, "^* ") == text.len)
            complain(k, "text", "'%s' is in every reply", r->texts[i]);
        else if (text.len > TEXT_MAX)
            complain(k, "text", "matches nothing: of a reply %d bytes are kept", TEXT_MAX);
    }
}

/* Whether it is a scope of mail, and not of sources and sites. */
static bool is_of_mail(const char *scope)
{
    return strcmp(scope, "source") != 0 && strcmp(scope, "netblock") != 0 &&
           strcmp(scope, "site") != 0;
}

static void check_actions(const struct checked *k)
{
    const struct config_rule *r = k->rule;
    bool acts = r->suspend_s != 0 || r->slow_down || r->retry_s != 0 || r->classification != NULL ||
                r->no_suppression || r->alarm || strcmp(r->outcome_word, "said") != 0 ||
                config_rule_lowers(r) || r->pool != NULL;
    bool nobodys = strcmp(r->stage_word, "greeting") == 0;

    if (r->code_word == NULL && r->enhanced_word == NULL && r->texts_len == 0)
        complain(k, "code", "matches every refusal; say a code, an enhanced code or a text");
    if (r->classification != NULL && !config_classification_known(r->classification))
        complain(k, "classification", "'%s' is no classification; see docs/records.md",
                 r->classification);
    if (!acts)
        complain(k, "suspend",
                 "does nothing; say suspend, slow_down, rate, outcome, retry or alarm");
    if (nobodys && (r->suspend_s != 0 || config_rule_lowers(r)) && is_of_mail(r->scope_word))
        complain(k, "scope",
                 "at the greeting nobody's mail is refused: write source, netblock or site");
    if (r->session_messages_max != 0 && is_of_mail(r->scope_word) &&
        strcmp(r->scope_word, "domain") != 0 && strcmp(r->scope_word, "source_and_domains") != 0)
        complain(k, "session_messages_max",
                 "a connection takes mail of all: with this scope write rate or sessions_max");
    if (nobodys && (r->retry_s != 0 || r->no_suppression || r->pool != NULL ||
                    strcmp(r->outcome_word, "said") != 0))
        complain(k, "stage",
                 "at the greeting no recipient is refused: only suspend, slow_down, what "
                 "is lowered and alarm are of use");
}

/* --- rules that others hide --- */

static bool names_cover(char *const *wide, size_t wide_len, char *const *narrow, size_t narrow_len)
{
    if (wide_len == 0)
        return true;
    for (size_t i = 0; i < narrow_len; i++) {
        bool found = false;

        for (size_t j = 0; j < wide_len && !found; j++)
            found = strcasecmp(narrow[i], wide[j]) == 0;
        if (!found)
            return false;
    }
    return narrow_len > 0;
}

static bool texts_cover(const struct config_rule *wide, const struct config_rule *narrow)
{
    if (wide->texts_len == 0)
        return true;
    for (size_t i = 0; i < narrow->texts_len; i++) {
        bool found = false;

        for (size_t j = 0; j < wide->texts_len && !found; j++)
            found = strcasestr(narrow->texts[i], wide->texts[j]) != NULL;
        if (!found)
            return false;
    }
    return narrow->texts_len > 0;
}

static bool enhanced_covers(const struct config_rule *wide, const struct config_rule *narrow)
{
    return wide->enhanced_class == 0 ||
           (wide->enhanced_class == narrow->enhanced_class && wide->subject == narrow->subject &&
            wide->detail_first <= narrow->detail_first && wide->detail_last >= narrow->detail_last);
}

static bool covers(const struct config_rule *wide, const struct config_rule *narrow)
{
    return !wide->disabled && wide->code_first <= narrow->code_first &&
           wide->code_last >= narrow->code_last && enhanced_covers(wide, narrow) &&
           (strcmp(wide->stage_word, "any") == 0 ||
            strcmp(wide->stage_word, narrow->stage_word) == 0) &&
           names_cover(wide->providers, wide->providers_len, narrow->providers,
                       narrow->providers_len) &&
           names_cover(wide->mx, wide->mx_len, narrow->mx, narrow->mx_len) &&
           texts_cover(wide, narrow);
}

static void check_reached(const struct checked *k, size_t at)
{
    const struct config *c = k->l->c;

    for (size_t i = 0; i < at; i++) {
        if (!covers(&c->rules[i], k->rule))
            continue;
        complain(k, "", "is never reached: rules.%s in front of it matches all of it",
                 c->rules[i].name);
        return;
    }
}

void config_rules_check(struct config_loader *l)
{
    for (size_t i = 0; i < l->c->rules_len; i++) {
        struct checked k = {l, &l->c->rules[i]};

        if (is_taken_out(&k))
            continue;
        check_codes(&k);
        check_where(&k);
        check_pool(&k);
        check_texts(&k);
        check_actions(&k);
        check_reached(&k, i);
    }
}
