/* hayauma route: where mail for an address would go, without sending any. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/screen.h"
#include "tools/commands/wait_text.h"

static const char help[] =
    "usage: hayauma route ADDRESS [options]\n"
    "\n"
    "Where mail for ADDRESS would go, by the running engine, which looks the domain\n"
    "up and sends nothing: pool and the rule that chooses it, exchangers, TLS, limits\n"
    "with where each is set, sources, and what would hold the mail now.\n"
    "\n"
    "      --from ADDRESS      envelope sender\n"
    "      --header FIELD      a field of the message that a listener may take:\n"
    "                          'X-Hayauma-Pool: bulk', -Campaign, -Tenant or\n"
    "                          -Engaged; may be repeated\n"
    "      --campaign NAME     the same as its field\n"
    "      --tenant NAME\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "Example:\n"
    "  hayauma route user@example.com --from news@sender.example \\\n"
    "      --header 'X-Hayauma-Pool: bulk'\n"
    "\n"
    "Exit codes: 0 done, 1 no such pool, or mail would bounce (no such domain, a\n"
    "route to reject), 2 wrong usage, 3 the engine does not answer.\n";

/* --- text --- */

static void put_label(struct buf *out, const char *label)
{
    buf_printf(out, "%-12s ", label);
}

static void put_line(struct buf *out, const char *label, const char *text, const char *set)
{
    put_label(out, label);
    put_text(out, text, 0, false);
    if (*set != 0)
        put_set(out, set);
    buf_putc(out, '\n');
}

/* What DANE holds an exchanger to. */
static void put_tlsa(struct buf *out, const json_t *exchanger)
{
    const char *error = reply_text(exchanger, "tlsa_error");
    const json_t *one;
    size_t i;

    json_array_foreach(json_object_get(exchanger, "tlsa"), i, one)
    {
        put_label(out, "");
        buf_printf(out, "TLSA %s\n", json_string_value(one));
    }
    if (*error == 0 && !json_is_true(json_object_get(exchanger, "tlsa_unusable")))
        return;
    put_label(out, "");
    buf_puts(out, *error == 0 ? "no TLSA record is usable: any certificate is taken"
                              : "its TLSA records cannot be had, nothing is sent to it: ");
    put_text(out, error, 0, false);
    buf_putc(out, '\n');
}

static void put_plaintext(struct buf *out, const json_t *exchanger, int64_t now_ms)
{
    const json_t *one;
    size_t i;

    json_array_foreach(json_object_get(exchanger, "plaintext"), i, one)
    {
        put_label(out, "");
        buf_printf(out, "plaintext from source %s for ", reply_text(one, "source"));
        put_age(out, reply_number(one, "until_ms") - now_ms);
        buf_puts(out, ", since ");
        put_age(out, now_ms - reply_number(one, "since_ms"));
        buf_puts(out, " ago: ");
        put_text(out, reply_text(one, "reason"), 0, false);
        buf_putc(out, '\n');
    }
}

static void put_exchangers(struct buf *out, const json_t *route)
{
    const json_t *one;
    size_t i;

    json_array_foreach(json_object_get(route, "exchangers"), i, one)
    {
        put_label(out, i == 0 ? "exchangers" : "");
        buf_printf(out, "%lld %s ", reply_number(one, "preference"), reply_text(one, "address"));
        put_text(out, reply_text(one, "host"), 0, false);
        buf_printf(out, ": tls %s\n", reply_text(one, "tls"));
        put_tlsa(out, one);
        put_plaintext(out, one, reply_number(route, "now_ms"));
    }
}

static const char *limit_owner(const char *of)
{
    static const char *const owners[][2] = {{"provider", "the provider's "},
                                            {"tenant", "the tenant's "},
                                            {"campaign", "the campaign's "}};

    for (size_t i = 0; i < ARRAY_LEN(owners); i++)
        if (strcmp(owners[i][0], of) == 0)
            return owners[i][1];
    return "";
}

static void put_sts(struct buf *out, const json_t *route)
{
    const json_t *sts = json_object_get(route, "mta_sts");
    int64_t now_ms = reply_number(route, "now_ms");

    if (sts == NULL)
        return;
    put_label(out, "mta-sts");
    if (*reply_text(sts, "mode") != 0) {
        buf_printf(out, "%s, policy ", reply_text(sts, "mode"));
        put_text(out, reply_text(sts, "id"), 0, false);
        buf_puts(out, ", fetched ");
        put_age(out, now_ms - reply_number(sts, "fetched_ms"));
        buf_puts(out, " ago, good for ");
        put_age(out, reply_number(sts, "until_ms") - now_ms);
    } else {
        buf_puts(out, "no policy");
    }
    if (*reply_text(sts, "why") != 0) {
        buf_puts(out, *reply_text(sts, "mode") != 0 ? "; when last looked up: " : ": ");
        put_text(out, reply_text(sts, "why"), 0, false);
    }
    buf_putc(out, '\n');
}

