/* The client machine against scripted servers. A script is what the server says, step by step, what
 * the client must send upon it, and which events must come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "smtp/client.h"

#if defined(__SANITIZE_ADDRESS__)
#define POISONED 1
#elif defined(__has_feature)
#define POISONED __has_feature(address_sanitizer)
#else
#define POISONED 0
#endif

#define MESSAGES_MAX 4
#define RCPTS_MAX    3
#define STEPS_MAX    12

/* What is submitted as soon as the client takes it. */
struct mail {
    const char *content; /* NULL: no more mail */
    uint16_t rcpts;
    bool eight_bit, smtputf8;
    const char *sender, *rcpt; /* instead of sN@x and r@x */
    uint8_t notify;
    const char *orcpt, *envid;
    size_t cut; /* how much of content its first piece has */
};

static struct pool outputs;
static const char *const our_names[] = {"other.our.example", "mx.our.example", NULL};

struct script {
    const char *name;
    enum smtp_tls tls;
    bool trusted, trusted_behind_tls; /* with the password */
    bool proved;                      /* that the first is right */
    bool refuses;                     /* computes no answer for SCRAM's last challenge */
    bool binds;                       /* logins to TLS */
    struct smtp_client_options options;
    struct mail mails[MESSAGES_MAX];
    struct step {
        const char *server, *client, *events;
    } steps[STEPS_MAX];
};

#define GREETING                                                                                   \
    {                                                                                              \
        "220 mx\r\n", "EHLO me\r\n", ""                                                            \
    }
#define EHLO(caps) "250-mx\r\n" caps "250 X\r\n"
#define GROUP(n)   "MAIL FROM:<s" n "@x>\r\nRCPT TO:<r0@x>\r\n"
#define GROUP2(n)  GROUP(n) "RCPT TO:<r1@x>\r\n"
#define OK         "250 ok\r\n"
#define GO         "354 go\r\n"
#define NO         "550 5.1.1 no\r\n"
#define LATER      "451 later\r\n"
#define SEQUENCE   "503 sequence\r\n"
#define ME                                                                                         \
    .options = {                                                                                   \
        .ehlo_name = "me", .pipeline_max = 3, .pipeline_bytes_max = 100, .outputs = &outputs}
#define USER                                                                                       \
    .options = {.ehlo_name = "me",                                                                 \
                .pipeline_max = 3,                                                                 \
                .pipeline_bytes_max = 100,                                                         \
                .outputs = &outputs,                                                               \
                .auth_user = "u",                                                                  \
                .auth_password = "good"}
#define AUTH(list) "250-AUTH " list "\r\n"
#define PIPELINING "250-PIPELINING\r\n"
#define CHUNKING   "250-CHUNKING\r\n"
#define STARTTLS   "250-STARTTLS\r\n"

