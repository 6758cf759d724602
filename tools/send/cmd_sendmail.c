/* hayauma sendmail: the command that programs of Unix send mail by, with Sendmail's options and
 * exit codes. It gives the message to the engine by SMTP, so it needs no rights and keeps no spool:
 * while the engine does not answer, its caller hears EX_TEMPFAIL. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <gmime/gmime.h>

#include "mail/mime.h"
#include "mail/trace.h"
#include "smtp/address.h"
#include "smtp/server.h"
#include "tools/commands/commands.h"
#include "tools/commands/input.h"
#include "tools/send/passage.h"
#include "tools/send/send_run.h"

#define RECIPIENTS_MAX   1000 /* of one message; more get another of the same */
#define CONNECT_FAILURES 3
#define HOST_BYTES       256
#define ENVID_BYTES_MAX  100 /* RFC 3461 4.4, as xtext */

static const char usage[] =
    "usage: hayauma sendmail [OPTION]... [RECIPIENT[,RECIPIENT]...]...\n"
    "Reads a message from stdin and sends it, as programs call sendmail; installed\n"
    "under that name (ln -s /usr/local/bin/hayauma /usr/sbin/sendmail) it is\n"
    "sendmail. As mailq, or with -bp, it lists the queue.\n"
    "\n"
    "  -t                 also to the recipients that To, Cc and Bcc name\n"
    "  -i, -oi            a line with a single dot does not end the message\n"
    "  -f ADDRESS, -r ADDRESS\n"
    "                     envelope sender; default: the calling user at this host;\n"
    "                     '' is the null sender\n"
    "  -F NAME            full name in the From field, where the message has no From\n"
    "                     field\n"
    "  -N LIST            when to notify: never, or of success,failure,delay\n"
    "  -R full|hdrs       what a notice gives back\n"
    "  -V TEXT            envelope id for notices: printable ASCII\n"
    "  -bp                list the queue ('hayauma queue list')\n"
    "  -q                 without a recipient: try all of it now ('hayauma queue\n"
    "                     flush --all')\n"
    "  -bs                stdin and stdout are a session of SMTP with the engine, as\n"
    "                     PHP's mailers want it\n"
    "  --help             this text\n"
    "Bcc is taken off; Date, From, Message-ID and To are added where they are\n"
    "missing. Other options of Sendmail (-A -B -C -G -h -L -m -n -o -O -U -v -X -bm\n"
    "-bi -I) change nothing here. The engine is asked at 127.0.0.1:25, or where\n"
    "HAYAUMA_SERVER says (HOST[:PORT], unix:PATH).\n"
    "\n"
    "Exit status, of sysexits.h: 0 the engine has the message; 64 wrong options, or\n"
    "no recipient given; 65 what is no message, none in the header, or a wrong\n"
    "address; 69 a recipient was refused; 75 the engine does not answer, or takes\n"
    "nothing for now: try again.\n";

struct sendmail {
    struct send send;
    bool from_header, dots_stay, lists_queue, runs_queue, speaks_smtp, nothing, has_from;
    bool resent;                    /* the header has a recipient of a Resent- field */
    const char *sender, *full_name; /* or NULL */
    struct buf envid;               /* what send.envid points to */
    char host[HOST_BYTES];
};

/* --- options --- */

static int wrong(const char *what, const char *which)
{
    fprintf(stderr, "hayauma sendmail: %s%s\nTry 'hayauma sendmail --help'.\n", what, which);
    return EX_USAGE;
}

static int take_notify(struct sendmail *s, const char *list)
{
    static const struct {
        const char *name;
        uint8_t bit;
    } words[] = {{"never", SMTP_NOTIFY_NEVER},
                 {"success", SMTP_NOTIFY_SUCCESS},
                 {"failure", SMTP_NOTIFY_FAILURE},
                 {"delay", SMTP_NOTIFY_DELAY}};
    struct str rest = str_of(list);
    uint8_t bits = 0;

    while (rest.len > 0) {
        struct str word = str_take(&rest, ',');
        size_t i = 0;

        while (i < ARRAY_LEN(words) && !str_eq_nocase(str_trim(word), str_of(words[i].name)))
            i++;
        if (i == ARRAY_LEN(words))
            return wrong("-N takes never, or of success,failure,delay: not ", list);
        bits |= words[i].bit;
    }
    if (bits == 0 || (bits & SMTP_NOTIFY_NEVER && bits != SMTP_NOTIFY_NEVER))
        return wrong("-N takes never, or of success,failure,delay: not ", list);
    s->send.notify = bits;
    return EX_OK;
}

