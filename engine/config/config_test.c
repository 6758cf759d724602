/* The configuration: golden files (tests/golden/config), the schema against itself, and matching.
 * HAYAUMA_GOLDEN_UPDATE=1 rewrites the expected outputs; read the difference before committing it.
 */
#include "config/config.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config_load.h"
#include "config/config_private.h"

#define GOLDEN TEST_SOURCE_DIR "/../../tests/golden/config"
#define DOCS   TEST_SOURCE_DIR "/../../docs/configuration.md"

static void read_file(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "re");
    char bytes[4096];
    size_t n;

    if (f == NULL)
        return;
    while ((n = fread(bytes, 1, sizeof(bytes), f)) != 0)
        buf_put(out, bytes, n);
    fclose(f);
}

static void write_file(const char *path, const struct buf *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_int_equal(fwrite(text->data, 1, text->len, f), text->len);
    assert_int_equal(fclose(f), 0);
}

static void assert_text(const struct buf *got, const struct buf *want, const char *name)
{
    if (str_eq(buf_str(got), buf_str(want)))
        return;
    print_error("%s:\n--- got\n%.*s\n--- expected\n%.*s\n", name, STR_FMT(buf_str(got)),
                STR_FMT(buf_str(want)));
    fail_msg("%s differs from what is expected", name);
}

/* Takes out where values come from: "  # merge.yaml:12". */
static void strip_places(struct buf *text, const char *name)
{
    char mark[300];
    size_t kept = 0;

    snprintf(mark, sizeof(mark), "  # %s:", name);
    for (size_t at = 0; at < text->len;) {
        if (text->len - at > strlen(mark) && memcmp(text->data + at, mark, strlen(mark)) == 0)
            while (text->data[at] != '\n')
                at++;
        text->data[kept++] = text->data[at++];
    }
    text->len = kept;
}

/* What is printed is read back to the same values. */
static void assert_round_trip(const struct buf *printed, const char *name)
{
    struct buf errors = {0}, again = {0}, first = {0};
    struct config *c = NULL;

    if (config_load_text(name, buf_str(printed), &c, &errors) != 0)
        fail_msg("%s: its own print is refused: %.*s", name, STR_FMT(buf_str(&errors)));
    config_print(c, &again);
    buf_put_str(&first, buf_str(printed));
    strip_places(&first, name);
    strip_places(&again, name);
    assert_text(&again, &first, name);
    config_unref(c);
    buf_done(&first);
    buf_done(&errors);
    buf_done(&again);
}

static void check_golden(const char *name)
{
    char path[512], expected_path[512];
    struct buf text = {0}, got = {0}, want = {0};
    struct config *c = NULL;

    snprintf(path, sizeof(path), "%s/%s", GOLDEN, name);
    snprintf(expected_path, sizeof(expected_path), "%s/%.*s.out", GOLDEN, (int)strlen(name) - 5,
             name);
    read_file(path, &text);
    if (config_load_text(name, buf_str(&text), &c, &got) == 0) {
        assert_int_equal(got.len, 0);
        config_print(c, &got);
        assert_round_trip(&got, name);
        config_unref(c);
    } else {
        assert_null(c);
        assert_true(got.len != 0);
    }
    if (getenv("HAYAUMA_GOLDEN_UPDATE") != NULL)
        write_file(expected_path, &got);
    read_file(expected_path, &want);
    assert_text(&got, &want, name);
    buf_done(&text);
    buf_done(&got);
    buf_done(&want);
}

static void test_golden(void **state)
{
    DIR *d = opendir(GOLDEN);
    struct dirent *e;
    unsigned n = 0;

    (void)state;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        size_t len = strlen(e->d_name);

        if (len < 6 || strcmp(e->d_name + len - 5, ".yaml") != 0)
            continue;
        check_golden(e->d_name);
        n++;
    }
    closedir(d);
    assert_true(n >= 15);
}

/* The manual in the tree is what the schema prints. */
static void test_docs(void **state)
{
    struct buf got = {0}, want = {0};

    (void)state;
    config_print_docs(&got);
    if (getenv("HAYAUMA_GOLDEN_UPDATE") != NULL)
        write_file(DOCS, &got);
    read_file(DOCS, &want);
    assert_text(&got, &want, "docs/configuration.md");
    buf_done(&got);
    buf_done(&want);
}

