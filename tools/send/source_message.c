#include "tools/send/source_message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "tools/commands/quantity.h"

#define LINE_BYTES  78 /* with CRLF */
#define SPARE_LINES 4096
#define DOT_EVERY   50

int source_sizes_parse(const char *text, struct source_plan *plan)
{
    char copy[256], *save = NULL;

    if (strlen(text) >= sizeof(copy))
        return -EINVAL;
    strcpy(copy, text);
    plan->sizes_len = 0;
    for (char *one = strtok_r(copy, ",", &save); one != NULL; one = strtok_r(NULL, ",", &save)) {
        char *dash = strchr(one, '-');
        uint64_t min, max;

        if (plan->sizes_len == SOURCE_SIZES_MAX)
            return -EINVAL;
        if (dash != NULL)
            *dash = '\0';
        if (quantity_bytes(one, &min) < 0)
            return -EINVAL;
        max = min;
        if (dash != NULL && quantity_bytes(dash + 1, &max) < 0)
            return -EINVAL;
        if (min < SOURCE_SIZE_MIN || max < min)
            return -EINVAL;
        plan->sizes[plan->sizes_len].min = min;
        plan->sizes[plan->sizes_len++].max = max;
    }
    return plan->sizes_len > 0 ? 0 : -EINVAL;
}

static void add_domain(struct source_plan *plan, const char *name)
{
    if ((plan->domains_len & (plan->domains_len - 1)) == 0) { /* full at each power of two */
        size_t room = plan->domains_len == 0 ? 1 : plan->domains_len * 2;

        plan->domains = realloc(plan->domains, room * sizeof(*plan->domains));
        ASSERT(plan->domains != NULL);
    }
    plan->domains[plan->domains_len] = strdup(name);
    ASSERT(plan->domains[plan->domains_len] != NULL);
    plan->domains_len++;
}

void source_domains_numbered(struct source_plan *plan, uint64_t n)
{
    char name[64];

    for (uint64_t i = 1; i <= n; i++) {
        snprintf(name, sizeof(name), "d%lu.example", i);
        add_domain(plan, name);
    }
}

