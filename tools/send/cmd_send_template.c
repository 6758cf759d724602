/* hayauma send --template: a campaign of a template and a list, checked here, sent by the engine.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/config.h"
#include "http/mail_fields.h"
#include "mail/header.h"
#include "mail/trace.h"
#include "tools/commands/author_check.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/quantity.h"
#include "tools/commands/screen.h"
#include "tools/send/campaign_client.h"
#include "tools/send/mailing.h"
#include "tools/send/send_message.h"

#define SHOWN_MAX   20 /* lines that are told of */
#define PREVIEW_MAX 1000
#define CHUNK_BYTES (512u << 10)
#define NAME_BYTES  65

static const char usage[] =
    "usage: hayauma send --template FILE --to LIST [OPTION]...\n"
    "Sends each recipient of a list a letter that is made of a template: a campaign.\n"
    "First every letter is made here; if there is one that cannot be, nothing is\n"
    "sent.\n"
    "\n"
    "  --template FILE   JSON as POST /api/campaigns/v1 takes it (docs/http.md):\n"
    "                    content, envelope_sender, template_dialect ...; FILE.yaml, a\n"
    "                    letter in YAML (docs/commands.md); or FILE.eml, a whole\n"
    "                    message\n"
    "  --to LIST         comma-separated values in UTF-8 with a line of headings:\n"
    "                    email, name if there are names; each other column is a\n"
    "                    variable\n"
    "  --campaign NAME   default: the template's \"name\", or its file's\n"
    "  --from ADDRESS    envelope sender, instead of the template's; default: who its\n"
    "                    From names\n"
    "  --pool NAME, --priority N\n"
    "                    by which sources, and how soon beside other mail: 0\n"
    "                    (first) to 9\n"
    "  --rate RATE       so many letters at most, over all sites: 500/s, 60/min\n"
    "  --at TIME         when letters begin to go: 2026-12-01T09:00:00+09:00\n"
    "  --expires TIME    recipients that are left then get no letter\n"
    "  --dkim-domain NAME\n"
    "                    whose DKIM key signs, in place of that of the From\n"
    "                    field's domain\n"
    "  --tag TEXT        for the records (meta.tags); may be repeated\n"
    "  --check           only make every letter, and say what is wrong: lines that\n"
    "                    are no recipients, addresses that are there twice, missing\n"
    "                    variables, lines that are too long, equal Message-IDs, no\n"
    "                    List-Unsubscribe field, no DKIM key of the From field's\n"
    "                    domain, or none that DNS has\n"
    "  -c, --config FILE the engine's configuration, which has the DKIM keys, and\n"
    "                    says how long letters may be and where HTTP is\n"
    "                    (" CONFIG_FILE " if it can be read)\n"
    "  --preview N       print the first N letters, on a terminal as readers will\n"
    "                    see them, and send nothing\n"
    "  --api URL         of the engine's HTTP (default: where http.listen of the\n"
    "                    configuration has it, else http://127.0.0.1:8000)\n"
    "  --token-file FILE with a token (hayauma token) that may inject\n"
    "  --no-wait         end when the letters begin to go, and not when all have had\n"
    "                    an end\n"
    "  --quiet           no progress line (there is none without a terminal)\n"
    "  --help            this text\n"
    "\n"
    "What was interrupted goes on when it is given again, and nobody gets a second\n"
    "letter: the campaign's name says what it is. --rate, --pool and --priority then\n"
    "change the campaign that is there; what it was made of cannot be changed, so\n"
    "another letter, list or time under a name that was used is refused. The same\n"
    "call behind its end says what became of the campaign.\n"
    "\n"
    "Exit status: 0 when all recipients got their letters (--no-wait: will be tried;\n"
    "--check: would); 1 when some did not; 2 for a wrong option or an unusable file.\n";