static void test_defaults(void **state)
{
    struct config *c = config_default();
    struct buf printed = {0};

    (void)state;
    assert_int_equal(c->listeners_len, 1);
    assert_string_equal(c->listeners[0].address.text, "127.0.0.1:25");
    assert_int_equal(c->listeners[0].relay_networks_len, 2);
    assert_int_equal(c->destinations_len, 1);
    assert_int_equal(c->destinations[0].dot_timeout_ms, 600000);
    assert_null(config_route_for(c, STR("example.com")));
    config_print(c, &printed);
    assert_round_trip(&printed, "defaults");
    assert_ptr_equal(config_ref(c), c);
    config_unref(c);
    config_unref(c);
    buf_done(&printed);
}

static void check_section(const struct config_section *s)
{
    for (size_t i = 0; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        assert_ptr_equal(config_field_find(s, str_of(f->name)), f); /* no name twice */
        if (f->section != NULL && f->section->len != 0)
            check_section(f->section);
        else if (f->section == NULL)
            assert_true(f->doc != NULL && f->doc[strlen(f->doc) - 1] == '.');
        assert_true(f->section != NULL || f->def != NULL || f->def_text != NULL || f->required);
        assert_true(f->max >= f->min);
    }
    assert_true(s->len <= 64); /* the walk marks fields in 64 bits */
}

static void test_schema(void **state)
{
    (void)state;
    check_section(&config_schema);
}

static void load_text(const char *text, struct config **out)
{
    struct buf errors = {0};

    if (config_load_text("test.yaml", str_of(text), out, &errors) != 0)
        fail_msg("%.*s", STR_FMT(buf_str(&errors)));
    buf_done(&errors);
}

static void test_patterns(void **state)
{
    static const struct {
        const char *domain, *site, *destination, *route; /* route NULL: none */
    } cases[] = {
        {"example.com", "", "example.com", NULL},
        {"EXAMPLE.com", "", "example.com", NULL},
        {"a.example.com", "", "*.example.com", "*.example.com"},
        {"a.b.example.com", "", "*.example.com", "*.example.com"},
        {"xexample.com", "", "*", NULL},
        {"com", "", "*", NULL},
        {"", "", "*", NULL},
        {"first.example.org", "", "first.example.org", NULL},
        {"other.example.org", "", "*.example.org", NULL},
        {"other.example.org", "mx.example.org", "*.example.org", NULL},
        {"example.org", "MX1.big.example", "site:*.big.example", NULL},
        {"last.example", "mx1.big.example", "site:*.big.example", NULL},
        {"last.example", "mx1.small.example", "last.example", NULL},
        {"last.example", "(mx1|mx2).x.example", "site:(mx1|mx2).x.example", NULL},
        {"[192.0.2.1]", "", "*", NULL},
    };
    struct config *c = NULL;

    (void)state;
    load_text("routes: {example.com: mx, '*.example.com': reject}\n"
              "destinations:\n"
              "  example.com: {}\n"
              "  '*.example.com': {}\n"
              "  first.example.org: {}\n"
              "  '*.example.org': {}\n"
              "  'site:*.big.example': {}\n"
              "  'site:(mx1|mx2).x.example': {}\n"
              "  last.example: {}\n",
              &c);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct config_route *r = config_route_for(c, str_of(cases[i].domain));
        const struct config_destination *d =
            config_destination_for(c, str_of(cases[i].domain), str_of(cases[i].site));

        assert_string_equal(d->pattern, cases[i].destination);
        if (cases[i].route == NULL)
            assert_null(r);
        else
            assert_string_equal(r->pattern, cases[i].route);
    }
    config_unref(c);
}

static void set_address(struct sockaddr_storage *out, const char *text)
{
    *out = (struct sockaddr_storage){.ss_family = AF_INET6};
    if (inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)out)->sin6_addr) == 1)
        return;
    out->ss_family = AF_INET;
    assert_int_equal(inet_pton(AF_INET, text, &((struct sockaddr_in *)out)->sin_addr), 1);
}

