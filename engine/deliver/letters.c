#include "deliver/letters.h"

#include "deliver/transaction.h"

void letters_add(struct delivery *d, struct transaction *t)
{
    ASSERT(!list_node_linked(transaction_letter(t)) &&
           (d->letters_len > 0 || list_empty(&d->letters)));
    list_push_back(&d->letters, transaction_letter(t));
    d->letters_len++;
}

static void letter_remove(struct delivery *d, struct transaction *t)
{
    ASSERT(d->letters_len > 0);
    list_remove(transaction_letter(t));
    d->letters_len--;
}

void letters_submit(struct delivery *d)
{
    struct list_node *n, *next;

    for (n = list_first(&d->letters); n != NULL; n = next) {
        struct transaction *t = transaction_of_letter(n);

        next = list_next(&d->letters, n);
        if (!transaction_spoilt(t) && smtp_client_can_submit(d->client) && transaction_prepare(t)) {
            letter_remove(d, t);
            transaction_submit(t);
        } else if (transaction_spoilt(t)) {
            letter_remove(d, t);
            transaction_end_spoilt(t);
        }
    }
}

void letters_take_back(struct delivery *d)
{
    struct list_node *n;

    while ((n = list_first(&d->letters)) != NULL) {
        struct transaction *t = transaction_of_letter(n);

        letter_remove(d, t);
        transaction_take_back(t);
    }
    ASSERT(d->letters_len == 0);
}
