/* Waits between attempts: jitter from a seed, and the Retry-After header as a duration. */
#include "worker/engine/backoff.h"

#include <stdbool.h>
#include <string.h>

#include "common/clock.h"

#define SECONDS_MAX (INT64_C(100) * 366 * 86400) /* keeps every duration far from overflow */

uint64_t backoff_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int64_t backoff_between(uint64_t *state, int64_t low, int64_t high)
{
    if (high <= low)
        return low;
    return low + (int64_t)(backoff_random(state) % ((uint64_t)(high - low) + 1));
}

int64_t backoff_delay(uint64_t *state, int64_t base_ns, int64_t cap_ns, int n)
{
    int64_t top = base_ns < cap_ns ? base_ns : cap_ns;

    for (int i = 1; i < n && top < cap_ns; i++)
        top = top > cap_ns / 2 ? cap_ns : top * 2;
    int64_t wait = backoff_between(state, 0, top);
    return wait < NS_PER_MS ? NS_PER_MS : wait;
}

/* ---- Retry-After ---------------------------------------------------------------------------------------------------- */

/* A reader over the header's value; once wrong it stays wrong. */
struct reader {
    const char *at, *end;
    bool bad;
};

static void expect(struct reader *r, const char *text)
{
    size_t len = strlen(text);

    if (r->bad || (size_t)(r->end - r->at) < len || memcmp(r->at, text, len) != 0) {
        r->bad = true;
        return;
    }
    r->at += len;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Exactly this many digits. */
static int number(struct reader *r, int digits)
{
    int value = 0;

    for (int i = 0; i < digits; i++) {
        if (r->bad || r->at == r->end || !is_digit(*r->at)) {
            r->bad = true;
            return 0;
        }
        value = value * 10 + (*r->at++ - '0');
    }
    return value;
}

/* One of the words, which may be given by their first `letters` letters (0: whole). Returns its index. */
static int word(struct reader *r, const char *const *words, int count, size_t letters)
{
    for (int i = 0; i < count; i++) {
        size_t len = letters == 0 ? strlen(words[i]) : letters;
        if (!r->bad && (size_t)(r->end - r->at) >= len && memcmp(r->at, words[i], len) == 0) {
            r->at += len;
            return i;
        }
    }
    r->bad = true;
    return 0;
}

static const char *const DAYS[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                   "Friday", "Saturday", "Sunday"};
static const char *const MONTHS[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct date {
    int year, month, day, hour, minute, second; /* month from 0 */
};

static void read_time(struct reader *r, struct date *d)
{
    d->hour = number(r, 2);
    expect(r, ":");
    d->minute = number(r, 2);
    expect(r, ":");
    d->second = number(r, 2);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static void read_imf(struct reader *r, struct date *d)
{
    word(r, DAYS, 7, 3);
    expect(r, ", ");
    d->day = number(r, 2);
    expect(r, " ");
    d->month = word(r, MONTHS, 12, 3);
    expect(r, " ");
    d->year = number(r, 4);
    expect(r, " ");
    read_time(r, d);
    expect(r, " GMT");
}

/* "Sunday, 06-Nov-94 08:49:37 GMT"; a year that would be more than 50 years ahead is of the last century. */
static void read_rfc850(struct reader *r, struct date *d, int year_now)
{
    word(r, DAYS, 7, 0);
    expect(r, ", ");
    d->day = number(r, 2);
    expect(r, "-");
    d->month = word(r, MONTHS, 12, 3);
    expect(r, "-");
    d->year = year_now / 100 * 100 + number(r, 2);
    if (d->year > year_now + 50)
        d->year -= 100;
    expect(r, " ");
    read_time(r, d);
    expect(r, " GMT");
}

/* "Sun Nov  6 08:49:37 1994" */
static void read_asctime(struct reader *r, struct date *d)
{
    word(r, DAYS, 7, 3);
    expect(r, " ");
    d->month = word(r, MONTHS, 12, 3);
    expect(r, " ");
    if (!r->bad && r->at < r->end && *r->at == ' ') {
        r->at++;
        d->day = number(r, 1);
    } else {
        d->day = number(r, 2);
    }
    expect(r, " ");
    read_time(r, d);
    expect(r, " ");
    d->year = number(r, 4);
}

static bool date_is_valid(const struct date *d)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return d->day >= 1 && d->day <= days[d->month] && d->hour <= 23 && d->minute <= 59 && d->second <= 60;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms"). */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int64_t date_seconds(const struct date *d)
{
    return days_from_civil(d->year, d->month + 1, d->day) * 86400 + d->hour * 3600 + d->minute * 60 +
           d->second;
}

static bool read_date(struct slice value, int form, int year_now, struct date *ret_date)
{
    struct reader r = {value.data, value.data + value.len, false};

    if (form == 0)
        read_imf(&r, ret_date);
    else if (form == 1)
        read_rfc850(&r, ret_date, year_now);
    else
        read_asctime(&r, ret_date);
    return !r.bad && r.at == r.end && date_is_valid(ret_date);
}

static int64_t clip_seconds(int64_t seconds)
{
    if (seconds < 0)
        return 0;
    return (seconds > SECONDS_MAX ? SECONDS_MAX : seconds) * NS_PER_S;
}

static int64_t delta_seconds(struct slice value)
{
    int64_t seconds = 0;

    for (size_t i = 0; i < value.len; i++) {
        if (!is_digit(value.data[i]))
            return -1;
        if (seconds <= SECONDS_MAX)
            seconds = seconds * 10 + (value.data[i] - '0');
    }
    return clip_seconds(seconds);
}

static struct slice trimmed(struct slice value)
{
    while (value.len > 0 && (value.data[0] == ' ' || value.data[0] == '\t')) {
        value.data++;
        value.len--;
    }
    while (value.len > 0 && (value.data[value.len - 1] == ' ' || value.data[value.len - 1] == '\t'))
        value.len--;
    return value;
}

int64_t backoff_retry_after(struct slice value, int64_t wall_ns)
{
    if (value.data == NULL)
        return -1;
    value = trimmed(value);
    if (value.len == 0)
        return -1;
    if (is_digit(value.data[0]))
        return delta_seconds(value);
    int64_t now_s = wall_ns / NS_PER_S;
    int year_now = 1970 + (int)(now_s / (INT64_C(31556952)));
    for (int form = 0; form < 3; form++) {
        struct date d = {0};
        if (read_date(value, form, year_now, &d))
            return clip_seconds(date_seconds(&d) - now_s);
    }
    return -1;
}
