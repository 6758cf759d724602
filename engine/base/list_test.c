#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int value;
    struct list_node node;
};

static void assert_values(const struct list *list, const char *want)
{
    struct list_node *node = list_first(list);

    for (; *want != '\0'; want++, node = list_next(list, node)) {
        assert_non_null(node);
        assert_int_equal(LIST_ENTRY(node, struct item, node)->value, *want);
    }
    assert_null(node);
}

static void test_list(void **state)
{
    struct item a = {.value = 'a'}, b = {.value = 'b'}, c = {.value = 'c'}, d = {.value = 'd'};
    struct list one, two;

    (void)state;
    list_init(&one);
    list_init(&two);
    assert_true(list_empty(&one));
    assert_null(list_pop_front(&one));
    list_push_back(&one, &b.node);
    list_push_front(&one, &a.node);
    list_push_back(&one, &d.node);
    list_insert_before(&d.node, &c.node);
    assert_values(&one, "abcd");
    list_remove(&b.node);
    assert_false(list_node_linked(&b.node));
    assert_values(&one, "acd");
    list_push_back(&two, &b.node);
    list_splice_back(&two, &one);
    assert_values(&two, "bacd");
    assert_true(list_empty(&one));
    list_splice_back(&two, &one); /* of an empty list */
    assert_values(&two, "bacd");
    assert_ptr_equal(list_pop_front(&two), &b.node);
    assert_values(&two, "acd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_list)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
