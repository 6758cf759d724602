#include "letter_cases.h"

#include <stdlib.h>

#include "deliver/render.h"

/* Sentences of a newsletter, an eighth of whose lines have a variable. */
static const char *const sentences[] = {
    [LETTER_ASCII] = "We have packed the spring collection for you, with free delivery.",
    [LETTER_LATIN] = "Nous avons préparé la collection de printemps, livrée chez vous.",
    [LETTER_JAPANESE] = "春の新作をご用意しました。送料は無料です。",
};

static struct config config;
static struct recipe *recipe;
static struct message *message;
static struct render_order order;

static void put_body(struct buf *out, const char *name, const char *sentence, size_t bytes,
                     bool html)
{
    static const char *const variables[] = {"name", "city", "code", "points"};
    size_t end = out->len + bytes;

    buf_printf(out, ",\"%s\":\"", name);
    for (unsigned i = 0; out->len < end; i++) {
        buf_printf(out, "%s%s", html ? "<p>" : "", sentence);
        if (i % 8 == 0)
            buf_printf(out, " {{ %s }}", variables[i / 8 % 4]);
        buf_printf(out, "%s\\n", html ? "</p>" : "");
    }
    buf_putc(out, '"');
}

void letter_case_begin(enum letter_case which)
{
    /* Of the encoded letter these come to 6 KiB. */
    static const size_t bytes[] = {
        [LETTER_ASCII] = 5600, [LETTER_LATIN] = 5100, [LETTER_JAPANESE] = 4000};
    struct message fields = {.id = {{1, 0x99, 0xab, 7}},
                             .created_ms = INT64_C(1795308557123),
                             .flags = MESSAGE_RECIPE,
                             .sender = STR("bounce@news.example.jp"),
                             .campaign = STR("spring2026")};
    struct json_mistake mistake;
    struct buf text = {0};

    buf_puts(&text, "{\"content\":{\"from\":{\"email\":\"news@news.example.jp\",\"name\":\"News\"},"
                    "\"subject\":\"{{ name }}, your spring\","
                    "\"headers\":{\"List-Unsubscribe\":\"<https://news.example.jp/u/{{ code }}>\","
                    "\"List-Unsubscribe-Post\":\"List-Unsubscribe=One-Click\"}");
    put_body(&text, "text_body", sentences[which], bytes[which] / 3, false);
    put_body(&text, "html_body", sentences[which], bytes[which] / 3 * 2, true);
    buf_puts(&text, "}}");
    ASSERT(recipe_parse(buf_str(&text), &recipe, &mistake) == 0);
    config.host_name = (char *)(uintptr_t) "mta1.news.example.jp";
    fields.content = text.data;
    fields.content_len = text.len;
    message = message_new(&fields);
    ASSERT(message != NULL);
    order = (struct render_order){
        .recipe = recipe,
        .message = message,
        .config = &config,
        .address = STR("hanako.yamada@mail.example.jp"),
        .variables = STR("{\"name\":\"Hanako\",\"substitutions\":{\"city\":\"Kyoto\","
                         "\"code\":\"a7f3c2e1d4\",\"points\":1250}}"),
        .bytes = 6144};
}

size_t letter_case_render(void)
{
    struct message *letter = NULL;
    struct buf why = {0};
    size_t bytes;

    order.index++;
    order.budget = (struct template_budget){512u << 10, 20000};
    ASSERT(render_letter(&order, &letter, &why) == 0);
    bytes = letter->content_len;
    message_unref(letter);
    buf_done(&why);
    return bytes;
}

void letter_case_end(void)
{
    recipe_free(recipe);
    message_unref(message);
}
