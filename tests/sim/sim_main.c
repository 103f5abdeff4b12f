/* make sim: runs seeds of the simulated worlds; a broken promise is printed with its seed and a shrunk trace. */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/sim/sweep.h"

#define TRACE_LINES_MAX 160
#define KEPT_LINE_BYTES 256

static const struct sim_kind *const KINDS_OF_WORLD[] = {&worker_kind,
#ifdef SIM_WITH_RELAY
                                                        &relay_kind
#endif
};

struct sim_args {
    const char *core; /* NULL: all */
    uint64_t seeds, first, seed;
    bool one, trace, expect_broken;
    int jobs;
    const char *kept;
    struct sim_limits limits;
};

static void usage(FILE *out)
{
    fputs("usage: sim [--core worker|relay] [--seeds N] [--first SEED] [--jobs N] [--kept FILE]\n"
          "       sim --core CORE --seed SEED [--trace] [--faults HEX] [--records N] [--keys N] [--nodes N]\n"
          "       sim --core CORE --seeds N --expect-broken\n"
          "Runs N seeds of each core's simulated world (default 2000), after the kept ones. --seed replays "
          "one; --faults,\n"
          "--records, --keys and --nodes make its world smaller. --expect-broken succeeds when a promise "
          "breaks.\n",
          out);
}

/* ---- a broken promise -------------------------------------------------------------------------------------------------- */

static void print_tail(FILE *trace)
{
    char line[2048];
    long lines = 0, n = 0;
    rewind(trace);
    while (fgets(line, sizeof(line), trace) != NULL)
        lines++;
    rewind(trace);
    if (lines > TRACE_LINES_MAX)
        printf("  … %ld lines before\n", lines - TRACE_LINES_MAX);
    while (fgets(line, sizeof(line), trace) != NULL)
        if (n++ >= lines - TRACE_LINES_MAX)
            printf("  %s", line);
}

static void print_broken(const struct sim_kind *kind, const struct finding *f)
{
    printf("sim: %s: seed %" PRIu64 " breaks %s: %s\n", kind->name, f->seed, f->promise, f->message);
    struct sim_limits limits = sweep_shrink(kind, f);
    printf("sim: shrunk to %d records, %d keys, %d processes, faults:", limits.records, limits.keys,
           limits.nodes);
    for (int i = 0; i < kind->fault_count; i++)
        if ((limits.faults >> i & 1) != 0)
            printf(" %s", kind->faults[i]);
    printf("%s\n", limits.faults == 0 ? " none" : "");
    FILE *trace = tmpfile();
    if (trace != NULL) {
        struct finding again;
        setvbuf(trace, NULL, _IOLBF, 0); /* an abort leaves what was written */
        sweep_apart(kind, f->seed, limits, trace, &again);
        print_tail(trace);
        printf("sim: %s: %s\n", again.promise, again.message);
        fclose(trace);
    }
    printf("sim: replay: sim --core %s --seed %" PRIu64 " --trace --faults %" PRIx64
           " --records %d --keys %d --nodes %d\n",
           kind->name, f->seed, limits.faults, limits.records, limits.keys, limits.nodes);
}

/* ---- the ways to run ----------------------------------------------------------------------------------------------------- */

static int run_one(const struct sim_kind *kind, const struct sim_args *args)
{
    struct finding f;
    sweep_apart(kind, args->seed, args->limits, args->trace ? stdout : NULL, &f);
    if (!f.broken) {
        printf("sim: %s: seed %" PRIu64 " is green\n", kind->name, args->seed);
        return 0;
    }
    printf("sim: %s: seed %" PRIu64 " breaks %s: %s\n", kind->name, args->seed, f.promise, f.message);
    return 1;
}

static int run_mutant(const struct sim_kind *kind, const struct sim_args *args)
{
    struct finding f;
    uint64_t held = sweep_many(kind, args->first, args->seeds, args->jobs, &f);
    if (!f.broken) {
        printf("survived %" PRIu64 " seeds\n", held);
        return 1;
    }
    printf("caught by seed %" PRIu64 ", %s: %s\n", f.seed, f.promise, f.message);
    return 0;
}

static int run_seeds(const struct sim_kind *kind, const struct sim_args *args)
{
    struct finding f;
    int64_t began = clock_monotonic_ns();
    uint64_t held = sweep_many(kind, args->first, args->seeds, args->jobs, &f);
    if (f.broken) {
        print_broken(kind, &f);
        return 1;
    }
    double took = (double)(clock_monotonic_ns() - began) / (double)NS_PER_S;
    printf("sim: %s: %" PRIu64 " seeds green in %.0f s (%.0f seeds/s)\n", kind->name, held, took,
           (double)held / (took > 0 ? took : 1));
    return 0;
}

