#include "http/tokens.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "config/config_value.h"
#include "tls/digest.h"

#define FILE_BYTES_MAX (16u << 20)
#define RANDOM_BYTES   32
#define FIELDS         5

/* --- scopes and names --- */

static const struct {
    const char *name;
    unsigned scope;
} scopes[] = {{"inject", TOKEN_INJECT}, {"read", TOKEN_READ}, {"admin", TOKEN_ADMIN}};

unsigned token_scopes_parse(struct str text)
{
    unsigned all = 0;

    while (text.len > 0) {
        struct str one = str_take(&text, ',');
        unsigned scope = 0;

        for (size_t i = 0; i < ARRAY_LEN(scopes); i++)
            if (str_eq(one, str_of(scopes[i].name)))
                scope = scopes[i].scope;
        if (scope == 0)
            return 0;
        all |= scope;
    }
    return all;
}

void token_scopes_put(struct buf *out, unsigned all)
{
    const char *comma = "";

    ASSERT(all != 0 && all <= (TOKEN_INJECT | TOKEN_READ | TOKEN_ADMIN));
    for (size_t i = 0; i < ARRAY_LEN(scopes); i++) {
        if ((all & scopes[i].scope) == 0)
            continue;
        buf_puts(out, comma);
        buf_puts(out, scopes[i].name);
        comma = ",";
    }
}

bool token_name_valid(struct str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!g_ascii_isalnum(name.ptr[i]) && strchr("._-", name.ptr[i]) == NULL)
            return false;
    return name.len > 0 && name.len <= TOKEN_NAME_MAX && !str_eq(name, STR("-"));
}