static const struct script scripts[] = {
    {"a command at a time",
     ME,
     {{.content = "hi\r\n", .rcpts = 2}, {.content = "yo\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(""), "MAIL FROM:<s0@x>\r\n", "ready "},
      {OK, "RCPT TO:<r0@x>\r\n", ""},
      {NO, "RCPT TO:<r1@x>\r\n", "0.0:reply/rcpt/550 "},
      {OK, "DATA\r\n", ""},
      {GO, "hi\r\n.\r\n", ""},
      {OK, "MAIL FROM:<s1@x>\r\n", "0.1:reply/body/250 0:done "},
      {OK, "RCPT TO:<r0@x>\r\n", ""},
      {NO, "QUIT\r\n", "1.0:reply/rcpt/550 1:done "},
      {"221 bye\r\n", "", "close/quit/221 "}}},
    {"a refused transaction is reset, a refused sender is not",
     ME,
     {{.content = "a\r\n", .rcpts = 1},
      {.content = "b\r\n", .rcpts = 1},
      {.content = "c\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(""), "MAIL FROM:<s0@x>\r\n", "ready "},
      {OK, "RCPT TO:<r0@x>\r\n", ""},
      {NO, "RSET\r\n", "0.0:reply/rcpt/550 0:done "},
      {OK, "MAIL FROM:<s1@x>\r\n", ""},
      {LATER, "MAIL FROM:<s2@x>\r\n", "1.0:reply/mail/451 1:done "},
      {OK, "RCPT TO:<r0@x>\r\n", ""},
      {OK, "DATA\r\n", ""},
      {LATER, "QUIT\r\n", "2.0:reply/data/451 2:done "},
      {OK, "", "close/quit/250 "}}},
    {"the next group travels with the end of the body",
     ME,
     {{.content = "a\r\n", .rcpts = 1},
      {.content = "b\r\n.c\r\n..\r\n", .rcpts = 2},
      {.content = "", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {OK OK GO, "a\r\n.\r\nRSET\r\n" GROUP2("1") "DATA\r\n", ""},
      {OK OK OK OK OK GO, "b\r\n..c\r\n...\r\n.\r\nRSET\r\n" GROUP("2") "DATA\r\n",
       "0.0:reply/body/250 0:done "},
      {OK OK OK OK GO, ".\r\n", "1.0:reply/body/250 1.1:reply/body/250 1:done "},
      {OK, "QUIT\r\n", "2.0:reply/body/250 2:done "},
      {OK, "", "close/quit/250 "}}},
    {"dots that need quotes",
     ME,
     {{.content = "a\r\n", .rcpts = 2, .sender = ".s@x", .rcpt = "a..b@docomo.example"}},
     {GREETING,
      {EHLO(PIPELINING),
       "MAIL FROM:<\".s\"@x>\r\nRCPT TO:<\"a..b\"@docomo.example>\r\n"
       "RCPT TO:<r1@x>\r\nDATA\r\n",
       "ready "}}},
    {"refused in a pipelined group",
     ME,
     {{.content = "a\r\n", .rcpts = 2},
      {.content = "b\r\n", .rcpts = 1},
      {.content = "c\r\n", .rcpts = 1},
      {.content = "d\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP2("0") "DATA\r\n", "ready "},
      /* all recipients refused, DATA too: RSET before the next */
      {OK NO LATER "554 no rcpt\r\n", "RSET\r\n" GROUP("1") "DATA\r\n",
       "0.0:reply/rcpt/550 0.1:reply/rcpt/451 0:done "},
      /* sender refused, the rest is swallowed */
      {OK LATER SEQUENCE SEQUENCE, GROUP("2") "DATA\r\n", "1.0:reply/mail/451 1:done "},
      /* 354 without a recipient: a lone dot, whose reply nobody wants */
      {OK NO GO, ".\r\nRSET\r\n" GROUP("3") "DATA\r\n", "2.0:reply/rcpt/550 "},
      {OK OK OK OK GO, "d\r\n.\r\n", "2:done "},
      {NO, "QUIT\r\n", "3.0:reply/body/550 3:done "},
      {OK, "", "close/quit/250 "}}},
    {"354 although the sender was refused",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {NO SEQUENCE GO, ".\r\nRSET\r\n" GROUP("1") "DATA\r\n", "0.0:reply/mail/550 "},
      {NO OK OK OK LATER, "QUIT\r\n", "0:done 1.0:reply/data/451 1:done "}}},
    {"a sender refused, its recipient taken, 354: a dot would be mail",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {NO OK GO, "", "0.0:reply/mail/550 0:done 1.0:not_sent/data/0 1:done close/data/0 "}}},
    {"a sender refused, its recipient taken: reset",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {NO OK SEQUENCE, "RSET\r\n" GROUP("1") "DATA\r\n", "0.0:reply/mail/550 0:done "}}},
    {"a refused message is reset",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(""), "MAIL FROM:<s0@x>\r\n", "ready "},
      {OK, "RCPT TO:<r0@x>\r\n", ""},
      {OK, "DATA\r\n", ""},
      {GO, "a\r\n.\r\n", ""},
      {NO, "RSET\r\n", "0.0:reply/body/550 0:done "},
      {OK, "MAIL FROM:<s1@x>\r\n", ""}}},
    {"recipients taken, the end unanswered: reset",
     ME,
     {{.content = "a\r\n", .rcpts = 1},
      {.content = "b\r\n", .rcpts = 1},
      {.content = "c\r\n", .rcpts = 1},
      {.content = "d\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING CHUNKING),
       GROUP("0") "BDAT 3 LAST\r\na\r\nRSET\r\n" GROUP("1") "BDAT 3 LAST\r\nb\r\nRSET\r\n" GROUP(
           "2") "BDAT 3 LAST\r\nc\r\n",
       "ready "},
      {OK OK OK OK OK OK OK OK OK OK, "RSET\r\n" GROUP("3") "BDAT 3 LAST\r\nd\r\n",
       "0.0:reply/body/250 0:done 1.0:reply/body/250 1:done "},
      {NO OK OK OK OK, "QUIT\r\n", "2.0:reply/body/550 2:done 3.0:reply/body/250 3:done "}}},
    {"a refused EHLO offers nothing",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {"250-mx\r\n250-PIPELINING\r\n250-SIZE 10\r\n550 no\r\n", "HELO me\r\n", ""},
      {OK, "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"the text is nobody's verdict",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {{"550-no\r\n220welcome\r\n", "EHLO me\r\n", ""},
      {"250-mx\r\n550-x\r\n250ok\r\n", "MAIL FROM:<s0@x>\r\n", "ready "},
      {"250ok\r\n", "RCPT TO:<r0@x>\r\n", ""},
      {"550-a\r\n251\r\n", "DATA\r\n", ""},
      {"250-go\r\n354go\r\n", "a\r\n.\r\n", ""},
      {"550-a\r\nb\r\n250+\r\n", "MAIL FROM:<s1@x>\r\n", "0.0:reply/body/250 0:done "},
      {"250\r\n", "RCPT TO:<r0@x>\r\n", ""},
      {"250-\r\n550\xff\xfe\r\n", "QUIT\r\n", "1.0:reply/rcpt/550 1:done "},
      {"250-bye\r\n221#\r\n", "", "close/quit/221 "}}},
    {"several messages in flight",
     ME,
     {{.content = "a\r\n", .rcpts = 1},
      {.content = ".b\r\n", .rcpts = 2},
      {.content = "c\r\n", .rcpts = 1},
      {.content = "d\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING CHUNKING),
       GROUP("0") "BDAT 3 LAST\r\na\r\nRSET\r\n" GROUP2("1") "BDAT 4 LAST\r\n.b\r\nRSET\r\n" GROUP(
           "2") "BDAT 3 LAST\r\nc\r\n",
       "ready "},
      {OK OK OK, "RSET\r\n" GROUP("3") "BDAT 3 LAST\r\nd\r\n", "0.0:reply/body/250 0:done "},
      {OK OK NO OK "452 full\r\n", "", "1.0:reply/rcpt/550 1.1:reply/body/452 1:done "},
      {OK NO SEQUENCE SEQUENCE, "", "2.0:reply/mail/550 2:done "},
      {OK OK NO "554 no rcpt\r\n", "QUIT\r\n", "3.0:reply/rcpt/550 3:done "},
      {OK, "", "close/quit/250 "}}},
    {"chunking a command at a time",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(CHUNKING), "MAIL FROM:<s0@x>\r\n", "ready "},
      {OK, "RCPT TO:<r0@x>\r\n", ""},
      {OK, "BDAT 3 LAST\r\na\r\n", ""},
      {NO, "RSET\r\n", "0.0:reply/body/550 0:done "},
      {OK, "MAIL FROM:<s1@x>\r\n", ""},
      {OK, "RCPT TO:<r0@x>\r\n", ""},
      {NO, "QUIT\r\n", "1.0:reply/rcpt/550 1:done "},
      {OK, "", "close/quit/250 "}}},
    {"BDAT is no command after all",
     ME,
     {{.content = "NOOP\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING CHUNKING),
       GROUP("0") "BDAT 6 LAST\r\nNOOP\r\nRSET\r\n" GROUP("1") "BDAT 3 LAST\r\nb\r\n", "ready "},
      {OK OK "500 what?\r\n" OK OK OK OK "500 what?\r\n500 what?\r\n", "",
       "0.0:not_sent/body/500 0:done 1.0:not_sent/body/500 1:done close/body/500 "}}},
    {"HELO where EHLO is unknown",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {"502 what?\r\n", "HELO me\r\n", ""},
      {"250-PIPELINING\r\n250 SIZE\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"HELO behind a 4xx too",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {"450-no\r\n450 PIPELINING\r\n", "HELO me\r\n", ""},
      {"250 mx\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"no HELO either",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING, {"502 what?\r\n", "HELO me\r\n", ""}, {"504 no\r\n", "", "close/helo/504 "}}},
    {"ourselves",
     .options = {.ehlo_name = "me", .own_names = our_names, .outputs = &outputs},
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING, {"250-MX.our.example greets\r\n250 DSN\r\n", "", "close/ehlo/521 "}}},
    {"ourselves by HELO",
     .options = {.ehlo_name = "me", .own_names = our_names, .outputs = &outputs},
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {"502 what?\r\n", "HELO me\r\n", ""},
      {"250 mx.our.example\r\n", "", "close/helo/521 "}}},
    {"nearly ourselves",
     .options = {.ehlo_name = "me", .own_names = our_names, .outputs = &outputs},
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING, {"250 mx.our.example.net\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"HELO deferred too",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {"450 not now\r\n", "HELO me\r\n", ""},
      {"450 not now\r\n", "", "close/helo/450 "}}},
    {"421 to EHLO",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING, {"421 bye\r\n", "", "close/ehlo/421 "}}},
    {"not welcome",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {{"554-no\r\n554 mail\r\n", "", "close/banner/554 "}}},
    {"parameters",
     ME,
     {{.content = "\xc3\xa9\r\n",
       .rcpts = 1,
       .eight_bit = true,
       .smtputf8 = true,
       .notify = 14,
       .orcpt = "rfc822;r@x",
       .envid = "e+2B",
       .rcpt = "\xc3\xa9@x"},
      {.content = "a\r\n", .rcpts = 1, .sender = "", .notify = 1}},
     {GREETING,
      {EHLO("250-8bitmime\r\n250-SMTPUTF8\r\n250-size 1000\r\n250-Dsn\r\n"),
       "MAIL FROM:<s0@x> SIZE=4 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e+2B\r\n", "ready "},
      {OK, "RCPT TO:<\xc3\xa9@x> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;r@x\r\n", ""},
      {NO, "RSET\r\n", "0.0:reply/rcpt/550 0:done "},
      {OK, "MAIL FROM:<> SIZE=3 RET=HDRS\r\n", ""},
      {OK, "RCPT TO:<r0@x> NOTIFY=NEVER\r\n", ""}}},
    {"what the peer lacks",
     ME,
     {{.content = "\xc3\xa9\r\n", .rcpts = 2, .eight_bit = true},
      {.content = "a\r\n", .rcpts = 1, .eight_bit = true, .smtputf8 = true},
      {.content = "0123456789\r\n", .rcpts = 1},
      {.content = "a\r\n", .rcpts = 1, .notify = 8, .envid = "x"}},
     {GREETING,
      {EHLO("250-SIZE 8\r\n250-AUTH LOGIN\r\n250-AUTH=LOGIN\r\n"), "MAIL FROM:<s3@x> SIZE=3\r\n",
       "ready 0.0:unable1/ready/0 0.1:unable1/ready/0 0:done 1.0:unable2/ready/0 1:done "
       "2.0:unable3/ready/0 2:done "},
      {OK, "RCPT TO:<r0@x>\r\n", ""}}},
    {"nothing strange reaches the wire",
     ME,
     {{.content = "a\r\n", .rcpts = 1, .sender = "a@b\r\nRSET"},
      {.content = "a\r\n", .rcpts = 1, .rcpt = "a@b> NOTIFY=NEVER"},
      {.content = "a\r\n", .rcpts = 3, .rcpt = "a@b\n", .orcpt = "rfc822;a\r\nb", .envid = "a b"}},
     {GREETING,
      {EHLO("250-DSN\r\n"), "MAIL FROM:<s2@x> RET=HDRS\r\n",
       "ready 0.0:unable4/ready/0 0:done 1.0:unable4/ready/0 1:done "},
      {OK, "RCPT TO:<r1@x>\r\n", ""},
      {OK, "RCPT TO:<r2@x>\r\n", ""},
      {NO, "DATA\r\n", "2.2:reply/rcpt/550 "},
      {GO, "a\r\n.\r\n", ""},
      {OK, "QUIT\r\n", "2.1:reply/body/250 2.0:unable4/ready/0 2:done "}}},
    {"LMTP",
     .options = {.ehlo_name = "me", .lmtp = true, .outputs = &outputs},
     {{.content = "a\r\n", .rcpts = 3}, {.content = "b\r\n", .rcpts = 1}},
     {{"220 mx\r\n", "LHLO me\r\n", ""},
      {EHLO(PIPELINING), GROUP2("0") "RCPT TO:<r2@x>\r\nDATA\r\n", "ready "},
      {OK OK NO OK GO, "a\r\n.\r\nRSET\r\n" GROUP("1") "DATA\r\n", "0.1:reply/rcpt/550 "},
      {OK LATER, "", "0.0:reply/body/250 0.2:reply/body/451 0:done "},
      {OK OK NO SEQUENCE, "QUIT\r\n", "1.0:reply/rcpt/550 1:done "}}},
    {"LMTP, chunking",
     .options = {.ehlo_name = "me", .lmtp = true, .pipeline_max = 1, .outputs = &outputs},
     {{.content = "a\r\n", .rcpts = 2}, {.content = "b\r\n", .rcpts = 1}},
     {{"220 mx\r\n", "LHLO me\r\n", ""},
      {EHLO(PIPELINING CHUNKING), GROUP2("0") "BDAT 3 LAST\r\na\r\n", "ready "},
      {OK OK OK LATER OK, "RSET\r\n" GROUP("1") "BDAT 3 LAST\r\nb\r\n",
       "0.0:reply/body/451 0.1:reply/body/250 0:done "},
      {OK OK NO SEQUENCE, "QUIT\r\n", "1.0:reply/rcpt/550 1:done "}}},
    {"LMTP, 421 to one of two: the other may have it",
     .options = {.ehlo_name = "me", .lmtp = true, .outputs = &outputs},
     {{.content = "a\r\n", .rcpts = 2}, {.content = "b\r\n", .rcpts = 1}},
     {{"220 mx\r\n", "LHLO me\r\n", ""},
      {EHLO(PIPELINING), GROUP2("0") "DATA\r\n", "ready "},
      {OK OK OK GO, "a\r\n.\r\nRSET\r\n" GROUP("1") "DATA\r\n", ""},
      {"421 bye\r\n", "",
       "0.0:reply/body/421 0.1:lost/body/421 0:done 1.0:not_sent/body/421 1:done "
       "close/body/421 "}}},
    {"LMTP has no HELO",
     .options = {.ehlo_name = "me", .lmtp = true, .outputs = &outputs},
     {{.content = "a\r\n", .rcpts = 1}},
     {{"220 mx\r\n", "LHLO me\r\n", ""}, {NO, "", "close/ehlo/550 "}}},
    {"421 to a recipient",
     ME,
     {{.content = "a\r\n", .rcpts = 3}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP2("0") "RCPT TO:<r2@x>\r\nDATA\r\n", "ready "},
      {OK OK "421 4.3.2 bye\r\n", "",
       "0.1:reply/rcpt/421 0.0:not_sent/rcpt/421 0.2:not_sent/rcpt/421 0:done "
       "1.0:not_sent/rcpt/421 1:done close/rcpt/421 "}}},
    {"421 to the dot, the next group behind it",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {OK OK GO, "a\r\n.\r\nRSET\r\n" GROUP("1") "DATA\r\n", ""},
      {"421 bye\r\n", "",
       "0.0:reply/body/421 0:done 1.0:not_sent/body/421 1:done close/body/421 "}}},
    {"421 with messages in flight: the later were not looked at",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING CHUNKING),
       GROUP("0") "BDAT 3 LAST\r\na\r\nRSET\r\n" GROUP("1") "BDAT 3 LAST\r\nb\r\n", "ready "},
      {OK "421 bye\r\n", "",
       "0.0:reply/rcpt/421 0:done 1.0:not_sent/rcpt/421 1:done close/rcpt/421 "}}},
    {"421 while idle",
     ME,
     {{.content = NULL}},
     {GREETING, {EHLO(""), "", "ready "}, {"421 4.4.2 timeout\r\n", "", "close/ready/421 "}}},
    {"a reply too many",
     ME,
     {{.content = NULL}},
     {GREETING, {EHLO(""), "", "ready "}, {OK, "", "close/ready/0 "}}},
    {"no 354",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {OK OK OK, "", "0.0:not_sent/data/0 0:done close/data/0 "}}},
    {"354 to MAIL",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {GO, "", "0.0:not_sent/mail/0 0:done close/mail/0 "}}},
    {"garbage",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {OK OK GO, "a\r\n.\r\n", ""},
      {"hello?\r\n", "", "0.0:lost/body/0 0:done close/body/0 "}}},
    {"RSET refused",
     ME,
     {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "},
      {OK NO SEQUENCE, "RSET\r\n" GROUP("1") "DATA\r\n", "0.0:reply/rcpt/550 0:done "},
      {NO, "", "1.0:not_sent/rset/550 1:done close/rset/550 "}}},
    {"LIMITS and no offers taken",
     .options =
         {.ehlo_name = "me", .no_chunking = true, .no_pipelining = true, .outputs = &outputs},
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING, {EHLO(PIPELINING CHUNKING), "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"STARTTLS: what was offered before is forgotten, and it is asked for once",
     SMTP_TLS_MAY,
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(STARTTLS PIPELINING CHUNKING), "STARTTLS\r\n", ""},
      {"220 go\r\n", "EHLO me\r\n", "starttls "},
      {EHLO(STARTTLS), "MAIL FROM:<s0@x>\r\n", "ready "},
      {OK, "RCPT TO:<r0@x>\r\n", ""}}},
    {"STARTTLS offered, and not wanted",
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING, {EHLO(STARTTLS), "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"STARTTLS not offered",
     SMTP_TLS_MAY,
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING, {EHLO(PIPELINING), GROUP("0") "DATA\r\n", "ready "}}},
    {"STARTTLS refused: the session goes on with what it has",
     SMTP_TLS_MAY,
     ME,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(STARTTLS PIPELINING), "STARTTLS\r\n", ""},
      {"454 4.7.0 no\r\n", GROUP("0") "DATA\r\n", "ready "}}},
    {"STARTTLS refused with 421",
     SMTP_TLS_MAY,
     ME,
     {{.content = NULL}},
     {GREETING, {EHLO(STARTTLS), "STARTTLS\r\n", ""}, {"421 bye\r\n", "", "close/starttls/421 "}}},
    {"STARTTLS answered by 354",
     SMTP_TLS_MAY,
     ME,
     {{.content = NULL}},
     {GREETING, {EHLO(STARTTLS), "STARTTLS\r\n", ""}, {GO, "", "close/starttls/0 "}}},
    {"TLS required, and refused",
     SMTP_TLS_REQUIRED,
     ME,
     {{.content = NULL}},
     {GREETING,
      {EHLO(STARTTLS), "STARTTLS\r\n", ""},
      {"454 4.7.0 no\r\n", "", "close/starttls/454 "}}},
    {"TLS required, and not offered",
     SMTP_TLS_REQUIRED,
     ME,
     {{.content = NULL}},
     {GREETING, {EHLO(PIPELINING), "", "close/starttls/451 "}}},
    {"TLS required, by a peer that knows no EHLO",
     SMTP_TLS_REQUIRED,
     ME,
     {{.content = NULL}},
     {GREETING,
      {"250-mx\r\n250-STARTTLS\r\n550 no\r\n", "HELO me\r\n", ""},
      {OK, "", "close/starttls/451 "}}},
    {"AUTH PLAIN, and the session begins",
     .trusted = true,
     .proved = true,
     USER,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(AUTH("CRAM-MD5 plain LOGIN") PIPELINING), "AUTH PLAIN AHUAZ29vZA==\r\n", ""},
      {"235 2.7.0 in\r\n", GROUP("0") "DATA\r\n", "ready "}}},
    {"AUTH PLAIN of a server that does not read what comes with it",
     .trusted = true,
     USER,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(AUTH("PLAIN")), "AUTH PLAIN AHUAZ29vZA==\r\n", ""},
      {"334 \r\n", "AHUAZ29vZA==\r\n", ""},
      {"235 in\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"AUTH LOGIN, as it was offered once",
     .trusted = true,
     USER,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO("250-AUTH=LOGIN NTLM\r\n"), "AUTH LOGIN\r\n", ""},
      {"334 VXNlcm5hbWU6\r\n", "dQ==\r\n", ""},
      {"334 UGFzc3dvcmQ6\r\n", "Z29vZA==\r\n", ""},
      {"235 in\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"AUTH behind STARTTLS, of what is offered there",
     .tls = SMTP_TLS_REQUIRED,
     .trusted_behind_tls = true,
     USER,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(STARTTLS AUTH("LOGIN")), "STARTTLS\r\n", ""},
      {"220 go\r\n", "EHLO me\r\n", "starttls "},
      {EHLO(AUTH("PLAIN")), "AUTH PLAIN AHUAZ29vZA==\r\n", ""},
      {"235 in\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"AUTH: no password to whom is not trusted",
     USER,
     {{.content = NULL}},
     {GREETING, {EHLO(AUTH("PLAIN LOGIN")), "", "close/auth/451 "}}},
    {"AUTH: nor where TLS was refused",
     .tls = SMTP_TLS_MAY,
     .trusted_behind_tls = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(STARTTLS AUTH("PLAIN")), "STARTTLS\r\n", ""},
      {"454 no\r\n", "", "close/auth/451 "}}},
    {"AUTH: offered in front of TLS only",
     .tls = SMTP_TLS_MAY,
     .trusted_behind_tls = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(STARTTLS AUTH("PLAIN")), "STARTTLS\r\n", ""},
      {"220 go\r\n", "EHLO me\r\n", "starttls "},
      {EHLO(""), "", "close/auth/451 "}}},
    {"AUTH: none that we know",
     .trusted = true,
     USER,
     {{.content = NULL}},
     {GREETING, {EHLO(AUTH("DIGEST-MD5 XOAUTH2 SCRAM-SHA-256-PLUS")), "", "close/auth/451 "}}},
    {"AUTH: by a peer that knows no EHLO",
     .trusted = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {"250-mx\r\n250-AUTH PLAIN\r\n550 no\r\n", "HELO me\r\n", ""},
      {OK, "", "close/auth/451 "}}},
    {"AUTH refused",
     .trusted = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("PLAIN")), "AUTH PLAIN AHUAZ29vZA==\r\n", ""},
      {"535 5.7.8 no\r\n", "", "close/auth/535 "}}},
    {"AUTH: challenges without end",
     .trusted = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("PLAIN")), "AUTH PLAIN AHUAZ29vZA==\r\n", ""},
      {"334 \r\n", "AHUAZ29vZA==\r\n", ""},
      {"334 \r\n", "", "close/auth/0 "}}},
    {"AUTH in LOGIN answered too early is an answer",
     .trusted = true,
     USER,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(AUTH("LOGIN")), "AUTH LOGIN\r\n", ""},
      {"235 in\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"AUTH SCRAM-SHA-256, before all others",
     .trusted = true,
     .proved = true,
     USER,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(AUTH("LOGIN PLAIN CRAM-MD5 SCRAM-SHA-256")), "AUTH SCRAM-SHA-256 MA==\r\n",
       "auth4/0/ "},
      {"334 Y2gx\r\n", "MQ==\r\n", "auth4/1/ch1 "},
      {"334 Y2gy\r\n", "Mg==\r\n", "auth4/2/ch2 "},
      {"235 in\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"AUTH SCRAM: the server must prove itself",
     .trusted = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("SCRAM-SHA-256")), "AUTH SCRAM-SHA-256 MA==\r\n", "auth4/0/ "},
      {"334 Y2gx\r\n", "MQ==\r\n", "auth4/1/ch1 "},
      {"235 in\r\n", "", "close/auth/451 "}}},
    {"AUTH SCRAM: the server has not proved itself",
     .trusted = true,
     .refuses = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("SCRAM-SHA-256")), "AUTH SCRAM-SHA-256 MA==\r\n", "auth4/0/ "},
      {"334 Y2gx\r\n", "MQ==\r\n", "auth4/1/ch1 "},
      {"334 Y2gy\r\n", "", "auth4/2/ch2 close/auth/451 "}}},
    {"AUTH SCRAM: a challenge that is none, and one too many",
     .trusted = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("SCRAM-SHA-256")), "AUTH SCRAM-SHA-256 MA==\r\n", "auth4/0/ "},
      {"334 ...\r\n", "", "close/auth/0 "}}},
    {"AUTH SCRAM refused: PLAIN follows in the session, and then no other",
     .trusted = true,
     .proved = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("SCRAM-SHA-256 PLAIN LOGIN")), "AUTH SCRAM-SHA-256 MA==\r\n", "auth4/0/ "},
      {"535 no\r\n", "AUTH PLAIN AHUAZ29vZA==\r\n", ""},
      {"535 no\r\n", "", "close/auth/535 "}}},
    {"AUTH PLAIN, which was offered and is not there: LOGIN follows",
     .trusted = true,
     .proved = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("PLAIN LOGIN")), "AUTH PLAIN AHUAZ29vZA==\r\n", ""},
      {"504 what\r\n", "AUTH LOGIN\r\n", ""},
      {"504 nor that\r\n", "", "close/auth/504 "}}},
    {"AUTH SCRAM refused for now: nothing follows",
     .trusted = true,
     .proved = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("SCRAM-SHA-256 PLAIN")), "AUTH SCRAM-SHA-256 MA==\r\n", "auth4/0/ "},
      {"454 later\r\n", "", "close/auth/454 "}}},
    {"AUTH SCRAM refused by who knows whom: the password is not shown instead",
     .trusted = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("SCRAM-SHA-256 PLAIN")), "AUTH SCRAM-SHA-256 MA==\r\n", "auth4/0/ "},
      {"535 no\r\n", "", "close/auth/535 "}}},
    {"AUTH SCRAM-SHA-256-PLUS, where TLS can be bound to and the server offers it",
     .tls = SMTP_TLS_REQUIRED,
     .trusted_behind_tls = true,
     .binds = true,
     USER,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(STARTTLS), "STARTTLS\r\n", ""},
      {"220 go\r\n", "EHLO me\r\n", "starttls "},
      {EHLO(AUTH("PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS")), "AUTH SCRAM-SHA-256-PLUS MA==\r\n",
       "auth32/0/ "},
      {"334 Y2gx\r\n", "MQ==\r\n", "auth32/1/ch1 "},
      {"334 Y2gy\r\n", "Mg==\r\n", "auth32/2/ch2 "},
      {"235 in\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"AUTH SCRAM-SHA-256-PLUS refused: the same keys are not tried without",
     .tls = SMTP_TLS_REQUIRED,
     .trusted_behind_tls = true,
     .binds = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(STARTTLS), "STARTTLS\r\n", ""},
      {"220 go\r\n", "EHLO me\r\n", "starttls "},
      {EHLO(AUTH("SCRAM-SHA-256 SCRAM-SHA-256-PLUS LOGIN")), "AUTH SCRAM-SHA-256-PLUS MA==\r\n",
       "auth32/0/ "},
      {"535 no\r\n", "AUTH LOGIN\r\n", ""},
      {"535 no\r\n", "", "close/auth/535 "}}},
    {"AUTH SCRAM: the server hears that we could have bound the login",
     .tls = SMTP_TLS_REQUIRED,
     .trusted_behind_tls = true,
     .binds = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(STARTTLS), "STARTTLS\r\n", ""},
      {"220 go\r\n", "EHLO me\r\n", "starttls "},
      {EHLO(AUTH("SCRAM-SHA-256")), "AUTH SCRAM-SHA-256 MA==\r\n", "auth4y/0/ "},
      {"535 no\r\n", "", "close/auth/535 "}}},
    {"AUTH SCRAM: TLS that cannot be bound to",
     .tls = SMTP_TLS_REQUIRED,
     .trusted_behind_tls = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(STARTTLS), "STARTTLS\r\n", ""},
      {"220 go\r\n", "EHLO me\r\n", "starttls "},
      {EHLO(AUTH("SCRAM-SHA-256-PLUS SCRAM-SHA-256")), "AUTH SCRAM-SHA-256 MA==\r\n", "auth4/0/ "},
      {"535 no\r\n", "", "close/auth/535 "}}},
    {"AUTH CRAM-MD5 before PLAIN where nobody is proved",
     .trusted = true,
     USER,
     {{.content = "a\r\n", .rcpts = 1}},
     {GREETING,
      {EHLO(AUTH("PLAIN LOGIN CRAM-MD5")), "AUTH CRAM-MD5\r\n", ""},
      {"334 PDFAeD4=\r\n", "MA==\r\n", "auth8/0/<1@x> "},
      {"235 in\r\n", "MAIL FROM:<s0@x>\r\n", "ready "}}},
    {"AUTH CRAM-MD5 as the last where it is",
     .trusted = true,
     .proved = true,
     USER,
     {{.content = NULL}},
     {GREETING,
      {EHLO(AUTH("CRAM-MD5 LOGIN")), "AUTH LOGIN\r\n", ""},
      {"535 no\r\n", "", "close/auth/535 "}}},
};

