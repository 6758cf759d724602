/* sim: the production engine on a simulated network, clock and disk, driven by a seed. */
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/sim/crowd.h"
#include "tests/sim/ledger.h"
#include "tests/sim/node.h"
#include "tests/sim/receiver.h"
#include "tests/sim/season.h"
#include "tests/sim/sender.h"
#include "tests/sim/sim.h"
#include "tests/sim/throttle.h"
#include "tests/sim/warmth.h"

#define LOOK_NS      (10 * SIM_S)
#define SELF_TEST_TO 40
#define TWICE_EVERY  10 /* one in so many seeds runs twice: both must be the same */
#define BURSTS_EVERY 4  /* in one of so many seeds */
#define SIGNS_EVERY  3  /* likewise: mail is signed */
#define CROWD_EVERY  8  /* likewise: much mail for one domain at once */
#define FEW_EVERY    3  /* likewise: workers have room for few lanes */
#define SLACK_S      10800

static bool verbose;

/* --- one seed --- */

static void on_abort(int sig)
{
    (void)sig;
    sim_trace_tail();
    fprintf(stderr, "VIOLATED an assertion (above)\n");
    fflush(NULL);
    _exit(1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_all(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

enum phase { PHASE_WORK, PHASE_DRAIN };

static enum phase phase;

static void on_look(struct sim_event *event)
{
    node_check();
    if (phase == PHASE_WORK && senders_through() && node_empty()) {
        phase = PHASE_DRAIN;
        senders_close();
        node_drain();
    }
    sim_in(event, world_warmup ? 3600 * SIM_S : LOOK_NS);
}

static void run(const char *dir)
{
    struct sim_event look = {.run = on_look};
    uint64_t deadline_ns, generations;

    world_make();
    /* Of notices: in a full store some wait until others, to domains that are down, expire. */
    generations = world.map_filled != 0 ? 10 : 2;
    deadline_ns = sim_now_ns() + 2 * world.load_ns +
                  (2ull * world.lifetime_s + generations * world.notice_lifetime_s +
                   world.not_before_s_max + 2ull * world.clock_jump_s + SLACK_S) *
                      SIM_S;
    receivers_open();
    node_begin(dir);
    senders_open();
    if (world_season)
        season_begin();
    else if (world_warmup)
        warmth_begin();
    sim_in(&look, LOOK_NS);
    while (!node_ended()) {
        ASSERT(sim_step());
        if (sim_now_ns() > deadline_ns) {
            node_describe();
            sim_fail("nothing stuck", "the queue is not empty in time");
        }
    }
}

static void write_hash(const char *dir, uint64_t hash)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/hash", dir);
    f = fopen(path, "w");
    ASSERT(f != NULL && fwrite(&hash, sizeof(hash), 1, f) == 1);
    fclose(f);
}

/* In a process of its own. */
static void run_seed(uint64_t seed, const char *dir)
{
    struct ledger_totals t;
    char records[256];
    uint64_t hash;

    log_set_level(verbose ? LOG_LEVEL_INFO : LOG_LEVEL_NONE); /* faults are made on purpose */
    signal(SIGABRT, on_abort);
    world_bursts = !world_recovery && !world_warmup && seed % BURSTS_EVERY == 1;
    world_signs =
        world_domains ? seed % 2 == 0 : !world_recovery && !world_warmup && seed % SIGNS_EVERY == 2;
    world_crowd = !world_recovery && !world_warmup && !world_full && /* among those with bursts */
                  seed % CROWD_EVERY == 5;
    if (!world_recovery && !world_warmup && !world_crowd && seed % FEW_EVERY == 0)
        world_lanes_max = 8 * (2 + (uint32_t)(seed / FEW_EVERY % 4));
    sim_begin(seed, verbose);
    run(dir);
    snprintf(records, sizeof(records), "%s/records", dir);
    ledger_check(records, &t);
    crowd_check();
    if (world_recovery)
        throttle_check();
    if (world_season)
        season_check();
    else if (world_warmup)
        warmth_check();
    hash = sim_trace_hash();
    write_hash(dir, hash);
    printf("seed %llu: ok: %u messages, %u recipients (%u accepted): %u delivered, %u bounced, "
           "%u expired, %u cancelled, %u duplicates, %u notices; %.0f s, trace %016llx\n",
           (unsigned long long)seed, t.messages, t.rcpts, t.acked, t.delivered, t.bounced,
           t.expired, t.cancelled, t.duplicates, t.notices, (double)sim_now_ns() / 1e9 - 1000,
           (unsigned long long)hash);
    fflush(stdout);
    if (node_was_killed()) /* what died with it would be taken for leaks */
        _exit(0);
}

/* --- many seeds --- */

struct child {
    pid_t pid;
    uint64_t seed;
    char dir[64];
};

static void child_start(struct child *c, uint64_t seed, bool quiet)
{
    char said[128];

    c->seed = seed;
    snprintf(c->dir, sizeof(c->dir), "%s/sim-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ASSERT(mkdtemp(c->dir) != NULL);
    fflush(NULL);
    c->pid = fork();
    ASSERT(c->pid >= 0);
    if (c->pid > 0)
        return;
    if (quiet)
        ASSERT(freopen("/dev/null", "w", stdout) != NULL);
    if (sim_sabotage != SABOTAGE_NONE) {
        snprintf(said, sizeof(said), "%s/said", c->dir);
        ASSERT(freopen(said, "w", stderr) != NULL);
    }
    run_seed(seed, c->dir);
    exit(0);
}

/* Whether its seed was right. */
static bool child_end(struct child *c, uint64_t *hash)
{
    char path[256];
    int status = 0;
    FILE *f;

    ASSERT(waitpid(c->pid, &status, 0) == c->pid);
    snprintf(path, sizeof(path), "%s/hash", c->dir);
    f = fopen(path, "r");
    *hash = 0;
    if (f != NULL && fread(hash, sizeof(*hash), 1, f) != 1)
        *hash = 0;
    if (f != NULL)
        fclose(f);
    remove_all(c->dir);
    if (status != 0 && sim_sabotage == SABOTAGE_NONE) {
        fprintf(stderr, "seed %llu failed; replay: sim%s", (unsigned long long)c->seed,
                world_full       ? " --full"
                : world_domains  ? " --domains"
                : world_recovery ? " --recovery"
                : world_season   ? " --season"
                : world_warmup   ? " --warmup"
                                 : "");
        if (world_season && season_days != SEASON_DAYS_MAX)
            fprintf(stderr, " --days %u", season_days);
        fprintf(stderr, " --seed %llu --verbose\n", (unsigned long long)c->seed);
    }
    return status == 0;
}

/* Two at a time; one in TWICE_EVERY is run twice. Returns how many failed. */
static unsigned run_seeds(uint64_t from, uint64_t to, bool quiet)
{
    struct child children[2];
    unsigned failed = 0;

    for (uint64_t seed = from; seed <= to;) {
        bool twice = seed % TWICE_EVERY == 0 || seed == to;
        uint64_t hashes[2];
        bool ok[2];

        for (int i = 0; i < 2; i++)
            child_start(&children[i], twice ? seed : seed + (uint64_t)i, quiet);
        for (int i = 0; i < 2; i++)
            ok[i] = child_end(&children[i], &hashes[i]);
        failed += !ok[0] ? 1 : 0;
        failed += !ok[1] && !twice ? 1 : 0;
        if (twice && ok[0] && ok[1] && hashes[0] != hashes[1]) {
            fprintf(stderr, "seed %llu: VIOLATED replay: two runs differ\n",
                    (unsigned long long)seed);
            failed++;
        }
        seed += twice ? 1 : 2;
    }
    return failed;
}

/* --- do the checkers check? --- */

static const struct {
    const char *what, *invariant; /* that has to be found violated */
} sabotages[SABOTAGES] = {
    [SABOTAGE_COMMIT] = {"a commit that did not happen", "nothing lost"},
    [SABOTAGE_REPLY] = {"a reply misread, so a recipient sent twice", "duplicates"},
    [SABOTAGE_CONTENT] = {"a changed byte", "content"},
    [SABOTAGE_SESSIONS] = {"too many sessions", "limits"},
    [SABOTAGE_RATE] = {"too high a rate", "limits"},
    [SABOTAGE_MEMORY] = {"a message never freed", "pools"},
    [SABOTAGE_SUSPENSION] = {"a suspension overlooked", "suspensions"},
    [SABOTAGE_HOT] = {"a hot domain overlooked", "spreading"},
    [SABOTAGE_WEIGHTS] = {"equal weights", "weights"}};

/* Whether a run under sabotage ended with the right accusation. */
static bool noticed(uint64_t seed)
{
    char path[128], text[512], wanted[64];
    struct child child;
    bool found = false;
    uint64_t hash;
    FILE *f;

    child_start(&child, seed, true);
    ASSERT(waitid(P_PID, (id_t)child.pid, &(siginfo_t){0}, WEXITED | WNOWAIT) == 0);
    snprintf(wanted, sizeof(wanted), "VIOLATED %s:", sabotages[sim_sabotage].invariant);
    snprintf(path, sizeof(path), "%s/said", child.dir);
    f = fopen(path, "r");
    while (f != NULL && fgets(text, sizeof(text), f) != NULL)
        found = found || strstr(text, wanted) != NULL;
    if (f != NULL)
        fclose(f);
    child_end(&child, &hash);
    return found;
}

static int self_test(void)
{
    int missed = 0;

    for (sim_sabotage = SABOTAGE_NONE + 1; sim_sabotage < SABOTAGES; sim_sabotage++) {
        uint64_t seed = 1;

        while (seed <= SELF_TEST_TO && !noticed(seed))
            seed++;
        printf("%s: %s\n", sabotages[sim_sabotage].what,
               seed <= SELF_TEST_TO ? "noticed" : "NOT NOTICED");
        missed += seed > SELF_TEST_TO;
    }
    return missed == 0 ? 0 : 1;
}

static const char usage[] =
    "usage: sim [--full|--recovery|--domains|--warmup|--season] --seed N [--verbose] |\n"
    "       sim [...] --seeds A-B | sim --self-test\n"
    "\n"
    "Runs the engine in a simulated world made from each seed and compares everybody's books.\n"
    "--full: in a store that has little room from the start, which one world in five has anyway.\n"
    "--recovery: one provider asks for less, again and again, and watches how mail comes back.\n"
    "--domains: the same, and it asks that of a domain which two addresses send mail of.\n"
    "--warmup: a newsletter of 300,000 over new addresses, for days, with kills.\n"
    "--season: sixty days of warm-up, or --days N, with changing answers, over a change of clocks, "
    "with kills.\n"
    "A failing seed prints what was violated and the end of its trace; it always replays.\n";

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'}, {"seeds", required_argument, NULL, 'r'},
        {"verbose", no_argument, NULL, 'v'},    {"self-test", no_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},       {"full", no_argument, NULL, 'f'},
        {"recovery", no_argument, NULL, 'c'},   {"domains", no_argument, NULL, 'd'},
        {"warmup", no_argument, NULL, 'w'},     {"season", no_argument, NULL, 'y'},
        {"days", required_argument, NULL, 'n'}, {NULL, 0, NULL, 0}};
    unsigned long long from = 0, to = 0;
    struct child child;
    unsigned failed;
    uint64_t hash;
    bool test = false;

    for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        if (opt == 's')
            from = to = strtoull(optarg, NULL, 10);
        else if (opt == 'r' && sscanf(optarg, "%llu-%llu", &from, &to) == 2)
            continue;
        else if (opt == 'v')
            verbose = true;
        else if (opt == 'f')
            world_full = true;
        else if (opt == 'c')
            world_recovery = true;
        else if (opt == 'd')
            world_recovery = world_domains = true;
        else if (opt == 'w')
            world_warmup = true;
        else if (opt == 'y')
            world_warmup = world_season = true;
        else if (opt == 'n')
            season_days = (uint32_t)strtoul(optarg, NULL, 10);
        else if (opt == 't')
            test = true;
        else {
            fputs(usage, opt == 'h' ? stdout : stderr);
            return opt == 'h' ? 0 : 64;
        }
    }
    /* Nobody in this world shows a certificate of the machine's authorities. To read them at each
     * start took a seventh of the time. */
    ASSERT(setenv("SSL_CERT_FILE", "/dev/null", 1) == 0);
    if (test)
        return self_test();
    if (from == 0 || to < from || season_days < 3 || season_days > SEASON_DAYS_MAX) {
        fputs(usage, stderr);
        return 64;
    }
    if (from == to) {
        child_start(&child, from, false);
        return child_end(&child, &hash) ? 0 : 1;
    }
    failed = run_seeds(from, to, true);
    printf("seeds %llu to %llu: %u failed\n", from, to, failed);
    return failed == 0 ? 0 : 1;
}
