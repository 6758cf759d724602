/* What a template may call on a value: the tables of filters and methods, and the filters that fit
 * no other file. As Jinja has them. */
#include <string.h>

#include "mail/template_private.h"

static FILTER(filter_default)
{
    bool take = v.kind == VALUE_UNDEFINED;

    (void)r, (void)at;
    if (args_len > 1 && value_true(&args[1]))
        take = !value_true(&v);
    if (!take)
        return v;
    return args_len > 0 && args[0].kind != VALUE_UNDEFINED
               ? args[0]
               : (struct value){.kind = VALUE_STRING, .string = STR("")};
}

static FILTER(filter_escape)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    return r->failed ? v : value_escaped(r, at, v);
}

static FILTER(filter_safe)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    v.safe = true;
    return v;
}

static FILTER(filter_string)
{
    (void)args, (void)args_len;
    return value_text(r, at, v);
}

const struct filter template_filters[] = {
    {"abs", 0, 0, filter_abs, NULL},
    {"batch", 1, 2, filter_batch, "linecount fill_with"},
    {"capitalize", 0, 0, filter_capitalize, NULL},
    {"count", 0, 0, filter_length, NULL},
    {"date", 1, 2, filter_date, "locale style"},
    {"d", 0, 2, filter_default, "default_value boolean"},
    {"default", 0, 2, filter_default, "default_value boolean"},
    {"dictsort", 0, 3, filter_dictsort, "case_sensitive by reverse"},
    {"e", 0, 0, filter_escape, NULL},
    {"escape", 0, 0, filter_escape, NULL},
    {"first", 0, 0, filter_first, NULL},
    {"float", 0, 1, filter_float, "default"},
    {"groupby", 1, 1, filter_groupby, "attribute"},
    {"int", 0, 1, filter_int, "default"},
    {"items", 0, 0, filter_items, NULL},
    {"join", 0, 2, filter_join, "d attribute"},
    {"last", 0, 0, filter_last, NULL},
    {"length", 0, 0, filter_length, NULL},
    {"list", 0, 0, filter_list, NULL},
    {"lower", 0, 0, filter_lower, NULL},
    {"map", 0, 3, filter_map, "filter attribute default"},
    {"max", 0, 2, filter_max, "case_sensitive attribute"},
    {"min", 0, 2, filter_min, "case_sensitive attribute"},
    {"number", 1, 2, filter_number, "locale decimals"},
    {"reject", 0, 2, filter_reject, NULL},
    {"rejectattr", 1, 3, filter_rejectattr, NULL},
    {"replace", 2, 2, filter_replace, "old new"},
    {"reverse", 0, 0, filter_reverse, NULL},
    {"round", 0, 2, filter_round, "precision method"},
    {"safe", 0, 0, filter_safe, NULL},
    {"select", 0, 2, filter_select, NULL},
    {"selectattr", 1, 3, filter_selectattr, NULL},
    {"sort", 0, 3, filter_sort, "reverse case_sensitive attribute"},
    {"string", 0, 0, filter_string, NULL},
    {"striptags", 0, 0, filter_striptags, NULL},
    {"sum", 0, 2, filter_sum, "attribute start"},
    {"title", 0, 0, filter_title, NULL},
    {"trim", 0, 0, filter_trim, NULL},
    {"truncate", 0, 3, filter_truncate, "length killwords end"},
    {"unique", 0, 2, filter_unique, "case_sensitive attribute"},
    {"upper", 0, 0, filter_upper, NULL},
    {"urlencode", 0, 0, filter_urlencode, NULL},
    {"wordcount", 0, 0, filter_wordcount, NULL},
};

const size_t template_filters_len = ARRAY_LEN(template_filters);

/* "loop.cycle('odd', 'even')" */
static FILTER(method_cycle)
{
    ASSERT(args_len > 0);
    if (v.kind != VALUE_LOOP)
        return render_fail(r, at, "only 'loop' has 'cycle'");
    return args[v.loop->index % args_len];
}

const struct filter template_methods[] = {
    {TEMPLATE_FORMAT, 0, TEMPLATE_CALL_MAX, filter_format, NULL},
    {"capitalize", 0, 0, filter_capitalize, NULL},
    {"cycle", 1, TEMPLATE_CALL_MAX, method_cycle, NULL},
    {"endswith", 1, 1, method_endswith, NULL},
    {"format", 0, TEMPLATE_CALL_MAX, method_format, NULL},
    {"get", 1, 2, filter_get, NULL},
    {"items", 0, 0, filter_items, NULL},
    {"join", 1, 1, method_join, NULL},
    {"keys", 0, 0, filter_keys, NULL},
    {"lower", 0, 0, filter_lower, NULL},
    {"replace", 2, 2, filter_replace, NULL},
    {"split", 0, 1, method_split, NULL},
    {"startswith", 1, 1, method_startswith, NULL},
    {"strip", 0, 0, filter_trim, NULL},
    {"title", 0, 0, filter_title, NULL},
    {"upper", 0, 0, filter_upper, NULL},
    {"values", 0, 0, filter_values, NULL},
};

const size_t template_methods_len = ARRAY_LEN(template_methods);

size_t template_filter_find(struct str name)
{
    size_t i = 0;

    while (i < template_filters_len && !str_eq(name, str_of(template_filters[i].name)))
        i++;
    return i;
}