/* --- running a script --- */

struct run {
    struct smtp_client *client;
    struct smtp_transaction transactions[MESSAGES_MAX];
    struct smtp_transaction_rcpt rcpts[MESSAGES_MAX][RCPTS_MAX];
    char names[MESSAGES_MAX][RCPTS_MAX + 1][32];
    size_t mails, submitted;
    unsigned finals[MESSAGES_MAX][RCPTS_MAX], dones[MESSAGES_MAX];
    bool closed, mail_over, trusted_behind_tls, refuses, binds;
    struct buf out, events;
};

static void prepare(struct run *r, const struct script *script)
{
    *r = (struct run){.client = smtp_client_new(&script->options)};
    smtp_client_use_tls(r->client, script->tls);
    if (script->trusted)
        smtp_client_trust(r->client, script->proved);
    r->trusted_behind_tls = script->trusted_behind_tls;
    r->refuses = script->refuses;
    r->binds = script->binds;
    for (; r->mails < MESSAGES_MAX && script->mails[r->mails].content != NULL; r->mails++) {
        const struct mail *m = &script->mails[r->mails];
        size_t k = r->mails;
        struct smtp_transaction *t = &r->transactions[k];

        snprintf(r->names[k][RCPTS_MAX], sizeof(r->names[k][0]), "s%zu@x", k);
        *t = (struct smtp_transaction){
            .sender = str_of(m->sender != NULL ? m->sender : r->names[k][RCPTS_MAX]),
            .envid = str_of(m->envid),
            .ret = m->notify != 0 ? SMTP_RET_HDRS : SMTP_RET_NONE,
            .eight_bit = m->eight_bit,
            .smtputf8 = m->smtputf8,
            .dot_lines = true,
            .pieces = {{(const uint8_t *)m->content, m->cut},
                       {(const uint8_t *)m->content + m->cut, strlen(m->content) - m->cut}},
            .rcpts = r->rcpts[k],
            .rcpts_len = m->rcpts,
            .owner = (void *)(uintptr_t)k,
        };
        if (m->orcpt != NULL)
            t->ret = SMTP_RET_HDRS;
        for (size_t i = 0; i < m->rcpts; i++) {
            snprintf(r->names[k][i], sizeof(r->names[k][i]), "r%zu@x", i);
            r->rcpts[k][i] = (struct smtp_transaction_rcpt){
                .address = str_of(m->rcpt != NULL && i == 0 ? m->rcpt : r->names[k][i]),
                .notify = m->notify,
                .orcpt = str_of(m->orcpt),
            };
        }
    }
}