struct order {
    const char *template_file, *list_file, *name, *from, *pool, *rate, *at, *expires, *api;
    const char *dkim_domain;
    json_t *tags; /* or NULL */
    const char *token_file, *config_file;
    uint64_t priority, preview;
    bool check, no_wait, quiet;
    bool name_given;
    bool began; /* the campaign was there, and takes no more recipients */
    char name_room[NAME_BYTES];
    char api_text[128]; /* of the configuration */
    struct mailing mailing;
    struct campaign_client client;
};

static int take_tag(void *of, const char *text)
{
    struct order *o = of;

    if (o->tags == NULL)
        o->tags = json_array();
    return json_array_append_new(o->tags, json_string(text)) < 0 ? -EILSEQ : 0;
}

static const struct option_row options[] = {
    OPTION_TEXT("template", struct order, template_file),
    OPTION_TEXT("to", struct order, list_file),
    OPTION_UTF8("campaign", struct order, name),
    OPTION_UTF8("from", struct order, from),
    OPTION_UTF8("pool", struct order, pool),
    OPTION_NUMBER("priority", struct order, priority, quantity_count, 0, 9),
    OPTION_UTF8("rate", struct order, rate),
    OPTION_UTF8("at", struct order, at),
    OPTION_UTF8("expires", struct order, expires),
    OPTION_UTF8("dkim-domain", struct order, dkim_domain),
    OPTION_TAKE("tag", take_tag),
    OPTION_FLAG("check", struct order, check),
    OPTION_TEXT("config", struct order, config_file),
    OPTION_NUMBER("preview", struct order, preview, quantity_count, 1, PREVIEW_MAX),
    OPTION_TEXT("api", struct order, api),
    OPTION_TEXT("token-file", struct order, token_file),
    OPTION_FLAG("no-wait", struct order, no_wait),
    OPTION_FLAG("quiet", struct order, quiet),
};

/* --- what is posted --- */

/* The file's name without its ending. What a campaign's name may not have becomes '-'. */
static const char *name_of_file(struct order *o)
{
    const char *slash = strrchr(o->template_file, '/');
    const char *from = slash == NULL ? o->template_file : slash + 1;
    size_t len = strcspn(from, ".");

    if (len >= sizeof(o->name_room))
        len = sizeof(o->name_room) - 1;
    for (size_t i = 0; i < len; i++)
        o->name_room[i] = (from[i] >= 'a' && from[i] <= 'z') ||
                                  (from[i] >= 'A' && from[i] <= 'Z') ||
                                  (from[i] >= '0' && from[i] <= '9')
                              ? from[i]
                              : '-';
    o->name_room[len] = '\0';
    return len == 0 ? "letter" : o->name_room;
}

/* The address in a whole message's From field, the caller's to free; NULL: it names no single one
 * that all letters have. */
static char *author_of(struct str message)
{
    const uint8_t *content = (const uint8_t *)message.ptr;
    struct header_field field = {0};
    char *value, *author = NULL;
    struct str text;

    while (header_field_next(content, message.len, field.end, &field)) {
        if (!str_eq_nocase(field.name, STR("From")))
            continue;
        text = header_field_value(content, &field);
        value = strndup(text.ptr, text.len);
        if (value == NULL || strchr(value, '{') != NULL || send_mailbox_parse(value, &author) < 0)
            author = NULL;
        free(value);
        return author;
    }
    return NULL;
}

/* The sender of a letter whose template says none is who wrote it. */
static void complete_sender(json_t *root)
{
    const json_t *content = json_member(root, "content");
    json_t *author = json_member(json_member(content, "from"), "email");
    char *found = NULL;

    if (json_member(root, "envelope_sender") != NULL)
        return;
    if (json_is_string(content))
        found = author_of(json_str(content));
    if (found != NULL)
        json_put(root, "envelope_sender", json_string(found));
    else if (json_is_string(author) && strchr(json_string_value(author), '{') == NULL)
        json_put(root, "envelope_sender", json_incref(author));
    free(found);
}