/* What the caller gives is text; on the way it is xtext (RFC 3461 4.4). */
static int take_envid(struct sendmail *s, const char *text)
{
    buf_clear(&s->envid);
    if (smtp_xtext_put(&s->envid, str_of(text)) < 0 || s->envid.len == 0 ||
        s->envid.len > ENVID_BYTES_MAX)
        return wrong("-V takes up to 100 printable characters of ASCII: not ", text);
    buf_putc(&s->envid, '\0');
    s->send.envid = (char *)s->envid.data;
    return EX_OK;
}

static int take_mode(struct sendmail *s, const char *mode)
{
    if (strcmp(mode, "p") == 0)
        s->lists_queue = true;
    else if (strcmp(mode, "s") == 0)
        s->speaks_smtp = true;
    else if (strcmp(mode, "i") == 0)
        s->nothing = true; /* newaliases: there are no aliases */
    else if (strcmp(mode, "m") != 0)
        return wrong("this mode is not done here: -b", mode);
    return EX_OK;
}

static int take_option(struct sendmail *s, int option)
{
    switch (option) {
    case 't':
        s->from_header = true;
        return EX_OK;
    case 'i':
        s->dots_stay = true;
        return EX_OK;
    case 'o':
        s->dots_stay |= strcmp(optarg, "i") == 0;
        return EX_OK;
    case 'f':
    case 'r':
        s->sender = optarg;
        return EX_OK;
    case 'F':
        s->full_name = optarg;
        return EX_OK;
    case 'b':
        return take_mode(s, optarg);
    case 'q':
        s->runs_queue = true;
        return EX_OK;
    case 'I':
        s->nothing = true; /* newaliases */
        return EX_OK;
    case 'N':
        return take_notify(s, optarg);
    case 'V':
        return take_envid(s, optarg);
    case 'R':
        if (strcmp(optarg, "full") != 0 && strcmp(optarg, "hdrs") != 0)
            return wrong("-R takes full or hdrs, not ", optarg);
        s->send.ret = strcmp(optarg, "full") == 0 ? SMTP_RET_FULL : SMTP_RET_HDRS;
        return EX_OK;
    case '?':
        return EX_USAGE;
    default:
        return EX_OK; /* nothing to do */
    }
}

static int read_options(struct sendmail *s, int argc, char **argv)
{
    int option, status = EX_OK;

    optind = 1;
    /* '+' is not said: options may stand behind recipients, as in PHP's mail(). */
    while (status == EX_OK &&
           (option = getopt(argc, argv, "A:B:C:F:GIL:N:O:R:UV:X:b:d::e:f:h:imno:q::r:tv")) != -1)
        status = take_option(s, option);
    return status;
}

/* --- the message --- */

/* Sendmail's way with stdin: a line with a single dot ends the message unless dots stay. */
static struct str cut_at_dot(struct str text, bool dots_stay)
{
    size_t at = 0;

    while (!dots_stay && at < text.len) {
        struct str rest = {text.ptr + at, text.len - at};
        ptrdiff_t end = str_find(rest, '\n');
        struct str line = {rest.ptr, end < 0 ? rest.len : (size_t)end};

        if (str_eq(line, STR(".")) || str_eq(line, STR(".\r")))
            return (struct str){text.ptr, at};
        at += line.len + (end >= 0);
    }
    return text;
}

static bool is_field(struct str line)
{
    ptrdiff_t colon = str_find(line, ':');

    for (ptrdiff_t i = 0; i < colon; i++)
        if (line.ptr[i] <= ' ' || line.ptr[i] == 0x7f)
            return false;
    return colon > 0;
}

/* Where the header ends: before an empty line, or before one that is none of a header, since
 * programs send texts without any header. */
static size_t header_end(struct str text)
{
    size_t at = 0;

    while (at < text.len) {
        struct str rest = {text.ptr + at, text.len - at};
        ptrdiff_t end = str_find(rest, '\n');
        struct str line = {rest.ptr, end < 0 ? rest.len : (size_t)end};
        bool folded = line.len > 0 && (*line.ptr == ' ' || *line.ptr == '\t');

        if (!(folded ? at > 0 : is_field(line)))
            break;
        at += line.len + (end >= 0);
    }
    return at;
}

