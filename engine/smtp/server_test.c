/* The server machine by transcripts: what goes in, what must come out, whatever the pieces.
 * Questions show as [..] in the output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "smtp/server.h"

static const struct smtp_server_options defaults = {
    .host_name = "mx",
    .message_bytes_max = 100,
    .recipients_max = 3,
    .line_bytes_max = 512,
    .body_line_bytes_max = 60,
    .errors_max = 20,
    .commands_max = 20,
};

struct session {
    struct smtp_server server;
    struct buf out, body;
};

/* The engine's part: addresses say what it answers. */
static const char *decide(struct str address)
{
    char text[300];

    snprintf(text, sizeof(text), "%.*s", STR_FMT(address));
    if (strstr(text, "later") != NULL)
        return "451 4.3.0 try later";
    if (strstr(text, "never") != NULL)
        return "550 5.1.1 no such user";
    if (strstr(text, "bye") != NULL)
        return "421 4.3.2 going down";
    return NULL;
}

static void note(struct session *s, const char *what, struct str detail)
{
    buf_printf(&s->out, "[%s %.*s]", what, STR_FMT(detail));
}

/* A copy of exact size, so that a sanitizer sees every byte read too far. False: closed. */
static bool feed(struct session *s, const char *bytes, size_t len)
{
    struct smtp_server *server = &s->server;
    uint8_t *copy = malloc(len + (len == 0));
    struct smtp_server_input in = {copy, len};
    enum smtp_server_want want;

    memcpy(copy, bytes, len);
    while ((want = smtp_server_step(server, &in, &s->out)) != SMTP_SERVER_INPUT) {
        const char *answer = NULL;

        if (want == SMTP_SERVER_CLOSE)
            break;
        if (want == SMTP_SERVER_BODY) {
            buf_put_str(&s->body, server->body);
            continue;
        }
        if (want == SMTP_SERVER_ABORT) {
            buf_puts(&s->out, "[abort]");
            buf_clear(&s->body);
            continue;
        }
        if (want == SMTP_SERVER_HELO) {
            note(s, "helo", server->helo);
            answer = decide(server->helo);
        } else if (want == SMTP_SERVER_TLS) { /* what follows counts as encrypted */
            buf_puts(&s->out, "[tls]");
            answer = decide(server->helo);
            smtp_server_answer(server, &s->out, answer);
            if (answer == NULL)
                smtp_server_encrypted(server);
            continue;
        } else if (want == SMTP_SERVER_AUTH && server->login.mechanism == SMTP_AUTH_SCRAM) {
            buf_printf(&s->out, "[%s %.*s]", server->login.begins ? "begins" : "goes on",
                       STR_FMT(server->login.response));
            if (str_eq(server->login.response, STR("first"))) {
                smtp_server_challenge(server, &s->out, STR("challenge"));
                continue;
            }
            answer = server->login.begins ? "501 5.5.2 no" : NULL;
        } else if (want == SMTP_SERVER_AUTH && server->login.mechanism == SMTP_AUTH_EXTERNAL) {
            note(s, "external", server->login.authzid);
            answer = str_eq(server->login.authzid, STR("other")) ? "535 5.7.8 no" : NULL;
        } else if (want == SMTP_SERVER_AUTH) {
            buf_printf(&s->out, "[auth %.*s|%.*s|%.*s]", STR_FMT(server->login.authzid),
                       STR_FMT(server->login.user), STR_FMT(server->login.password));
            answer = str_eq(server->login.password, STR("good"))
                         ? NULL
                         : "535 5.7.8 authentication failed";
        } else if (want == SMTP_SERVER_XCLIENT) { /* what follows is another client's */
            buf_printf(&s->out, "[xclient %.*s|%.*s]", STR_FMT(server->xclient.address),
                       STR_FMT(server->xclient.port));
            answer = str_eq(server->xclient.address, STR("none")) ? "501 5.5.4 no" : NULL;
            smtp_server_answer(server, &s->out, answer);
            if (answer == NULL)
                smtp_server_greet(server, &s->out, NULL);
            continue;
        } else if (want == SMTP_SERVER_MAIL) {
            note(s, "mail", server->mail.sender.text);
            answer = decide(server->mail.sender.text);
        } else if (want == SMTP_SERVER_RCPT) {
            note(s, "rcpt", server->rcpt.recipient.text);
            answer = decide(server->rcpt.recipient.text);
        } else if (want == SMTP_SERVER_DATA) {
            buf_puts(&s->out, "[data]");
            if (server->rcpts == 2 && !server->options->lmtp)
                answer = "452 4.3.1 full";
        } else {
            note(s, "message", buf_str(&s->body));
            buf_clear(&s->body);
            if (server->options->lmtp)
                answer = "250 2.0.0 one\n452 4.2.2 two full\n250 2.0.0 three";
        }
        smtp_server_answer(server, &s->out, answer);
    }
    if (want == SMTP_SERVER_CLOSE)
        buf_puts(&s->out, "[close]");
    else
        assert_int_equal(in.len, 0);
    free(copy);
    return want != SMTP_SERVER_CLOSE;
}

/* Runs input in pieces: [0, first), then of piece bytes. The output, without CRs, in s->out. */
static void run(struct session *s, const struct smtp_server_options *options, const char *input,
                size_t len, size_t first, size_t piece)
{
    size_t at = first, kept = 0;

    *s = (struct session){0};
    smtp_server_init(&s->server, options);
    if (feed(s, input, first)) {
        while (at < len) {
            size_t n = len - at < piece ? len - at : piece;

            if (!feed(s, input + at, n))
                break;
            at += n;
        }
    }
    for (size_t i = 0; i < s->out.len; i++) {
        if (s->out.data[i] != '\r')
            s->out.data[kept++] = s->out.data[i];
    }
    s->out.len = kept;
    buf_putc(&s->out, '\0');
}

static void done(struct session *s)
{
    smtp_server_done(&s->server);
    buf_done(&s->out);
    buf_done(&s->body);
}

static void check_len(const struct smtp_server_options *options, const char *input, size_t len,
                      const char *want)
{
    struct session s;

    for (size_t piece = 1; piece <= 7; piece += 3) {
        run(&s, options, input, len, 0, piece);
        assert_string_equal(s.out.data, want);
        done(&s);
    }
    for (size_t split = 0; split <= len; split++) {
        run(&s, options, input, len, split, len);
        assert_string_equal(s.out.data, want);
        done(&s);
    }
}

static void check(const struct smtp_server_options *options, const char *input, const char *want)
{
    check_len(options, input, strlen(input), want);
}

#define HELO           "HELO c\r\n"
#define HELO_R         "[helo c]250 mx\n"
#define MAIL           "MAIL FROM:<a@b>\r\n"
#define MAIL_R         "[mail a@b]250 2.1.0 OK\n"
#define RCPT           "RCPT TO:<c@d>\r\n"
#define RCPT_R         "[rcpt c@d]250 2.1.5 OK\n"
#define DATA_R         "[data]354 end data with <CR><LF>.<CR><LF>\n"
#define OPEN           HELO MAIL RCPT
#define OPEN_R         HELO_R MAIL_R RCPT_R
#define LARGE_R        "552 5.3.4 message is larger than this server takes\n"
#define BARE_LINE_R    "500 5.5.2 lines must end in CRLF: bare CR or LF\n"
#define BARE_CLOSING_R "500 5.5.2 lines must end in CRLF: bare CR or LF; closing\n[close]"
#define BARE_R         "554 5.6.0 lines must end in CRLF: message has a bare CR or LF; closing\n"
#define NONE_R         "554 5.5.1 no valid recipients\n"
#define WORDS_R        "500 5.5.1 command not recognised\n"
#define FIELD_R        "421 4.7.0 this is a message and no command\n[close]"
#define BEFORE_R       "503 5.5.1 send MAIL and RCPT first\n"

