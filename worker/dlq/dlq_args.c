/* The table of the verbs' flags, and which of their values and words can be. */
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/flags.h"
#include "common/options.h"
#include "worker/dlq/dlq_args.h"
#include "worker/engine/verdict.h"

#define ON(verb) (1u << DLQ_##verb)
#define FILTERS (ON(LS) | ON(REPLAY))
#define ALL_VERBS (ON(STATS) | ON(LS) | ON(SHOW) | ON(REPLAY))
#define YEAR_MIN 1678 /* whole years that int64 nanoseconds since 1970 hold */
#define YEAR_MAX 2261
#define FLAG(name_, kind_, verbs_, member_, value_, prose_)                                                  \
    {                                                                                                        \
        "--" name_, FLAG_##kind_, verbs_, offsetof(struct dlq_args, member_), value_, prose_                 \
    }

static const struct flag FLAGS[] = {
    FLAG("reason", WORD, FILTERS, reason, "REASON",
         "only those dead-lettered for this reason (stats lists them)"),
    FLAG("state", WORD, FILTERS, state, "STATE", "only open, failed-again, replaying or resolved ones"),
    FLAG("key", WORD, FILTERS, key, "KEY", "only events of this key"),
    FLAG("type", WORD, FILTERS, type, "TYPE", "only events of this CloudEvents type"),
    FLAG("since", WORD, FILTERS, since_text, "TIME",
         "dead-lettered at or after: 2026-01-02, 2026-01-02T03:04:05Z, or 2h (ago)"),
    FLAG("until", WORD, FILTERS, until_text, "TIME", "dead-lettered at or before"),
    FLAG("limit", WORD, FILTERS, limit_text, "N",
         "no more than so many (ls: 100 when not given; replay: all, and not with ids)"),
    FLAG("all", BOOL, ON(REPLAY), all, NULL, "every open and failed-again event"),
    FLAG("execute", BOOL, ON(REPLAY), execute, NULL, "do it; without this nothing is changed"),
    FLAG("yes", BOOL, ON(REPLAY), execute, NULL, "the same as --execute"),
    FLAG("rate", WORD, ON(REPLAY), rate_text, "N/s",
         "so many events a second at most, each second a transaction of its own"),
    FLAG("json", BOOL, ALL_VERBS, json, NULL, "JSON on stdout, one object a line"),
};

static const char *const VERBS[] = {
    [DLQ_STATS] = "stats", [DLQ_LS] = "ls", [DLQ_SHOW] = "show", [DLQ_REPLAY] = "replay"};

static const struct flag_set SET = {FLAGS, ARRAY_LEN(FLAGS), VERBS, DLQ_VERB_COUNT};

int dlq_verb_of(const char *word)
{
    for (int v = 0; v < DLQ_VERB_COUNT; v++)
        if (strcmp(word, VERBS[v]) == 0)
            return v;
    return -1;
}

const char *dlq_verb_name(enum dlq_verb verb)
{
    ENSURE(verb < DLQ_VERB_COUNT);
    return VERBS[verb];
}

/* ---- taking flags ---- */

int dlq_args_take(struct dlq_args *args, int *argc, char **argv, struct err *err)
{
    *args = (struct dlq_args){0};
    return flags_take(&SET, args, argc, argv, &args->given, &args->help, err);
}

/* ---- checking values ---- */

static int check_reason(const char *reason, struct err *err)
{
    for (int r = REASON_NONE + 1; r < REASON_COUNT; r++)
        if (strcmp(reason, reason_name((enum reason)r)) == 0)
            return 0;
    struct buf known;
    buf_init(&known, 1024);
    for (int r = REASON_NONE + 1; r < REASON_COUNT; r++)
        buf_printf(&known, " %s", reason_name((enum reason)r));
    err_set(err, ERR_PERMANENT, "--reason: no reason \"%s\"; known are%s", reason, buf_str(&known));
    buf_done(&known);
    return -1;
}

static int check_state(const char *state, struct err *err)
{
    for (int s = 0; s < DLQ_STATE_COUNT; s++)
        if (strcmp(state, dlq_state_name((enum dlq_state)s)) == 0)
            return 0;
    return err_set(err, ERR_PERMANENT,
                   "--state: no state \"%s\"; known are open, failed-again, replaying, resolved", state);
}

static int check_number(const char *flag, const char *text, size_t len, int64_t max, int64_t *ret_n,
                        struct err *err)
{
    int64_t n = dlq_number((struct slice){text, len}, max);
    if (n <= 0)
        return err_set(err, ERR_PERMANENT, "%s: \"%s\" is not a number from 1 to %lld", flag, text,
                       (long long)max);
    *ret_n = n;
    return 0;
}

static int check_rate(const char *text, int64_t *ret_rate, struct err *err)
{
    size_t len = strlen(text);
    if (len > 2 && strcmp(text + len - 2, "/s") == 0)
        len -= 2;
    return check_number("--rate", text, len, 1000000, ret_rate, err);
}

/* ".678" as nanoseconds, moving *text behind it; -1 when no digit follows the point. */
static int64_t parse_fraction(const char **text)
{
    size_t digits = strspn(*text + 1, "0123456789");
    int64_t ns = 0, unit = NS_PER_S / 10;
    for (size_t i = 0; i < digits; i++, unit /= 10)
        ns += ((*text)[1 + i] - '0') * unit;
    *text += 1 + digits;
    return digits ? ns : -1;
}

