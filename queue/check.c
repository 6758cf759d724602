/* The format is LMDB 0.9's, of 64-bit machines, in the machine's byte order:
 *
 *   page    number 8 | pad 2 | flags 2 | lower 2, upper 2 (large values: pages 4)
 *           | offsets of nodes 2 each, up to lower | free | nodes, from upper to the end
 *   node    low 2, high 2 | flags 2 | key length 2 | key | value; each begins at an even offset.
 *           Leaf: high:low is the value's length, a large value is a page number; branch:
 *           flags:high:low is the child's page number
 *   pages 0 and 1 (meta), behind the header: magic 4 | version 4 | address 8 | map size 8
 *           | tree of free pages 48 | main tree 48 | last page 8 | transaction 8
 *   tree    pad 4 (of free pages: page size) | flags 2 | depth 2 | counts 32 | root 8 */
#include "queue/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define MAGIC             0xBEEFC0DE
#define DATA_VERSION      1
#define PAGE_BRANCH       1u
#define PAGE_LEAF         2u
#define PAGE_LARGE        4u
#define PAGE_META         8u
#define HEADER_BYTES      CHECK_HEADER_BYTES
#define NODE_BYTES        8u
#define NODE_BIG          1u
#define NODE_TREE         2u
#define TREE_BYTES        48u
#define TREE_INTEGERKEY   8u
#define ROOT_NONE         UINT64_MAX
#define KEY_MAX           511u
#define DEPTH_MAX         32u
#define LEVELS            (2 * DEPTH_MAX) /* the main tree's and below it a named one's */
#define META_PAGES        2u
#define PAGE_BYTES_MIN    512u
#define PAGE_BYTES_MAX    65536u
#define IDS_AT_ONCE       512u
#define NEVER_WRITTEN_MAX (1u << 24) /* pages that came and went in one transaction */

enum tree_kind { TREE_OF_FREE, TREE_MAIN, TREE_NAMED };

struct tree {
    uint16_t flags, depth;
    uint64_t root;
};

struct check {
    int fd;
    uint64_t until_ns;
    size_t page_bytes;
    uint64_t pages;      /* in use or free: the last page's number, and one more */
    uint64_t file_bytes; /* free pages at its end may never have been written */
    uint8_t *taken;      /* bit per page */
    uint8_t *level[LEVELS];
    char *error;
    size_t error_bytes;
};

static uint64_t get(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;

    memcpy(&v, p, bytes);
    return v;
}

static int fault(struct check *c, uint64_t page, const char *what)
{
    snprintf(c->error, c->error_bytes, "page %" PRIu64 " %s", page, what);
    return -EBADMSG;
}

static int read_at(struct check *c, uint8_t *out, size_t len, uint64_t at, uint64_t page)
{
    ssize_t n = pread(c->fd, out, len, (off_t)at);

    if (n < 0)
        return -errno;
    return (size_t)n == len ? 0 : fault(c, page, "is missing: the file was cut");
}

/* Each page belongs to one tree, one large value or the free ones. */
static int claim_pages(struct check *c, uint64_t page, uint64_t n, uint64_t by)
{
    if (page < META_PAGES || page >= c->pages || n > c->pages - page)
        return fault(c, by, "names a page that is not there");
    for (; n > 0; n--, page++) {
        if ((c->taken[page / 8] & 1u << page % 8) != 0)
            return fault(c, by, "names a page that has another use");
        c->taken[page / 8] |= (uint8_t)(1u << page % 8);
    }
    return 0;
}

static struct tree tree_at(const uint8_t *p)
{
    return (struct tree){(uint16_t)get(p + 4, 2), (uint16_t)get(p + 6, 2), get(p + 40, 8)};
}

static int check_tree(struct check *c, const struct tree *tree, enum tree_kind kind, unsigned level,
                      uint64_t by);

/* --- leaves --- */

/* The pages that one transaction freed: their count, then their numbers, the last first. at: in the
 * file. */
static int check_free(struct check *c, uint64_t at, uint64_t len, uint64_t by)
{
    uint64_t ids[IDS_AT_ONCE], count = 0, before = UINT64_MAX;
    int err = len < sizeof(count) ? 0 : read_at(c, (uint8_t *)&count, sizeof(count), at, by);

    if (err == 0 && (len < sizeof(count) || count > len / sizeof(count) - 1))
        err = fault(c, by, "has a short list of free pages");
    for (at += sizeof(count); err == 0 && count > 0; at += sizeof(ids)) {
        size_t n = count < IDS_AT_ONCE ? (size_t)count : IDS_AT_ONCE;

        err = read_at(c, (uint8_t *)ids, n * sizeof(*ids), at, by);
        for (size_t i = 0; err == 0 && i < n; before = ids[i], i++)
            err = ids[i] >= before ? fault(c, by, "has a list of free pages out of order")
                                   : claim_pages(c, ids[i], 1, by);
        count -= n;
    }
    return err;
}

