/* Asks the kernel what time it is, and writes a time as people and CloudEvents write it. */
#include "common/clock.h"

#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;
    int rc = clock_gettime(id, &ts);
    ENSURE(rc == 0); /* only a wrong clock id can fail */
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t clock_monotonic_ns(void)
{
    return read_clock(
        CLOCK_BOOTTIME); /* CLOCK_MONOTONIC stands still while the machine sleeps: leases do not */
}

int64_t clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

const char *clock_rfc3339(int64_t wall_ns, char out[CLOCK_RFC3339_BYTES])
{
    int64_t seconds = wall_ns / NS_PER_S;
    int64_t rest = wall_ns % NS_PER_S;
    if (rest < 0) { /* before 1970: round towards the past, so that the fraction stays positive */
        seconds--;
        rest += NS_PER_S;
    }
    time_t t = (time_t)seconds;
    struct tm tm;
    struct tm *ok = gmtime_r(&t, &tm);
    ENSURE(ok); /* every int64 of nanoseconds lies between the years 1677 and 2262 */

    char date[24];
    size_t n = strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    ENSURE(n == 19);
    snprintf(out, CLOCK_RFC3339_BYTES, "%.19s.%03uZ", date, (unsigned)(rest / NS_PER_MS) % 1000);
    return out;
}