static void complete(struct order *o)
{
    json_t *root = o->mailing.root, *name = json_member(root, "name");

    o->name_given = o->name != NULL;
    if (o->name == NULL && json_is_string(name)) {
        o->name = json_string_value(name); /* the template's own, which stays where it is */
    } else {
        if (o->name == NULL)
            o->name = name_of_file(o);
        json_put(root, "name", json_string(o->name));
    }
    if (o->from != NULL)
        json_put(root, "envelope_sender", json_string(o->from));
    complete_sender(root);
    if (o->pool != NULL)
        json_put(root, "pool", json_string(o->pool));
    if (o->rate != NULL)
        json_put(root, "rate", json_string(o->rate));
    if (o->expires != NULL)
        json_put(root, "expires", json_string(o->expires));
    if (o->dkim_domain != NULL)
        json_put(root, "dkim_domain", json_string(o->dkim_domain));
    if (o->tags != NULL)
        json_put(root, "tags", json_incref(o->tags));
    if (o->priority != UINT64_MAX)
        json_put(root, "priority", json_integer((json_int_t)o->priority));
}

/* --- requests --- */

static int refused(const struct order *o, const char *what, int status, const json_t *answer)
{
    const char *detail = json_string_value(json_object_get(answer, "detail"));

    if (status >= 0)
        fprintf(stderr, "hayauma send: %s: %s: %s%s%d%s\n", o->api, what,
                detail != NULL ? detail : "", detail != NULL ? "; HTTP status " : "HTTP status ",
                status,
                status == 401 ? "; 'hayauma token add NAME' makes a token, and --token-file names "
                                "the file that has it"
                              : "");
    return -EINVAL;
}

static int request(struct order *o, const char *what, const char *method, const char *path,
                   const struct str *body, json_t **answer)
{
    int status = campaign_request(&o->client, method, path, "application/json", body, answer);

    if (status >= 200 && status < 300 && json_is_object(*answer))
        return 0;
    refused(o, what, status, *answer);
    json_decref(*answer);
    *answer = NULL;
    return -EINVAL;
}

static const char *text_of(const json_t *one, const char *member)
{
    const char *text = json_string_value(json_object_get(one, member));

    return text == NULL ? "" : text;
}

static long long count(const json_t *campaign, const char *member)
{
    return json_integer_value(json_object_get(campaign, member));
}

/* An earlier call's campaign is another one than this call would make. */
static int keeps(const struct order *o, const char *id, const char *how)
{
    fprintf(stderr, "hayauma send: the campaign '%s' (%s) %s: give another --campaign\n", o->name,
            id, how);
    return -EEXIST;
}

static const char *tenant_of(const struct order *o)
{
    return text_of(o->mailing.root, "tenant");
}

/* The newest campaign of this name in all, the tenant's or, if ours is false, of any other. */
static json_t *newest(const struct order *o, const json_t *all, bool ours)
{
    for (size_t i = 0; i < json_array_size(json_object_get(all, "campaigns")); i++) {
        json_t *one = json_array_get(json_object_get(all, "campaigns"), i);

        if (strcmp(text_of(one, "name"), o->name) == 0 &&
            (strcmp(text_of(one, "tenant"), tenant_of(o)) == 0) == ours)
            return json_incref(one);
    }
    return NULL;
}

/* The campaign of this name, which an earlier call began, or NULL. With a token of a tenant the
 * template need not name the tenant: other is such a campaign, ours or another tenant's, or NULL.
 */
static int find(struct order *o, json_t **campaign, json_t **other)
{
    json_t *all;
    int err = request(o, "campaigns", "GET", "", NULL, &all);

    *campaign = *other = NULL;
    if (err < 0)
        return err;
    *campaign = newest(o, all, true);
    if (*campaign == NULL && *tenant_of(o) == '\0')
        *other = newest(o, all, false);
    json_decref(all);
    return 0;
}