static void test_networks(void **state)
{
    static const struct {
        const char *address;
        bool match;
    } cases[] = {
        {"127.0.0.1", true},
        {"127.255.255.255", true},
        {"128.0.0.1", false},
        {"126.255.255.255", false},
        {"::1", true},
        {"::2", false},
        {"::ffff:127.0.0.1", true},
        {"::ffff:10.0.0.1", false},
        {"192.0.2.5", true},
        {"192.0.2.4", true},
        {"192.0.2.7", true},
        {"192.0.2.6", true},
        {"192.0.2.8", false},
        {"192.0.2.3", false},
        {"2001:db8:ffff::1", true},
        {"2001:db9::1", false},
        {"::127.0.0.1", false},
    };
    struct sockaddr_storage other = {.ss_family = AF_UNIX};
    const struct config_listener *l;
    struct config *c = NULL;

    (void)state;
    load_text("listeners: [{listen: '127.0.0.1:25', relay_networks: "
              "[127.0.0.0/8, '::1', 192.0.2.4/30, '2001:db8::/32']}]\n",
              &c);
    l = &c->listeners[0];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sockaddr_storage a;
        bool got;

        set_address(&a, cases[i].address);
        got = config_network_match(l->relay_networks, l->relay_networks_len, (struct sockaddr *)&a);
        if (got != cases[i].match)
            fail_msg("%s: %d", cases[i].address, got);
    }
    assert_false(
        config_network_match(l->relay_networks, l->relay_networks_len, (struct sockaddr *)&other));
    assert_false(config_network_match(NULL, 0, (struct sockaddr *)&other));
    config_unref(c);
}

/* The narrowest network decides; what it leaves out comes from the listener. */
static void test_bare_newlines(void **state)
{
    static const struct {
        const char *address;
        bool repair[2]; /* of each listener */
    } cases[] = {
        {"192.0.2.1", {false, true}},   {"10.1.0.1", {true, true}},  {"10.1.2.1", {false, true}},
        {"10.1.2.3", {false, true}},    {"10.1.3.3", {true, false}}, {"2001:db8::1", {true, true}},
        {"2001:db9::1", {false, true}},
    };
    struct sockaddr_storage local = {.ss_family = AF_UNIX};
    struct config *c = NULL, *other = NULL;
    struct buf cannot = {0};

    (void)state;
    load_text("listeners:\n"
              "  - {listen: '127.0.0.1:25', clients: {10.1.2.0/24: {bare_newlines: refuse}, "
              "10.1.0.0/16: {bare_newlines: repair}, 10.1.2.3: {}, "
              "'2001:db8::/32': {bare_newlines: repair}}}\n"
              "  - {listen: '127.0.0.1:26', bare_newlines: repair, "
              "clients: {10.1.3.3: {bare_newlines: refuse}}}\n",
              &c);
    load_text("listeners: []\n", &other);
    config_keep(c, other, &cannot); /* they are kept whole, and what they were made of goes */
    config_unref(c);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sockaddr_storage a;

        set_address(&a, cases[i].address);
        for (size_t k = 0; k < 2; k++)
            if (config_repairs_newlines(&other->listeners[k], (struct sockaddr *)&a) !=
                cases[i].repair[k])
                fail_msg("%s at listener %zu", cases[i].address, k);
    }
    assert_false(config_repairs_newlines(&other->listeners[0], (struct sockaddr *)&local));
    assert_true(config_repairs_newlines(&other->listeners[1], (struct sockaddr *)&local));
    config_unref(other);
    buf_done(&cannot);
}

static void test_reload(void **state)
{
    static const char want[] = "workers: 2 -> 4 needs a restart\n"
                               "queue.path: /a -> /b needs a restart\n"
                               "dns.servers: [] -> [\"192.0.2.1\"] needs a restart\n"
                               "listeners: 127.0.0.1:26 is new, needs a restart\n"
                               "listeners: 127.0.0.1:27 is gone, needs a restart\n"
                               "unix:/s mode: 0660 -> 0600 needs a restart\n";
    struct config *old = NULL, *new = NULL;
    struct buf cannot = {0};

    (void)state;
    load_text("workers: 2\nqueue: {path: /a}\n"
              "listeners: [{listen: '127.0.0.1:25'}, {listen: '127.0.0.1:27'}, "
              "{listen: 'unix:/s'}]\n",
              &old);
    load_text("workers: 4\nqueue: {path: /b}\ndns: {servers: 192.0.2.1}\nlog_level: debug\n"
              "listeners: [{listen: '127.0.0.1:26'}, {listen: '127.0.0.1:25', errors_max: 3}, "
              "{listen: 'unix:/s', mode: 600}]\n"
              "destinations: {'*': {rate: 1/s}}\n",
              &new);
    config_keep(old, new, &cannot);
    assert_int_equal(cannot.len, sizeof(want) - 1);
    assert_memory_equal(cannot.data, want, cannot.len);
    config_unref(old); /* nothing of it is used any more */
    assert_int_equal(new->listeners_len, 3);
    assert_int_equal(new->listeners[0].errors_max, 3);
    assert_string_equal(new->listeners[1].address.text, "127.0.0.1:27");
    assert_string_equal(new->listeners[1].name, "127.0.0.1:27");
    assert_int_equal(new->listeners[1].relay_networks_len, 2);
    assert_int_equal(new->listeners[2].mode, 0660);
    assert_string_equal(new->log_level, "debug");
    config_unref(new);
    buf_done(&cannot);
}

