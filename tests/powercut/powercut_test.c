/* Power cuts: the queue's own I/O is recorded, then images are built as the disk may look when the
 * power goes at any operation, and each is opened with the real queue code.
 *
 *   powercut_test [--rounds N] [--images N] [--seed S] [--keep]
 *
 * --rounds: rounds of changes recorded; --images: images per cut with random fates (each cut also
 * gets the two extremes); more of both for a longer run. Two controls with syncing switched off
 * must lose something, or the test has no teeth. */
#include <ftw.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "queue/shard.h"
#include "tests/powercut/image.h"
#include "tests/powercut/model.h"

struct test {
    size_t rounds, images;
    uint64_t seed;
    bool keep;
    char *dir;
    size_t checked, wrong;
    bool quiet; /* a control: what is wrong is expected */
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct queue_options options_for(char *path, char *records, bool no_sync)
{
    return (struct queue_options){
        .path = path,
        .shards = 1,
        .map_bytes = 64u << 20,
        .disk_free_bytes_min = 1,
        .records = {.path = records, .segment_bytes_max = 3000, .zstd = true},
        .no_threads = true,
        .no_sync = no_sync};
}

static void path_in(char *out, size_t n, const char *dir, const char *name)
{
    if (snprintf(out, n, "%s/%s", dir, name) >= (int)n)
        abort();
}

static void record(struct test *t, struct model *m, struct io_log *log, bool no_sync)
{
    char root[256], path[300], records[300];
    struct queue_options options;
    struct queue_port *port;
    struct queue *q;

    path_in(root, sizeof(root), t->dir, "recorded");
    path_in(path, sizeof(path), root, "queue");
    path_in(records, sizeof(records), root, "records");
    if (mkdir(root, 0700) < 0)
        abort();
    options = options_for(path, records, no_sync);
    iolog_start(log, root);
    if (queue_open(&q, &options, NULL) < 0 || queue_port_open(&port, q, NULL, NULL) < 0)
        abort();
    for (uint32_t i = 0; i < queue_shards(q); i++) { /* keep pieces behind their messages */
        q->shards[i]->own.remains.age_ms_min = 0;
        q->shards[i]->own.remains.unused_bytes_min = 0;
    }
    model_run(m, q, port, t->rounds, iolog_mark);
    queue_port_close(port);
    queue_close(q);
    iolog_stop();
    remove_tree(root);
}

/* In a process of its own: a broken file may well crash its reader. */
static const char *check_apart(struct model *m, const struct queue_options *options,
                               const bool *submitted, const bool *acked)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(model_check(m, options, submitted, acked) != NULL);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        abort();
    return status == 0 ? NULL : "something";
}

static void check_image(struct test *t, struct model *m, struct disk *disk, size_t cut,
                        enum image_fate fate, struct rng *rng, const bool *submitted,
                        const bool *acked)
{
    char root[256], path[300], records[300];
    struct queue_options options;
    const char *wrong;

    path_in(root, sizeof(root), t->dir, "image");
    path_in(path, sizeof(path), root, "queue");
    path_in(records, sizeof(records), root, "records");
    options = options_for(path, records, false);
    disk_image(disk, root, fate, rng);
    wrong = t->quiet ? check_apart(m, &options, submitted, acked)
                     : model_check(m, &options, submitted, acked);
    t->checked++;
    if (wrong != NULL) {
        t->wrong++;
        if (!t->quiet)
            printf("cut %zu fate %d seed %llu: %s\n", cut, (int)fate, (unsigned long long)t->seed,
                   wrong);
        if (!t->quiet && t->keep)
            exit(1);
    }
    remove_tree(root);
}

static void replay(struct test *t, struct model *m, struct io_log *log, size_t every)
{
    bool *submitted = calloc(m->changes + 2, sizeof(bool)),
         *acked = calloc(m->changes + 2, sizeof(bool));
    struct disk *disk = disk_new(log);
    struct rng rng;

    rng_seed(&rng, t->seed);
    for (size_t cut = 0; cut < log->len; cut++, disk_step(disk)) {
        const struct io_op *op = &log->ops[cut];

        /* A mark changes what is expected, not the disk: the next cut checks both. */
        if (op->kind == IO_MARK) {
            (op->mark % 2 == 0 ? submitted : acked)[op->mark / 2] = true;
            continue;
        }
        if (cut % every != 0)
            continue;
        check_image(t, m, disk, cut, IMAGE_DROP, &rng, submitted, acked);
        check_image(t, m, disk, cut, IMAGE_KEEP, &rng, submitted, acked);
        for (size_t i = 0; i < t->images; i++)
            check_image(t, m, disk, cut, (cut + i) % 2 == 0 ? IMAGE_SUBSET : IMAGE_TORN, &rng,
                        submitted, acked);
    }
    disk_free(disk);
    free(submitted);
    free(acked);
}

/* The images that went wrong. every: of how many cuts one is looked at. */
static size_t run(struct test *t, bool no_sync, size_t every)
{
    struct io_log log;
    struct model m;
    size_t wrong = t->wrong, checked = t->checked;

    t->quiet = no_sync;
    model_init(&m, t->seed, t->rounds);
    record(t, &m, &log, no_sync);
    replay(t, &m, &log, every);
    printf("%s: %zu operations, %llu changes, %zu images, %zu wrong\n",
           no_sync ? "control without syncing" : "as shipped", log.len,
           (unsigned long long)m.changes, t->checked - checked, t->wrong - wrong);
    iolog_free(&log);
    model_done(&m);
    return t->wrong - wrong;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rounds", 1, NULL, 'r'},
                                            {"images", 1, NULL, 'i'},
                                            {"seed", 1, NULL, 's'},
                                            {"keep", 0, NULL, 'k'},
                                            {NULL, 0, NULL, 0}};
    struct test t = {.rounds = 100, .images = 1, .seed = 1};
    struct stat st;
    size_t wrong, control;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'r')
            t.rounds = strtoul(optarg, NULL, 10);
        else if (c == 'i')
            t.images = strtoul(optarg, NULL, 10);
        else if (c == 's')
            t.seed = strtoull(optarg, NULL, 10);
        else if (c == 'k')
            t.keep = true;
        else
            return 2;
    }
    /* Memory, where syncing costs nothing: what a disk would lose is the model's business. */
    t.dir =
        strdup(stat("/dev/shm", &st) == 0 ? "/dev/shm/powercut-XXXXXX" : "/tmp/powercut-XXXXXX");
    if (mkdtemp(t.dir) == NULL)
        return 1;
    wrong = run(&t, false, 1);
    control = run(&t, true, 7);
    remove_tree(t.dir);
    free(t.dir);
    if (control == 0)
        printf("the control lost nothing: the test cannot fail\n");
    return wrong > 0 || control == 0;
}