static bool is_over(const json_t *campaign)
{
    const char *state = text_of(campaign, "state");

    return strcmp(state, "done") == 0 || strcmp(state, "cancelled") == 0;
}

/* What the options change of a campaign that an earlier call made. */
static int change(struct order *o, const char *id)
{
    json_t *body = json_object(), *answer = NULL;
    char path[80], *text;
    struct str bytes;
    int err = 0;

    if (o->rate != NULL)
        json_put(body, "rate", json_string(o->rate));
    if (o->pool != NULL)
        json_put(body, "pool", json_string(o->pool));
    if (o->priority != UINT64_MAX)
        json_put(body, "priority", json_integer((json_int_t)o->priority));
    snprintf(path, sizeof(path), "/%s", id);
    text = json_dumps(body, JSON_COMPACT);
    bytes = str_of(text);
    if (json_object_size(body) > 0)
        err = request(o, "rate, pool, priority", "PATCH", path, &bytes, &answer);
    json_decref(answer);
    json_decref(body);
    free(text);
    return err;
}

/* Whether a campaign that was made before is what this call would make, and its options are in
 * force. 0 or -errno, said. */
static int go_on(struct order *o, const json_t *campaign)
{
    char ours[RECIPE_FINGERPRINT_BYTES];
    const char *theirs = text_of(campaign, "fingerprint"), *id = text_of(campaign, "id");
    int64_t at_ms;

    o->began = strcmp(text_of(campaign, "state"), "draft") != 0 &&
               !json_is_true(json_object_get(campaign, "open"));
    recipe_fingerprint(o->mailing.root, ours);
    if (*theirs != '\0' && strcmp(ours, theirs) != 0)
        return keeps(o, id,
                     "was made with another letter, sender, time of expiry, DKIM domain or "
                     "tags");
    if (*theirs == '\0' && is_over(campaign))
        return keeps(o, id, "is over");
    if (o->at != NULL && o->began &&
        (trace_time_parse(str_of(o->at), &at_ms) < 0 || at_ms != count(campaign, "starts_ms")))
        return keeps(o, id, "was given another time to start");
    return is_over(campaign) ? 0 : change(o, id);
}

/* Whether the engine refused a campaign since this one, which is not over, has its name. */
static bool has_our_name(const json_t *one, const json_t *refusal)
{
    return one != NULL && strcmp(text_of(refusal, "field"), "name") == 0 &&
           strstr(text_of(refusal, "detail"), text_of(one, "id")) != NULL;
}

/* Makes one, unless other is ours. */
static int create(struct order *o, json_t *other, json_t **campaign)
{
    char *text = json_dumps(o->mailing.root, JSON_COMPACT);
    struct str body = str_of(text);
    json_t *answer;
    int status = campaign_request(&o->client, "POST", "", "application/json", &body, &answer),
        err = 0;

    free(text);
    if (status >= 200 && status < 300 && json_is_object(answer))
        *campaign = json_incref(answer);
    else if (status == 409 && has_our_name(other, answer)) {
        *campaign = json_incref(other);
        err = go_on(o, other);
    } else
        err = refused(o, o->template_file, status, answer);
    json_decref(answer);
    return err;
}

static int upload_chunk(struct order *o, const char *id, const struct buf *lines)
{
    struct str body = buf_str(lines);
    char path[80];
    json_t *answer;
    int err = 0, status;

    snprintf(path, sizeof(path), "/%s/recipients", id);
    status = campaign_request(&o->client, "POST", path, "application/x-ndjson", &body, &answer);
    if (status == 409 && o->began)
        err = keeps(o, id, "began with another list");
    else if (status < 200 || status >= 300 || !json_is_object(answer))
        err = refused(o, o->list_file, status, answer);
    for (size_t i = 0; err == 0 && i < json_array_size(json_object_get(answer, "errors")); i++)
        fprintf(stderr, "hayauma send: %s: %s\n", o->list_file,
                text_of(json_array_get(json_object_get(answer, "errors"), i), "error"));
    json_decref(answer);
    return err;
}