static uint64_t large_pages(uint64_t bytes, size_t page_bytes)
{
    return (bytes + HEADER_BYTES - 1) / page_bytes + 1;
}

bool check_large(const uint8_t *header, size_t bytes, uint64_t number, size_t page_bytes)
{
    return get(header, 8) == number && get(header + 10, 2) == PAGE_LARGE &&
           get(header + 12, 4) == large_pages(bytes, page_bytes);
}

/* Checks the value of node, which lies at byte offset of page. */
static int check_value(struct check *c, uint64_t page, const uint8_t *node, size_t offset,
                       enum tree_kind kind, unsigned level)
{
    uint64_t bytes = get(node, 4), key_bytes = get(node + 6, 2), flags = get(node + 4, 2);
    uint64_t at = page * c->page_bytes + offset + NODE_BYTES + key_bytes;
    const uint8_t *value = node + NODE_BYTES + key_bytes;
    struct tree tree;
    int err;

    if (flags == NODE_BIG) {
        uint64_t first = get(value, 8);

        err = claim_pages(c, first, large_pages(bytes, c->page_bytes), page);
        if (err < 0)
            return err;
        at = first * c->page_bytes + HEADER_BYTES;
        if (at + bytes > c->file_bytes)
            return fault(c, first, "is missing: the file was cut");
    }
    if (kind == TREE_OF_FREE)
        return flags <= NODE_BIG ? check_free(c, at, bytes, page)
                                 : fault(c, page, "has a node of an unknown kind");
    if (kind == TREE_NAMED)
        return flags <= NODE_BIG ? 0 : fault(c, page, "has a node of an unknown kind");
    if (flags != NODE_TREE || bytes != TREE_BYTES)
        return fault(c, page, "has a node of an unknown kind");
    tree = tree_at(value);
    return check_tree(c, &tree, TREE_NAMED, level + 1, page);
}

/* --- pages --- */

/* Checks that nodes lie between upper and the page's end, and that none overlaps another. */
static int check_nodes(struct check *c, uint64_t page, const uint8_t *p, size_t n, bool leaf)
{
    size_t upper = get(p + 14, 2), sum = 0;

    for (size_t i = 0; i < n; i++) {
        size_t at = get(p + HEADER_BYTES + 2 * i, 2), bytes;

        if (at < upper || at % 2 != 0 || at + NODE_BYTES > c->page_bytes)
            return fault(c, page, "has a node outside of it");
        bytes = NODE_BYTES + get(p + at + 6, 2);
        if (bytes > NODE_BYTES + KEY_MAX)
            return fault(c, page, "has a key that is too long");
        if (leaf)
            bytes += get(p + at + 4, 2) == NODE_BIG ? sizeof(uint64_t) : get(p + at, 4);
        bytes += bytes % 2;
        if (bytes > c->page_bytes - at)
            return fault(c, page, "has a node outside of it");
        sum += bytes;
    }
    return sum > c->page_bytes - upper ? fault(c, page, "has nodes that overlap") : 0;
}

/* Checks the page's header; *n: how many nodes it has. */
static int check_header(struct check *c, uint64_t page, const uint8_t *p, bool leaf, size_t n_min,
                        size_t *n)
{
    size_t lower = get(p + 12, 2), upper = get(p + 14, 2);

    if (get(p, 8) != page)
        return fault(c, page, "has another page's number");
    if (get(p + 10, 2) != (leaf ? PAGE_LEAF : PAGE_BRANCH))
        return fault(c, page, "is of the wrong kind");
    if (lower < HEADER_BYTES || lower % 2 != 0 || lower > upper || upper > c->page_bytes)
        return fault(c, page, "has a damaged header");
    *n = (lower - HEADER_BYTES) / 2;
    return *n < n_min ? fault(c, page, "has too few nodes") : 0;
}

