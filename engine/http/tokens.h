/* Tokens of the HTTP API: who may do what, for which tenant, how often. A token is 256 random bits,
 * so its SHA-256 is kept and nobody can tell the token from it.
 *
 * The file has a line for each: "NAME HASH SCOPES TENANT CREATED", TENANT '-' for none, and behind
 * it " RATE" where there is one; `hayauma token` writes it whole beside the old one and renames it.
 * The engine looks at the file's time and reads it again when it changed. Any thread. */
#ifndef HAYAUMA_ENGINE_TOKENS_H
#define HAYAUMA_ENGINE_TOKENS_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/buf.h"

#define TOKEN_NAME_MAX   64 /* of a name and of a tenant: letters, digits, "._-" */
#define TOKEN_HASH_CHARS 64
#define TOKEN_TEXT_BYTES 48 /* "hym_" and 43 characters, and NUL */
#define TOKENS_MAX       10000

enum token_scope {
    TOKEN_INJECT = 1 << 0, /* may send mail */
    TOKEN_READ = 1 << 1,   /* may see metrics */
    TOKEN_ADMIN = 1 << 2,  /* both, and whatever else comes */
};

struct token {
    char name[TOKEN_NAME_MAX + 1], tenant[TOKEN_NAME_MAX + 1]; /* tenant may be empty: any */
    char hash[TOKEN_HASH_CHARS + 1];
    unsigned scopes; /* of enum token_scope */
    int64_t created_s;
    /* At most so many requests and letters in so much time, which it may have at once; 0: any. */
    uint64_t rate;
    uint32_t rate_period_ms;
    uint64_t spent_until_ns; /* monotonic: until when what was taken uses all of the rate */
};

/* A list as the file has it. */
struct token_list {
    struct token *tokens;
    size_t len;
};

/* 0; -ENOENT: there is no file; -errno; -EINVAL: error has "file:line: what". */
int token_list_load(const char *file, struct token_list *out, struct buf *error) MUST_USE;
/* Durable when it returns 0. One at a time. user: whose a new file is when root makes it; NULL: its
 * directory's owner's. */
int token_list_store(const char *file, const struct token_list *list, const char *user) MUST_USE;
void token_list_done(struct token_list *list);
/* NULL: there is none of that name. */
struct token *token_list_find(struct token_list *list, const char *name);
/* "inject,read" to bits; 0: not scopes. */
unsigned token_scopes_parse(struct str text);
void token_scopes_put(struct buf *out, unsigned scopes);
bool token_name_valid(struct str name);
/* A new token's text, and what the file keeps of it. */
void token_make(char text[static TOKEN_TEXT_BYTES], char hash[static TOKEN_HASH_CHARS + 1]);
void token_hash(struct str text, char hash[static TOKEN_HASH_CHARS + 1]);

/* What the engine knows of the file. */
struct tokens {
    pthread_mutex_t lock; /* of all below */
    struct token_list list;
    struct timespec changed; /* the file's ctime, when it was read: chmod and chown count too */
    ino_t inode;             /* 0: it is to be read */
    int err;                 /* why it cannot be used */
    uint64_t looked_ns;      /* monotonic: when the last look at the file's time began */
};

void tokens_init(struct tokens *t);
void tokens_done(struct tokens *t);
/* 0: text is a token of file, *out is a copy. -ENOENT: it is none, or there is no file. Another
 * -errno: the file cannot be used. A token that is known needs no look at the file's time where one
 * began behind since_ns (monotonic; UINT64_MAX: it needs one), by whichever thread. */
int tokens_find(struct tokens *t, const char *file, struct str text, uint64_t since_ns,
                struct token *out) MUST_USE;
/* Takes one of what the rate of that token has: 0, or in how many ms there is one again. now_ns:
 * monotonic. */
uint64_t tokens_take(struct tokens *t, const struct token *of, uint64_t now_ns) MUST_USE;
/* Takes n more, for what the request turned out to bring: later requests wait for it. */
void tokens_charge(struct tokens *t, const struct token *of, uint64_t n, uint64_t now_ns);
/* Gives back the one that was taken: the request brought nothing new. */
void tokens_give_back(struct tokens *t, const struct token *of);

#endif