int source_domains_read(struct source_plan *plan, const char *file)
{
    FILE *in = fopen(file, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    if (in == NULL)
        return -errno;
    while ((n = getline(&line, &cap, in)) > 0) {
        struct str name = {line, (size_t)n};

        if (name.ptr[name.len - 1] == '\n')
            name.len--;
        if (name.len > 0 && name.ptr[name.len - 1] == '\r')
            name.len--;
        name = str_trim(name);
        if (name.len == 0 || *name.ptr == '#')
            continue;
        line[name.ptr - line + (ptrdiff_t)name.len] = '\0';
        add_domain(plan, name.ptr);
    }
    free(line);
    fclose(in);
    return plan->domains_len > 0 ? 0 : -ENODATA;
}

/* Text that neither compresses to nothing nor is noise: words of random letters. */
static void fill_text(struct source_plan *plan, struct rng *rng)
{
    static const char phrase[] = "早馬は夜を走る。"; /* 3 bytes a character */
    const size_t width = LINE_BYTES - 2;

    for (size_t i = 0; i < plan->text_lines; i++) {
        char *line = plan->text + i * LINE_BYTES;
        size_t at = 0;

        if (plan->eight_bit && i % 2 == 0)
            for (; at + sizeof(phrase) - 1 <= width; at += sizeof(phrase) - 1)
                memcpy(line + at, phrase, sizeof(phrase) - 1);
        for (; at < width; at++)
            line[at] = rng_below(rng, 6) == 0 ? ' ' : (char)('a' + rng_below(rng, 26));
        if (plan->dot_lines && i % DOT_EVERY == 0)
            line[0] = '.';
        memcpy(line + width, "\r\n", 2);
    }
}

void source_plan_prepare(struct source_plan *plan)
{
    uint64_t size_max = 0;
    double sum = 0;
    struct rng rng;

    for (size_t i = 0; i < plan->sizes_len; i++)
        if (plan->sizes[i].max > size_max)
            size_max = plan->sizes[i].max;
    rng_seed(&rng, plan->seed);
    plan->run = rng_entropy();
    plan->text_lines = size_max / LINE_BYTES + 2 + SPARE_LINES;
    plan->text = malloc(plan->text_lines * LINE_BYTES);
    ASSERT(plan->text != NULL);
    fill_text(plan, &rng);
    if (!plan->zipf)
        return;
    plan->shares = malloc(plan->domains_len * sizeof(*plan->shares));
    ASSERT(plan->shares != NULL);
    for (size_t i = 0; i < plan->domains_len; i++) {
        sum += 1 / (double)(i + 1);
        plan->shares[i] = sum;
    }
}

void source_plan_done(struct source_plan *plan)
{
    for (size_t i = 0; i < plan->domains_len; i++)
        free(plan->domains[i]);
    free(plan->domains);
    free(plan->text);
    free(plan->shares);
}

static const char *draw_domain(const struct source_plan *plan, struct rng *rng)
{
    size_t low = 0, high = plan->domains_len - 1;
    double wanted;

    if (!plan->zipf)
        return plan->domains[rng_below(rng, plan->domains_len)];
    wanted = rng_unit(rng) * plan->shares[high];
    while (low < high) {
        size_t mid = (low + high) / 2;

        if (plan->shares[mid] > wanted)
            high = mid;
        else
            low = mid + 1;
    }
    return plan->domains[low];
}

static void make_recipients(const struct source_plan *plan, struct source_message *m,
                            struct rng *rng)
{
    size_t at = 0;

    buf_clear(&m->addresses);
    if (m->rcpts == NULL) {
        m->rcpts = calloc(plan->recipients, sizeof(*m->rcpts));
        m->accepted = calloc(plan->recipients, sizeof(*m->accepted));
        ASSERT(m->rcpts != NULL && m->accepted != NULL);
    }
    memset(m->accepted, 0, plan->recipients * sizeof(*m->accepted));
    for (uint32_t i = 0; i < plan->recipients; i++) {
        size_t from = m->addresses.len;

        buf_putc(&m->addresses, 'u');
        buf_put_u64(&m->addresses, m->seq * plan->recipients + i);
        buf_putc(&m->addresses, '@');
        buf_puts(&m->addresses, draw_domain(plan, rng));
        m->rcpts[i] = (struct smtp_transaction_rcpt){.address.len = m->addresses.len - from};
    }
    for (uint32_t i = 0; i < plan->recipients; i++) { /* the buffer does not move any more */
        m->rcpts[i].address.ptr = (const char *)m->addresses.data + at;
        at += m->rcpts[i].address.len;
    }
}

static void make_header(const struct source_plan *plan, struct source_message *m, const char *date)
{
    struct buf *b = &m->content;

    buf_puts(b, "From: Hayauma Source <");
    buf_puts(b, plan->from);
    buf_puts(b, ">\r\nTo: <");
    buf_put_str(b, m->rcpts[0].address);
    buf_puts(b, ">\r\nSubject: message ");
    buf_put_u64(b, m->seq);
    buf_puts(b, "\r\nDate: ");
    buf_puts(b, date);
    buf_puts(b, "\r\nMessage-ID: <");
    buf_put_u64(b, m->seq);
    buf_putc(b, '.');
    buf_put_u64(b, plan->run);
    buf_puts(b, "@source.example>\r\nX-Seq: ");
    buf_put_u64(b, m->seq);
    buf_puts(b, "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                "Content-Transfer-Encoding: ");
    buf_puts(b, plan->eight_bit ? "8bit\r\n\r\n" : "7bit\r\n\r\n");
}

/* A cut of the text from a line of its own, ended by CRLF wherever it was cut. */
static void make_body(const struct source_plan *plan, struct source_message *m, uint64_t size,
                      struct rng *rng)
{
    struct buf *b = &m->content;
    size_t body = size > b->len + 3 ? size - b->len : 3;
    size_t line = rng_below(rng, SPARE_LINES);
    uint8_t *end;

    buf_put(b, plan->text + line * LINE_BYTES, body);
    end = b->data + b->len - 2;
    memcpy(end, "\r\n", 2);
    for (uint8_t *byte = end - 1; *byte == '\r' || *byte >= 0x80; byte--)
        *byte = 'x'; /* half of a CRLF or of a character */
}

void source_message_make(const struct source_plan *plan, struct source_message *m, uint64_t seq,
                         const char *date, bool identity)
{
    size_t choice;
    uint64_t size;
    struct rng rng;

    rng_seed(&rng, plan->seed ^ (seq * UINT64_C(0x9e3779b97f4a7c15)));
    m->seq = seq;
    m->retry = m->refused = m->lost_now = false;
    m->lost = 0;
    make_recipients(plan, m, &rng);
    choice = plan->sizes_len == 1 ? 0 : rng_below(&rng, plan->sizes_len);
    size = plan->sizes[choice].min +
           rng_below(&rng, plan->sizes[choice].max - plan->sizes[choice].min + 1);
    buf_clear(&m->content);
    make_header(plan, m, date);
    make_body(plan, m, size, &rng);
    if (identity) {
        ledger_content_reset(&m->identity);
        ledger_content_add(&m->identity, (const char *)m->content.data, m->content.len);
        ledger_content_end(&m->identity);
    }
    m->t = (struct smtp_transaction){
        .sender = str_of(plan->from),
        .eight_bit = plan->eight_bit,
        .dot_lines = plan->dot_lines,
        .pieces = {{m->content.data, m->content.len}},
        .rcpts = m->rcpts,
        .rcpts_len = (uint16_t)plan->recipients,
        .owner = m,
    };
}

void source_message_again(struct source_message *m)
{
    struct smtp_transaction t = {
        .sender = m->t.sender,
        .eight_bit = m->t.eight_bit,
        .dot_lines = m->t.dot_lines,
        .pieces = {{m->content.data, m->content.len}},
        .rcpts = m->rcpts,
        .owner = m,
    };

    for (uint16_t i = 0; i < m->t.rcpts_len; i++) {
        if (m->accepted[i])
            continue;
        m->rcpts[t.rcpts_len] = (struct smtp_transaction_rcpt){.address = m->rcpts[i].address};
        m->accepted[t.rcpts_len++] = false;
    }
    m->retry = m->lost_now = false;
    m->t = t;
}

void source_message_done(struct source_message *m)
{
    buf_done(&m->content);
    buf_done(&m->addresses);
    free(m->rcpts);
    free(m->accepted);
    ledger_content_done(&m->identity);
}