static int check_page(struct check *c, uint64_t page, unsigned depth, enum tree_kind kind,
                      unsigned level, uint64_t by)
{
    bool leaf = depth == 1;
    uint8_t *p = c->level[level];
    size_t n = 0;
    int err = claim_pages(c, page, 1, by);

    if (err == 0 && leaf && kind == TREE_NAMED && clock_mono_ns() > c->until_ns)
        return 0;
    if (p == NULL)
        p = c->level[level] = malloc(c->page_bytes);
    if (p == NULL)
        return -ENOMEM;
    if (err == 0)
        err = read_at(c, p, c->page_bytes, page * c->page_bytes, page);
    if (err == 0)
        err = check_header(c, page, p, leaf, leaf || kind == TREE_OF_FREE ? 1 : 2, &n);
    if (err == 0)
        err = check_nodes(c, page, p, n, leaf);
    for (size_t i = 0; i < n && err == 0; i++) {
        size_t at = get(p + HEADER_BYTES + 2 * i, 2);

        err = leaf ? check_value(c, page, p + at, at, kind, level)
                   : check_page(c, get(p + at, 6), depth - 1, kind, level + 1, page);
    }
    return err;
}

/* by: the page that names it. */
static int check_tree(struct check *c, const struct tree *tree, enum tree_kind kind, unsigned level,
                      uint64_t by)
{
    uint16_t flags = kind == TREE_OF_FREE ? TREE_INTEGERKEY : 0;

    if (tree->flags != flags || tree->depth > DEPTH_MAX ||
        (tree->root == ROOT_NONE) != (tree->depth == 0))
        return fault(c, by, "describes a tree that cannot be");
    return tree->depth == 0 ? 0 : check_page(c, tree->root, tree->depth, kind, level, by);
}

/* --- the file --- */

#define META_BYTES (HEADER_BYTES + 24 + 2 * TREE_BYTES + 16)

static bool meta_valid(const uint8_t *meta)
{
    return get(meta + 10, 2) == PAGE_META && get(meta + HEADER_BYTES, 4) == MAGIC;
}

static uint64_t meta_transaction(const uint8_t *meta)
{
    return get(meta + META_BYTES - 8, 8);
}

/* The meta page of the last commit. Commits write them in turn. */
static int read_metas(struct check *c, uint8_t newer[META_BYTES])
{
    uint8_t meta[META_PAGES][META_BYTES];
    uint64_t even, odd;
    int err = read_at(c, meta[0], META_BYTES, 0, 0);

    if (err < 0)
        return err;
    c->page_bytes = get(meta[0] + HEADER_BYTES + 24, 4);
    if (meta_valid(meta[0]) && get(meta[0] + HEADER_BYTES + 4, 4) != DATA_VERSION)
        return fault(c, 0, "is of another version of LMDB");
    if (!meta_valid(meta[0]) || c->page_bytes < PAGE_BYTES_MIN || c->page_bytes > PAGE_BYTES_MAX ||
        (c->page_bytes & (c->page_bytes - 1)) != 0)
        return fault(c, 0, "is no first page of a shard");
    err = read_at(c, meta[1], META_BYTES, c->page_bytes, 1);
    if (err < 0)
        return err;
    even = meta_transaction(meta[0]);
    odd = meta_transaction(meta[1]);
    if (!meta_valid(meta[1]) || get(meta[1] + HEADER_BYTES + 4, 4) != DATA_VERSION ||
        even % 2 != 0 || (odd != even + 1 && even != odd + (odd != 0)))
        return fault(c, 1, "does not belong to the page before it");
    memcpy(newer, meta[odd > even], META_BYTES);
    return 0;
}

static int check_all(struct check *c, const uint8_t meta[META_BYTES])
{
    struct tree free_pages = tree_at(meta + HEADER_BYTES + 24);
    struct tree main_tree = tree_at(meta + HEADER_BYTES + 24 + TREE_BYTES);
    uint64_t by = meta_transaction(meta) % 2, last = get(meta + META_BYTES - 16, 8);
    int err;

    if (last < META_PAGES - 1 || last > c->file_bytes / c->page_bytes + NEVER_WRITTEN_MAX)
        return fault(c, by, "tells a wrong length of the file");
    c->pages = last + 1;
    c->taken = calloc(c->pages / 8 + 1, 1);
    if (c->taken == NULL)
        return -ENOMEM;
    err = check_tree(c, &main_tree, TREE_MAIN, 0, by);
    return err < 0 ? err : check_tree(c, &free_pages, TREE_OF_FREE, 0, by);
}

int check_file(int fd, uint64_t until_ns, char *error, size_t error_bytes)
{
    struct check c = {.fd = fd, .until_ns = until_ns, .error = error, .error_bytes = error_bytes};
    uint8_t meta[META_BYTES];
    struct stat st;
    int err = fstat(fd, &st) < 0 ? -errno : 0;

    c.file_bytes = (uint64_t)st.st_size;
    if (err == 0)
        err = read_metas(&c, meta);
    if (err == 0)
        err = check_all(&c, meta);
    for (size_t i = 0; i < LEVELS; i++)
        free(c.level[i]);
    free(c.taken);
    return err;
}
