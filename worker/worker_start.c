/* Reads the option start: a word, an instant, or so long ago. */
#include "worker/worker_start.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/options.h"

/* So many digits, or -1. */
static int digits(const char *text, int count)
{
    int n = 0;
    for (int i = 0; i < count; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        n = n * 10 + (text[i] - '0');
    }
    return n;
}

/* "YYYY-MM-DDThh:mm:ss", 19 characters; -1: not that, or no such day. */
static int64_t parse_seconds(const char *text)
{
    static const char shape[] = "0000-00-00T00:00:00";
    struct tm tm = {0}, was;

    if (strlen(text) < sizeof shape - 1)
        return -1;
    for (size_t i = 0; i < sizeof shape - 1; i++) {
        bool same = text[i] == shape[i] || (i == 10 && (text[i] == 't' || text[i] == ' '));
        if (shape[i] == '0' ? text[i] < '0' || text[i] > '9' : !same)
            return -1;
    }
    tm.tm_year = digits(text, 4) - 1900;
    tm.tm_mon = digits(text + 5, 2) - 1;
    tm.tm_mday = digits(text + 8, 2);
    tm.tm_hour = digits(text + 11, 2);
    tm.tm_min = digits(text + 14, 2);
    tm.tm_sec = digits(text + 17, 2);
    was = tm;
    int64_t seconds = timegm(&tm); /* puts February 31st into March: then it is no day */
    bool same = tm.tm_year == was.tm_year && tm.tm_mon == was.tm_mon && tm.tm_mday == was.tm_mday &&
                tm.tm_hour == was.tm_hour && tm.tm_min == was.tm_min && tm.tm_sec == was.tm_sec;
    return same ? seconds : -1;
}

/* "Z" or "+hh:mm"; -1: neither. Seconds to take off the local time into *ret. */
static int parse_zone(const char *text, int64_t *ret)
{
    if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0) {
        *ret = 0;
        return 0;
    }
    if (strlen(text) != 6 || (*text != '+' && *text != '-') || text[3] != ':')
        return -1;
    int hours = digits(text + 1, 2), minutes = digits(text + 4, 2);
    if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59)
        return -1;
    *ret = (*text == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
    return 0;
}

static int parse_instant(const char *text, int64_t *ret_ms)
{
    int64_t seconds = parse_seconds(text), zone, ms = 0;

    if (seconds < 0)
        return -1;
    text += 19;
    if (*text == '.') {
        int64_t unit = 100;
        if (digits(++text, 1) < 0)
            return -1;
        for (; digits(text, 1) >= 0; text++, unit /= 10)
            ms += digits(text, 1) * unit;
    }
    if (parse_zone(text, &zone) < 0 || seconds < zone)
        return -1;
    *ret_ms = (seconds - zone) * 1000 + ms;
    return 0;
}

int start_parse(const char *text, int64_t wall_ns, struct start *ret, struct err *err)
{
    struct start start = {.kind = START_TIME};
    int64_t ago_ns = 0;

    if (strcmp(text, "earliest") == 0)
        start.kind = START_EARLIEST;
    else if (strcmp(text, "latest") == 0)
        start.kind = START_LATEST;
    else if (*text == '-' && options_parse_duration(text + 1, &ago_ns, NULL) == 0 && ago_ns <= wall_ns)
        start.time_ms = (wall_ns - ago_ns) / NS_PER_MS;
    else if (parse_instant(text, &start.time_ms) < 0)
        return err_set(
            err, ERR_PERMANENT,
            "start \"%.64s\" is not earliest, latest, a time like 2026-01-31T12:00:00Z, or so long "
            "ago like -2h",
            text);
    *ret = start;
    return 0;
}

int64_t start_place(const struct start *start, int64_t by_time, int64_t end)
{
    return by_time < 0 || start->kind == START_LATEST ? end : by_time;
}