static void put_limits(struct buf *out, const json_t *route)
{
    const json_t *one, *tls = json_object_get(route, "tls");
    size_t i;

    if (tls != NULL)
        put_line(out, "tls", reply_text(tls, "policy"), reply_text(tls, "set"));
    put_sts(out, route);
    json_array_foreach(json_object_get(route, "limits"), i, one)
    {
        put_label(out, i == 0 ? "limits" : "");
        buf_printf(out, "%s%s %s", limit_owner(reply_text(one, "of")), reply_text(one, "name"),
                   reply_text(one, "value"));
        put_set(out, reply_text(one, "set"));
        buf_putc(out, '\n');
    }
    if (json_object_size(json_object_get(route, "held_s")) > 0) {
        put_label(out, "over all");
        buf_puts(out, "sources");
        put_held(out, route);
        buf_putc(out, '\n');
    }
}

static void put_until(struct buf *out, const json_t *source, const char *name, const char *words,
                      int64_t now_ms)
{
    if (json_object_get(source, name) == NULL)
        return;
    buf_printf(out, "; %s ", words);
    put_age(out, reply_number(source, name) - now_ms);
}

static void put_warmup(struct buf *out, const json_t *source, int64_t now_ms)
{
    const json_t *w = json_object_get(source, "warmup");

    if (w == NULL)
        return;
    buf_printf(out, "; warm-up at %s: stage %lld of %lld, ", reply_text(w, "provider"),
               reply_number(w, "stage"), reply_number(w, "stages"));
    put_count(out, (uint64_t)reply_number(w, "used"));
    if (json_object_get(w, "cap") != NULL) {
        buf_puts(out, " of ");
        put_count(out, (uint64_t)reply_number(w, "cap"));
    }
    buf_puts(out, " today");
    put_until(out, w, "next_ms", "next hour's share in", now_ms);
}

static void put_source(struct buf *out, const json_t *s, int64_t now_ms)
{
    static const struct {
        const char *state, *words;
    } states[] = {{"ok", "ok"},
                  {"suspended", "suspended"},
                  {"missing", "this machine holds none of its addresses"},
                  {"no_address", "the exchangers have no address of its family"},
                  {"no_route", "this machine has no route to the exchangers over its family"},
                  {"proxy_down", "its proxy is down"}};
    const char *ipv4 = reply_text(s, "ipv4"), *ipv6 = reply_text(s, "ipv6");

    buf_printf(out, "%s, weight %lld", reply_text(s, "name"), reply_number(s, "weight"));
    if (json_is_true(json_object_get(s, "overflow")))
        buf_puts(out, ", overflow");
    if (json_is_true(json_object_get(s, "bound")))
        buf_puts(out, ", to which this mail is bound");
    buf_printf(out, "%s%s%s%s", *ipv4 != 0 ? ", " : "", ipv4, *ipv6 != 0 ? ", " : "", ipv6);
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        if (strcmp(states[i].state, reply_text(s, "state")) == 0)
            buf_printf(out, ": %s", states[i].words);
    put_source_suspension(out, s, now_ms);
    if (json_object_get(s, "sessions") != NULL)
        buf_printf(out, "; %lld of %lld sessions open", reply_number(s, "sessions"),
                   reply_number(s, "sessions_max"));
    put_held(out, s);
    put_until(out, s, "rate_ms", "its rate says: next in", now_ms);
    put_until(out, s, "stopped_ms", "nothing gets through, next probe in", now_ms);
    put_warmup(out, s, now_ms);
    buf_putc(out, '\n');
}

static void put_suspensions(struct buf *out, const json_t *route)
{
    const json_t *one;
    size_t i;

    json_array_foreach(json_object_get(route, "suspensions"), i, one)
    {
        put_label(out, i == 0 ? "suspended" : "");
        buf_printf(out, "%s ", reply_text(one, "scope"));
        put_text(out, reply_text(one, "name"), 0, false);
        buf_puts(out, *reply_text(one, "reason") == 0 ? "" : ": ");
        put_text(out, reply_text(one, "reason"), 0, false);
        buf_puts(out, *reply_text(one, "who") == 0 ? "" : ", by ");
        put_text(out, reply_text(one, "who"), 0, false);
        buf_putc(out, '\n');
    }
}

static void put_lookup(struct buf *out, const json_t *route)
{
    const char *lookup = reply_text(route, "lookup"), *error = reply_text(route, "lookup_error");

    if (*lookup == 0 || strcmp(lookup, "ok") == 0)
        return;
    put_label(out, "no route");
    buf_printf(out, "%s%s", lookup, *error == 0 ? "" : ": ");
    put_text(out, error, 0, false);
    buf_putc(out, '\n');
}