static const struct sim_kind *kind_named(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(KINDS_OF_WORLD); i++)
        if (strcmp(KINDS_OF_WORLD[i]->name, name) == 0)
            return KINDS_OF_WORLD[i];
    return NULL;
}

/* Seeds that once broke something: "core seed  what it was", a # starts a comment. */
static int run_kept(const char *path)
{
    char line[KEPT_LINE_BYTES], core[16];
    uint64_t seed;
    int kept = 0;
    FILE *in = fopen(path, "re");
    if (in == NULL) {
        perror(path);
        return 1;
    }
    while (fgets(line, sizeof(line), in) != NULL) {
        if (line[0] == '#' || sscanf(line, "%15s %" SCNu64, core, &seed) != 2)
            continue;
        const struct sim_kind *kind = kind_named(core);
        struct finding f = {0};
        if (kind == NULL) {
            fprintf(stderr, "%s: no core \"%s\"\n", path, core);
            fclose(in);
            return 1;
        }
        sweep_apart(kind, seed, SIM_NO_LIMITS, NULL, &f);
        if (f.broken) {
            print_broken(kind, &f);
            fclose(in);
            return 1;
        }
        kept++;
    }
    fclose(in);
    printf("sim: %d kept seeds green\n", kept);
    return 0;
}

static int run(const struct sim_args *args)
{
    if (args->kept != NULL && run_kept(args->kept) != 0)
        return 1;
    for (size_t i = 0; i < ARRAY_LEN(KINDS_OF_WORLD); i++) {
        const struct sim_kind *kind = KINDS_OF_WORLD[i];
        if (args->core != NULL && strcmp(args->core, kind->name) != 0)
            continue;
        int result = args->one             ? run_one(kind, args)
                     : args->expect_broken ? run_mutant(kind, args)
                                           : run_seeds(kind, args);
        if (result != 0)
            return result;
    }
    return 0;
}

/* ---- arguments ----------------------------------------------------------------------------------------------------------- */

static bool parse_number(const char *text, int base, uint64_t *ret)
{
    char *end = NULL;
    *ret = strtoull(text, &end, base);
    return end != text && *end == '\0';
}

static bool parse_option(struct sim_args *args, int option, const char *value)
{
    uint64_t number = 0;
    if (strchr("nfsjxrky", option) != NULL && !parse_number(value, option == 'x' ? 16 : 10, &number)) {
        fprintf(stderr, "sim: \"%s\" is no number\n", value);
        return false;
    }
    int small = number < INT32_MAX ? (int)number : INT32_MAX;
    switch (option) {
    case 'c':
        args->core = value;
        return kind_named(value) != NULL;
    case 'n':
        args->seeds = number;
        break;
    case 'f':
        args->first = number;
        break;
    case 's':
        args->seed = number;
        args->one = true;
        break;
    case 'j':
        args->jobs = small > 0 ? small : 1;
        break;
    case 'K':
        args->kept = value;
        break;
    case 't':
        args->trace = true;
        break;
    case 'b':
        args->expect_broken = true;
        break;
    case 'x':
        args->limits.faults = number;
        break;
    case 'r':
        args->limits.records = small;
        break;
    case 'k':
        args->limits.keys = small;
        break;
    case 'y':
        args->limits.nodes = small;
        break;
    default:
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {
        {"core", required_argument, NULL, 'c'},   {"seeds", required_argument, NULL, 'n'},
        {"first", required_argument, NULL, 'f'},  {"seed", required_argument, NULL, 's'},
        {"jobs", required_argument, NULL, 'j'},   {"kept", required_argument, NULL, 'K'},
        {"trace", no_argument, NULL, 't'},        {"expect-broken", no_argument, NULL, 'b'},
        {"faults", required_argument, NULL, 'x'}, {"records", required_argument, NULL, 'r'},
        {"keys", required_argument, NULL, 'k'},   {"nodes", required_argument, NULL, 'y'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    struct sim_args args = {.seeds = 2000, .first = 1, .limits = SIM_NO_LIMITS};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    args.jobs = processors > 1 ? (int)processors : 1;
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        if (option == 'h') {
            usage(stdout);
            return 0;
        }
        if (!parse_option(&args, option, optarg)) {
            usage(stderr);
            return 100;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    return run(&args);
}
