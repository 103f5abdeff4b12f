/* Runs seeds in processes of their own and shrinks a world that broke: fewer faults, records, keys and processes. */
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/sweep.h"

#define JOBS_MAX 64
#define ONE_SEED_S 20 /* a world takes milliseconds */
#define SHRINK_TRIES_MAX 600

/* ---- one world ---------------------------------------------------------------------------------------------------------- */

static void keep_finding(const struct sim *s, struct finding *ret)
{
    ret->broken = true;
    snprintf(ret->promise, sizeof(ret->promise), "%s", s->promise);
    snprintf(ret->message, sizeof(ret->message), "%s", s->message);
}

void sweep_one(const struct sim_kind *kind, uint64_t seed, struct sim_limits limits, FILE *trace,
               struct finding *ret)
{
    struct sim s;
    sim_init(&s, seed, limits, trace);
    *ret = (struct finding){.seed = seed};
    void *world = kind->build(&s);
    if (setjmp(s.broken) == 0)
        kind->run(world);
    else
        keep_finding(&s, ret);
    kind->raze(world);
    sim_done(&s);
}

static struct finding *shared_findings(size_t count)
{
    void *at =
        mmap(NULL, count * sizeof(struct finding), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ENSURE(at != MAP_FAILED);
    return at;
}

static void died(struct finding *f, int status)
{
    f->broken = true;
    snprintf(f->promise, sizeof(f->promise), "%s", "abort");
    if (WIFSIGNALED(status))
        snprintf(f->message, sizeof(f->message), "the world's process died of signal %d%s", WTERMSIG(status),
                 WTERMSIG(status) == SIGALRM ? ": it never ended" : "");
    else
        snprintf(f->message, sizeof(f->message), "the world's process ended with exit code %d",
                 WEXITSTATUS(status));
}

void sweep_apart(const struct sim_kind *kind, uint64_t seed, struct sim_limits limits, FILE *trace,
                 struct finding *ret)
{
    struct finding *shared = shared_findings(1);
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    ENSURE(pid >= 0);
    if (pid == 0) {
        alarm(ONE_SEED_S);
        sweep_one(kind, seed, limits, trace, shared);
        fflush(NULL);
        _exit(0);
    }
    ENSURE(waitpid(pid, &status, 0) == pid);
    *ret = *shared;
    ret->seed = seed;
    if (status != 0)
        died(ret, status);
    munmap(shared, sizeof(*shared));
}

/* ---- many ------------------------------------------------------------------------------------------------------------------ */

struct board { /* shared by the processes of a sweep */
    _Atomic uint64_t next, held, lowest_broken;
    uint64_t end, step;
};

static void sweep_share(const struct sim_kind *kind, struct board *board, struct finding *mine)
{
    for (;;) {
        uint64_t seed = atomic_fetch_add(&board->next, 1);
        if (seed >= board->end || seed > atomic_load(&board->lowest_broken))
            return;
        mine->seed = seed;
        alarm(ONE_SEED_S);
        sweep_one(kind, seed, SIM_NO_LIMITS, NULL, mine);
        if (mine->broken) {
            atomic_store(&board->lowest_broken, seed);
            return;
        }
        uint64_t held = atomic_fetch_add(&board->held, 1) + 1;
        if (held % board->step == 0)
            fprintf(stderr, "sim: %s: %" PRIu64 " seeds\n", kind->name, held);
    }
}

static void collect(const struct finding *all, int jobs, struct finding *ret)
{
    for (int i = 0; i < jobs; i++)
        if (all[i].broken && (!ret->broken || all[i].seed < ret->seed))
            *ret = all[i];
}

uint64_t sweep_many(const struct sim_kind *kind, uint64_t first, uint64_t count, int jobs,
                    struct finding *ret)
{
    pid_t pids[JOBS_MAX];
    jobs = jobs < JOBS_MAX ? jobs : JOBS_MAX;
    struct finding *all = shared_findings(JOBS_MAX);
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ENSURE(board != MAP_FAILED);
    *ret = (struct finding){0};
    board->end = first + count;
    board->step = count >= 5000 ? count / 5 : 1000;
    atomic_store(&board->next, first);
    atomic_store(&board->lowest_broken, UINT64_MAX);
    fflush(NULL);
    for (int i = 0; i < jobs; i++) {
        pids[i] = fork();
        ENSURE(pids[i] >= 0);
        if (pids[i] == 0) {
            sweep_share(kind, board, &all[i]);
            _exit(0);
        }
    }
    for (int i = 0; i < jobs; i++) {
        int status = 0;
        ENSURE(waitpid(pids[i], &status, 0) == pids[i]);
        if (status != 0)
            died(&all[i], status);
    }
    collect(all, jobs, ret);
    uint64_t held = atomic_load(&board->held);
    munmap(board, sizeof(*board));
    munmap(all, JOBS_MAX * sizeof(*all));
    return held;
}

/* ---- smaller --------------------------------------------------------------------------------------------------------------- */

static bool still_breaks(const struct sim_kind *kind, const struct finding *found, struct sim_limits limits,
                         int *tries)
{
    struct finding f;
    if (++*tries > SHRINK_TRIES_MAX)
        return false;
    sweep_apart(kind, found->seed, limits, NULL, &f);
    return f.broken && strcmp(f.promise, found->promise) == 0;
}

/* Make one number smaller: halves first, then one by one. */
static bool lower(const struct sim_kind *kind, const struct finding *found, struct sim_limits *limits,
                  int *number, int *tries)
{
    bool lowered = false;
    int steps[] = {*number / 2, *number / 4, 3, 2, 1};
    for (size_t i = 0; i < ARRAY_LEN(steps); i++)
        while (steps[i] > 0 && *number - steps[i] >= 1) {
            int before = *number;
            *number -= steps[i];
            if (!still_breaks(kind, found, *limits, tries)) {
                *number = before;
                break;
            }
            lowered = true;
        }
    return lowered;
}

static bool drop_faults(const struct sim_kind *kind, const struct finding *found, struct sim_limits *limits,
                        int *tries)
{
    bool dropped = false;
    for (int f = 0; f < kind->fault_count; f++) {
        struct sim_limits without = *limits;
        without.faults &= ~(UINT64_C(1) << f);
        if (without.faults != limits->faults && still_breaks(kind, found, without, tries)) {
            *limits = without;
            dropped = true;
        }
    }
    return dropped;
}

struct sim_limits sweep_shrink(const struct sim_kind *kind, const struct finding *found)
{
    struct sim s;
    sim_init(&s, found->seed, SIM_NO_LIMITS, NULL);
    void *world = kind->build(&s);
    struct sim_limits limits = kind->extent(world);
    kind->raze(world);
    sim_done(&s);
    int tries = 0;
    /* A child that aborts says so each time; once, at the end, is enough. */
    fflush(stderr);
    int errors = dup(STDERR_FILENO);
    FILE *silence = freopen("/dev/null", "w", stderr);
    for (bool smaller = silence != NULL; smaller;) {
        smaller = drop_faults(kind, found, &limits, &tries);
        smaller |= lower(kind, found, &limits, &limits.records, &tries);
        smaller |= lower(kind, found, &limits, &limits.nodes, &tries);
        smaller |= lower(kind, found, &limits, &limits.keys, &tries);
    }
    fflush(stderr);
    dup2(errors, STDERR_FILENO);
    close(errors);
    return limits;
}