static const struct transcript {
    const char *in, *out;
} transcripts[] = {
    {"EHLO c\r\n", "[helo c]250-mx\n250-PIPELINING\n250-8BITMIME\n250-SMTPUTF8\n250-CHUNKING\n"
                   "250-ENHANCEDSTATUSCODES\n250-DSN\n250-SIZE 100\n250 LIMITS RCPTMAX=3\n"},
    {OPEN "DATA\r\nhi\r\n..x\r\n.\r\n" MAIL "QUIT\r\n",
     OPEN_R DATA_R "[message hi\n.x\n]250 2.0.0 OK\n" MAIL_R "221 2.0.0 bye\n[close]"},
    /* case, spaces */
    {"helo c\r\nmail from: <a@b>\r\nrcpt to:<c@d>  \r\ndata\r\n.\r\n",
     OPEN_R DATA_R "[message ]250 2.0.0 OK\n"},
    /* sequence */
    {MAIL, "503 5.5.1 send EHLO first\n"},
    {RCPT "DATA\r\n", "503 5.5.1 send MAIL first\n" BEFORE_R},
    {HELO MAIL MAIL, HELO_R MAIL_R "503 5.5.1 a transaction is open\n"},
    {HELO MAIL "DATA\r\n", HELO_R MAIL_R NONE_R},
    {HELO MAIL "RCPT TO:<never@d>\r\nDATA\r\nRSET\r\n" MAIL,
     HELO_R MAIL_R "[rcpt never@d]550 5.1.1 no such user\n" NONE_R "250 2.0.0 OK\n[abort]" MAIL_R},
    {OPEN "RSET\r\nDATA\r\n", OPEN_R "250 2.0.0 OK\n[abort]" BEFORE_R},
    {OPEN HELO "DATA\r\n", OPEN_R "[abort]" HELO_R BEFORE_R},
    {HELO "RSET\r\n", HELO_R "250 2.0.0 OK\n"},
    /* the engine refuses */
    {"HELO never\r\n" MAIL, "[helo never]550 5.1.1 no such user\n503 5.5.1 send EHLO first\n"},
    {HELO "MAIL FROM:<later@b>\r\n" RCPT,
     HELO_R "[mail later@b]451 4.3.0 try later\n503 5.5.1 send MAIL first\n"},
    {HELO MAIL "RCPT TO:<bye@d>\r\nNOOP\r\n",
     HELO_R MAIL_R "[rcpt bye@d]421 4.3.2 going down\n[close]"},
    {OPEN RCPT "DATA\r\nRSET\r\n", OPEN_R RCPT_R "[data]452 4.3.1 full\n250 2.0.0 OK\n[abort]"},
    {OPEN RCPT "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n" MAIL,
     OPEN_R RCPT_R "[data]452 4.3.1 full\n[abort]250 2.0.0 OK\n" MAIL_R},
    {OPEN RCPT RCPT RCPT, OPEN_R RCPT_R RCPT_R "452 4.5.3 too many recipients\n"},
    /* parameters */
    {"EHLO\r\nEHLO a b\r\nHELO .\r\n", "501 5.5.4 a domain or address literal is needed\n"
                                       "501 5.5.4 a domain or address literal is needed\n"
                                       "501 5.5.4 a domain or address literal is needed\n"},
    {HELO "MAIL\r\nMAIL TO:<a@b>\r\nMAIL FROM:a@b\r\nMAIL FROM:<a@b>x\r\n",
     HELO_R "501 5.5.4 syntax: MAIL FROM:<address>\n501 5.5.4 syntax: MAIL FROM:<address>\n"
            "501 5.1.7 bad sender address syntax\n"
            "501 5.5.4 parameters are separated by spaces\n"},
    {HELO "MAIL FROM:<a@b> SIZE=1\r\n", HELO_R "555 5.5.4 parameter not recognised\n"},
    {HELO MAIL "RCPT TO:<>\r\nRCPT TO:<a b@c>\r\nRCPT TO:<postmaster>\r\n",
     HELO_R MAIL_R "501 5.1.3 bad recipient address syntax\n"
                   "501 5.1.3 bad recipient address syntax\n[rcpt postmaster]250 2.1.5 OK\n"},
    {OPEN "DATA x\r\nRSET x\r\nQUIT x\r\nVRFY\r\n",
     OPEN_R "501 5.5.4 DATA takes no parameter\n501 5.5.4 RSET takes no parameter\n"
            "501 5.5.4 QUIT takes no parameter\n501 5.5.4 VRFY needs a name\n"},
    /* the rest of the commands */
    {"NOOP\r\nNOOP x\r\nVRFY a\r\nHELP\r\nEXPN a\r\nSTARTTLS\r\nAUTH PLAIN x\r\nFOO\r\n\r\n",
     "250 2.0.0 OK\n250 2.0.0 OK\n252 2.5.2 not verified; send mail and see\n"
     "214 2.0.0 commands as in RFC 5321\n502 5.5.1 command not implemented\n"
     "502 5.5.1 command not implemented\n502 5.5.1 command not implemented\n"
     "500 5.5.1 command not recognised\n500 5.5.1 command not recognised\n"},
    {"LHLO c\r\n", "500 5.5.1 this is SMTP: send EHLO\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "421 4.7.0 this is not HTTP\n[close]"},
    {HELO "POST /\r\n" MAIL, HELO_R "421 4.7.0 this is not HTTP\n[close]"},
    {"\x16\x03\x01\x02", "421 4.7.0 this is not SMTP\n[close]"},
    {HELO "\xff" MAIL, HELO_R "421 4.7.0 this is not SMTP\n[close]"},
    {HELO MAIL "DATA\r\nX-A:b\r\n\r\n" RCPT, HELO_R MAIL_R NONE_R FIELD_R},
    {HELO "Subject: a\r\n" MAIL, HELO_R FIELD_R},
    {HELO "a b: c\r\n: c\r\na\xff: c\r\n", HELO_R WORDS_R WORDS_R WORDS_R},
    /* text of any kind is a wrong command, as the dot behind a DATA that was refused */
    {HELO MAIL "DATA\r\n.\r\n  NOOP\r\n\tx\r\n42\r\nRSET\r\n",
     HELO_R MAIL_R NONE_R "500 5.5.1 command not recognised\n500 5.5.1 command not recognised\n"
                          "500 5.5.1 command not recognised\n500 5.5.1 command not recognised\n"
                          "250 2.0.0 OK\n[abort]"},
    /* lines */
    {"NOOP\nNOOP\r\nNOOP\r\n", BARE_LINE_R "250 2.0.0 OK\n"},
    {"NO\rOP\r\nNOOP\r\n", BARE_LINE_R "250 2.0.0 OK\n"},
    {"NOOP\r\r\nNOOP\r\n", BARE_LINE_R "250 2.0.0 OK\n"},
    {"\nNOOP\r\nNOOP\r\n", BARE_LINE_R "250 2.0.0 OK\n"},
    {"EHLO x\nHELO x\nMAIL FROM:<>\n", BARE_LINE_R BARE_CLOSING_R},
    /* bodies */
    {OPEN "DATA\r\na\nb\r\n.\r\nNOOP\r\n", OPEN_R DATA_R BARE_R "[abort][close]"},
    {OPEN "DATA\r\na\rb\r\n.\r\nNOOP\r\n", OPEN_R DATA_R BARE_R "[abort][close]"},
    {OPEN "DATA\r\na\n.\n", OPEN_R DATA_R BARE_R "[abort][close]"}, /* and waits */
    {OPEN "DATA\r\n0123456789012345678901234567890123456789012345678901234567890\r\n.\r\n" MAIL,
     OPEN_R DATA_R
     "554 5.6.0 a line of the message has 63 bytes with CRLF, and 60 are the most\n[abort]" MAIL_R},
    {OPEN "DATA\r\n"
          "012345678901234567890123456789012345678901234567\r\n"
          "012345678901234567890123456789012345678901234567\r\nx\r\n.\r\n" MAIL,
     OPEN_R DATA_R LARGE_R "[abort]" MAIL_R},
    {OPEN "DATA\r\n"
          "012345678901234567890123456789012345678901234567\r\n"
          "01234567890123456789012345678901234567890123456\r\n.\r\n",
     OPEN_R DATA_R "[message 012345678901234567890123456789012345678901234567\n"
                   "01234567890123456789012345678901234567890123456\n]250 2.0.0 OK\n"},
    /* BDAT */
    {OPEN "BDAT 4\r\nab\r\nBDAT 3 LAST\r\n.\r\n" MAIL,
     OPEN_R "[data]250 2.0.0 chunk received\n[message ab\n.\n]250 2.0.0 OK\n" MAIL_R},
    {OPEN "BDAT 0 LAST\r\n", OPEN_R "[data][message ]250 2.0.0 OK\n"},
    {OPEN "BDAT 2\r\nabBDAT 0 LAST\r\n",
     OPEN_R "[data]250 2.0.0 chunk received\n[message ab]250 2.0.0 OK\n"},
    {"BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", BEFORE_R BEFORE_R "250 2.0.0 OK\n"},
    {HELO MAIL "BDAT 6 LAST\r\nQUIT\r\n" MAIL, HELO_R MAIL_R NONE_R "[abort]" MAIL_R},
    {OPEN "BDAT 6 FIRST\r\nQUIT\r\n" MAIL,
     OPEN_R "501 5.5.4 syntax: BDAT size [LAST]\n[abort]" MAIL_R},
    {OPEN "BDAT 2\r\nabDATA\r\n" RCPT MAIL "BDAT 1 LAST\r\nc",
     OPEN_R "[data]250 2.0.0 chunk received\n" BEFORE_R "503 5.5.1 send MAIL first\n"
            "503 5.5.1 a transaction is open\n[message abc]250 2.0.0 OK\n"},
    {OPEN "BDAT 2\r\nabRSET\r\nBDAT 1 LAST\r\nc" MAIL,
     OPEN_R "[data]250 2.0.0 chunk received\n250 2.0.0 OK\n[abort]" BEFORE_R MAIL_R},
    {OPEN "BDAT 4 LAST\r\na\nb\n", OPEN_R "[data]" BARE_R "[abort][close]"},
    {OPEN "BDAT 2 LAST\r\na\r", OPEN_R "[data]" BARE_R "[abort][close]"},
    {OPEN "BDAT 101 LAST\r\n"
          "012345678901234567890123456789012345678901234567\r\n"
          "012345678901234567890123456789012345678901234567\r\nx" MAIL,
     OPEN_R LARGE_R "[abort]" MAIL_R},
    {OPEN "BDAT 2\r\nabBDAT 99 LAST\r\n"
          "012345678901234567890123456789012345678901234567\r\n"
          "01234567890123456789012345678901234567890123456\r\n" MAIL,
     OPEN_R "[data]250 2.0.0 chunk received\n" LARGE_R "[abort]" MAIL_R},
    {OPEN "BDAT\r\n", OPEN_R "501 5.5.4 syntax: BDAT size [LAST]; out of step, closing\n[close]"},
    {OPEN "BDAT -1 LAST\r\n",
     OPEN_R "501 5.5.4 syntax: BDAT size [LAST]; out of step, closing\n[close]"},
    {OPEN "BDAT 18446744073709551617 LAST\r\nx",
     OPEN_R "501 5.5.4 syntax: BDAT size [LAST]; out of step, closing\n[close]"},
    {OPEN "BDAT 99999999999999999999999999\r\n",
     OPEN_R "501 5.5.4 syntax: BDAT size [LAST]; out of step, closing\n[close]"},
};

static void test_transcripts(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(transcripts); i++)
        check(&defaults, transcripts[i].in, transcripts[i].out);
}