/* The same list makes the same chunks, and one that the engine has adds nobody. */
static int upload(struct order *o, const char *id)
{
    int got = mailing_rewind(&o->mailing), err = 0;
    struct buf lines = {0};
    const char *why;
    json_t *one;

    while (got >= 0 && err == 0 && (got = mailing_next(&o->mailing, &one, &why)) > 0) {
        char *text = one == NULL ? NULL : json_dumps(one, JSON_COMPACT);

        if (text != NULL) {
            buf_puts(&lines, text);
            buf_putc(&lines, '\n');
        }
        free(text);
        json_decref(one);
        if (lines.len >= CHUNK_BYTES) {
            err = upload_chunk(o, id, &lines);
            buf_clear(&lines);
        }
    }
    if (got == 0 && err == 0 && lines.len > 0)
        err = upload_chunk(o, id, &lines);
    buf_done(&lines);
    return got < 0 ? got : err;
}

static int start(struct order *o, const char *id)
{
    json_t *body = json_object(), *answer;
    char path[80], *text;
    struct str bytes;
    int err;

    if (o->at != NULL)
        json_put(body, "at", json_string(o->at));
    text = json_dumps(body, JSON_COMPACT);
    bytes = str_of(text);
    snprintf(path, sizeof(path), "/%s/start", id);
    err = request(o, "start", "POST", path, &bytes, &answer);
    json_decref(answer);
    json_decref(body);
    free(text);
    return err;
}

/* Until each recipient has had an end. */
static int wait_for_end(struct order *o, const char *id, json_t **campaign)
{
    bool progress = !o->quiet && isatty(STDERR_FILENO);
    char path[80];
    int err;

    snprintf(path, sizeof(path), "/%s", id);
    while ((err = request(o, "campaign", "GET", path, NULL, campaign)) == 0) {
        if (progress)
            fprintf(stderr, "\r%s: %s, %lld of %lld delivered, %lld wait, %lld failed ", o->name,
                    text_of(*campaign, "state"), count(*campaign, "delivered"),
                    count(*campaign, "recipients"), count(*campaign, "queued"),
                    count(*campaign, "failed"));
        if (is_over(*campaign))
            break;
        json_decref(*campaign);
        sleep(1);
    }
    if (progress)
        fputc('\n', stderr);
    return err;
}

static int finish(struct order *o, const char *id)
{
    json_t *campaign;
    bool all;

    if (o->no_wait) {
        printf("%s: %s\n", o->name, id);
        return EXIT_OK;
    }
    if (wait_for_end(o, id, &campaign) < 0)
        return EXIT_FAILED;
    printf("%s: %s, %lld of %lld delivered, %lld failed, %lld expired, %lld cancelled\n", o->name,
           id, count(campaign, "delivered"), count(campaign, "recipients"),
           count(campaign, "failed"), count(campaign, "expired"), count(campaign, "cancelled"));
    if (count(campaign, "failed") + count(campaign, "expired") > 0)
        fprintf(stderr, "hayauma send: 'hayauma campaign report %s' says why\n", o->name);
    all = count(campaign, "delivered") == count(campaign, "recipients");
    json_decref(campaign);
    return all ? EXIT_OK : EXIT_FAILED;
}

static int send_campaign(struct order *o)
{
    json_t *campaign, *other;
    char id[40];
    int err = find(o, &campaign, &other);

    /* A campaign that is over and may be ours counts as ours, so that nobody gets a letter twice.
     */
    if (err == 0 && campaign == NULL && is_over(other))
        campaign = json_incref(other);
    if (err == 0 && campaign == NULL)
        err = create(o, other, &campaign);
    else if (err == 0)
        err = go_on(o, campaign);
    json_decref(other);
    if (err == 0) {
        snprintf(id, sizeof(id), "%s", text_of(campaign, "id"));
        err = upload(o, id);
        if (err == 0 && strcmp(text_of(campaign, "state"), "draft") == 0)
            err = start(o, id);
    }
    json_decref(campaign);
    return err < 0 ? EXIT_FAILED : finish(o, id);
}