static void note(struct run *r, const struct smtp_event *e)
{
    static const char *const fates[] = {"reply", "not_sent", "lost", "unable"};
    size_t k = e->transaction == NULL ? 0 : (size_t)(uintptr_t)e->transaction->owner;

    if (e->kind != SMTP_EVENT_NONE)
        assert_false(r->closed);
    assert_non_null(e->reply);
    switch (e->kind) {
    case SMTP_EVENT_NONE:
        break;
    case SMTP_EVENT_STARTTLS:
        buf_puts(&r->events, "starttls ");
        break;
    case SMTP_EVENT_AUTH:
        buf_printf(&r->events, "auth%u%s/%u/%.*s ", e->mechanism, e->would_bind ? "y" : "", e->step,
                   STR_FMT(e->challenge));
        break;
    case SMTP_EVENT_READY:
        buf_puts(&r->events, "ready ");
        break;
    case SMTP_EVENT_RECIPIENT:
        r->finals[k][e->rcpt]++;
        buf_printf(&r->events, "%zu.%u:%s", k, e->rcpt, fates[e->fate]);
        if (e->fate == SMTP_FATE_UNABLE)
            buf_printf(&r->events, "%d", (int)e->unable);
        buf_printf(&r->events, "/%s/%u ", smtp_stage_name(e->stage), e->reply->code);
        break;
    case SMTP_EVENT_DONE:
        r->dones[k]++;
        buf_printf(&r->events, "%zu:done ", k);
        break;
    case SMTP_EVENT_CLOSE:
        r->closed = true;
        buf_printf(&r->events, "close/%s/%u ", smtp_stage_name(e->stage), e->reply->code);
        break;
    }
}