static void print_route(const json_t *route)
{
    const char *hop = reply_text(route, "next_hop");
    const json_t *one;
    struct buf out = {0};
    size_t i;

    put_line(&out, "to", reply_text(route, "recipient"), "");
    put_label(&out, "pool");
    buf_printf(&out, "%s, by %s", reply_text(route, "pool"), reply_text(route, "rule"));
    if (*reply_text(route, "engaged") != 0)
        buf_printf(&out, "; with X-Hayauma-Engaged: yes it is %s", reply_text(route, "engaged"));
    buf_putc(&out, '\n');
    put_line(&out, "next hop", strcmp(hop, "mx") == 0 ? "the domain's exchangers" : hop,
             reply_text(route, "next_hop_set"));
    put_lookup(&out, route);
    if (*reply_text(route, "no_site") != 0)
        put_line(&out, "no site", reply_text(route, "no_site"), "");
    if (*reply_text(route, "site") != 0)
        put_line(&out, "site", reply_text(route, "site"), "");
    put_exchangers(&out, route);
    put_limits(&out, route);
    json_array_foreach(json_object_get(route, "sources"), i, one)
    {
        put_label(&out, i == 0 ? "sources" : "");
        put_source(&out, one, reply_number(route, "now_ms"));
    }
    put_suspensions(&out, route);
    fold_text(&out, screen_width(), 13);
    flush_text(&out, stdout);
    buf_done(&out);
}

/* --- the command --- */

enum { OPT_FROM = 300, OPT_HEADER, OPT_CAMPAIGN, OPT_TENANT };

static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                      {"from", required_argument, NULL, OPT_FROM},
                                      {"header", required_argument, NULL, OPT_HEADER},
                                      {"campaign", required_argument, NULL, OPT_CAMPAIGN},
                                      {"tenant", required_argument, NULL, OPT_TENANT},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static int usage_error(const char *what, const char *value)
{
    fprintf(stderr, "hayauma route: %s%s; 'hayauma route --help' says more\n", what, value);
    return EXIT_USAGE;
}

static void set(json_t *request, const char *name, struct str value)
{
    value = str_trim(value);
    json_object_set_new(request, name, json_stringn(value.ptr, value.len));
}

static int take_engaged(json_t *request, struct str value)
{
    if (!str_eq_nocase(value, STR("yes")) && !str_eq_nocase(value, STR("no")))
        return usage_error("X-Hayauma-Engaged: yes or no", "");
    json_object_set_new(request, "engaged", json_boolean(str_eq_nocase(value, STR("yes"))));
    return 0;
}

/* "X-Hayauma-Pool: bulk". */
static int take_header(json_t *request, const char *field)
{
    static const char *const names[] = {"pool", "campaign", "tenant", "engaged"};
    static const char prefix[] = "X-Hayauma-";
    const char *colon = strchr(field, ':');
    size_t at = sizeof(prefix) - 1;

    for (size_t i = 0; colon != NULL && i < ARRAY_LEN(names); i++) {
        size_t len = strlen(names[i]);

        if (strncasecmp(field, prefix, at) != 0 || colon != field + at + len ||
            strncasecmp(field + at, names[i], len) != 0)
            continue;
        if (strcmp(names[i], "engaged") == 0)
            return take_engaged(request, str_trim(str_of(colon + 1)));
        set(request, names[i], str_of(colon + 1));
        return 0;
    }
    return usage_error("no field that says where mail goes: ", field);
}

/* 0, an exit code, or -1: help. */
static int options_parse(struct channel_options *o, json_t *request, int argc, char **argv)
{
    int c, code = 0;

    while (code == 0 && (c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (channel_option(o, c))
            continue;
        if (c == 'h')
            return -1;
        if (c == OPT_HEADER)
            code = take_header(request, optarg);
        else if (c == OPT_FROM)
            set(request, "sender", str_of(optarg));
        else if (c == OPT_CAMPAIGN || c == OPT_TENANT)
            set(request, c == OPT_CAMPAIGN ? "campaign" : "tenant", str_of(optarg));
        else
            code = usage_error("wrong option", "");
    }
    if (code == 0 && argc - optind != 1)
        code = usage_error("say one address", "");
    if (code == 0)
        set(request, "recipient", str_of(argv[optind]));
    return code;
}

/* For good: what could not be looked up now may be there. */
static bool leads_nowhere(const json_t *route)
{
    const char *lookup = reply_text(route, "lookup");

    return *reply_text(route, "no_site") != 0 ||
           (*lookup != 0 && strcmp(lookup, "ok") != 0 && strcmp(lookup, "temporary") != 0);
}

int cmd_route(int argc, char **argv)
{
    struct channel_options o = {.command = "route"};
    json_t *request = json_pack("{s:s}", "op", "route"), *reply;
    int code = options_parse(&o, request, argc, argv);
    struct channel ch;

    if (code == -1)
        fputs(help, stdout);
    if (code != 0) {
        json_decref(request);
        return code == -1 ? EXIT_OK : code;
    }
    code = channel_begin(&ch, &o, request);
    while (code == 0 && (reply = channel_next(&ch, NULL, &code)) != NULL) {
        const json_t *route = json_object_get(reply, "route");

        if (route != NULL && o.json)
            reply_print(route);
        else if (route != NULL)
            print_route(route);
        code = route != NULL && leads_nowhere(route) ? EXIT_FAILED : code;
        json_decref(reply);
    }
    channel_close(&ch);
    return code;
}