/* What follows the host name and the port by default follows those that stay. */
static void test_reload_names(void **state)
{
    struct config *old = NULL, *new = NULL;
    struct buf cannot = {0};

    (void)state;
    load_text("host_name: one.test\ndns: {port: 2501}\nlisteners: [{listen: '127.0.0.1:25'}]\n",
              &old);
    load_text("host_name: two.test\ndns: {port: 2502}\n"
              "listeners: [{listen: '127.0.0.1:25', host_name: mx.test}]\n"
              "routes: {a.test: '[192.0.2.1]', b.test: '[192.0.2.1]:2502'}\n",
              &new);
    config_keep(old, new, &cannot);
    assert_string_equal(new->host_name, "one.test");
    assert_string_equal(new->node_id, "one.test");
    assert_string_equal(new->sources[0].ehlo_name, "one.test");
    assert_string_equal(new->listeners[0].host_name, "mx.test");
    assert_int_equal(new->dns.port, 2501);
    assert_int_equal(config_route_for(new, STR("a.test"))->port, 2501);
    assert_int_equal(config_route_for(new, STR("b.test"))->port, 2502);
    config_unref(new);
    load_text("host_name: two.test\nlisteners: [{listen: '127.0.0.1:25'}]\n", &new);
    config_keep(old, new, &cannot);
    assert_string_equal(new->listeners[0].host_name, "one.test");
    config_unref(old);
    config_unref(new);
    buf_done(&cannot);
}

/* Writes another value into the member, whatever its type. */
static void spoil(struct config *c, const struct config_field *f, void *base)
{
    void *member = (char *)base + f->offset;
    size_t n;

    switch (config_types[f->type].class) {
    case CONFIG_CLASS_BOOL:
        *(bool *)member = !*(bool *)member;
        break;
    case CONFIG_CLASS_NUMBER:
        *(unsigned char *)member ^= 1; /* of the lowest byte */
        break;
    case CONFIG_CLASS_TEXT:
        *(char **)member = config_dup(c, STR("/spoilt"));
        break;
    case CONFIG_CLASS_ADDRESS:
        ((struct config_address *)member)->text = config_dup(c, STR("spoilt"));
        break;
    case CONFIG_CLASS_RATE:
        *(uint64_t *)member += 1;
        *(uint32_t *)((char *)base + f->offset2) = 1000;
        break;
    case CONFIG_CLASS_LIST:
        n = *(size_t *)((char *)base + f->offset2) + 1;
        *(void **)member = config_alloc(c, n * config_types[f->type].bytes);
        for (size_t i = 0; i < n; i++)
            if (config_types[f->type].bytes == sizeof(char *))
                (*(char ***)member)[i] = config_dup(c, STR("spoilt"));
        *(size_t *)((char *)base + f->offset2) = n;
        break;
    case CONFIG_CLASS_ITEMS:
    case CONFIG_CLASS_SECTION:
        break;
    }
}

static void spoil_section(struct config *c, const struct config_section *s, void *base)
{
    for (size_t i = 0; i < s->len; i++)
        if (s->fields[i].type == CONFIG_SECTION || s->fields[i].type == CONFIG_RETRY)
            spoil_section(c, s->fields[i].section, base);
        else if (strcmp(s->fields[i].name, "listen") != 0) /* another one is a new listener */
            spoil(c, &s->fields[i], base);
}

static void check_kept(const struct config_section *s, const char *prefix, const char *separator,
                       const void *old, const void *new, struct str cannot)
{
    struct buf was = {0}, is = {0}, line = {0};

    for (size_t i = 0; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        if (f->type == CONFIG_SECTION)
            check_kept(f->section, f->name, ".", old, new, cannot);
        if (config_types[f->type].class >= CONFIG_CLASS_ITEMS || strcmp(f->name, "listen") == 0)
            continue;
        buf_clear(&was), buf_clear(&is), buf_clear(&line);
        config_print_member(f, old, &was);
        config_print_member(f, new, &is);
        buf_printf(&line, "%s%s%s: ", prefix, separator, f->name);
        buf_putc(&line, 0);
        if (str_eq(buf_str(&was), buf_str(&is)) != f->restart)
            fail_msg("%s: %.*s became %.*s", f->name, STR_FMT(buf_str(&was)),
                     STR_FMT(buf_str(&is)));
        if ((memmem(cannot.ptr, cannot.len, line.data, line.len - 1) != NULL) != f->restart)
            fail_msg("%s: %.*s", f->name, STR_FMT(cannot));
    }
    buf_done(&was);
    buf_done(&is);
    buf_done(&line);
}