static void test_nul(void **state)
{
    static const char body[] = OPEN "DATA\r\na\0b\r\n.\r\n" MAIL;
    static const char command[] = "NOOP\r\nNO\0OP\r\nHELO a\0b\r\nNOOP\r\n";

    (void)state;
    check_len(&defaults, body, sizeof(body) - 1,
              OPEN_R DATA_R "554 5.6.0 message has a NUL byte\n[abort]" MAIL_R);
    check_len(&defaults, command, sizeof(command) - 1,
              "250 2.0.0 OK\n500 5.5.1 command not recognised\n"
              "501 5.5.4 a domain or address literal is needed\n250 2.0.0 OK\n");
}

/* --- ESMTP parameters: one command each --- */

#define BAD(name) "501 5.5.4 bad value of parameter " name "\n"
#define UNKNOWN   "555 5.5.4 parameter not recognised\n"
#define OK_MAIL   "[mail a@b]250 2.1.0 OK\n"
#define OK_RCPT   "[rcpt c@d]250 2.1.5 OK\n"

static const struct transcript parameters[] = {
    {"MAIL FROM:<a@b> SIZE=100", OK_MAIL},
    {"MAIL FROM:<a@b>   SIZE=100 BODY=8BITMIME  RET=HDRS ENVID=a+2Bb SMTPUTF8", OK_MAIL},
    {"MAIL FROM:<a@b> body=7bit ret=full", OK_MAIL},
    {"MAIL FROM:<a@b> SIZE=101", LARGE_R},
    {"MAIL FROM:<a@b> SIZE=99999999999999999999", LARGE_R},
    {"MAIL FROM:<a@b> SIZE=999999999999999999999", BAD("SIZE")},
    {"MAIL FROM:<a@b> SIZE=", BAD("SIZE")},
    {"MAIL FROM:<a@b> SIZE", BAD("SIZE")},
    {"MAIL FROM:<a@b> SIZE=1x", BAD("SIZE")},
    {"MAIL FROM:<a@b> SIZE=1 SIZE=1", "501 5.5.4 parameter given twice\n"},
    {"MAIL FROM:<a@b> BODY=9BIT", BAD("BODY")},
    {"MAIL FROM:<a@b> BODY=BINARYMIME", "504 5.5.4 BINARYMIME is not offered\n"},
    {"MAIL FROM:<a@b> SMTPUTF8=1", BAD("SMTPUTF8")},
    {"MAIL FROM:<a@b> RET=SOME", BAD("RET")},
    {"MAIL FROM:<a@b> ENVID=+0A", BAD("ENVID")},
    {"MAIL FROM:<a@b> ENVID=a=b", BAD("ENVID")},
    {"MAIL FROM:<a@b> AUTH=<>", OK_MAIL},
    {"MAIL FROM:<a@b> AUTH=", BAD("AUTH")},
    {"MAIL FROM:<a@b> NOTIFY=NEVER", UNKNOWN},
    {"MAIL FROM:<a@b> =1", UNKNOWN},
    {"MAIL FROM:<\xc3\xa9@b>", "553 5.6.7 a non-ASCII address needs SMTPUTF8\n"},
    {"MAIL FROM:<\xc3\xa9@b> SMTPUTF8", "[mail \xc3\xa9@b]250 2.1.0 OK\n"},
    {"MAIL FROM:<\xe9@b> SMTPUTF8", "501 5.1.7 bad sender address syntax\n"},
    {"MAIL FROM:<>", "[mail ]250 2.1.0 OK\n"},
    {"RCPT TO:<c@d> NOTIFY=NEVER", OK_RCPT},
    {"RCPT TO:<c@d> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;c+2Bx@d", OK_RCPT},
    {"RCPT TO:<c@d> NOTIFY=NEVER,SUCCESS", BAD("NOTIFY")},
    {"RCPT TO:<c@d> NOTIFY=", BAD("NOTIFY")},
    {"RCPT TO:<c@d> NOTIFY=,", BAD("NOTIFY")},
    {"RCPT TO:<c@d> NOTIFY=SOMETIMES", BAD("NOTIFY")},
    {"RCPT TO:<c@d> ORCPT=c@d", BAD("ORCPT")},
    {"RCPT TO:<c@d> ORCPT=rfc822;", BAD("ORCPT")},
    {"RCPT TO:<c@d> ORCPT=;c@d", BAD("ORCPT")},
    {"RCPT TO:<c@d> ORCPT=rfc822;c+0D@d", BAD("ORCPT")},
    {"RCPT TO:<c@d> ORCPT=utf-8;\xc3\xa9@d", BAD("ORCPT")},
    {"RCPT TO:<c@d> SIZE=1", UNKNOWN},
    {"RCPT TO:<\xc3\xa9@d>", "553 5.6.7 a non-ASCII address needs SMTPUTF8\n"},
    {"RCPT TO:<b@\xe4\xbe\x8b.mx.example> NOTIFY=NEVER",
     "553 5.6.7 a non-ASCII address needs SMTPUTF8\n"},
    {"RCPT TO:<\xe9@d>", "501 5.1.3 bad recipient address syntax\n"},
};