/* This host's name for addresses that have none: Debian's mail name, or its own name. */
static void find_host(char out[HOST_BYTES])
{
    FILE *f = fopen("/etc/mailname", "re");
    bool found = f != NULL && fgets(out, HOST_BYTES, f) != NULL;

    if (f != NULL)
        fclose(f);
    if (found)
        out[strcspn(out, " \t\r\n")] = '\0';
    if (!found || *out == '\0')
        found = gethostname(out, HOST_BYTES) == 0;
    out[HOST_BYTES - 1] = '\0';
    if (!found || *out == '\0')
        snprintf(out, HOST_BYTES, "localhost");
}

/* "root" is root at this host. */
static void put_address(const struct sendmail *s, struct str address, struct buf *out)
{
    buf_put_str(out, address);
    if (str_rfind(address, '@') < 0) {
        buf_putc(out, '@');
        buf_puts(out, s->host);
    }
}

static void add_recipient(struct sendmail *s, struct str address, const char *where)
{
    struct buf full = {0};

    put_address(s, str_trim(address), &full);
    send_list_add(&s->send.list, buf_str(&full), where);
    buf_done(&full);
}

/* "Taro <taro@example.com>" is what is within the last "<>". */
static struct str address_of(struct str text)
{
    ptrdiff_t at = str_rfind(text, '<');

    if (at < 0 || text.ptr[text.len - 1] != '>')
        return text;
    return (struct str){text.ptr + at + 1, text.len - (size_t)at - 2};
}

/* An argument: an address, or several with commas between, as cron has them of MAILTO. */
static void add_argument(struct sendmail *s, struct str text)
{
    bool quoted = false, any = false;
    struct str one;
    size_t from = 0;

    for (size_t i = 0; i <= text.len; i++) {
        if (i < text.len && text.ptr[i] == '"')
            quoted = !quoted;
        if (i < text.len && (quoted || text.ptr[i] != ','))
            continue;
        one = str_trim((struct str){text.ptr + from, i - from});
        if (one.len > 0)
            add_recipient(s, address_of(one), "recipient");
        any |= one.len > 0;
        from = i + 1;
    }
    if (!any)
        add_recipient(s, text, "recipient"); /* which is reported */
}

static void add_mailboxes(struct sendmail *s, InternetAddressList *list, const char *where)
{
    for (int i = 0; i < internet_address_list_length(list); i++) {
        InternetAddress *one = internet_address_list_get_address(list, i);

        if (INTERNET_ADDRESS_IS_MAILBOX(one))
            add_recipient(
                s, str_of(internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(one))), where);
        else if (INTERNET_ADDRESS_IS_GROUP(one) &&
                 internet_address_group_get_members(INTERNET_ADDRESS_GROUP(one)) != NULL)
            add_mailboxes(s, internet_address_group_get_members(INTERNET_ADDRESS_GROUP(one)),
                          where);
    }
}

/* Calls take for each field of the header, unfolded or not, as it stands. */
static void each_field(struct str header,
                       void (*take)(struct sendmail *s, struct str name, struct str value),
                       struct sendmail *s)
{
    while (header.len > 0) {
        size_t len = 0;
        struct str field, name;

        do {
            struct str rest = {header.ptr + len, header.len - len};
            ptrdiff_t end = str_find(rest, '\n');

            len += end < 0 ? rest.len : (size_t)end + 1;
        } while (len < header.len && (header.ptr[len] == ' ' || header.ptr[len] == '\t'));
        field = (struct str){header.ptr, len};
        name = (struct str){field.ptr, (size_t)str_find(field, ':')};
        take(s, name, (struct str){field.ptr + name.len + 1, field.len - name.len - 1});
        header = (struct str){header.ptr + len, header.len - len};
    }
}

static const char *const recipient_fields[] = {"Resent-To", "Resent-Cc", "Resent-Bcc",
                                               "To",        "Cc",        "Bcc"};
#define RESENT_FIELDS 3 /* the first of them */

/* Whoever sends a message again names those who get it now in fields of their own (RFC 5322 3.6.6):
 * those of the old ones have it. */
