#include "outcome/notice_text.h"

#include "base/clock.h"
#include "outcome/classify.h"
#include "smtp/address.h"

#define RECIPIENTS_NAMED_MAX 50 /* in the text for people; the status part names all */

/* --- status --- */

struct derived {
    uint16_t code; /* 0: any */
    enum smtp_stage stage;
    uint16_t subject, detail;
};

/* For peers without enhanced codes. First match counts. */
static const struct derived derived[] = {
    {550, SMTP_STAGE_RCPT, 1, 1},  {551, SMTP_STAGE_RCPT, 1, 6}, {552, SMTP_STAGE_RCPT, 2, 2},
    {553, SMTP_STAGE_RCPT, 1, 3},  {452, SMTP_STAGE_RCPT, 2, 2}, {552, SMTP_STAGE_MAIL, 3, 4},
    {552, SMTP_STAGE_BODY, 3, 4},  {452, SMTP_STAGE_MAIL, 3, 1}, {452, SMTP_STAGE_BODY, 3, 1},
    {0, SMTP_STAGE_CONNECT, 4, 1}, {0, SMTP_STAGE_BANNER, 4, 2},
};

struct smtp_enhanced notice_status(enum notice_kind kind, const struct outcome *outcome)
{
    const struct smtp_reply *reply = &outcome->reply;
    struct smtp_enhanced e = reply->enhanced;

    if (e.class == 0) {
        e = (struct smtp_enhanced){0, 0, 0};
        for (size_t i = 0; i < ARRAY_LEN(derived); i++) {
            if (derived[i].stage == outcome->stage &&
                (derived[i].code == 0 || derived[i].code == reply->code)) {
                e.subject = derived[i].subject;
                e.detail = derived[i].detail;
                break;
            }
        }
    }
    if (kind == NOTICE_DELIVERED || kind == NOTICE_RELAYED)
        e.class = 2;
    else if (kind == NOTICE_DELAYED)
        e.class = 4;
    else if (e.class != 4 || reply->code / 100 == 5)
        e.class = 5;
    if (kind == NOTICE_EXPIRED && e.subject == 0)
        e.subject = 4, e.detail = 7;
    return e;
}

/* --- advice --- */

struct advice {
    uint16_t subject;
    int detail; /* -1: any */
    const char *en, *ja;
};

static const struct advice advices[] = {
    {1, 2, "The domain behind the @ does not exist or takes no mail. Please check its spelling.",
     "宛先のドメイン名(@より後ろ)"
     "が存在しないか、メールを受け付けていません。つづりをご確認ください。"},
    {1, 10, "The domain behind the @ takes no mail at all.",
     "宛先のドメインはメールを受け付けていません。"},
    {1, 7, "The receiving server does not accept the sender's address.",
     "受信側のサーバーが差出人のアドレスを受け付けませんでした。"},
    {1, 8, "The receiving server does not accept the sender's address.",
     "受信側のサーバーが差出人のアドレスを受け付けませんでした。"},
    {1, -1, "The address does not exist. Please check its spelling, or take it off your list.",
     "宛先のアドレスが存在しません。つづりをご確認いただくか、配信リストから外してください。"},
    {2, 2, "The recipient's mailbox is full.", "宛先のメールボックスがいっぱいです。"},
    {2, 3, "The message is too large for the recipient's mailbox.",
     "メールが大きすぎるため、宛先のメールボックスに入りません。"},
    {2, -1, "The recipient's mailbox is disabled or takes no mail.",
     "宛先のメールボックスが停止されているか、メールを受け付けていません。"},
    {3, 4, "The message is too large for the receiving server.",
     "メールが大きすぎるため、受信側のサーバーが受け付けません。"},
    {4, 7, "The message could not be delivered within the time allowed for it.",
     "定められた期間内に配送できませんでした。"},
    {4, 4, "There is no server that takes mail for the recipient's domain.",
     "宛先のドメインのメールを受け付けるサーバーが見つかりません。"},
    {4, -1, "The receiving server could not be reached, or the connection broke.",
     "受信側のサーバーに接続できないか、通信が途中で切れました。"},
    {6, -1, "The receiving server cannot take the form or the content of the message.",
     "受信側のサーバーが、メールの形式または内容を受け付けません。"},
    {7, -1,
     "The receiving server refused the message by its policy (for example as unwanted mail).",
     "受信側の方針により拒否されました(迷惑メールと判断された場合など)。"},
};

static const struct advice *find_advice(struct smtp_enhanced status)
{
    static const struct advice other = {0, -1, "The receiving server refused the message.",
                                        "受信側のサーバーがメールを受け付けませんでした。"};

    for (size_t i = 0; i < ARRAY_LEN(advices); i++)
        if (advices[i].subject == status.subject &&
            (advices[i].detail < 0 || advices[i].detail == status.detail))
            return &advices[i];
    return &other;
}

/* --- text --- */

struct wording {
    const char *subject, *en, *ja;
};