/* Each key of the schema is applied, or kept and named. */
static void test_reload_schema(void **state)
{
    struct config *old = config_default(), *new = config_default();
    struct buf cannot = {0};

    (void)state;
    spoil_section(new, &config_schema, new);
    spoil_section(new, &config_listener_schema, &new->listeners[0]);
    config_keep(old, new, &cannot);
    check_kept(&config_schema, "", "", old, new, buf_str(&cannot));
    check_kept(&config_listener_schema, "127.0.0.1:25", " ", &old->listeners[0], &new->listeners[0],
               buf_str(&cannot));
    buf_clear(&cannot);
    config_keep(old, old, &cannot);
    assert_int_equal(cannot.len, 0);
    config_unref(old);
    config_unref(new);
    buf_done(&cannot);
}

/* It may be meant, behind a firewall: it is said, no more. */
static void test_warnings(void **state)
{
    static const char want[] =
        "warning: test.yaml:1: listener 0.0.0.0:25: with 0.0.0.0/0 in relay_networks anybody may "
        "relay\n"
        "warning: test.yaml:1: listener [::]:25: with ::/0 in relay_networks anybody may relay\n"
        "warning: test.yaml:1: listener 0.0.0.0:26: with 0.0.0.0/0 in proxy_from anybody may "
        "relay\n"
        "warning: test.yaml:1: listener 0.0.0.0:26: with ::/0 in xclient_from anybody may relay\n"
        "warning: test.yaml:1: listener unix:/t: xclient_from does nothing here: clients of a Unix "
        "socket have "
        "no address\n"
        "warning: test.yaml:1: listener 0.0.0.0:587: takes mail without a login, and port 587 is "
        "for users: "
        "write auth: required\n"
        "warning: test.yaml:1: listener [::]:465: takes mail without a login, and port 465 is for "
        "users: "
        "write auth: required\n"
        "warning: test.yaml:1: listener [::]:465: clients begin with TLS at port 465, and here "
        "they cannot: "
        "set 'certificates', and tls: implicit\n";
    struct config *c = NULL;
    struct buf got = {0};

    (void)state;
    load_text("listeners: [{listen: '0.0.0.0:25', relay_networks: [10.0.0.0/8, 0.0.0.0/0]}, "
              "{listen: '[::]:25', relay_networks: '::/0'}, "
              "{listen: '0.0.0.0:26', proxy_from: 0.0.0.0/0, xclient_from: [10.0.0.9, '::/0']}, "
              "{listen: '127.0.0.2:25', relay_networks: 0.0.0.0/0, xclient_from: 0.0.0.0/0}, "
              "{listen: '[::1]:25', relay_networks: '::/0'}, "
              "{listen: 'unix:/s', relay_networks: '::/0'}, "
              "{listen: 'unix:/t', xclient_from: 0.0.0.0/0}, "
              "{listen: 'unix:/u', xclient_from: 10.0.0.9, proxy_from: 10.0.0.8}, "
              "{listen: '192.0.2.1:25', relay_networks: ['::1', 0.0.0.0/1, '2000::/3']}, "
              "{listen: '0.0.0.0:587'}, {listen: '[::]:465'}, {listen: '127.0.0.1:587'}]\n",
              &c);
    config_warnings(c, false, &got);
    assert_int_equal(got.len, sizeof(want) - 1);
    assert_memory_equal(got.data, want, got.len);
    config_unref(c);
    buf_done(&got);
}

