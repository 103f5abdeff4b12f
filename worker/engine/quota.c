/* Reads the RateLimit headers, whichever draft or habit they follow. */
#include "worker/engine/quota.h"

#include <string.h>

#include "common/clock.h"

#define NUMBER_MAX INT64_C(100000000000000)             /* more is nonsense; keeps sums far from overflow */
#define WAIT_MS_MAX (INT64_C(100) * 366 * 86400 * 1000) /* the engine cuts to its own cap */
#define EPOCH_SECONDS_FROM INT64_C(1000000000)
#define EPOCH_MS_FROM INT64_C(1000000000000)

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static struct slice after(struct slice s, size_t bytes)
{
    return (struct slice){s.data + bytes, s.len - bytes};
}

static struct slice without_space(struct slice s)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t'))
        s = after(s, 1);
    return s;
}

/* Nothing more of the same value: 2026-11-30T07:00:30Z is no number of 2026 seconds. */
static bool is_end(struct slice s)
{
    s = without_space(s);
    return s.len == 0 || strchr("\r\n,;", s.data[0]) != NULL;
}

/* A number at the start, its fraction ignored; -1: there is none, or more than a number. */
static int64_t number_of(struct slice s)
{
    int64_t value = -1;

    s = without_space(s);
    for (; s.len > 0 && is_digit(s.data[0]); s = after(s, 1)) {
        value = value < 0 ? 0 : value;
        if (value <= NUMBER_MAX)
            value = value * 10 + (s.data[0] - '0');
    }
    if (s.len > 0 && s.data[0] == '.')
        do
            s = after(s, 1);
        while (s.len > 0 && is_digit(s.data[0]));
    return value > NUMBER_MAX || !is_end(s) ? -1 : value;
}

/* Several limits may be told: the one with the least left counts, and of two that are used up the later reset. */
static void take(struct quota *q, int64_t remaining, int64_t reset)
{
    bool known = q->has_remaining && q->has_reset;
    bool worse = remaining < q->remaining || (remaining == q->remaining && reset > q->reset);

    if (remaining < 0 || reset < 0 || (known && !worse))
        return;
    *q = (struct quota){true, true, remaining, reset};
}

static bool name_is(struct slice name, const char *wanted)
{
    size_t len = strlen(wanted);
    return name.len >= len && strncasecmp(name.data, wanted, len) == 0;
}

/* One parameter, "remaining=0" or "r=0". */
static void read_parameter(struct slice p, int64_t *remaining, int64_t *reset)
{
    static const char *const left[] = {"remaining=", "r="}, *const until[] = {"reset=", "t="};

    p = without_space(p);
    for (size_t i = 0; i < ARRAY_LEN(left); i++) {
        if (name_is(p, left[i]))
            *remaining = number_of(after(p, strlen(left[i])));
        if (name_is(p, until[i]))
            *reset = number_of(after(p, strlen(until[i])));
    }
}

/* One policy's list of parameters is separated by ';' since draft 08, and by ',' before; a ',' now begins the next policy. */
static void read_policies(struct quota *q, struct slice value)
{
    bool semicolons = value.len > 0 && memchr(value.data, ';', value.len) != NULL;
    int64_t remaining = -1, reset = -1;
    size_t from = 0;

    for (size_t i = 0; i <= value.len; i++) {
        bool end = i == value.len, comma = !end && value.data[i] == ',';
        if (!end && !comma && value.data[i] != ';')
            continue;
        read_parameter((struct slice){value.data + from, i - from}, &remaining, &reset);
        from = i + 1;
        if (end || (comma && semicolons)) {
            take(q, remaining, reset);
            remaining = reset = -1;
        }
    }
}

/* The rest of "X-RateLimit-Remaining: 0", behind the common part of the names. */
static void read_single(struct quota *q, struct slice rest)
{
    static const char left[] = "-remaining:", until[] = "-reset:";

    if (name_is(rest, left)) {
        q->remaining = number_of(after(rest, sizeof left - 1));
        q->has_remaining = q->remaining >= 0;
    } else if (name_is(rest, until)) {
        q->reset = number_of(after(rest, sizeof until - 1));
        q->has_reset = q->reset >= 0;
    }
}

void quota_header(struct quota *q, struct slice line)
{
    static const char *const names[] = {"x-ratelimit", "x-rate-limit", "ratelimit"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!name_is(line, names[i]))
            continue;
        struct slice rest = after(line, strlen(names[i]));
        if (rest.len > 0 && rest.data[0] == ':')
            read_policies(q, after(rest, 1));
        else
            read_single(q, rest);
    }
}

int64_t quota_wait(const struct quota *q, int64_t wall_ns)
{
    int64_t ms;

    if (!q->has_remaining || !q->has_reset || q->remaining > 0)
        return -1;
    if (q->reset >= EPOCH_MS_FROM)
        ms = q->reset - wall_ns / NS_PER_MS;
    else if (q->reset >= EPOCH_SECONDS_FROM)
        ms = q->reset * 1000 - wall_ns / NS_PER_MS;
    else
        ms = q->reset * 1000;
    if (ms < 0)
        return 0;
    return (ms < WAIT_MS_MAX ? ms : WAIT_MS_MAX) * NS_PER_MS;
}