static void test_parameters(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(parameters); i++) {
        bool rcpt = parameters[i].in[0] == 'R';
        struct session s = {0};
        char line[600];

        smtp_server_init(&s.server, &defaults);
        feed(&s, "EHLO c\r\n", 8);
        if (rcpt)
            feed(&s, MAIL, sizeof(MAIL) - 1);
        buf_clear(&s.out);
        snprintf(line, sizeof(line), "%s\r\n", parameters[i].in);
        feed(&s, line, strlen(line));
        s.out.data[s.out.len - 2] = '\n';
        s.out.data[s.out.len - 1] = '\0';
        assert_string_equal(s.out.data, parameters[i].out);
        done(&s);
    }
}

static void test_parameter_values(void **state)
{
    struct smtp_server_input in;
    struct smtp_server s;
    struct buf out = {0};

    (void)state;
    smtp_server_init(&s, &defaults);
    in = (struct smtp_server_input){(const uint8_t *)"EHLO c\r\n", 8};
    assert_int_equal(smtp_server_step(&s, &in, &out), SMTP_SERVER_HELO);
    assert_true(s.esmtp);
    smtp_server_answer(&s, &out, NULL);
    in = (struct smtp_server_input){
        (const uint8_t *)"MAIL FROM:<a@b> SIZE=42 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+20y\r\n",
        70};
    assert_int_equal(smtp_server_step(&s, &in, &out), SMTP_SERVER_MAIL);
    assert_int_equal(s.mail.size, 42);
    assert_true(s.mail.body_8bit && s.mail.smtputf8);
    assert_int_equal(s.mail.ret, SMTP_RET_HDRS);
    assert_true(str_eq(s.mail.envid, STR("x+20y")));
    smtp_server_answer(&s, &out, NULL);
    in = (struct smtp_server_input){
        (const uint8_t *)"RCPT TO:<\xc3\xa9@d> ORCPT=utf-8;\xc3\xa9@d NOTIFY=FAILURE,DELAY\r\n",
        54};
    assert_int_equal(smtp_server_step(&s, &in, &out), SMTP_SERVER_RCPT);
    assert_int_equal(s.rcpt.notify, SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY);
    assert_true(str_eq(s.rcpt.orcpt, STR("utf-8;\xc3\xa9@d")));
    assert_true(s.rcpt.recipient.utf8);
    smtp_server_answer(&s, &out, NULL);
    assert_false(smtp_server_idle(&s));
    smtp_server_done(&s);
    buf_done(&out);
}

/* --- limits --- */

static void test_long_lines(void **state)
{
    static char line[4096];
    size_t max = defaults.line_bytes_max;

    (void)state;
    for (size_t len = max - 2; len <= max + 3; len++) { /* with CRLF */
        memset(line, 'x', sizeof(line));
        memcpy(line, "NOOP ", 5);
        memcpy(line + len - 2, "\r\nNOOP\r\n", 9);
        check(&defaults, line,
              len <= max ? "250 2.0.0 OK\n250 2.0.0 OK\n"
                         : "500 5.5.2 line too long\n250 2.0.0 OK\n");
    }
    memset(line, 'x', sizeof(line));
    memcpy(line + 3000, "\n\r\r\n", 5);
    check(&defaults, line, "500 5.5.2 line too long\n" BARE_CLOSING_R);
}

static void test_counts(void **state)
{
    struct smtp_server_options o = defaults;

    (void)state;
    o.errors_max = 2;
    o.commands_max = 3;
    o.messages_max = 2;
    check(&o, "X\r\nX\r\nX\r\nNOOP\r\n",
          "500 5.5.1 command not recognised\n500 5.5.1 command not recognised\n"
          "500 5.5.1 command not recognised\n421 4.7.0 too many errors\n[close]");
    check(&o, "NOOP\r\nNOOP\r\nRSET\r\nNOOP\r\nNOOP\r\n",
          "250 2.0.0 OK\n250 2.0.0 OK\n250 2.0.0 OK\n"
          "421 4.7.0 too many commands without mail\n[close]");
    /* A message makes up for what came before it. */
    check(&o,
          OPEN "X\r\nX\r\nDATA\r\n.\r\nX\r\nX\r\nNOOP\r\nNOOP\r\nNOOP\r\n" MAIL RCPT
               "BDAT 0 LAST\r\n" MAIL,
          OPEN_R "500 5.5.1 command not recognised\n500 5.5.1 command not recognised\n" DATA_R
                 "[message ]250 2.0.0 OK\n500 5.5.1 command not recognised\n"
                 "500 5.5.1 command not recognised\n250 2.0.0 OK\n250 2.0.0 OK\n"
                 "250 2.0.0 OK\n" MAIL_R RCPT_R "[data][message ]250 2.0.0 OK\n"
                 "421 4.7.0 too many messages in one session\n[close]");
}

/* A client that may relay: its name and its spelling are its own, and its lists cost it nothing. */
static void test_trusted(void **state)
{
    static const char no[] = "[rcpt never@d]550 5.1.1 no such user\n";
    static const char bad[] = "501 5.1.3 bad recipient address syntax\n";
    struct smtp_server_options o = defaults;
    struct buf in = {0}, out = {0};

    (void)state;
    o.trusted = true;
    check(&o,
          "HELO (none)\r\nHELO my host \r\nHELO\r\nHELO myhost.\r\nHELO [IPv6:fe80::1%eth0]\r\n",
          "[helo (none)]250 mx\n[helo my host]250 mx\n[helo ]250 mx\n[helo myhost.]250 mx\n"
          "[helo [IPv6:fe80::1%eth0]]250 mx\n");
    check(&o,
          "EHLO c\r\nMAIL FROM: a@b. SIZE=1\r\nRCPT TO:c..c@d NOTIFY=NEVER\r\nRCPT TO:<c@d.>\r\n",
          "[helo c]250-mx\n250-PIPELINING\n250-8BITMIME\n250-SMTPUTF8\n250-CHUNKING\n"
          "250-ENHANCEDSTATUSCODES\n250-DSN\n250-SIZE 100\n250 LIMITS RCPTMAX=3\n"
          "[mail a@b]250 2.1.0 OK\n[rcpt c..c@d]250 2.1.5 OK\n" RCPT_R);
    check(&o, HELO "MAIL FROM:\r\nMAIL FROM:a@b>\r\nMAIL FROM:<a@b\r\n",
          HELO_R "501 5.1.7 bad sender address syntax\n501 5.1.7 bad sender address syntax\n"
                 "501 5.1.7 bad sender address syntax\n");
    check(&o, HELO "MAIL FROM:< a@b >\r\nRCPT TO:<c@d >\r\nRCPT TO:< >\r\nRCPT TO:<c @d>\r\n",
          HELO_R MAIL_R "[rcpt c@d]250 2.1.5 OK\n501 5.1.3 bad recipient address syntax\n"
                        "501 5.1.3 bad recipient address syntax\n");
    check(&o, "QUIT \t \r\n", "221 2.0.0 bye\n[close]");
    o.errors_max = o.commands_max = 2;
    buf_puts(&in, OPEN);
    buf_puts(&out, OPEN_R);
    for (unsigned i = 0; i < 20; i++) {
        buf_puts(&in, "RCPT TO:<never@d>\r\nRCPT TO:<a b>\r\n");
        buf_puts(&out, no);
        buf_puts(&out, bad);
    }
    buf_puts(&in, "DATA\r\n.\r\nMAIL FROM:<@>\r\n" RCPT RCPT RCPT "DATA\r\nDATA\r\n");
    buf_puts(&out, DATA_R "[message ]250 2.0.0 OK\n501 5.1.7 bad sender address syntax\n"
                          "503 5.5.1 send MAIL first\n503 5.5.1 send MAIL first\n"
                          "503 5.5.1 send MAIL first\n" BEFORE_R BEFORE_R
                          "421 4.7.0 too many commands without mail\n[close]");
    buf_putc(&in, '\0');
    buf_putc(&out, '\0');
    check(&o, (const char *)in.data, (const char *)out.data);
    check(&o, "X\r\nX\r\nX\r\n",
          "500 5.5.1 command not recognised\n500 5.5.1 command not recognised\n"
          "500 5.5.1 command not recognised\n421 4.7.0 too many errors\n[close]");
    buf_done(&in);
    buf_done(&out);
}