/* Root without a user, and name servers that others may speak for. */
static void test_warnings_of_host(void **state)
{
    static const struct {
        const char *text;
        bool as_root;
        const char *want; /* part of the one line; "" for none */
    } rows[] = {
        {"{}", true, "warning: no 'user'"},
        {"{}", false, ""},
        {"user: root", true, ""},
        {"dns: {servers: [127.0.0.1, '127.0.0.53:53', '[::1]:5353', '::1']}", false, ""},
        {"dns: {servers: [127.0.0.1, 192.0.2.53]}", false,
         "warning: test.yaml:1: dns.servers: 192.0.2.53 is beyond loopback"},
        {"dns: {servers: ['[2001:db8::53]:53']}", false,
         "warning: test.yaml:1: dns.servers: [2001:db8::53]:53 is beyond loopback"},
        {"host_name: mx1", false, "warning: test.yaml:1: host_name: 'mx1' has no dot"},
        {"routes: {x.example: '[localhost]:2525'}", false,
         "warning: test.yaml:1: routes: 'localhost' has no dot: names"},
        {"routes: {x.example: '[::1]:2525', '*': '[r.example]'}", false, ""},
        {"routes: {x.example: '[192.0.2.1]', '*': '[r.example]'}\n"
         "destinations: {x.example: {tls: verify}}",
         false, "routes['x.example']: with tls: verify mail waits"},
        {"routes: {'*': '[2001:db8::1]:587'}\ndestinations: {'*': {tls: verify}}", false,
         "routes['*']: with tls: verify mail waits"},
        {"routes: {'*': '[192.0.2.1]:587'}\ndestinations: {'*': {tls: encrypt}}", false, ""},
        {"host_name: mx1.example.com", false, ""},
        {"host_name: 192.0.2.1", false,
         "warning: test.yaml:1: host_name: '192.0.2.1' is an address"},
        {"sources: {a: {ipv4: 192.0.2.1, ehlo_name: mx_1}}", false,
         "warning: test.yaml:1: ehlo_name: 'mx_1' has no dot"},
        {"sources: {a: {ipv4: 192.0.2.1, ehlo_name: mx1.example.com}}", false, ""},
        {"destinations: {google: {rate: 1/s}}", false,
         "warning: test.yaml:1: destinations['google'] is for"},
        {"destinations: {google.com: {rate: 1/s}}", false, ""},
        {"queue: {path: /q}\nrecords: {path: /q/records}", false,
         "warning: test.yaml:2: records.path: /q/records is within queue.path"},
        {"queue: {path: /q/}\nrecords: {path: /q}", false, "records.path: /q is within queue.path"},
        {"queue: {path: /q}\nrecords: {path: /queue}", false, ""},
        {"queue: {path: /q}\nrecords: {path: none}", false, ""},
        {"dns: {ipv4: no, ipv6: no}", false, "warning: test.yaml:1: dns: with neither"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config *c = NULL;
        struct buf got = {0};

        load_text(rows[i].text, &c);
        config_warnings(c, rows[i].as_root, &got);
        buf_putc(&got, 0);
        assert_non_null(strstr((const char *)got.data, rows[i].want));
        assert_int_equal(got.len > 1, rows[i].want[0] != 0);
        config_unref(c);
        buf_done(&got);
    }
}

/* Names of hosts may be written as people read them; what a word of another kind says stays. */
static void test_names_not_ascii(void **state)
{
    struct config *c = NULL;

    (void)state;
    load_text("host_name: MX.日本語.example\n"
              "dkim: {keys: [{domain: 日本語.example, selector: s, file: /f}], default: "
              "日本語.example}\n",
              &c);
    assert_string_equal(c->host_name, "mx.xn--wgv71a119e.example");
    assert_string_equal(c->dkim.keys[0].domain, "xn--wgv71a119e.example");
    assert_string_equal(c->dkim.fallback, c->dkim.keys[0].domain);
    config_unref(c);
    load_text("host_name: MX.example\n", &c);
    assert_string_equal(c->host_name, "MX.example");
    config_unref(c);
}

static void test_retry_of_one(void **state)
{
    struct config *c = NULL;

    (void)state;
    load_text("destinations: {a.example: {retry: 7m}}\n", &c);
    assert_int_equal(c->destinations[0].retry_list_len, 1);
    assert_int_equal(c->destinations[0].retry_list_s[0], 7 * 60);
    config_unref(c);
}

/* Whoever reads of a file that is no good wants to know which line names it. */
static void test_place(void **state)
{
    struct config *c = NULL;
    struct buf out = {0};

    (void)state;
    load_text("host_name: mx.test\nauth:\n  failures_max: 5\n", &c);
    config_place_put(c, "auth.failures_max", &out);
    buf_putc(&out, ' ');
    config_place_put(c, "letter_keys", &out);
    buf_putc(&out, 0);
    assert_non_null(strstr((char *)out.data, ":3: auth.failures_max "));
    assert_non_null(strstr((char *)out.data, ": letter_keys"));
    buf_done(&out);
    config_unref(c);
}

static void test_files(void **state)
{
    struct buf errors = {0};
    struct config *c = NULL;

    (void)state;
    assert_int_equal(config_load("/nonexistent/x.yaml", &c, &errors), -ENOENT);
    assert_non_null(
        strstr((const char *)errors.data, "/nonexistent/x.yaml: is not there; docs/examples"));
    buf_clear(&errors);
    assert_true(config_load("/", &c, &errors) < 0);
    buf_clear(&errors);
    assert_int_equal(config_load_text("x", (struct str){"a\0b", 3}, &c, &errors), -EINVAL);
    assert_null(c);
    assert_int_equal(config_load("/dev/null", &c, &errors), 0);
    config_unref(c);
    config_unref(NULL);
    buf_done(&errors);
}

static void check_socket(const char *text, const char *wanted)
{
    char name[] = "/tmp/config_test.XXXXXX";
    int fd = mkstemp(name);
    struct buf errors = {0};
    char *path;

    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    path = config_control_socket(name, &errors);
    if (wanted == NULL)
        assert_null(path);
    else
        assert_string_equal(path, wanted);
    assert_int_equal(errors.len != 0, wanted == NULL);
    assert_int_equal(unlink(name), 0);
    buf_done(&errors);
    free(path);
}

/* What else is wrong in a file does not hide the engine's socket. */
static void test_control_socket(void **state)
{
    (void)state;
    check_socket("control_socket: /a/b.sock\nlisen: 1\nworkers: x\n", "/a/b.sock");
    check_socket("workers: 2\n", "/run/hayauma/control.sock");
    check_socket("", "/run/hayauma/control.sock");
    check_socket("control_socket: /a/b.sock\na: [\n", NULL);
    check_socket("%YAML 1.2\n", NULL);
}

/* A large file loads, and its lookups do not walk it. */
static void test_many_patterns(void **state)
{
    struct buf text = {0}, errors = {0};
    struct config *c = NULL;

    (void)state;
    buf_puts(&text, "routes:\n");
    for (int i = 0; i < 20000; i++)
        buf_printf(&text, "  d%d.example: \"[192.0.2.1]:%d\"\n", i, i + 1);
    assert_int_equal(config_load_text("x", buf_str(&text), &c, &errors), 0);
    assert_int_equal(c->routes_len, 20000);
    for (int i = 0; i < 20000; i += 7) {
        char name[32];
        int n = snprintf(name, sizeof(name), "d%d.example", i);

        assert_int_equal(config_route_for(c, (struct str){name, (size_t)n})->port, i + 1);
    }
    config_unref(c);
    buf_done(&text);
    buf_done(&errors);
}

static size_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long total, resident;

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &total, &resident), 2);
    fclose(f);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* CPU time of a configuration with so many sites, in clock_t's units. */