static void note_resent(struct sendmail *s, struct str name, struct str value)
{
    (void)value;
    for (size_t i = 0; i < RESENT_FIELDS; i++)
        s->resent = s->resent || str_eq_nocase(name, str_of(recipient_fields[i]));
}

static void take_recipients(struct sendmail *s, struct str name, struct str value)
{
    const char *const *names = recipient_fields + (s->resent ? 0 : RESENT_FIELDS);
    InternetAddressList *list;
    char *text;

    for (size_t i = 0; i < RESENT_FIELDS; i++) {
        if (!str_eq_nocase(name, str_of(names[i])))
            continue;
        text = strndup(value.ptr, value.len);
        ASSERT(text != NULL);
        list = internet_address_list_parse(NULL, text);
        if (list != NULL) {
            add_mailboxes(s, list, names[i]);
            g_object_unref(list);
        } else if (str_trim(value).len > 0) {
            send_list_add(&s->send.list, str_trim(value), names[i]); /* reports it */
        }
        free(text);
    }
}

static void note_from(struct sendmail *s, struct str name, struct str value)
{
    (void)value;
    if (str_eq_nocase(name, STR("From")))
        s->has_from = true;
}

static const struct passwd *caller(void)
{
    static struct passwd unknown = {.pw_name = "nobody", .pw_gecos = ""};
    struct passwd *p = getpwuid(getuid());

    return p != NULL ? p : &unknown;
}

/* The header with a From field, and the body. The sender is known. */
static int compose(struct sendmail *s, struct str header, struct str body, struct buf *out)
{
    struct str name = str_of(s->full_name);
    struct buf from = {0};
    int err = 0;

    each_field(header, note_from, s);
    if (!s->has_from) {
        const struct passwd *user = caller();

        if (s->full_name == NULL)
            name = (struct str){user->pw_gecos, strcspn(user->pw_gecos, ",")};
        put_address(s, str_of(*s->send.sender != '\0' ? s->send.sender : user->pw_name), &from);
        err = mime_put_mailbox(out, STR("From"), smtp_utf8_valid(name) ? name : STR(""),
                               buf_str(&from), MIME_UTF8);
        buf_done(&from);
    }
    if (err < 0)
        return err;
    buf_put_str(out, header);
    if (header.len > 0 && header.ptr[header.len - 1] != '\n')
        buf_puts(out, "\n");
    if (body.len == 0 || (*body.ptr != '\n' && !str_starts_nocase(body, STR("\r\n"))))
        buf_puts(out, "\n");
    buf_put_str(out, body);
    return 0;
}

static int take_sender(struct sendmail *s)
{
    struct buf full = {0};
    int err;

    if (s->sender != NULL && (*s->sender == '\0' || strcmp(s->sender, "<>") == 0)) {
        s->send.sender = strdup("");
        return 0;
    }
    put_address(s, str_of(s->sender != NULL ? s->sender : caller()->pw_name), &full);
    buf_putc(&full, '\0');
    err = send_mailbox_parse((const char *)full.data, &s->send.sender);
    if (err < 0)
        fprintf(stderr, "hayauma sendmail: the sender '%s' is not a mail address\n",
                (const char *)full.data);
    buf_done(&full);
    return err;
}

static int read_message(struct sendmail *s)
{
    struct buf raw = {0}, whole = {0};
    struct str text, header, body;
    int err = input_read("sendmail", "-", &raw);
    size_t lead;

    if (err < 0) {
        buf_done(&raw);
        return err;
    }
    text = cut_at_dot(buf_str(&raw), s->dots_stay);
    lead = trace_lead((const uint8_t *)text.ptr, text.len);
    text = (struct str){text.ptr + lead, text.len - lead};
    header = (struct str){text.ptr, header_end(text)};
    body = (struct str){text.ptr + header.len, text.len - header.len};
    if (s->from_header) {
        each_field(header, note_resent, s);
        each_field(header, take_recipients, s);
    }
    err = take_sender(s);
    if (err == 0)
        err = compose(s, header, body, &whole);
    if (err == 0)
        err = send_message_take("(stdin)", buf_str(&whole), &s->send.message);
    buf_done(&whole);
    buf_done(&raw);
    return err;
}

/* --- sending --- */