/* --- the command --- */

static int print_findings(const struct mailing_findings *f, bool has_config)
{
    printf("%lu recipient%s; lines without one: %lu, that name one again: %lu; letters that cannot "
           "be made: %lu, with missing variables: %lu, with the Message-ID of another: %lu; the "
           "largest has %lu bytes%s\n",
           f->recipients, PLURAL(f->recipients), f->invalid, f->twice, f->without_letter,
           f->with_missing, f->same_id, f->letter_bytes_max,
           f->has_unsubscribe || f->letter_bytes_max == 0 ? "" : "; no List-Unsubscribe field");
    if (!has_config)
        puts("without the engine's configuration (--config) nothing is known of DKIM keys");
    else if (f->authors == 0 && f->letter_bytes_max > 0)
        puts("the From field's domain has DKIM keys, and DNS has them");
    return f->invalid + f->twice + f->without_letter + f->with_missing + f->same_id + f->authors ==
                   0
               ? EXIT_OK
               : EXIT_FAILED;
}

/* A configuration that is named must be there. The usual one may be missing, or not be readable for
 * the caller. */
static int open_config(const struct order *o, struct config **config)
{
    const char *file = o->config_file == NULL ? CONFIG_FILE : o->config_file;
    struct buf errors = {0};
    int err = 0;

    *config = NULL;
    if (o->config_file != NULL || access(file, R_OK) == 0)
        err = author_check_open(file, config, &errors);
    if (err < 0 && o->config_file != NULL)
        fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
    buf_done(&errors);
    return o->config_file == NULL ? 0 : err;
}

/* Where the engine of this configuration takes campaigns, if no option says it. False with the
 * error printed: it takes none. */
static bool find_api(struct order *o, const struct config *config)
{
    const struct config_address *at = config == NULL ? NULL : &config->http.listen;
    const struct sockaddr_in *v4;
    const struct sockaddr_in6 *v6;

    if (o->api != NULL)
        return true;
    o->api = "http://127.0.0.1:8000";
    if (config == NULL)
        return true;
    if (at->len == 0) {
        fprintf(stderr,
                "hayauma send: %s has no http.listen, so its engine takes no campaigns; write "
                "http: {listen: \"127.0.0.1:8000\"}, or name another engine's with --api\n",
                config->file);
        return false;
    }
    v4 = (const struct sockaddr_in *)(const void *)&at->addr;
    v6 = (const struct sockaddr_in6 *)(const void *)&at->addr;
    if (at->addr.ss_family == AF_INET && v4->sin_addr.s_addr == htonl(INADDR_ANY))
        snprintf(o->api_text, sizeof(o->api_text), "http://127.0.0.1:%u", ntohs(v4->sin_port));
    else if (at->addr.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr))
        snprintf(o->api_text, sizeof(o->api_text), "http://[::1]:%u", ntohs(v6->sin6_port));
    else if (at->addr.ss_family != AF_UNIX)
        snprintf(o->api_text, sizeof(o->api_text), "http://%s", at->text);
    else
        return true;
    o->api = o->api_text;
    return true;
}

/* The option that gave what is wrong; NULL: the template gave it. */
static const char *option_of(const struct order *o, const char *field)
{
    const struct {
        const char *field, *option;
        bool given;
    } rows[] = {{"name", "campaign", o->name_given},
                {"envelope_sender", "from", o->from != NULL},
                {"pool", "pool", o->pool != NULL},
                {"rate", "rate", o->rate != NULL},
                {"expires", "expires", o->expires != NULL},
                {"dkim_domain", "dkim-domain", o->dkim_domain != NULL},
                {"tags", "tag", o->tags != NULL}};
    size_t i = 0;

    while (i < ARRAY_LEN(rows) && (!rows[i].given || strcmp(rows[i].field, field) != 0))
        i++;
    return i < ARRAY_LEN(rows) ? rows[i].option : NULL;
}