static clock_t time_of_sites(int sites)
{
    struct buf text = {0}, errors = {0};
    struct config *c = NULL;
    clock_t began;

    buf_puts(&text, "destinations:\n");
    for (int i = 0; i < sites; i++)
        buf_printf(&text, "  \"site:mx%d.example\": {sessions_max: 1}\n", i);
    began = clock();
    assert_int_equal(config_load_text("x", buf_str(&text), &c, &errors), 0);
    began = clock() - began;
    config_unref(c);
    buf_done(&text);
    buf_done(&errors);
    return began;
}

/* Time and memory grow with their number, not with its square. */
static void test_many_sites(void **state)
{
    enum { SITES = 20000 };
    struct buf text = {0}, errors = {0};
    struct config *c = NULL;
    size_t before, after;

    (void)state;
    buf_puts(&text, "destinations:\n");
    for (int i = 0; i < SITES; i++)
        buf_printf(&text, "  \"site:%smx%d.example\": {sessions_max: %d}\n", i % 10 == 0 ? "*" : "",
                   i, i + 1);
    before = resident_bytes();
    assert_int_equal(config_load_text("x", buf_str(&text), &c, &errors), 0);
    after = resident_bytes();
    assert_true(after < before + (200u << 20));
    assert_true(time_of_sites(SITES) < 2 * CLOCKS_PER_SEC); /* 0.3 s; by their square 4 s */
    for (int i = 0; i < SITES; i += 7) {
        char name[32];
        int n = snprintf(name, sizeof(name), "%sMX%d.example", i % 10 == 0 ? "a." : "", i);
        const struct config_destination *d =
            config_destination_for(c, STR("any.example"), (struct str){name, (size_t)n});

        assert_int_equal(d->sessions_max, i + 1);
    }
    config_unref(c);
    buf_done(&text);
    buf_done(&errors);
}