static void drain(struct run *r)
{
    struct smtp_event e;

    do {
        while (r->submitted < r->mails && smtp_client_can_submit(r->client))
            smtp_client_submit(r->client, &r->transactions[r->submitted++]);
        smtp_client_next_event(r->client, &e);
        note(r, &e);
        if (e.kind == SMTP_EVENT_AUTH && e.step == 2 && r->refuses)
            smtp_client_auth_refuse(r->client, "it has not proved itself");
        else if (e.kind == SMTP_EVENT_AUTH) /* "0", "1", "2" */
            smtp_client_auth_respond(r->client, (struct str){&"012"[e.step], 1});
        if (e.kind == SMTP_EVENT_STARTTLS && r->trusted_behind_tls)
            smtp_client_trust(r->client, true);
        if (e.kind == SMTP_EVENT_STARTTLS) /* the handshake takes no time here */
            smtp_client_secured(r->client, r->binds);
    } while (e.kind != SMTP_EVENT_NONE);
    if (r->mails != 0 && r->submitted == r->mails && smtp_client_in_flight(r->client) == 0)
        smtp_client_quit(r->client);
}

/* What a trace shows of an output has no password in it ("good", by PLAIN and by LOGIN). */
static void assert_no_password(struct run *r, const struct iovec *piece)
{
    struct str said = smtp_client_said(r->client, piece);

    assert_null(memmem(said.ptr, said.len, "AHUAZ29vZA==", 12));
    assert_null(memmem(said.ptr, said.len, "Z29vZA==", 8));
    assert_true(said.len == 0 || said.ptr == piece->iov_base);
}