/* What the engine would refuse of the template and the options, before anything is sent to it. */
static bool is_campaign(const struct order *o)
{
    struct mail_fields_campaign fields;
    struct json_mistake mistake;
    int err = mail_fields_campaign(o->mailing.root, false, &fields, &mistake);
    const char *option = err < 0 ? option_of(o, mistake.field) : NULL;

    buf_done(&fields.tags);
    if (option != NULL)
        fprintf(stderr, "hayauma send: --%s: %s\n", option, mistake.text);
    else if (err < 0)
        (void)mailing_complain(&o->mailing, &mistake);
    return err == 0;
}

static int run(struct order *o)
{
    struct mailing_findings found;
    struct config *config;
    bool has_config;
    struct buf out = {0};
    int err;

    complete(o);
    if (json_member(o->mailing.root, "envelope_sender") == NULL) {
        fprintf(stderr, "hayauma send: %s: its From names no single address: give --from\n",
                o->template_file);
        return EXIT_USAGE;
    }
    if (!is_campaign(o))
        return EXIT_USAGE;
    if (o->preview > 0) {
        if (mailing_preview(&o->mailing, o->preview, &out) < 0)
            return EXIT_USAGE;
        fwrite(out.data, 1, out.len, stdout);
        buf_done(&out);
        return EXIT_OK;
    }
    if (open_config(o, &config) < 0)
        return EXIT_USAGE;
    if (!o->check && !find_api(o, config)) {
        config_unref(config);
        return EXIT_USAGE;
    }
    err = mailing_check(&o->mailing, config, SHOWN_MAX, &found);
    has_config = config != NULL;
    config_unref(config);
    if (err < 0)
        return EXIT_USAGE;
    if (o->check)
        return print_findings(&found, has_config);
    if (found.without_letter > 0 || found.recipients == 0) {
        fprintf(stderr, "hayauma send: %s; nothing was sent\n",
                found.recipients == 0 ? "no recipients" : "letters cannot be made");
        return EXIT_USAGE;
    }
    if (campaign_client_open(&o->client, o->api, o->token_file) < 0)
        return EXIT_USAGE;
    return send_campaign(o);
}

int cmd_send_template(int argc, char **argv)
{
    struct order o = {.priority = UINT64_MAX};
    int64_t at_ms;
    int err, status;

    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) { /* or --template would take it for its file */
            fputs(usage, stdout);
            return EXIT_OK;
        }
    err = options_read(options, ARRAY_LEN(options), &o, "send", usage, argc, argv);
    if (err != 0)
        return err > 0 ? EXIT_OK : EXIT_USAGE;
    if (o.template_file == NULL || o.list_file == NULL) {
        fputs("hayauma send: --template and --to are needed\n"
              "Try 'hayauma send --template --help'.\n",
              stderr);
        return EXIT_USAGE;
    }
    /* Looked at now, as the start comes last: the whole list would be there when it is refused. */
    if (o.at != NULL && trace_time_parse(str_of(o.at), &at_ms) < 0) {
        fprintf(stderr,
                "hayauma send: --at: '%s' is no time; write 2026-12-01T09:00:00+09:00\n"
                "Try 'hayauma send --template --help'.\n",
                o.at);
        json_decref(o.tags);
        return EXIT_USAGE;
    }
    err = mailing_open(&o.mailing, o.template_file, o.list_file);
    status = err < 0 ? EXIT_USAGE : run(&o);
    campaign_client_close(&o.client);
    mailing_close(&o.mailing);
    json_decref(o.tags);
    return status;
}