static const struct wording wordings[] = {
    [NOTICE_FAILED] = {"Undelivered mail returned to sender",
                       "Your message could not be delivered to the following recipients, and no\r\n"
                       "further attempt will be made:",
                       "次の宛先にメールを配送できませんでした。これ以上の再送は行いません。"},
    [NOTICE_EXPIRED] =
        {"Undelivered mail returned to sender",
         "Your message could not be delivered to the following recipients within the\r\n"
         "time allowed for it, and no further attempt will be made:",
         "期限までに次の宛先へメールを配送できませんでした。これ以上の再送は行いません。"},
    [NOTICE_DELAYED] =
        {"Delayed mail (still being retried)",
         "Your message has not yet been delivered to the following recipients. You do\r\n"
         "not need to send it again: delivery is still being tried.",
         "次の宛先へのメールの配送が遅れています。再送は自動的に続けますので、"
         "送り直す必要はありません。"},
    [NOTICE_RELAYED] =
        {"Mail relayed",
         "As you asked to be told: your message was handed to the next mail system for the\r\n"
         "following recipients. It may not send further notices of success:",
         "ご依頼の配送通知です。次の宛先へのメールを、次のメールサーバーに引き渡しました。"},
    [NOTICE_DELIVERED] = {"Mail delivered",
                          "As you asked to be told: your message was delivered to the following\r\n"
                          "recipients:",
                          "ご依頼の配送通知です。次の宛先にメールを配送しました。"},
};

const char *notice_subject(enum notice_kind kind)
{
    ASSERT((size_t)kind < ARRAY_LEN(wordings));
    return wordings[kind].subject;
}

void notice_put_clean(struct buf *out, struct str s, bool utf8)
{
    bool keep = utf8 && smtp_utf8_valid(s);

    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];

        buf_putc(out, c < ' ' || c == 0x7f || (c > 0x7f && !keep) ? '?' : (char)c);
    }
}

static void put_date(struct buf *out, int64_t ms)
{
    char date[CLOCK_RFC5322_BYTES];

    buf_put(out, date, clock_rfc5322(ms, date));
}

static bool is_success(enum notice_kind kind)
{
    return kind == NOTICE_DELIVERED || kind == NOTICE_RELAYED;
}

bool notice_is_failure(enum notice_kind kind)
{
    return kind == NOTICE_FAILED || kind == NOTICE_EXPIRED;
}

/* Whose words the reply is and what they were. */
static void put_answer(struct buf *out, const struct notice_recipient *r)
{
    const struct outcome *o = r->outcome;
    const struct smtp_enhanced *e = &o->reply.enhanced;
    const char *command = o->local ? NULL : classify_command(o->stage);

    if (o->local || r->peer_name == NULL) {
        buf_puts(out, "    This system noted: ");
    } else {
        buf_puts(out, "    The server ");
        notice_put_clean(out, str_of(r->peer_name), true);
        buf_puts(out, " answered: ");
    }
    if (!o->local && o->reply.code != 0) {
        buf_put_u64(out, o->reply.code);
        buf_putc(out, ' ');
        if (e->class != 0)
            buf_printf(out, "%u.%u.%u ", e->class, e->subject, e->detail);
    }
    notice_put_clean(out, (struct str){o->reply.text, o->reply.text_len}, true);
    if (command != NULL)
        buf_printf(out, " (to %s)", o->stage == SMTP_STAGE_BODY ? "the message itself" : command);
    buf_puts(out, "\r\n");
}

static void put_recipients(struct buf *out, const struct notice *n, bool japanese)
{
    size_t named =
        n->recipients_len < RECIPIENTS_NAMED_MAX ? n->recipients_len : RECIPIENTS_NAMED_MAX;

    for (size_t i = 0; i < named; i++) {
        const struct notice_recipient *r = &n->recipients[i];
        const struct advice *advice = find_advice(notice_status(n->kind, r->outcome));

        buf_puts(out, "  <");
        notice_put_clean(out, r->address, true);
        buf_puts(out, ">\r\n");
        if (is_success(n->kind))
            continue;
        buf_puts(out, "    ");
        buf_puts(out, japanese ? advice->ja : advice->en);
        buf_puts(out, "\r\n");
        if (!japanese)
            put_answer(out, r);
    }
    if (named < n->recipients_len)
        buf_printf(out, japanese ? "  (ほか %zu 件)\r\n" : "  (and %zu more)\r\n",
                   n->recipients_len - named);
}

static void put_until(struct buf *out, const struct notice *n, const char *before,
                      const char *behind)
{
    int64_t until_ms = n->recipients_len > 0 ? n->recipients[0].will_retry_until_ms : 0;

    if (n->kind != NOTICE_DELAYED || until_ms == 0)
        return;
    buf_puts(out, before);
    put_date(out, until_ms);
    buf_puts(out, behind);
}

void notice_text(const struct notice *n, struct buf *out)
{
    const struct wording *w = &wordings[n->kind];
    bool failure = notice_is_failure(n->kind);

    buf_puts(out, "This is the mail system at ");
    notice_put_clean(out, str_of(n->host_name), true);
    buf_puts(out, ".\r\n\r\n");
    buf_puts(out, w->en);
    buf_puts(out, "\r\n\r\n");
    put_recipients(out, n, false);
    put_until(out, n, "\r\nDelivery will be tried until ", ".\r\n");
    buf_printf(out,
               "\r\nThe technical details and %s are attached.\r\n"
               "\r\n________\r\n\r\n",
               failure ? "your message (or its header)" : "the header of your message");
    buf_puts(out, "メール配送システム ");
    notice_put_clean(out, str_of(n->host_name), true);
    buf_puts(out, " からのお知らせです。\r\n");
    buf_puts(out, w->ja);
    buf_puts(out, "\r\n\r\n");
    put_recipients(out, n, true);
    put_until(out, n, "\r\n", " まで再送を続けます。\r\n");
    buf_printf(out, "\r\n技術的な詳細と、お送りいただいたメール%sを添付しています。\r\n",
               failure ? "(またはそのヘッダー)" : "のヘッダー");
}
