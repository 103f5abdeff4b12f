/* Stats: what is counted is what is printed, in families that Prometheus reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "common/clock.h"
#include "common/stats.h"

enum { DELIVERED, BURIED_REJECTED, IN_FLIGHT, BURIED_AGE, LAG, REQUEST_TIME, COUNT };
static const struct stat_row rows[] = {
    STAT_ROW(COUNTER, "tandem_delivered_total", "", "Events \\ that\nthe API took."),
    STAT_ROW(COUNTER, "tandem_dead_lettered_total", "reason=\"rejected\"", "Dead letters."),
    STAT_ROW(GAUGE, "tandem_in_flight", "", "Requests now."),
    STAT_ROW(COUNTER, "tandem_dead_lettered_total", "reason=\"too-old\"", "Dead letters."),
    STAT_ROW(GAUGE, "tandem_lag_seconds", "", "Oldest."),
    STAT_ROW(HISTOGRAM, "tandem_request_seconds", "target=\"crm\"", "Requests."),
};

static struct stats *s;
static struct buf out;

static int begin(void **state)
{
    (void)state;
    s = stats_new(rows, COUNT);
    buf_init(&out, 1 << 20);
    return s ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    stats_free(s);
    buf_done(&out);
    return 0;
}

static void assert_prints(const char *text)
{
    buf_reset(&out);
    stats_render(s, &out);
    assert_false(out.failed);
    if (!strstr(buf_str(&out), text))
        fail_msg("\"%s\" is not in\n%s", text, buf_str(&out));
}

static void a_family_is_printed_once_with_all_its_lines_together(void **state)
{
    (void)state;
    stats_add(s, BURIED_REJECTED, 2);
    stats_add(s, BURIED_AGE, 3);
    stats_add(s, BURIED_AGE, 1);
    assert_prints(
        "# HELP tandem_dead_lettered_total Dead letters.\n# TYPE tandem_dead_lettered_total counter\n"
        "tandem_dead_lettered_total{reason=\"rejected\"} 2\ntandem_dead_lettered_total{reason=\"too-old\"} "
        "4\n");
    const char *first = strstr(buf_str(&out), "# TYPE tandem_dead_lettered_total");
    assert_null(strstr(first + 1, "# TYPE tandem_dead_lettered_total"));
}

static void help_text_is_escaped(void **state)
{
    (void)state;
    assert_prints("# HELP tandem_delivered_total Events \\\\ that\\nthe API took.\n");
}

static void a_gauge_holds_the_last_value(void **state)
{
    (void)state;
    stats_set(s, IN_FLIGHT, 9);
    stats_set(s, IN_FLIGHT, 4);
    assert_int_equal(stats_get(s, IN_FLIGHT), 4);
    assert_prints("# TYPE tandem_in_flight gauge\ntandem_in_flight 4\n");
}

static void what_is_named_seconds_is_kept_in_nanoseconds(void **state)
{
    (void)state;
    stats_set(s, LAG, 1500 * NS_PER_MS);
    assert_prints("tandem_lag_seconds 1.500000000\n");
}

static void histogram_buckets_are_cumulative_and_their_bounds_inclusive(void **state)
{
    (void)state;
    stats_observe(s, REQUEST_TIME, 0);
    stats_observe(s, REQUEST_TIME, 100 * NS_PER_US);
    stats_observe(s, REQUEST_TIME, 100 * NS_PER_US + 1);
    stats_observe(s, REQUEST_TIME, 3600 * NS_PER_S);
    assert_prints("tandem_request_seconds_bucket{target=\"crm\",le=\"0.0001\"} 2\n"
                  "tandem_request_seconds_bucket{target=\"crm\",le=\"0.0002\"} 3\n");
    assert_prints("tandem_request_seconds_bucket{target=\"crm\",le=\"52.4288\"} 3\n"
                  "tandem_request_seconds_bucket{target=\"crm\",le=\"+Inf\"} 4\n"
                  "tandem_request_seconds_sum{target=\"crm\"} 3600.000200001\n"
                  "tandem_request_seconds_count{target=\"crm\"} 4\n");
}

static void the_process_is_described(void **state)
{
    (void)state;
    assert_prints("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total ");
    assert_prints("# TYPE process_resident_memory_bytes gauge\n");
    assert_prints("# TYPE process_open_fds gauge\n");
    assert_prints("# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1");
    assert_prints("tandem_build_info{version=\"");
}

#define ROUNDS 20000
static void *count_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        stats_add(s, DELIVERED, 1);
        stats_observe(s, REQUEST_TIME, NS_PER_MS);
    }
    return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_many, NULL), 0);
    stats_render(s, &out);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    assert_prints("tandem_delivered_total 80000\n");
    assert_prints("tandem_request_seconds_count{target=\"crm\"} 80000\n");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_family_is_printed_once_with_all_its_lines_together),
        TEST(help_text_is_escaped),
        TEST(a_gauge_holds_the_last_value),
        TEST(what_is_named_seconds_is_kept_in_nanoseconds),
        TEST(histogram_buckets_are_cumulative_and_their_bounds_inclusive),
        TEST(the_process_is_described),
        TEST(nothing_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