static void take_output(struct run *r, size_t iov_max)
{
    struct iovec iov[64];
    size_t n;

    while ((n = smtp_client_output(r->client, iov, iov_max)) != 0) {
        assert_true(n <= iov_max);
        for (size_t i = 0; i < n; i++) {
            assert_no_password(r, &iov[i]);
            buf_put(&r->out, iov[i].iov_base, iov[i].iov_len);
        }
        smtp_client_sent(r->client);
        drain(r);
    }
}

static void say(struct run *r, const char *text, size_t len)
{
    uint8_t *copy = malloc(len + (len == 0));

    memcpy(copy, text, len);
    smtp_client_input(r->client, copy, len);
    free(copy);
    drain(r);
}

static void done(struct run *r)
{
    smtp_client_free(r->client);
    buf_done(&r->out);
    buf_done(&r->events);
}

static void assert_text(struct buf *b, const char *want)
{
    buf_putc(b, '\0');
    assert_string_equal(b->data, want);
    buf_clear(b);
}

static void test_scripts(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        struct run r;

        prepare(&r, &scripts[i]);
        for (const struct step *s = scripts[i].steps; s->server != NULL; s++) {
            say(&r, s->server, strlen(s->server));
            assert_text(&r.events, s->events);
            take_output(&r, 64);
            assert_text(&r.out, s->client);
        }
        done(&r);
    }
}

/* Byte by byte, with little room for pieces: the same in the end. */
static void test_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        struct buf events = {0};
        struct run r;

        prepare(&r, &scripts[i]);
        for (const struct step *s = scripts[i].steps; s->server != NULL; s++) {
            for (const char *c = s->server; *c != '\0'; c++) {
                say(&r, c, 1);
                take_output(&r, 4);
            }
            buf_puts(&events, s->events);
        }
        buf_putc(&events, '\0');
        assert_text(&r.events, (const char *)events.data);
        buf_done(&events);
        done(&r);
    }
}

/* --- hostile ends: at every byte of every script --- */

static void assert_all_ended(const struct run *r)
{
    assert_true(r->closed);
    assert_int_equal(smtp_client_in_flight(r->client), 0);
    for (size_t k = 0; k < r->submitted; k++) {
        assert_int_equal(r->dones[k], 1);
        for (size_t i = 0; i < r->transactions[k].rcpts_len; i++)
            assert_int_equal(r->finals[k][i], 1);
    }
}

/* Plays at most len bytes of the script's server; false: the client had closed before. */
static bool play(struct run *r, const struct script *script, size_t len)
{
    for (const struct step *s = script->steps; s->server != NULL && len != 0; s++) {
        size_t n = strlen(s->server) < len ? strlen(s->server) : len;

        say(r, s->server, n);
        take_output(r, 64);
        if (r->closed)
            return false;
        len -= n;
    }
    return len == 0;
}

static void test_hostile_ends(void **state)
{
    static const char *const ends[] = {
        NULL, "421 bye\r\n",           "\r\n421 bye\r\n", "\r\n999 x\r\n", "\r\n354 go\r\n",
        "x",  "\r\n250-a\r\n251 b\r\n"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        for (size_t e = 0; e < ARRAY_LEN(ends); e++) {
            struct run r;
            size_t at = 0;

            for (bool more = true; more; at++) {
                prepare(&r, &scripts[i]);
                more = play(&r, &scripts[i], at);
                if (more && ends[e] != NULL)
                    say(&r, ends[e], strlen(ends[e]));
                smtp_client_lost(r.client, "connection reset by peer");
                drain(&r);
                assert_all_ended(&r);
                /* Nothing comes after CLOSE, whatever is done. */
                say(&r, "250 ok\r\n", 8);
                take_output(&r, 64);
                smtp_client_lost(r.client, "again");
                drain(&r);
                assert_int_equal(r.submitted < r.mails && smtp_client_can_submit(r.client), 0);
                done(&r);
            }
            assert_true(at > 5);
        }
    }
}

static void test_endless_reply(void **state)
{
    static const char line[] = "250-still here\r\n";
    struct run r;

    (void)state;
    prepare(&r, &scripts[0]);
    say(&r, "220 mx\r\n", 8);
    take_output(&r, 64);
    for (int i = 0; i < 100000 && !r.closed; i++)
        say(&r, line, sizeof(line) - 1);
    assert_all_ended(&r);
    done(&r);
    prepare(&r, &scripts[0]);
    for (int i = 0; i < 100000 && !r.closed; i++)
        say(&r, "2", 1);
    assert_all_ended(&r);
    done(&r);
}

/* --- fates by what was handed out --- */

static void open_session(struct run *r, const struct script *script)
{
    prepare(r, script);
    for (size_t i = 0; i < 2; i++) {
        say(r, script->steps[i].server, strlen(script->steps[i].server));
        if (i == 0)
            take_output(r, 64);
    }
    buf_clear(&r->events);
    buf_clear(&r->out);
}

static const struct script one_pipelined = {
    "", ME, {{.content = "a\r\nb\r\n.c\r\n", .rcpts = 1}}, {GREETING, {EHLO(PIPELINING), "", ""}}};
static const struct script one_chunked = {"",
                                          ME,
                                          {{.content = "a\r\nb\r\n", .rcpts = 1}},
                                          {GREETING, {EHLO(PIPELINING CHUNKING), "", ""}}};

static void test_lost_only_behind_the_end(void **state)
{
    struct iovec iov[64];
    struct run r;

    (void)state;
    /* The envelope is out, the body allowed but not asked for. */
    open_session(&r, &one_pipelined);
    take_output(&r, 64);
    say(&r, OK OK GO, strlen(OK OK GO));
    smtp_client_lost(r.client, "reset");
    drain(&r);
    assert_text(&r.events, "0.0:not_sent/body/0 0:done close/body/0 ");
    done(&r);
    /* Its beginning is out. Pieces: "a..b...", ".", "c"; the dot comes with the next output. */
    open_session(&r, &one_pipelined);
    take_output(&r, 64);
    say(&r, OK OK GO, strlen(OK OK GO));
    assert_int_equal(smtp_client_stage(r.client), SMTP_STAGE_BODY);
    smtp_client_output(r.client, iov, 4);
    smtp_client_lost(r.client, "reset");
    drain(&r);
    assert_text(&r.events, "0.0:lost/body/0 0:done close/body/0 ");
    done(&r);
    /* All of it is with the kernel, not sent. */
    open_session(&r, &one_chunked);
    assert_int_equal(smtp_client_output(r.client, iov, 64), 2);
    smtp_client_lost(r.client, "reset");
    drain(&r);
    assert_text(&r.events, "0.0:lost/mail/0 0:done close/mail/0 ");
    done(&r);
}