/* What "*" says is of each tenant without an entry, and of no mail without a tenant. */
static void test_any_tenant(void **state)
{
    static const char text[] = "tenants:\n"
                               "  acme: {weight: 3}\n"
                               "  \"*\":\n"
                               "    weight: 2\n"
                               "    sites: {\"*\": {rate: 5/s}}\n";
    struct config *c = NULL;
    struct buf set = {0};

    (void)state;
    load_text(text, &c);
    assert_int_equal(config_tenant(c, STR("acme"))->weight, 3);
    assert_null(config_share_at(config_tenant(c, STR("acme")), STR("mx.example")));
    assert_int_equal(config_tenant(c, STR("other"))->weight, 2);
    assert_int_equal(config_tenant(c, STR(""))->weight, 1);
    assert_int_equal(config_campaign(c, STR("other"))->weight, 1);
    config_share_origin_put(c, config_tenant(c, STR("other")),
                            config_share_at(config_tenant(c, STR("other")), STR("mx.example")),
                            "rate", &set);
    assert_true(str_eq(buf_str(&set), STR("test.yaml:5 (tenants['*'].sites['*'].rate)")));
    buf_done(&set);
    config_unref(c);
}

/* Which rule chooses a pool, and where it stands; where a limit is set. */
static void test_origins(void **state)
{
    static const char text[] = "sources: {a: {ipv4: 192.0.2.1}}\n"
                               "pools: {x: {sources: {a: {}}}, y: {sources: {a: {}}}}\n"
                               "default_pool: x\n"
                               "campaigns: {spring: {weight: 2}, autumn: {pool: y}}\n"
                               "tenants:\n"
                               "  acme:\n"
                               "    pool: y\n"
                               "senders: {example.com: {pool: y}}\n"
                               "listeners:\n"
                               "  - {listen: \"127.0.0.1:25\", name: door, pool: y,\n"
                               "     clients: {10.0.0.0/8: {\n"
                               "       pool: x}}}\n"
                               "destinations:\n"
                               "  \"*\": {rate: 5/s}\n"
                               "  example.com:\n"
                               "    rate: 1/s\n";
    struct sockaddr_in near = {.sin_family = AF_INET}, far = near;
    struct config *c = NULL;
    struct buf got = {0};

    (void)state;
    load_text(text, &c);
    near.sin_addr.s_addr = htonl(0x0a000001);
    far.sin_addr.s_addr = htonl(0xc0000201);
    const struct {
        struct config_pool_question q;
        const char *rule, *pool;
    } cases[] = {
        {{.header = STR("x"), .campaign = STR("autumn")}, "X-Hayauma-Pool", "x"},
        {{.campaign = STR("autumn"), .tenant = STR("acme")},
         "campaigns['autumn'].pool, test.yaml:4",
         "y"},
        {{.campaign = STR("spring"), .tenant = STR("acme")},
         "tenants['acme'].pool, test.yaml:7",
         "y"},
        {{.sender_domain = STR("example.com")}, "senders['example.com'].pool, test.yaml:8", "y"},
        {{.listener = c->listeners, .client = (struct sockaddr *)&far},
         "listeners['door'].pool, test.yaml:10",
         "y"},
        {{.listener = c->listeners, .client = (struct sockaddr *)&near},
         "listeners['door'].clients.pool, test.yaml:12",
         "x"},
        {{.tenant = STR("nobody")}, "default_pool, test.yaml:3", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        config_pool_rule_put(c, &cases[i].q, &got);
        assert_true(str_eq(buf_str(&got), str_of(cases[i].rule)));
        assert_true(str_eq(config_pool_chosen(c, &cases[i].q), str_of(cases[i].pool)));
        buf_clear(&got);
    }
    config_origin_put(c, config_destination_for(c, STR("example.com"), STR("")), "rate", &got);
    assert_true(str_eq(buf_str(&got), STR("test.yaml:16 (destinations['example.com'].rate)")));
    buf_clear(&got);
    config_origin_put(c, config_destination_for(c, STR("example.net"), STR("")), "rate", &got);
    assert_true(str_eq(buf_str(&got), STR("test.yaml:14 (destinations['*'].rate)")));
    buf_clear(&got);
    config_origin_put(c, config_destination_for(c, STR("example.com"), STR("")), "tls", &got);
    assert_true(str_eq(buf_str(&got), STR("default")));
    buf_done(&got);
    config_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_docs),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_schema),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_any_tenant),
        cmocka_unit_test(test_bare_newlines),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_warnings_of_host),
        cmocka_unit_test(test_reload_names),
        cmocka_unit_test(test_reload_schema),
        cmocka_unit_test(test_control_socket),
        cmocka_unit_test(test_names_not_ascii),
        cmocka_unit_test(test_retry_of_one),
        cmocka_unit_test(test_place),
        cmocka_unit_test(test_many_patterns),
        cmocka_unit_test(test_many_sites),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
