#include "base/suggest.h"

#define WORD_BEGUN_MIN 3

/* Optimal string alignment: insert, delete, replace, and swap of neighbours cost 1 each; swaps are
 * the commonest slip of the keyboard. */
static unsigned edit_distance(struct str a, struct str b)
{
    unsigned rows[3][SUGGEST_WORD_MAX + 1];
    unsigned *before = rows[0], *last = rows[1], *now = rows[2];

    for (unsigned j = 0; j <= b.len; j++)
        last[j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        now[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            char ca = ascii_lower(a.ptr[i - 1]), cb = ascii_lower(b.ptr[j - 1]);
            unsigned cost = last[j - 1] + (ca == cb ? 0 : 1);

            if (last[j] + 1 < cost)
                cost = last[j] + 1;
            if (now[j - 1] + 1 < cost)
                cost = now[j - 1] + 1;
            if (i > 1 && j > 1 && ca == ascii_lower(b.ptr[j - 2]) &&
                ascii_lower(a.ptr[i - 2]) == cb && before[j - 2] + 1 < cost)
                cost = before[j - 2] + 1;
            now[j] = cost;
        }
        unsigned *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[b.len];
}

static struct str next_word(struct str *rest)
{
    struct str word = {rest->ptr, 0};

    while (word.len < rest->len && word.ptr[word.len] != '_' && word.ptr[word.len] != '-')
        word.len++;
    rest->ptr += word.len;
    rest->len -= word.len;
    if (rest->len > 0) { /* the mark between */
        rest->ptr++;
        rest->len--;
    }
    return word;
}

static bool has_word(struct str s, struct str word)
{
    while (s.len > 0)
        if (str_eq_nocase(next_word(&s), word))
            return true;
    return false;
}

/* "max_sessions", "sessions_max": the words are right, their order is not. */
static bool same_words(struct str a, struct str b)
{
    if (a.len != b.len || a.len == 0)
        return false;
    while (a.len > 0)
        if (!has_word(b, next_word(&a)))
            return false;
    return true;
}

void suggest_init(struct suggest *s, struct str word)
{
    /* A third of the word may be wrong; below three letters everything resembles everything. */
    unsigned limit = word.len > SUGGEST_WORD_MAX ? 0 : (unsigned)(word.len + 1) / 3;

    *s = (struct suggest){.word = word, .distance = limit + 1};
}

void suggest_offer(struct suggest *s, const char *candidate)
{
    struct str c = str_of(candidate);
    unsigned distance;

    if (s->word.len > SUGGEST_WORD_MAX || c.len > SUGGEST_WORD_MAX)
        return;
    distance = edit_distance(s->word, c);
    if (distance > 1 && same_words(s->word, c))
        distance = 1;
    /* What was left off at the end is one slip, however long. */
    if (distance > 1 && s->word.len >= WORD_BEGUN_MIN && str_starts_nocase(c, s->word))
        distance = 1;
    if (distance < s->distance) {
        s->distance = distance;
        s->best = candidate;
    }
}