/* Who refuses EHLO and closes has said why. */
static void test_lost_behind_a_refused_ehlo(void **state)
{
    static const struct script script = {.options = {.ehlo_name = "me", .outputs = &outputs}};
    struct run r;

    (void)state;
    for (int answered = 0; answered < 2; answered++) {
        prepare(&r, &script);
        say(&r, "220 mx\r\n", 8);
        take_output(&r, 64);
        say(&r, "550 blocked\r\n", 13);
        take_output(&r, 64); /* HELO */
        if (answered)
            say(&r, OK, strlen(OK));
        smtp_client_lost(r.client, "reset");
        drain(&r);
        assert_text(&r.events, answered ? "ready close/ready/0 " : "close/ehlo/550 ");
        done(&r);
    }
}

/* Content that the kernel may still read is not given back. */
static void test_done_waits_for_sent(void **state)
{
    struct iovec iov[64];
    struct run r;

    (void)state;
    open_session(&r, &one_chunked);
    assert_int_equal(smtp_client_output(r.client, iov, 64), 2);
    say(&r, OK OK NO, strlen(OK OK NO));
    assert_text(&r.events, "0.0:reply/body/550 ");
    smtp_client_sent(r.client);
    drain(&r);
    assert_text(&r.events, "0:done ");
    done(&r);
    open_session(&r, &one_chunked);
    smtp_client_output(r.client, iov, 64);
    say(&r, "421 bye\r\n", 9);
    assert_text(&r.events, "0.0:reply/mail/421 ");
    smtp_client_sent(r.client);
    drain(&r);
    assert_text(&r.events, "0:done close/mail/421 ");
    done(&r);
}

/* 552 in the middle of a DATA body. */
static void test_early_end_of_a_body(void **state)
{
    struct run r;

    (void)state;
    open_session(&r, &one_pipelined);
    take_output(&r, 64);
    say(&r, OK OK GO "552 too big\r\n", strlen(OK OK GO "552 too big\r\n"));
    assert_text(&r.events, "0.0:reply/body/552 0:done close/body/552 ");
    done(&r);
}

/* A reply to BDAT while the body is still to go: a refusal is taken and the body goes out all the
 * same, since its size was announced; an acceptance is a lie. */
static void test_early_reply_to_bdat(void **state)
{
    static const struct script two = {
        "",
        ME,
        {{.content = "a\r\n", .rcpts = 1}, {.content = "b\r\n", .rcpts = 1}},
        {GREETING, {EHLO(PIPELINING CHUNKING), "", ""}}};
    struct iovec iov[4];
    struct run r;

    (void)state;
    open_session(&r, &two);
    assert_int_equal(smtp_client_output(r.client, iov, 4), 3); /* no room for the second body */
    smtp_client_sent(r.client);
    say(&r, OK OK OK OK OK OK NO, strlen(OK OK OK OK OK OK NO));
    assert_text(&r.events, "0.0:reply/body/250 0:done 1.0:reply/body/550 ");
    take_output(&r, 4);
    assert_text(&r.out, "b\r\nQUIT\r\n");
    assert_text(&r.events, "1:done ");
    done(&r);
    open_session(&r, &two);
    smtp_client_output(r.client, iov, 4);
    smtp_client_sent(r.client);
    say(&r, OK OK OK OK OK OK OK, strlen(OK OK OK OK OK OK OK));
    assert_text(&r.events, "0.0:reply/body/250 0:done 1.0:not_sent/body/0 1:done close/body/0 ");
    done(&r);
}

/* A large body waits for a recipient. */
static void test_large_body_waits(void **state)
{
    size_t len = (1 << 20) + 2;
    char *content = malloc(len + 1);
    struct script large = one_chunked;
    struct run r;

    (void)state;
    memset(content, 'a', len);
    memcpy(content + len - 2, "\r\n", 3);
    large.mails[0].content = content;
    open_session(&r, &large);
    take_output(&r, 64);
    assert_text(&r.out, GROUP("0"));
    say(&r, OK OK, strlen(OK OK));
    take_output(&r, 64);
    assert_memory_equal(r.out.data, "BDAT 1048578 LAST\r\naaa", 22);
    assert_int_equal(r.out.len, 19 + len);
    done(&r);
    open_session(&r, &large);
    take_output(&r, 64);
    say(&r, OK NO, strlen(OK NO));
    assert_text(&r.events, "0.0:reply/rcpt/550 0:done ");
    done(&r);
    free(content);
}

/* Dots that begin lines are doubled wherever the output is cut: around the end of a piece of 1 MiB
 * lines begin at each byte in turn. */
static void test_dots_across_outputs(void **state)
{
    enum { PIECE = 1 << 20, LEN = PIECE + 64 };
    char *content = malloc(LEN + 1);
    struct script large = one_pipelined;

    (void)state;
    for (size_t shift = 0; shift < 6; shift++) {
        struct buf want = {0};
        struct run r;

        memset(content, 'a', LEN);
        for (size_t at = PIECE - 32; at + 4 < LEN; at += 4)
            memcpy(content + at - shift, at % 8 == 0 ? "\r\n.." : "\r\n.x", 4);
        memcpy(content + LEN - 2, "\r\n", 3);
        for (size_t i = 0; i < LEN; i++) {
            if (content[i] == '.' && content[i - 1] == '\n')
                buf_putc(&want, '.');
            buf_putc(&want, content[i]);
        }
        buf_puts(&want, ".\r\nQUIT\r\n");
        large.mails[0].content = content;
        open_session(&r, &large);
        take_output(&r, 64);
        say(&r, OK OK GO, strlen(OK OK GO));
        buf_clear(&r.out);
        take_output(&r, 64);
        say(&r, OK, strlen(OK));
        take_output(&r, 64);
        assert_int_equal(r.out.len, want.len);
        assert_memory_equal(r.out.data, want.data, want.len);
        buf_done(&want);
        done(&r);
    }
    free(content);
}

/* The content comes in two pieces, cut at each place: what is sent is the same, and so is its size.
 */
static void test_pieces(void **state)
{
    static const char content[] = ".\r\n..\r\n\r\n.b\r\nc.\r.\n.\r\n.\r\r\n.\r\n";
    static const char stuffed[] = "..\r\n...\r\n\r\n..b\r\nc.\r.\n.\r\n..\r\r\n..\r\n.\r\nQUIT\r\n";
    struct script script = one_pipelined;

    (void)state;
    script.mails[0].content = content;
    for (size_t cut = 0; cut < sizeof(content); cut++) {
        struct run r;

        script.mails[0].cut = cut;
        open_session(&r, &script);
        take_output(&r, 64);
        say(&r, OK OK GO, strlen(OK OK GO));
        buf_clear(&r.out);
        take_output(&r, 64);
        say(&r, OK, strlen(OK));
        take_output(&r, 64);
        buf_putc(&r.out, 0);
        assert_string_equal((char *)r.out.data, stuffed);
        assert_int_equal(r.transactions[0].content_len, sizeof(content) - 1);
        r.out.len--;
        done(&r);
    }
}

/* A send that is under way when the session is lost still reads the commands: another session gets
 * other memory until the client is freed. */
static void test_lost_keeps_the_commands(void **state)
{
    struct iovec iov[64];
    struct run r;

    (void)state;
    open_session(&r, &one_pipelined);
    assert_int_equal(smtp_client_output(r.client, iov, 64), 1);
    smtp_client_lost(r.client, "reset");
    drain(&r);
    assert_true(r.closed);
    assert_null(pool_get(&outputs)); /* it has one */
    assert_memory_equal(iov[0].iov_base, GROUP("0"), strlen(GROUP("0")));
    done(&r);
}

