/* Keeps the numbers of a program and prints them for Prometheus. */
#include "common/stats.h"

#include <dirent.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/version.h"

#define FIRST_BOUND_NS (100 * NS_PER_US)

struct stats *stats_new(const struct stat_row *rows, size_t count)
{
    struct stats *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->values = calloc(count ? count : 1, sizeof(*s->values));
    if (!s->values) {
        free(s);
        return NULL;
    }
    s->rows = rows;
    s->count = count;
    s->started_wall_ns = clock_wall_ns();
    return s;
}

void stats_free(struct stats *s)
{
    if (!s)
        return;
    free(s->values);
    free(s);
}

void stats_add(struct stats *s, size_t id, int64_t n)
{
    ENSURE(id < s->count);
    atomic_fetch_add_explicit(&s->values[id].value, n, memory_order_relaxed);
}

void stats_set(struct stats *s, size_t id, int64_t value)
{
    ENSURE(id < s->count);
    atomic_store_explicit(&s->values[id].value, value, memory_order_relaxed);
}

void stats_observe(struct stats *s, size_t id, int64_t ns)
{
    ENSURE(id < s->count);
    /* Bounds double: the bucket is the number of bits of what lies beyond the first. */
    uint64_t beyond = ns > 0 ? (uint64_t)(ns - 1) / FIRST_BOUND_NS : 0;
    size_t bucket = beyond ? 64 - (size_t)__builtin_clzll(beyond) : 0;
    if (bucket > STATS_BUCKETS - 1)
        bucket = STATS_BUCKETS - 1;
    stats_add(s, id, ns);
    atomic_fetch_add_explicit(&s->values[id].bucket[bucket], 1, memory_order_relaxed);
}

int64_t stats_get(const struct stats *s, size_t id)
{
    ENSURE(id < s->count);
    return atomic_load_explicit(&s->values[id].value, memory_order_relaxed);
}

/* ---- printing ------------------------------------------------------------------------------------------------- */

static bool is_seconds(const char *name)
{
    static const char *const endings[] = {"_seconds", "_seconds_total"};
    size_t len = strlen(name);
    for (size_t i = 0; i < ARRAY_LEN(endings); i++) {
        size_t n = strlen(endings[i]);
        if (len > n && strcmp(name + len - n, endings[i]) == 0)
            return true;
    }
    return false;
}

/* Exact, unlike a division in double. */
static void put_seconds(struct buf *out, int64_t ns)
{
    int64_t rest = ns % NS_PER_S;
    buf_printf(out, "%s%lld.%09lld", ns < 0 ? "-" : "", llabs(ns / NS_PER_S), llabs(rest));
}

static void put_family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s ", name);
    for (const char *c = help; *c; c++) {
        if (*c == '\\')
            buf_puts(out, "\\\\");
        else if (*c == '\n')
            buf_puts(out, "\\n");
        else
            buf_append(out, c, 1);
    }
    buf_printf(out, "\n# TYPE %s %s\n", name, type);
}

static void put_value(struct buf *out, const struct stat_row *row, int64_t value)
{
    buf_puts(out, row->name);
    if (*row->labels)
        buf_printf(out, "{%s}", row->labels);
    buf_puts(out, " ");
    if (is_seconds(row->name))
        put_seconds(out, value);
    else
        buf_printf(out, "%lld", (long long)value);
    buf_puts(out, "\n");
}

static void put_histogram(struct buf *out, const struct stat_row *row, const struct stat_value *value)
{
    const char *comma = *row->labels ? "," : "";
    int64_t seen = 0, bound = FIRST_BOUND_NS;

    for (size_t i = 0; i < STATS_BUCKETS; i++, bound *= 2) {
        seen += atomic_load_explicit(&value->bucket[i], memory_order_relaxed);
        buf_printf(out, "%s_bucket{%s%sle=\"", row->name, row->labels, comma);
        if (i == STATS_BUCKETS - 1)
            buf_puts(out, "+Inf");
        else
            buf_printf(out, "%lld.%04lld", (long long)(bound / NS_PER_S),
                       (long long)(bound % NS_PER_S / FIRST_BOUND_NS));
        buf_printf(out, "\"} %lld\n", (long long)seen);
    }
    char braces[2][2] = {{*row->labels ? '{' : '\0', '\0'}, {*row->labels ? '}' : '\0', '\0'}};
    buf_printf(out, "%s_sum%s%s%s ", row->name, braces[0], row->labels, braces[1]);
    put_seconds(out, atomic_load_explicit(&value->value, memory_order_relaxed));
    /* The sum of the buckets read above, so that one scrape never contradicts itself. */
    buf_printf(out, "\n%s_count%s%s%s %lld\n", row->name, braces[0], row->labels, braces[1], (long long)seen);
}

static void put_rows(const struct stats *s, struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};

    for (size_t i = 0; i < s->count; i++) {
        const struct stat_row *family = &s->rows[i];
        size_t first = 0;
        while (strcmp(s->rows[first].name, family->name) != 0)
            first++;
        if (first < i)
            continue; /* printed with the first line of its family */
        put_family(out, family->name, types[family->kind], family->help);
        for (size_t k = i; k < s->count; k++) {
            if (strcmp(s->rows[k].name, family->name) != 0)
                continue;
            ENSURE(s->rows[k].kind == family->kind);
            if (family->kind == STAT_KIND_HISTOGRAM)
                put_histogram(out, &s->rows[k], &s->values[k]);
            else
                put_value(out, &s->rows[k], stats_get(s, k));
        }
    }
}

/* ---- the process ---------------------------------------------------------------------------------------------- */

static void put_single(struct buf *out, const char *name, const char *type, const char *help, int64_t value)
{
    const struct stat_row row = {.name = name, .labels = "", .help = help};
    put_family(out, name, type, help);
    put_value(out, &row, value);
}

static int64_t resident_bytes(void)
{
    long long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%lld %lld", &pages, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident * sysconf(_SC_PAGESIZE);
}

static int64_t open_fds(void)
{
    int64_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return 0;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir))
        count += e->d_name[0] != '.';
    closedir(dir);
    return count - 1; /* the directory itself */
}

static int64_t time_ns(struct timeval t)
{
    return (int64_t)t.tv_sec * NS_PER_S + (int64_t)t.tv_usec * NS_PER_US;
}

static void put_process(const struct stats *s, struct buf *out)
{
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) == 0)
        put_single(out, "process_cpu_seconds_total", "counter", "User and system CPU time spent.",
                   time_ns(use.ru_utime) + time_ns(use.ru_stime));
    put_single(out, "process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
    put_single(out, "process_open_fds", "gauge", "Open file descriptors.", open_fds());
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        put_single(out, "process_max_fds", "gauge", "Most file descriptors that may be open.",
                   (int64_t)limit.rlim_cur);
    put_single(out, "process_start_time_seconds", "gauge", "Start of the process, in seconds since 1970.",
               s->started_wall_ns);
    put_family(out, "tandem_build_info", "gauge", "Always 1; the version is in its label.");
    buf_puts(out, "tandem_build_info{version=\"" TANDEM_VERSION "\"} 1\n");
}

void stats_render(const struct stats *s, struct buf *out)
{
    put_rows(s, out);
    put_process(s, out);
}