void token_hash(struct str text, char hash[static TOKEN_HASH_CHARS + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t made[DIGEST_BYTES];

    _Static_assert(TOKEN_HASH_CHARS == 2 * DIGEST_BYTES, "in hex");
    digest_sha256(text.ptr, text.len, made);
    for (size_t i = 0; i < sizeof(made); i++) {
        hash[2 * i] = digits[made[i] >> 4];
        hash[2 * i + 1] = digits[made[i] & 15];
    }
    hash[TOKEN_HASH_CHARS] = '\0';
}

void token_make(char text[static TOKEN_TEXT_BYTES], char hash[static TOKEN_HASH_CHARS + 1])
{
    uint8_t random[RANDOM_BYTES];
    struct buf made = {0};

    rng_fill(random, sizeof(random));
    base64_put(&made, (struct str){(char *)random, sizeof(random)});
    for (size_t i = 0; i < made.len; i++) /* RFC 4648 section 5, without padding */
        made.data[i] = made.data[i] == '+' ? '-' : made.data[i] == '/' ? '_' : made.data[i];
    while (made.data[made.len - 1] == '=')
        made.len--;
    ASSERT(made.len < TOKEN_TEXT_BYTES - sizeof("hym_") + 1);
    snprintf(text, TOKEN_TEXT_BYTES, "hym_%.*s", STR_FMT(buf_str(&made)));
    buf_wipe(&made);
    token_hash(str_of(text), hash);
}

/* --- the file --- */

static bool parse_line(struct str line, struct token *out)
{
    struct str f[FIELDS];
    uint64_t created;

    for (size_t i = 0; i < FIELDS; i++)
        f[i] = str_take(&line, ' ');
    if (!token_name_valid(f[0]) || f[1].len != TOKEN_HASH_CHARS ||
        !(str_eq(f[3], STR("-")) || token_name_valid(f[3])) ||
        str_to_u64(f[4], INT64_MAX, &created) < 0)
        return false;
    *out = (struct token){.scopes = token_scopes_parse(f[2]), .created_s = (int64_t)created};
    if (line.len > 0 &&
        (config_parse_rate(line, &out->rate, &out->rate_period_ms) < 0 || out->rate == 0))
        return false;
    memcpy(out->name, f[0].ptr, f[0].len);
    memcpy(out->hash, f[1].ptr, f[1].len);
    if (!str_eq(f[3], STR("-")))
        memcpy(out->tenant, f[3].ptr, f[3].len);
    return out->scopes != 0;
}

int token_list_load(const char *file, struct token_list *out, struct buf *error)
{
    struct buf text = {0};
    struct token_list list = {.tokens = calloc(TOKENS_MAX, sizeof(*list.tokens))};
    int err = file_read(file, FILE_BYTES_MAX, &text);
    struct str rest = buf_str(&text);
    unsigned line = 0;

    ASSERT(list.tokens != NULL);
    if (err < 0)
        buf_printf(error, "%s: %s", file, strerror(-err));
    while (err == 0 && rest.len > 0) {
        struct str one = str_take(&rest, '\n');

        line++;
        if (list.len == TOKENS_MAX || !parse_line(one, &list.tokens[list.len++])) {
            buf_printf(error, "%s:%u: no line of a token", file, line);
            err = -EINVAL;
        }
    }
    buf_done(&text);
    if (err < 0)
        token_list_done(&list);
    else
        *out = list;
    return err;
}

/* The new file belongs to whom the old one belonged; the first to user, else to its directory's
 * owner: the engine must be able to read it. */
static int find_owner(const char *file, const char *dir, const char *user, struct stat *owner)
{
    const struct passwd *pw;

    if (stat(file, owner) == 0)
        return 0;
    if (stat(dir, owner) < 0)
        return -errno;
    owner->st_mode = 0600;
    pw = user == NULL || geteuid() != 0 ? NULL : getpwnam(user);
    if (pw != NULL) {
        owner->st_uid = pw->pw_uid;
        owner->st_gid = pw->pw_gid;
    }
    return 0;
}

int token_list_store(const char *file, const struct token_list *list, const char *user)
{
    struct buf text = {0};
    char *dir = g_path_get_dirname(file);
    struct stat owner;
    int err = find_owner(file, dir, user, &owner);

    for (size_t i = 0; i < list->len; i++) {
        const struct token *t = &list->tokens[i];

        buf_printf(&text, "%s %s ", t->name, t->hash);
        token_scopes_put(&text, t->scopes);
        buf_printf(&text, " %s %lld", t->tenant[0] == '\0' ? "-" : t->tenant,
                   (long long)t->created_s);
        if (t->rate > 0) {
            buf_putc(&text, ' ');
            config_format_rate(&text, t->rate, t->rate_period_ms);
        }
        buf_putc(&text, '\n');
    }
    if (err == 0)
        err = file_replace(file, owner.st_mode & 0777,
                           geteuid() == 0 || owner.st_uid != geteuid() ? &owner : NULL,
                           buf_str(&text));
    g_free(dir);
    buf_done(&text);
    return err;
}

void token_list_done(struct token_list *list)
{
    free(list->tokens);
    *list = (struct token_list){0};
}

struct token *token_list_find(struct token_list *list, const char *name)
{
    for (size_t i = 0; i < list->len; i++)
        if (strcmp(list->tokens[i].name, name) == 0)
            return &list->tokens[i];
    return NULL;
}

/* --- the engine's --- */

void tokens_init(struct tokens *t)
{
    *t = (struct tokens){0};
    pthread_mutex_init(&t->lock, NULL);
}

void tokens_done(struct tokens *t)
{
    token_list_done(&t->list);
    pthread_mutex_destroy(&t->lock);
}

/* What was taken of rates stays taken. A changed file has its tokens in the order that they had. */
static void keep_spent(const struct token_list *old, struct token_list *list)
{
    size_t at = 0;

    for (size_t i = 0; i < old->len; i++) {
        const struct token *one = &old->tokens[i];
        size_t same = at;

        if (one->spent_until_ns == 0)
            continue;
        while (same < list->len && strcmp(list->tokens[same].hash, one->hash) != 0)
            same++;
        if (same == list->len)
            continue;
        list->tokens[same].spent_until_ns = one->spent_until_ns;
        at = same + 1;
    }
}

/* 0, or -errno: why the file cannot be used. Such a file gives no token any right: those who were
 * removed from it must not stay in. One that could not be read is tried again each time, since
 * what keeps it from being read may lie elsewhere. */
static int look(struct tokens *t, const char *file)
{
    struct token_list old = t->list;
    struct buf error = {0};
    struct stat st;
    int err = stat(file, &st) < 0 ? -errno : 0;

    if (err == 0 && st.st_ino == t->inode && st.st_ctim.tv_sec == t->changed.tv_sec &&
        st.st_ctim.tv_nsec == t->changed.tv_nsec)
        return t->err;
    t->list = (struct token_list){0};
    if (err == 0)
        err = token_list_load(file, &t->list, &error);
    else
        buf_printf(&error, "%s: %s", file, strerror(-err));
    keep_spent(&old, &t->list);
    token_list_done(&old);
    if (err == -ENOENT) /* nobody has made a token yet */
        err = 0;
    if (err == -EINVAL || (err < 0 && err != t->err)) /* once for each state of the file */
        log_error("http.tokens", "error=\"%.*s\" action=\"no token is taken until it is mended\"",
                  STR_FMT(buf_str(&error)));
    buf_done(&error);
    t->err = err;
    t->inode = t->list.tokens != NULL || err == -EINVAL ? st.st_ino : 0;
    t->changed = t->inode == 0 ? (struct timespec){0} : st.st_ctim;
    return err;
}

static struct token *find_hash(const struct token_list *list, const char *hash)
{
    for (size_t i = 0; i < list->len; i++)
        if (memcmp(list->tokens[i].hash, hash, TOKEN_HASH_CHARS) == 0)
            return &list->tokens[i];
    return NULL;
}

int tokens_find(struct tokens *t, const char *file, struct str text, uint64_t since_ns,
                struct token *out)
{
    char hash[TOKEN_HASH_CHARS + 1];
    struct token *found = NULL;
    int err = 0;

    token_hash(text, hash);
    pthread_mutex_lock(&t->lock);
    if (t->looked_ns > since_ns)
        found = find_hash(&t->list, hash);
    if (found == NULL) {
        t->looked_ns = clock_mono_ns();
        err = look(t, file);
        found = err < 0 ? NULL : find_hash(&t->list, hash);
    }
    if (found != NULL)
        *out = *found;
    pthread_mutex_unlock(&t->lock);
    return err < 0 ? err : found == NULL ? -ENOENT : 0;
}

/* --- rates --- */

static uint64_t cost_ns(const struct token *t, uint64_t n)
{
    unsigned __int128 ns;

    ASSERT(t->rate > 0);
    ns = (unsigned __int128)n * t->rate_period_ms * 1000000 / t->rate;
    return ns > UINT64_MAX / 4 ? UINT64_MAX / 4 : (uint64_t)ns;
}

static void spend(struct token *t, uint64_t n, uint64_t now_ns)
{
    if (t->spent_until_ns < now_ns)
        t->spent_until_ns = now_ns;
    if (t->spent_until_ns < UINT64_MAX / 2)
        t->spent_until_ns += cost_ns(t, n);
}

uint64_t tokens_take(struct tokens *t, const struct token *of, uint64_t now_ns)
{
    uint64_t wait_ms = 0, full_ns;
    struct token *found;

    if (of->rate == 0)
        return 0;
    pthread_mutex_lock(&t->lock);
    found = find_hash(&t->list, of->hash);
    if (found != NULL && found->rate > 0) {
        full_ns = now_ns + (uint64_t)found->rate_period_ms * 1000000;
        if (found->spent_until_ns + cost_ns(found, 1) > full_ns)
            wait_ms = (found->spent_until_ns + cost_ns(found, 1) - full_ns) / 1000000 + 1;
        else
            spend(found, 1, now_ns);
    }
    pthread_mutex_unlock(&t->lock);
    return wait_ms;
}

void tokens_charge(struct tokens *t, const struct token *of, uint64_t n, uint64_t now_ns)
{
    struct token *found;

    if (of->rate == 0 || n == 0)
        return;
    pthread_mutex_lock(&t->lock);
    found = find_hash(&t->list, of->hash);
    if (found != NULL && found->rate > 0)
        spend(found, n, now_ns);
    pthread_mutex_unlock(&t->lock);
}

void tokens_give_back(struct tokens *t, const struct token *of)
{
    struct token *found;

    if (of->rate == 0)
        return;
    pthread_mutex_lock(&t->lock);
    found = find_hash(&t->list, of->hash);
    if (found != NULL && found->rate > 0 && found->spent_until_ns > cost_ns(found, 1))
        found->spent_until_ns -= cost_ns(found, 1);
    pthread_mutex_unlock(&t->lock);
}