/* What the peer said that is no whole reply is there to be told. */
static void test_what_was_said(void **state)
{
    static const struct {
        const char *said, *unfinished, *words;
    } rows[] = {
        {"220-x\r\n", "x", "reset"},
        {"220-x\r\n22", "x 22", "reset"},
        {"SSH-2.0-x", "SSH-2.0-x", "reset"},
        {"\x15\x03\x01", "???", "reset"},
        {"", "", "reset"},
        {"SSH-2.0-x\r\n", "", "not an SMTP reply: SSH-2.0-x"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct smtp_event e;
        struct str unfinished;
        struct run r;

        prepare(&r, &one_pipelined);
        smtp_client_input(r.client, (const uint8_t *)rows[i].said, strlen(rows[i].said));
        if (smtp_client_next_event(r.client, &e) == SMTP_EVENT_NONE) {
            smtp_client_lost(r.client, "reset");
            smtp_client_next_event(r.client, &e);
        }
        assert_int_equal(e.kind, SMTP_EVENT_CLOSE);
        assert_int_equal(e.reply->code, 0);
        assert_int_equal(e.reply->text_len, strlen(rows[i].words));
        assert_memory_equal(e.reply->text, rows[i].words, e.reply->text_len);
        unfinished = smtp_client_unfinished(r.client);
        assert_true(str_eq(unfinished, str_of(rows[i].unfinished)));
        done(&r);
    }
}

/* The longest credentials fit an output, and leave it when it has gone. */
static void test_auth_leaves_nothing(void **state)
{
    char user[256], password[512];
    struct script script = {"long credentials", USER, .trusted = true};
    struct run r;
    struct iovec iov[64];
    const char *commands;

    (void)state;
    memset(user, 'u', sizeof(user) - 1);
    memset(password, 'p', sizeof(password) - 1);
    user[sizeof(user) - 1] = password[sizeof(password) - 1] = '\0';
    script.options.auth_user = user;
    script.options.auth_password = password;
    prepare(&r, &script);
    say(&r, "220 mx\r\n", 8);
    take_output(&r, 64);
    say(&r, EHLO(AUTH("PLAIN")), strlen(EHLO(AUTH("PLAIN"))));
    assert_int_equal(smtp_client_output(r.client, iov, 64), 1);
    assert_int_equal(iov[0].iov_len, 11 + 1024 + 2);
    assert_int_equal(smtp_client_stage(r.client), SMTP_STAGE_AUTH);
    commands = iov[0].iov_base;
    assert_memory_equal(commands, "AUTH PLAIN AHV1", 15);
    smtp_client_sent(r.client);
#if !POISONED /* the pool keeps the buffer: nothing of the credentials is in it */
    for (size_t i = 16; i < 1000; i++)
        assert_true(commands[i] == '\0');
#endif
    done(&r);
}

/* Bytes in plaintext behind the 220, with it or later, end the session: none of them is taken for
 * what the encrypted peer says. */
static void test_injection(void **state)
{
    static const char *const behind[] = {"250-mx\r\n250 SIZE 1\r\n", "2", "220 again\r\n", "\r"};
    static const struct script script = {ME, .tls = SMTP_TLS_MAY};

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(behind); i++) {
        struct buf said = {0};
        struct smtp_event e;
        struct run r;

        prepare(&r, &script);
        say(&r, "220 mx\r\n", 8);
        take_output(&r, 64);
        say(&r, EHLO(STARTTLS), strlen(EHLO(STARTTLS)));
        take_output(&r, 64);
        buf_puts(&said, "220 go\r\n");
        if (i % 2 == 1) {
            smtp_client_input(r.client, said.data, said.len);
            assert_int_equal(smtp_client_next_event(r.client, &e), SMTP_EVENT_STARTTLS);
            assert_int_equal(smtp_client_stage(r.client), SMTP_STAGE_STARTTLS);
            take_output(&r, 64);
            buf_clear(&said);
        }
        buf_puts(&said, behind[i / 2]);
        buf_clear(&r.out);
        smtp_client_input(r.client, said.data, said.len);
        assert_int_equal(smtp_client_next_event(r.client, &e), SMTP_EVENT_CLOSE);
        assert_int_equal(e.stage, SMTP_STAGE_STARTTLS);
        assert_int_equal(e.reply->code, 0);
        assert_non_null(strstr(e.reply->text, "in plaintext"));
        take_output(&r, 64);
        assert_int_equal(r.out.len, 0);
        buf_done(&said);
        done(&r);
    }
}

static void test_capabilities(void **state)
{
    static const char ehlo[] = "250-mx PIPELINING\r\n250-size 12345\r\n250-LIMITS RCPTMAX=20 "
                               "MAILMAX=5 FOO=1 rcptdomainmax=2\r\n250-STARTTLS\r\n250-dsn\r\n"
                               "250 LIMITS MAILMAX=9999999999\r\n";
    struct run r;

    (void)state;
    prepare(&r, &scripts[0]);
    say(&r, "220 mx\r\n", 8);
    take_output(&r, 64);
    r.mails = 0;
    say(&r, ehlo, sizeof(ehlo) - 1);
    assert_int_equal(smtp_client_capabilities(r.client),
                     SMTP_CAP_SIZE | SMTP_CAP_LIMITS | SMTP_CAP_STARTTLS | SMTP_CAP_DSN);
    assert_int_equal(smtp_client_size_max(r.client), 12345);
    assert_int_equal(smtp_client_mail_max(r.client), 5);
    assert_int_equal(smtp_client_rcpt_max(r.client), 20);
    assert_int_equal(smtp_client_rcpt_domain_max(r.client), 2);
    done(&r);
}

/* A group larger than the command buffer goes out in parts, in order. */
static void test_many_recipients(void **state)
{
    enum { MANY = 200 };
    static const struct smtp_client_options options = {.ehlo_name = "me", .outputs = &outputs};
    static struct smtp_transaction_rcpt rcpts[MANY];
    struct smtp_transaction t = {.sender = STR("a@b"),
                                 .rcpts = rcpts,
                                 .rcpts_len = MANY,
                                 .pieces = {{(const uint8_t *)"x\r\n", 3}}};
    struct run r = {.client = smtp_client_new(&options)};
    size_t at = 0, lines = 0;

    (void)state;
    for (size_t i = 0; i < MANY; i++)
        rcpts[i].address = STR("somebody.with.a.long.name@some.where.example");
    say(&r, "220 mx\r\n", 8);
    take_output(&r, 64);
    say(&r, "250-mx\r\n250 PIPELINING\r\n", 24);
    buf_clear(&r.out);
    smtp_client_submit(r.client, &t);
    take_output(&r, 64);
    for (; at < r.out.len; at++)
        lines += r.out.data[at] == '\n';
    assert_int_equal(lines, MANY + 2);
    smtp_client_free(r.client);
    buf_done(&r.out);
    buf_done(&r.events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scripts),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_hostile_ends),
        cmocka_unit_test(test_endless_reply),
        cmocka_unit_test(test_lost_only_behind_the_end),
        cmocka_unit_test(test_lost_behind_a_refused_ehlo),
        cmocka_unit_test(test_done_waits_for_sent),
        cmocka_unit_test(test_early_end_of_a_body),
        cmocka_unit_test(test_early_reply_to_bdat),
        cmocka_unit_test(test_large_body_waits),
        cmocka_unit_test(test_dots_across_outputs),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_lost_keeps_the_commands),
        cmocka_unit_test(test_what_was_said),
        cmocka_unit_test(test_auth_leaves_nothing),
        cmocka_unit_test(test_injection),
        cmocka_unit_test(test_capabilities),
        cmocka_unit_test(test_many_recipients),
    };
    int result;

    pool_init(&outputs, "output", SMTP_CLIENT_OUTPUT_BYTES, 1);
    result = cmocka_run_group_tests(tests, NULL, NULL);
    pool_done(&outputs); /* every client gave its own back */
    return result;
}