/* Only CRLF.CRLF ends the data: nothing behind another end is a command. */
static void test_repair(void **state)
{
    struct smtp_server_options o = defaults;

    (void)state;
    o.repair_newlines = true;
    check(&o, OPEN "DATA\r\nhi\n..x\ra\n.\nRSET\n.\r\nb\r\n.\r\nNOOP\r\n",
          OPEN_R DATA_R "[message hi\n.x a\n.\nRSET\n.\nb\n]250 2.0.0 OK\n250 2.0.0 OK\n");
    check(&o, OPEN "BDAT 4\r\na\n.\rBDAT 5 LAST\r\n\nb\n.\rNOOP\r\n",
          OPEN_R "[data]250 2.0.0 chunk received\n[message a\n.\nb\n. ]250 2.0.0 OK\n"
                 "250 2.0.0 OK\n");
    check_len(&o, OPEN "DATA\r\na\0\n.\r\n\r\n.\r\nNOOP\n",
              sizeof(OPEN "DATA\r\na\0\n.\r\n\r\n.\r\nNOOP\n") - 1,
              OPEN_R DATA_R "554 5.6.0 message has a NUL byte\n[abort]"
                            "250 2.0.0 OK\n");
    check(&o, "HELO c\nNO\rOP\nNOOP\n", HELO_R BARE_LINE_R "250 2.0.0 OK\n");
    /* What grows beyond the largest message is too large, in a later chunk too. */
    o.message_bytes_max = 10;
    check(&o, OPEN "BDAT 10\r\n\n\n\n\n\n\n\n\n\n\nBDAT 1\r\nxNOOP\r\n",
          OPEN_R "[data]250 2.0.0 chunk received\n" LARGE_R "[abort]250 2.0.0 OK\n");
    check(&o, OPEN "DATA\r\n\n\n\n\n\n\n\r\n.\r\nNOOP\r\n",
          OPEN_R DATA_R LARGE_R "[abort]250 2.0.0 OK\n");
}

/* What is answered without end, though none of it is an error: chunks of nothing, recipients that
 * are put off. */
static void test_counts_what_is_no_mail(void **state)
{
    struct smtp_server_options o = defaults;
    struct session s;

    (void)state;
    o.commands_max = 3; /* HELO is one */
    o.recipients_max = 1;
    check(&o, OPEN "BDAT 0\r\nBDAT 1\r\nxBDAT 63\r\n",
          OPEN_R "[data]250 2.0.0 chunk received\n250 2.0.0 chunk received\n"
                 "421 4.7.0 too many commands without mail\n[close]");
    check(&o, OPEN RCPT RCPT RCPT RCPT RCPT RCPT,
          OPEN_R "452 4.5.3 too many recipients\n"
                 "452 4.5.3 too many recipients\n452 4.5.3 too many recipients\n"
                 "452 4.5.3 too many recipients\n452 4.5.3 too many recipients\n"
                 "421 4.7.0 too many commands without mail\n[close]");
    check(&o,
          HELO MAIL "RCPT TO:<later@d>\r\nRCPT TO:<later@d>\r\nRCPT TO:<later@d>\r\n" RCPT
                    "BDAT 0 LAST\r\n" MAIL "RCPT TO:<later@d>\r\n",
          HELO_R MAIL_R "[rcpt later@d]451 4.3.0 try later\n[rcpt later@d]451 4.3.0 try later\n"
                        "[rcpt later@d]451 4.3.0 try later\n" RCPT_R
                        "[data][message ]250 2.0.0 OK\n" MAIL_R
                        "[rcpt later@d]451 4.3.0 try later\n");
    /* A large chunk carries mail. */
    run(&s, &o, OPEN "BDAT 64\r\n", strlen(OPEN "BDAT 64\r\n"), 0, 512);
    assert_int_equal(s.server.commands, 1);
    done(&s);
}

/* Input of mebibyte after mebibyte behind a refusal: how many were taken until the end. */
static size_t discarded(const char *before, const char *want)
{
    static char blob[65536];
    struct session s = {0};
    size_t taken = 0;

    memset(blob, 'x', sizeof(blob));
    smtp_server_init(&s.server, &defaults);
    assert_true(feed(&s, before, strlen(before)));
    while (taken < 256 << 20 && feed(&s, blob, sizeof(blob)))
        taken += sizeof(blob);
    buf_putc(&s.out, '\0');
    assert_non_null(strstr((const char *)s.out.data, want));
    done(&s);
    return taken;
}

static void test_discards_have_an_end(void **state)
{
    (void)state;
    assert_in_range(discarded(HELO "BDAT 99999999999\r\n", "503 5.5.1 "), 64 << 20, 66 << 20);
    assert_in_range(discarded(OPEN "BDAT 99999999999 LAST\r\n", "552 5.3.4 "), 64 << 20, 66 << 20);
    assert_in_range(discarded(HELO "NOOP ", "421 4.7.0 too much input"), 64 << 20, 66 << 20);
    assert_in_range(discarded(OPEN "DATA\r\n",
                              "552 5.3.4 message is larger than this server takes; "
                              "closing\r\n[abort]"),
                    64 << 20, 66 << 20);
}

static void test_nothing_offered(void **state)
{
    struct smtp_server_options o = defaults;

    (void)state;
    o.no_pipelining = o.no_chunking = o.no_8bitmime = o.no_smtputf8 = o.no_dsn = o.no_size =
        o.no_limits = o.no_enhanced = true;
    check(&o, "EHLO c\r\nMAIL FROM:<a@b> SIZE=1\r\n" MAIL "BDAT 3 LAST\r\nabcRCPT TO:<never@d>\r\n",
          "[helo c]250 mx\n555 parameter not recognised\n[mail a@b]250 OK\n"
          "502 BDAT is not offered\n[abort]503 send MAIL first\n");
}

#define LHLO "LHLO c\r\n"
#define LHLO_R                                                                                     \
    "[helo c]250-mx\n250-PIPELINING\n250-8BITMIME\n250-SMTPUTF8\n250-CHUNKING\n"                   \
    "250 ENHANCEDSTATUSCODES\n"

static void test_lmtp(void **state)
{
    static const char faulty[] = LHLO MAIL RCPT RCPT "DATA\r\na\0\r\n.\r\nNOOP\r\n";
    static const char large[] =
        LHLO MAIL RCPT RCPT "BDAT 101 LAST\r\n"
                            "012345678901234567890123456789012345678901234567\r\n"
                            "012345678901234567890123456789012345678901234567\r\nxNOOP\r\n";
    struct smtp_server_options o = defaults;

    (void)state;
    o.lmtp = true;
    o.no_limits = o.no_size = o.no_dsn = true;
    check(&o, "EHLO c\r\n" LHLO MAIL RCPT RCPT RCPT "DATA\r\n.\r\nNOOP\r\n",
          "500 5.5.1 this is LMTP: send LHLO\n" LHLO_R MAIL_R RCPT_R RCPT_R RCPT_R DATA_R
          "[message ]250 2.0.0 one\n452 4.2.2 two full\n250 2.0.0 three\n250 2.0.0 OK\n");
    check_len(&o, faulty, sizeof(faulty) - 1,
              LHLO_R MAIL_R RCPT_R RCPT_R DATA_R
              "554 5.6.0 message has a NUL byte\n554 5.6.0 message has a NUL byte\n[abort]"
              "250 2.0.0 OK\n");
    check(&o, large, LHLO_R MAIL_R RCPT_R RCPT_R LARGE_R LARGE_R "[abort]250 2.0.0 OK\n");
    check(&o, LHLO MAIL "BDAT 1 LAST\r\nxNOOP\r\n", LHLO_R MAIL_R NONE_R "[abort]250 2.0.0 OK\n");
}