/* timegm makes March 3 of a February 31: what comes back is another day or time. */
static bool is_in_calendar(const struct tm *asked, const struct tm *found)
{
    return asked->tm_year == found->tm_year && asked->tm_mon == found->tm_mon &&
           asked->tm_mday == found->tm_mday && asked->tm_hour == found->tm_hour &&
           asked->tm_min == found->tm_min && asked->tm_sec == found->tm_sec;
}

static int date_ns(const char *text, const struct tm *asked, int64_t fraction_ns, int64_t *ret_ns,
                   struct err *err)
{
    struct tm found = *asked;
    int64_t s = timegm(&found);
    if (!is_in_calendar(asked, &found))
        return err_set(err, ERR_PERMANENT, "\"%s\": the calendar has no such day or time", text);
    int year = asked->tm_year + 1900;
    if (year < YEAR_MIN || year > YEAR_MAX)
        return err_set(err, ERR_PERMANENT, "\"%s\" is out of range, which is the years %d to %d", text,
                       YEAR_MIN, YEAR_MAX);
    *ret_ns = s * NS_PER_S + fraction_ns;
    return 0;
}

/* year-month-day[Thour:minute:second[.fraction]Z]; UTC only: whoever replays should not have to guess a time zone. */
static bool parse_date(const char *text, struct tm *ret_tm, int64_t *ret_fraction_ns)
{
    struct tm tm = {0};
    int64_t fraction_ns = 0;
    const char *end = strptime(text, "%Y-%m-%d", &tm);
    if (end && *end == 'T') {
        end = strptime(end + 1, "%H:%M:%S", &tm);
        if (end && *end == '.')
            fraction_ns = parse_fraction(&end);
        if (!end || *end++ != 'Z')
            return false;
    }
    if (!end || *end != '\0' || fraction_ns < 0)
        return false;
    *ret_tm = tm;
    *ret_fraction_ns = fraction_ns;
    return true;
}

int dlq_time_parse(const char *text, int64_t now_ns, int64_t *ret_ns, struct err *err)
{
    struct tm tm;
    int64_t ago_ns, fraction_ns;
    if (parse_date(text, &tm, &fraction_ns))
        return date_ns(text, &tm, fraction_ns, ret_ns, err);
    if (options_parse_duration(text, &ago_ns, NULL) < 0 || ago_ns < 0 || ago_ns > now_ns)
        return err_set(
            err, ERR_PERMANENT,
            "\"%s\" is not a time; write 2026-01-02, 2026-01-02T03:04:05Z, or 2h for two hours ago", text);
    *ret_ns = now_ns - ago_ns;
    return 0;
}

static int check_time(const char *flag, const char *text, int64_t now_ns, int64_t *ret_ns, struct err *err)
{
    if (!text || dlq_time_parse(text, now_ns, ret_ns, err) == 0)
        return 0;
    err_prefix(err, "%s: ", flag);
    return -1;
}

/* A replay without a filter is a mistake unless somebody says that it is not. */
static int check_replay(const struct dlq_args *args, struct err *err)
{
    int ways = (args->id_count > 0) + args->filtered + args->all;
    if (ways == 0)
        return err_set(err, ERR_PERMANENT,
                       "replay: say which: ids, a filter such as --reason rejected, or --all");
    if (args->id_count > 0 && ways > 1)
        return err_set(err, ERR_PERMANENT, "replay: ids go with no filter and no --all");
    if (args->id_count > 0 && args->limit_text)
        return err_set(err, ERR_PERMANENT, "replay: ids go without --limit: all that are named are taken");
    if (args->all && args->filtered)
        return err_set(err, ERR_PERMANENT, "replay: --all and a filter contradict each other");
    return 0;
}

static int check_words(const struct dlq_args *args, enum dlq_verb verb, struct err *err)
{
    if (verb == DLQ_REPLAY)
        return check_replay(args, err);
    if (verb == DLQ_SHOW && args->id_count != 1)
        return err_set(
            err, ERR_PERMANENT,
            "show: one id is needed (event id, x-dlq-id, or partition/offset of the dead-letter topic)");
    if (verb != DLQ_SHOW && args->id_count > 0)
        return err_set(err, ERR_PERMANENT, "%s: \"%s\" is one word too many", dlq_verb_name(verb),
                       args->ids[0]);
    return 0;
}

int dlq_args_check(struct dlq_args *args, enum dlq_verb verb, int64_t now_ns, struct err *err)
{
    if (flags_check(&SET, args->given, verb, err) < 0)
        return -1;
    args->filter = DLQ_FILTER_ANY;
    args->filter.reason = args->reason;
    args->filter.state = args->state;
    args->filter.key = args->key;
    args->filter.type = args->type;
    args->filtered =
        args->reason || args->state || args->key || args->type || args->since_text || args->until_text;
    if (args->reason && check_reason(args->reason, err) < 0)
        return -1;
    if (args->state && check_state(args->state, err) < 0)
        return -1;
    if (check_time("--since", args->since_text, now_ns, &args->filter.since_ns, err) < 0 ||
        check_time("--until", args->until_text, now_ns, &args->filter.until_ns, err) < 0)
        return -1;
    if (args->limit_text &&
        check_number("--limit", args->limit_text, strlen(args->limit_text), INT32_MAX, &args->limit, err) < 0)
        return -1;
    if (args->rate_text && check_rate(args->rate_text, &args->rate, err) < 0)
        return -1;
    return check_words(args, verb, err);
}

/* ---- telling ---- */

void dlq_args_help(enum dlq_verb verb, struct buf *out)
{
    flags_help(&SET, verb, out);
}

void dlq_args_mdoc(struct buf *out)
{
    flags_mdoc(&SET, out);
}