static int outcome(const struct sendmail *s)
{
    const struct send *c = &s->send;
    size_t all = send_list_len(&c->list);

    if (c->accepted + c->refused < all) {
        fprintf(stderr, "hayauma sendmail: %s: %s\n", c->submit_options.to.text,
                send_interrupted() ? "interrupted" : c->trouble);
        return EX_TEMPFAIL;
    }
    /* Nobody has it, and a later try may do: full disks, a drain. */
    if (c->refused > 0 && c->accepted == 0 && c->temporary == c->refused)
        return EX_TEMPFAIL;
    return c->refused > 0 ? EX_UNAVAILABLE : c->list.invalid > 0 ? EX_DATAERR : EX_OK;
}

static int find_server(struct endpoint *to)
{
    const char *server = getenv("HAYAUMA_SERVER");
    int err = endpoint_parse(server != NULL && *server != '\0' ? server : "127.0.0.1", 25, to);

    if (err == 0)
        return EX_OK;
    fprintf(stderr, "hayauma sendmail: HAYAUMA_SERVER: '%s' %s\n", server,
            err == -EHOSTUNREACH ? "cannot be found now" : "is no HOST[:PORT]");
    return err == -EHOSTUNREACH ? EX_TEMPFAIL : EX_USAGE;
}

/* `hayauma queue` with this action, and Sendmail's exit codes. */
static int queue(char *title, char *action, char *more)
{
    switch (cmd_queue(more != NULL ? 3 : 2, (char *[]){title, action, more, NULL})) {
    case EXIT_OK:
        return EX_OK;
    case EXIT_UNREACHABLE:
        return EX_TEMPFAIL;
    default:
        return EX_UNAVAILABLE;
    }
}

/* The caller, which reads replies alone, hears of a failure by one. */
static int speak_smtp(void)
{
    struct endpoint to;
    int status = find_server(&to), err = 0;

    if (status == EX_OK)
        err = passage_run(&to);
    if (err == 0)
        return status;
    printf("421 4.3.2 %s: %s\r\n", to.text, strerror(-err));
    return EX_TEMPFAIL;
}

static int deliver(struct sendmail *s)
{
    struct send *c = &s->send;
    int err = find_server(&c->submit_options.to);

    if (err != EX_OK)
        return err;
    c->batch = (uint32_t)(send_list_len(&c->list) < RECIPIENTS_MAX ? send_list_len(&c->list)
                                                                   : RECIPIENTS_MAX);
    err = send_run(c);
    if (err < 0) {
        fprintf(stderr, "hayauma sendmail: %s\n", strerror(-err));
        return EX_OSERR;
    }
    io_close(c->io);
    return outcome(s);
}

static int run(struct sendmail *s, int argc, char **argv)
{
    int status = read_options(s, argc, argv);

    if (status != EX_OK || s->nothing)
        return status;
    if (s->lists_queue)
        return queue(argv[0], (char[]){"list"}, NULL);
    if (s->runs_queue && optind == argc && !s->from_header)
        return queue(argv[0], (char[]){"flush"}, (char[]){"--all"});
    if (s->speaks_smtp)
        return speak_smtp();
    find_host(s->host);
    g_mime_init();
    for (int i = optind; i < argc; i++)
        add_argument(s, str_of(argv[i]));
    if (read_message(s) < 0)
        return EX_DATAERR;
    if (send_list_len(&s->send.list) == 0) {
        fputs("hayauma sendmail: no recipients\n", stderr);
        return s->send.list.invalid > 0 || s->from_header ? EX_DATAERR : EX_USAGE;
    }
    return deliver(s);
}

int cmd_sendmail(int argc, char **argv)
{
    struct sendmail *s = calloc(1, sizeof(*s));
    int status;

    if (s == NULL)
        return EX_OSERR;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        free(s);
        return EX_OK;
    }
    list_init(&s->send.idle);
    s->send.list.reported_max = 20;
    s->send.submit_options = (struct submit_options){
        .sessions = 1,
        .timeout_ms = 300000,
        .reconnect = true,
        .failures_max = CONNECT_FAILURES,
        .client = {.ehlo_name = "localhost", .pipeline_max = 1, .pipeline_bytes_max = 1 << 20},
    };
    status = run(s, argc, argv);
    send_done(&s->send);
    buf_done(&s->envid);
    free(s);
    return status;
}