#define WITH       "EHLO c\r\n"
#define RIGHT      "AHUAZ29vZA==" /* NUL u NUL good */
#define WRONG      "AHUAYmFk"     /* NUL u NUL bad */
#define LOGIN_USER "334 VXNlcm5hbWU6\n"
#define LOGIN_PASS "334 UGFzc3dvcmQ6\n"
#define DONE_R     "235 2.7.0 authentication successful\n"
#define WRONG_R    "535 5.7.8 authentication failed\n"
#define SHAPE_R    "501 5.5.2 not a user and a password of usual lengths\n"

static struct smtp_server_options auth_options(bool without_tls, bool required)
{
    struct smtp_server_options o = defaults;

    o.no_8bitmime = o.no_smtputf8 = o.no_chunking = o.no_dsn = o.no_limits = true;
    o.auth = SMTP_AUTH_PLAIN | SMTP_AUTH_LOGIN;
    o.auth_without_tls = without_tls;
    o.auth_required = required;
    return o;
}
#define WITH_R                                                                                     \
    "[helo c]250-mx\n250-PIPELINING\n250-ENHANCEDSTATUSCODES\n250-AUTH PLAIN LOGIN\n250 SIZE "     \
    "100\n"

/* RFC 4954 4: each way through the exchange. */
static void test_auth(void **state)
{
    struct smtp_server_options o = auth_options(true, true);
    static const struct transcript cases[] = {
        {WITH "AUTH PLAIN " RIGHT "\r\n" MAIL, WITH_R "[auth |u|good]" DONE_R MAIL_R},
        {WITH "auth plain\r\n" RIGHT "\r\n" MAIL, WITH_R "334 \n[auth |u|good]" DONE_R MAIL_R},
        {WITH "AUTH LOGIN\r\ndQ==\r\nZ29vZA==\r\n" MAIL,
         WITH_R LOGIN_USER LOGIN_PASS "[auth |u|good]" DONE_R MAIL_R},
        {WITH "AUTH LOGIN dQ==\r\nZ29vZA==\r\n" MAIL,
         WITH_R LOGIN_PASS "[auth |u|good]" DONE_R MAIL_R},
        /* As another: who may, the caller says. */
        {WITH "AUTH PLAIN YQB1AGdvb2Q=\r\n", WITH_R "[auth a|u|good]" DONE_R},
        /* Refused, and once more. */
        {WITH "AUTH PLAIN " WRONG "\r\n" MAIL "AUTH PLAIN " RIGHT "\r\n" MAIL,
         WITH_R "[auth |u|bad]" WRONG_R "530 5.7.0 send AUTH first\n[auth |u|good]" DONE_R MAIL_R},
        /* Out of its place. */
        {"AUTH PLAIN " RIGHT "\r\n", "503 5.5.1 send EHLO first\n"},
        {HELO "AUTH PLAIN " RIGHT "\r\n", HELO_R "503 5.5.1 send EHLO first\n"},
        {WITH "AUTH PLAIN " RIGHT "\r\nAUTH PLAIN " RIGHT "\r\n" MAIL "AUTH PLAIN " RIGHT "\r\n",
         WITH_R "[auth |u|good]" DONE_R "503 5.5.1 you are authenticated already\n" MAIL_R
                "503 5.5.1 you are authenticated already\n"},
        /* The login outlives RSET and another EHLO. */
        {WITH "AUTH PLAIN " RIGHT "\r\nRSET\r\n" WITH MAIL,
         WITH_R "[auth |u|good]" DONE_R "250 2.0.0 OK\n" WITH_R MAIL_R},
        /* No such mechanism, cancelled, not base64, no NUL, one NUL, three NULs, nothing. */
        {WITH "AUTH\r\nAUTH CRAM-MD5\r\nAUTH PLAINX\r\n",
         WITH_R "504 5.5.4 no such mechanism is offered\n504 5.5.4 no such mechanism is offered\n"
                "504 5.5.4 no such mechanism is offered\n"},
        {WITH "AUTH PLAIN\r\n*\r\nAUTH LOGIN dQ==\r\n*\r\nNOOP\r\n",
         WITH_R "334 \n501 5.7.0 authentication cancelled\n" LOGIN_PASS
                "501 5.7.0 authentication cancelled\n250 2.0.0 OK\n"},
        {WITH "AUTH PLAIN AHUA Z29vZA==\r\nAUTH PLAIN\r\nMAIL FROM:<a@b>\r\nNOOP\r\n",
         WITH_R "501 5.5.2 not base64\n334 \n501 5.5.2 not base64\n250 2.0.0 OK\n"},
        {WITH "AUTH PLAIN dQ==\r\nAUTH PLAIN AHU=\r\nAUTH PLAIN AHUAYQBi\r\nAUTH PLAIN =\r\n",
         WITH_R "501 5.5.2 not a response of PLAIN\n501 5.5.2 not a response of PLAIN\n" SHAPE_R
                "501 5.5.2 not a response of PLAIN\n"},
        {WITH "AUTH PLAIN AABnb29k\r\nAUTH PLAIN AHUA\r\nAUTH LOGIN =\r\nAUTH LOGIN "
              "dQBh\r\nZ29vZA==\r\nAUTH LOGIN dQ==\r\n\r\n",
         WITH_R SHAPE_R SHAPE_R "501 5.5.2 no user\n" LOGIN_PASS SHAPE_R LOGIN_PASS SHAPE_R},
        /* A line that ends otherwise ends the exchange. */
        {WITH "AUTH PLAIN\r\nAH\nUA\r\nNOOP\r\n", WITH_R "334 \n" BARE_LINE_R "250 2.0.0 OK\n"},
        {WITH "AUTH PLAIN\r\nAH\rUA\r\nNOOP\r\n", WITH_R "334 \n" BARE_LINE_R "250 2.0.0 OK\n"},
        /* What a relay says of whose mail it is. */
        {WITH "AUTH PLAIN " RIGHT "\r\nMAIL FROM:<a@b> AUTH=a+3Db@c\r\n",
         WITH_R "[auth |u|good]" DONE_R MAIL_R},
        {WITH "AUTH PLAIN " RIGHT "\r\nMAIL FROM:<a@b> AUTH=<>\r\n",
         WITH_R "[auth |u|good]" DONE_R MAIL_R},
        {WITH "AUTH PLAIN " RIGHT "\r\nMAIL FROM:<a@b> AUTH=a+zz\r\nMAIL FROM:<a@b> AUTH=\r\n",
         WITH_R "[auth |u|good]" DONE_R "501 5.5.4 bad value of parameter AUTH\n"
                "501 5.5.4 bad value of parameter AUTH\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check(&o, cases[i].in, cases[i].out);
    /* Optional. */
    o.auth_required = false;
    check(&o, WITH MAIL "AUTH PLAIN " RIGHT "\r\n",
          WITH_R MAIL_R "503 5.5.1 a transaction is open\n");
}

/* What the mechanism says goes through. */
static void test_auth_scram(void **state)
{
    struct smtp_server_options o = auth_options(true, true);

    (void)state;
    o.auth |= SMTP_AUTH_SCRAM;
#define SCRAM_R                                                                                    \
    "[helo c]250-mx\n250-PIPELINING\n250-ENHANCEDSTATUSCODES\n250-AUTH SCRAM-SHA-256 PLAIN "       \
    "LOGIN\n250 SIZE 100\n"
#define CHALLENGE_R "[begins first]334 Y2hhbGxlbmdl\n"
    check(&o, WITH "AUTH SCRAM-SHA-256 Zmlyc3Q=\r\nbGFzdA==\r\n" MAIL,
          SCRAM_R CHALLENGE_R "[goes on last]" DONE_R MAIL_R);
    check(&o, WITH "AUTH SCRAM-SHA-256\r\nZmlyc3Q=\r\n\r\n" MAIL,
          SCRAM_R "334 \n" CHALLENGE_R "[goes on ]" DONE_R MAIL_R);
    check(&o, WITH "AUTH SCRAM-SHA-256 Zmlyc3Q=\r\n*\r\nAUTH SCRAM-SHA-256 Zmlyc3R4\r\n",
          SCRAM_R CHALLENGE_R "501 5.7.0 authentication cancelled\n[begins firstx]501 5.5.2 no\n");
    /* Of one exchange nothing is left to another. */
    check(&o, WITH "AUTH SCRAM-SHA-256 Zmlyc3Q=\r\n.\r\nAUTH PLAIN " RIGHT "\r\n",
          SCRAM_R CHALLENGE_R "501 5.5.2 not base64\n[auth |u|good]" DONE_R);
}

/* RFC 4422 A: one response, whom to act as, which may be empty. */
static void test_auth_external(void **state)
{
    struct smtp_server_options o = auth_options(true, true);

    (void)state;
    o.auth = SMTP_AUTH_EXTERNAL;
#define EXTERNAL_R                                                                                 \
    "[helo c]250-mx\n250-PIPELINING\n250-ENHANCEDSTATUSCODES\n250-AUTH EXTERNAL\n250 SIZE 100\n"
    check(&o, WITH "AUTH EXTERNAL =\r\n" MAIL, EXTERNAL_R "[external ]" DONE_R MAIL_R);
    check(&o, WITH "AUTH EXTERNAL\r\n\r\n" MAIL, EXTERNAL_R "334 \n[external ]" DONE_R MAIL_R);
    check(&o, WITH "AUTH EXTERNAL b3RoZXI=\r\nAUTH EXTERNAL dQ==\r\n",
          EXTERNAL_R "[external other]535 5.7.8 no\n[external u]" DONE_R);
    check(&o, WITH "AUTH EXTERNAL AHU=\r\nAUTH EXTERNAL\r\n*\r\nAUTH PLAIN " RIGHT "\r\n",
          EXTERNAL_R
          "501 5.5.2 not a user of usual length\n334 \n"
          "501 5.7.0 authentication cancelled\n504 5.5.4 no such mechanism is offered\n");
    o.auth_without_tls = false;
    check(&o, WITH "AUTH EXTERNAL =\r\n",
          "[helo c]250-mx\n250-PIPELINING\n250-ENHANCEDSTATUSCODES\n250 SIZE 100\n"
          "538 5.7.11 encryption is needed first: send STARTTLS\n");
}

/* Postfix's XCLIENT_README: who may say it begins a session anew; nothing of the old one is left.
 */
static void test_xclient(void **state)
{
#define GREETING  "220 mx ESMTP Hayauma\n"
#define BAD_R     "501 5.5.4 bad attribute of XCLIENT\n"
#define XCLIENT_R "[xclient 192.0.2.1|]" GREETING
#define OFFER_R                                                                                    \
    "[helo c]250-mx\n250-PIPELINING\n250-ENHANCEDSTATUSCODES\n250-AUTH PLAIN LOGIN\n"              \
    "250-XCLIENT NAME ADDR PORT PROTO HELO\n250 SIZE 100\n"
    struct smtp_server_options o = auth_options(true, true);
    static const struct transcript cases[] = {
        {"XCLIENT ADDR=192.0.2.1\r\n" MAIL, XCLIENT_R "503 5.5.1 send EHLO first\n"},
        {"xclient  name=[UNAVAILABLE]  addr=IPV6:2001:db8::1 PORT=4711 proto=ESMTP HELO=a+2Bb "
         "destaddr=192.0.2.9 DESTPORT=25\r\n",
         "[xclient IPV6:2001:db8::1|4711]" GREETING},
        /* A login was the proxy's. */
        {WITH "AUTH PLAIN " RIGHT "\r\nXCLIENT ADDR=192.0.2.1\r\n" WITH MAIL,
         OFFER_R "[auth |u|good]" DONE_R XCLIENT_R OFFER_R "530 5.7.0 send AUTH first\n"},
        {"XCLIENT\r\nXCLIENT ADDR\r\nXCLIENT ADDR=\r\nXCLIENT =x\r\nXCLIENT LOGIN=u\r\n",
         "501 5.5.4 syntax: XCLIENT NAME=value ...\n" BAD_R BAD_R BAD_R BAD_R},
        /* Twice; NUL, and what is no xtext; another's word. */
        {"XCLIENT ADDR=1 ADDR=2\r\nXCLIENT NAME=a+00b\r\nXCLIENT HELO=a+zz\r\nXCLIENT ADDR=none\r\n"
         "NOOP\r\n",
         BAD_R BAD_R BAD_R "[xclient none|]501 5.5.4 no\n250 2.0.0 OK\n"},
    };

    (void)state;
    check(&o, "XCLIENT ADDR=192.0.2.1\r\n", "502 5.5.1 command not implemented\n");
    o.xclient = true;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check(&o, cases[i].in, cases[i].out);
    o.auth_required = false;
    check(&o, HELO MAIL "XCLIENT ADDR=192.0.2.1\r\n" RCPT,
          HELO_R MAIL_R "503 5.5.1 a transaction is open\n" RCPT_R);
}

static void test_auth_without_tls(void **state)
{
    struct smtp_server_options o = auth_options(false, true);

    (void)state;
    check(&o, WITH "AUTH PLAIN " RIGHT "\r\n" MAIL "MAIL FROM:<a@b> AUTH=<>\r\n",
          "[helo c]250-mx\n250-PIPELINING\n250-ENHANCEDSTATUSCODES\n250 SIZE 100\n"
          "538 5.7.11 encryption is needed first: send STARTTLS\n"
          "530 5.7.0 send STARTTLS and AUTH first\n530 5.7.0 send STARTTLS and AUTH first\n");
    o.auth = 0;
    o.auth_required = false;
    check(&o, WITH "AUTH PLAIN " RIGHT "\r\nMAIL FROM:<a@b> AUTH=<>\r\n",
          "[helo c]250-mx\n250-PIPELINING\n250-ENHANCEDSTATUSCODES\n250 SIZE 100\n"
          "502 5.5.1 command not implemented\n" MAIL_R);
}

/* Lines of any length and exchanges without end. */
static void test_auth_bounds(void **state)
{
    struct smtp_server_options o = auth_options(true, true);
    struct buf in = {0}, want = {0};

    (void)state;
    o.line_bytes_max = 8192;
    buf_puts(&in, WITH "AUTH PLAIN\r\n");
    for (size_t i = 0; i < 3000; i++)
        buf_putc(&in, 'A');
    buf_puts(&in, "\r\nAUTH PLAIN ");
    for (size_t i = 0; i < 3000; i++)
        buf_putc(&in, 'A');
    buf_puts(&in, "\r\nAUTH LOGIN\r\n");
    for (size_t i = 0; i < 512; i++) /* a user of 384 bytes */
        buf_putc(&in, 'Q');
    buf_puts(&in, "\r\nZ29vZA==\r\nAUTH LOGIN dQ==\r\n");
    for (size_t i = 0; i < 700; i++) /* a password of 525 */
        buf_putc(&in, 'Q');
    buf_puts(&in, "\r\nNOOP\r\n");
    buf_putc(&in, '\0');
    check(&o, (char *)in.data,
          WITH_R "334 \n500 5.5.6 line too long\n500 5.5.6 line too long\n" LOGIN_USER LOGIN_PASS
              SHAPE_R LOGIN_PASS SHAPE_R "250 2.0.0 OK\n");
    /* A response of a mechanism's length is taken, however short commands are to be. */
    buf_clear(&in);
    o.line_bytes_max = 512;
    buf_puts(&in, WITH "AUTH PLAIN ");
    for (size_t i = 0; i < 1300; i++)
        buf_putc(&in, 'A');
    buf_puts(&in, "\r\nauth LOGIN ");
    for (size_t i = 0; i < 3000; i++)
        buf_putc(&in, 'A');
    buf_puts(&in, "\r\nAUTHS ");
    for (size_t i = 0; i < 600; i++)
        buf_putc(&in, 'A');
    buf_puts(&in, "\r\nNOOP\r\n");
    buf_putc(&in, '\0');
    check(&o, (char *)in.data,
          WITH_R SHAPE_R "500 5.5.2 line too long\n500 5.5.2 line too long\n250 2.0.0 OK\n");
    o.line_bytes_max = defaults.line_bytes_max;
    buf_clear(&in);
    o.errors_max = 1000;
    buf_puts(&in, WITH);
    buf_puts(&want, WITH_R);
    for (uint32_t i = 0; i < o.commands_max; i++) {
        buf_puts(&in, "AUTH LOGIN\r\n*\r\n");
        if (i + 1 < o.commands_max)
            buf_puts(&want, LOGIN_USER "501 5.7.0 authentication cancelled\n");
    }
    buf_puts(&want, "421 4.7.0 too many commands without mail\n[close]");
    buf_putc(&in, '\0');
    buf_putc(&want, '\0');
    check(&o, (char *)in.data, (char *)want.data);
    buf_clear(&in);
    buf_clear(&want);
    o.errors_max = 2;
    buf_puts(&in, WITH);
    buf_puts(&want, WITH_R);
    for (uint32_t i = 0; i < 4; i++) {
        buf_puts(&in, "AUTH PLAIN " WRONG "\r\n");
        if (i < 3)
            buf_puts(&want, "[auth |u|bad]" WRONG_R);
    }
    buf_puts(&want, "421 4.7.0 too many errors\n[close]");
    buf_putc(&in, '\0');
    buf_putc(&want, '\0');
    check(&o, (char *)in.data, (char *)want.data);
    buf_done(&in);
    buf_done(&want);
}

static void test_greeting_and_idle(void **state)
{
    struct smtp_server_input none = {NULL, 0};
    struct smtp_server s;
    struct buf out = {0};

    (void)state;
    smtp_server_init(&s, &defaults);
    smtp_server_greet(&s, &out, NULL);
    assert_true(str_eq(buf_str(&out), STR("220 mx ESMTP Hayauma\r\n")));
    assert_int_equal(smtp_server_step(&s, &none, &out), SMTP_SERVER_INPUT);
    assert_true(smtp_server_idle(&s));
    smtp_server_done(&s);
    buf_clear(&out);
    smtp_server_init(&s, &defaults);
    smtp_server_greet(&s, &out, "554 5.7.1 no\r\nservice");
    assert_true(str_eq(buf_str(&out), STR("554 5.7.1 no??service\r\n")));
    assert_int_equal(smtp_server_step(&s, &none, &out), SMTP_SERVER_CLOSE);
    smtp_server_done(&s);
    buf_done(&out);
}

/* The next transaction, and the end, are read while a message has no answer; the answer is the
 * caller's to put in its place. A deferred message begins the counts anew. */
static void test_deferred(void **state)
{
    static const char text[] =
        HELO "X\r\n" MAIL RCPT "BDAT 1 LAST\r\nx" MAIL RCPT "BDAT 1 LAST\r\ny" MAIL "QUIT\r\n";
    struct smtp_server_input in = {(const uint8_t *)text, sizeof(text) - 1};
    struct smtp_server_options options = defaults;
    enum smtp_server_want want;
    struct smtp_server s;
    struct buf out = {0};
    uint32_t messages = 0;

    (void)state;
    options.messages_max = 2;
    smtp_server_init(&s, &options);
    while ((want = smtp_server_step(&s, &in, &out)) != SMTP_SERVER_CLOSE) {
        assert_int_not_equal(want, SMTP_SERVER_INPUT);
        if (want == SMTP_SERVER_MESSAGE) {
            assert_int_equal(s.errors, messages == 0 ? 1 : 0);
            smtp_server_defer(&s);
            assert_true(smtp_server_idle(&s));
            buf_puts(&out, "|");
            messages++;
        } else if (want != SMTP_SERVER_BODY) {
            smtp_server_answer(&s, &out, NULL);
        }
    }
    smtp_server_put_reply(&s, &out, "250 2.0.0 a\nb");
    assert_true(
        str_eq(buf_str(&out), STR("250 mx\r\n500 5.5.1 command not recognised\r\n250 2.1.0 OK\r\n"
                                  "250 2.1.5 OK\r\n|250 2.1.0 OK\r\n250 2.1.5 OK\r\n|"
                                  "421 4.7.0 too many messages in one session\r\n"
                                  "250 2.0.0 a?b\r\n")));
    smtp_server_done(&s);
    buf_done(&out);
}

#define EHLO        "EHLO c\r\n"
#define OFFERS_R    "250-mx\n250-CHUNKING\n250"
#define EHLO_R      "[helo c]" OFFERS_R "-ENHANCEDSTATUSCODES\n250 STARTTLS\n"
#define TLS_FIRST_R "530 5.7.0 must issue a STARTTLS command first\n"
#define ENCRYPT     EHLO "STARTTLS\r\n"
#define ENCRYPT_R   EHLO_R "[tls]220 2.0.0 ready to start TLS\n"
#define FIRST_R     "503 5.5.1 send EHLO first\n"

static const struct transcript starttls[] = {
    /* offered until the session is encrypted; it begins anew then (RFC 3207 4.2) */
    {ENCRYPT EHLO MAIL, ENCRYPT_R "[helo c]" OFFERS_R " ENHANCEDSTATUSCODES\n" MAIL_R},
    {ENCRYPT MAIL "STARTTLS\r\n" EHLO "STARTTLS\r\nQUIT\r\n", ENCRYPT_R FIRST_R
     "503 5.5.1 the session is encrypted already\n[helo c]" OFFERS_R " ENHANCEDSTATUSCODES\n"
     "503 5.5.1 the session is encrypted already\n221 2.0.0 bye\n[close]"},
    /* where it has no place */
    {"STARTTLS\r\n" HELO "STARTTLS\r\n" EHLO "STARTTLS now\r\n" MAIL "STARTTLS\r\nRSET\r\n",
     FIRST_R HELO_R FIRST_R EHLO_R "501 5.5.4 STARTTLS takes no parameter\n" MAIL_R
                                   "503 5.5.1 a transaction is open\n250 2.0.0 OK\n[abort]"},
    /* the engine has no certificate: the session goes on as it was */
    {EHLO "EHLO later\r\nSTARTTLS\r\n" MAIL,
     EHLO_R "[helo later]451 4.3.0 try later\n[tls]451 4.3.0 try later\n" MAIL_R},
};

static const struct transcript tls_required[] = {
    {EHLO MAIL RCPT "DATA\r\nBDAT 4 LAST\r\nMAILRSET\r\nVRFY a\r\nNOOP\r\nQUIT\r\n",
     EHLO_R TLS_FIRST_R TLS_FIRST_R TLS_FIRST_R BEFORE_R TLS_FIRST_R TLS_FIRST_R
     "250 2.0.0 OK\n221 2.0.0 bye\n[close]"},
    {HELO MAIL, HELO_R TLS_FIRST_R},
    {ENCRYPT EHLO MAIL RCPT "RSET\r\n",
     ENCRYPT_R "[helo c]" OFFERS_R " ENHANCEDSTATUSCODES\n" MAIL_R RCPT_R "250 2.0.0 OK\n[abort]"},
};

static void test_tls(void **state)
{
    struct smtp_server_options options = {.host_name = "mx",
                                          .line_bytes_max = 512,
                                          .errors_max = 20,
                                          .commands_max = 20,
                                          .starttls = true,
                                          .no_pipelining = true,
                                          .no_8bitmime = true,
                                          .no_smtputf8 = true,
                                          .no_dsn = true,
                                          .no_size = true};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(starttls); i++)
        check(&options, starttls[i].in, starttls[i].out);
    options.tls_required = true;
    for (size_t i = 0; i < ARRAY_LEN(tls_required); i++)
        check(&options, tls_required[i].in, tls_required[i].out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transcripts),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_nul),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_parameter_values),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_counts_what_is_no_mail),
        cmocka_unit_test(test_discards_have_an_end),
        cmocka_unit_test(test_nothing_offered),
        cmocka_unit_test(test_lmtp),
        cmocka_unit_test(test_auth),
        cmocka_unit_test(test_auth_scram),
        cmocka_unit_test(test_auth_external),
        cmocka_unit_test(test_xclient),
        cmocka_unit_test(test_auth_without_tls),
        cmocka_unit_test(test_auth_bounds),
        cmocka_unit_test(test_greeting_and_idle),
        cmocka_unit_test(test_deferred),
        cmocka_unit_test(test_trusted),
        cmocka_unit_test(test_repair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
