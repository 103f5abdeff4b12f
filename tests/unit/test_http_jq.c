/* jq programs: what they make of events and answers, and that none of them can hold, fill or look around the worker. */
#include "tests/unit/worker_fixture.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "worker/targets/http_jq.h"

static struct jq_helper *helper;
static struct request req;
static struct event ev;
static struct err err;

static struct jq_helper *program(const char *text)
{
    const struct jq_limits limits = {
        .cpu_ns = 200 * NS_PER_MS, .memory_bytes = 64 << 20, .output_bytes = 65536};
    jq_helper_free(helper);
    err_clear(&err);
    helper = jq_helper_new("jq_request", text, &limits, &err);
    return helper;
}

static enum target_answer map(const char *value)
{
    request_done(&req);
    request_init(&req, 65536);
    err_clear(&err);
    event_of(&ev, "order.placed", "o/1", value);
    return http_jq_map(helper, &ev, &req, &err);
}

static void assert_poison(const char *text, const char *value, const char *says)
{
    if (!program(text))
        fail_msg("%s: %s", text, err.message);
    if (map(value) != TARGET_POISON || !strstr(err.message, says))
        fail_msg("%s: \"%s\" does not say \"%s\"", text, err.message, says);
    assert_int_equal(err.kind, ERR_PERMANENT);
}

static void an_event_becomes_what_the_program_makes_of_it(void **state)
{
    (void)state;
    assert_non_null(
        program("{method: \"PUT\", path: [\"v1\", .data.customer, .key], query: {t: .type, n: 1, no: null},"
                " headers: {\"X-Id\": .id, \"X-No\": null}, body: {total: (.data.lines | map(.n) | add)}}"));
    assert_int_equal(map("{\"customer\":\"c 9\",\"lines\":[{\"n\":1},{\"n\":2}]}"), TARGET_SEND);
    assert_string_equal(req.method, "PUT");
    assert_string_equal(buf_str(&req.path), "/v1/c%209/o%2F1?t=order.placed&n=1");
    assert_string_equal(buf_str(&req.headers), "X-Id: e1");
    assert_string_equal(req.body.data, "{\"total\":3}");
    assert_string_equal(req.content_type, "application/json");
}

static void a_text_as_body_goes_as_it_is_and_null_is_none(void **state)
{
    (void)state;
    assert_non_null(program("{method: \"POST\", path: \"/v1?a=b\", query: {c: \"d&\"}, body: .data.text}"));
    assert_int_equal(map("{\"text\":\"plain\"}"), TARGET_SEND);
    assert_string_equal(buf_str(&req.path), "/v1?a=b&c=d%26");
    assert_string_equal(req.body.data, "plain");
    assert_null(req.content_type);
    assert_int_equal(map("{}"), TARGET_SEND);
    assert_null(req.body.data);
}

static void a_path_as_text_may_end_with_a_slash(void **state)
{
    (void)state;
    assert_non_null(program("{method: \"POST\", path: \"/v1/orders/\", query: {k: .key}}"));
    assert_int_equal(map("{}"), TARGET_SEND);
    assert_string_equal(buf_str(&req.path), "/v1/orders/?k=o%2F1");
    assert_poison("{method: \"POST\", path: \"/v1//orders\"}", "{}", "another resource");
}

/* jq wrote 19.99, and the body was 19.989999999999998. */
static void a_number_goes_as_the_program_writes_it(void **state)
{
    (void)state;
    assert_non_null(
        program("{method: \"PUT\", path: [\"v1\", .data.v], query: {n: .data.v}, headers: {\"X-Total\": "
                ".data.total}, body: {total: .data.total, all: [.data.v, \"1.1\", true, .data.deep]}}"));
    assert_int_equal(map("{\"v\":1.1,\"total\":19.99,\"deep\":{\"a\":0.1,\"b\":-7}}"), TARGET_SEND);
    assert_string_equal(buf_str(&req.path), "/v1/1.1?n=1.1");
    assert_string_equal(buf_str(&req.headers), "X-Total: 19.99");
    assert_string_equal(req.body.data, "{\"total\":19.99,\"all\":[1.1,\"1.1\",true,{\"a\":0.1,\"b\":-7}]}");
}

/* Its digits from 2^53 on are jq's affair: 1.6 loses them, 1.7 keeps those of a number that it does not compute with. */
static void a_number_that_fits_no_machine_word_is_a_result_like_any(void **state)
{
    (void)state;
    assert_non_null(program("{method: \"PUT\", path: \"/\", body: {n: .data.n}}"));
    assert_int_equal(map("{\"n\":9223372036854775808}"), TARGET_SEND);
    assert_int_equal(strncmp(req.body.data, "{\"n\":922337203685477", 20), 0);
    assert_int_equal(map("{\"n\":1e400}"), TARGET_SEND);
}

/* As http_jq_take_request is called: behind a route that has filled the request. */
static enum target_answer map_behind_route(void)
{
    request_done(&req);
    request_init(&req, 65536);
    err_clear(&err);
    event_of(&ev, "order.placed", "o/1", "{}");
    req.method = "PUT";
    assert_int_equal(buf_puts(&req.path, "/v1"), 0);
    assert_int_equal(http_header_put(&req, "X-Shop", SLICE_LIT("eu"), &err), 0);
    assert_int_equal(http_header_put(&req, "If-Match", SLICE_LIT("\"v1\""), &err), 0);
    assert_int_equal(http_header_put(&req, "X-Shop-2", SLICE_LIT("us"), &err), 0);
    return http_jq_map(helper, &ev, &req, &err);
}

/* Two lines of If-Match went out, which HTTP reads as a list: the version of either was changed. */
static void a_header_of_the_program_replaces_the_routes_of_that_name(void **state)
{
    (void)state;
    const char expected[] = "X-Shop-2: us\0If-Match: \"v2\"\0x-shop: asia";
    assert_non_null(program("{headers: {\"if-match\": \"\\\"v2\\\"\", \"x-shop\": \"asia\"}}"));
    assert_int_equal(map_behind_route(), TARGET_SEND);
    assert_int_equal(req.header_count, 3);
    assert_int_equal(req.headers.len, sizeof expected);
    assert_memory_equal(req.headers.data, expected, sizeof expected);
    assert_true(req.if_match);
}

static void a_header_that_is_replaced_takes_no_second_place(void **state)
{
    (void)state;
    assert_non_null(
        program("{headers: ([range(61) | {(\"X-\" + tostring): \"v\"}] + [{\"X-SHOP\": \"asia\"}] | add)}"));
    assert_int_equal(map_behind_route(), TARGET_SEND);
    assert_int_equal(req.header_count, REQUEST_HEADERS_MAX);
    assert_non_null(program("{headers: {\"X-Shop\": null}}"));
    assert_int_equal(map_behind_route(), TARGET_SEND);
    assert_int_equal(req.header_count, 3);
    const char *names[] = {"X-shop-2", "IF-MATCH", "X-Shop"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        request_header_drop(&req, names[i]);
    assert_int_equal(req.header_count, 0);
    assert_string_equal(buf_str(&req.headers), "");
    assert_false(req.if_match);
}

static void null_or_nothing_says_that_the_event_is_not_for_this_api(void **state)
{
    (void)state;
    const char *texts[] = {"null", "empty", "select(.type == \"other\")"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        assert_non_null(program(texts[i]));
        assert_int_equal(map("{}"), TARGET_SKIP);
    }
}

static void what_is_no_request_is_poison_and_says_why(void **state)
{
    (void)state;
    assert_poison("1", "{}", "neither an object nor null");
    assert_poison("1, 2", "{}", "more than one result");
    assert_poison("error(\"no customer\")", "{}", "jq_request: no customer");
    assert_poison(".data.a.b.c", "{\"a\":1}", "Cannot index number");
    assert_poison(".", "not json", "the payload is not JSON");
    assert_poison("{methd: 1}", "{}", "\"methd\" is not one of");
    assert_poison("{method: \"HEAD\", path: \"/\"}", "{}", "\"method\" is not one of");
    assert_poison("{method: \"PUT\\u0000\", path: \"/\"}", "{}", "\"method\" is not one of");
    assert_poison("{method: \"PUT\", path: \"/v1\\u0000/x\"}", "{}", "\"path\" is neither a text nor");
    assert_poison("{method: \"PUT\"}", "{}", "no \"path\"");
    assert_poison("{method: \"PUT\", query: {a: 1}}", "{}", "no \"path\"");
    assert_poison("{path: \"/\"}", "{}", "no \"method\"");
    assert_poison("{method: \"PUT\", path: \"v1\"}", "{}", "begin with");
    assert_poison("{method: \"PUT\", path: (\"/v1/\" + .key + \"/../x\")}", "{}", "another resource");
    assert_poison("{method: \"PUT\", path: (\"/v1/\" + .data.k)}", "{\"k\":\"%2E%2e/x\"}",
                  "another resource");
    assert_poison("{method: \"PUT\", path: \"/a b\"}", "{}", "percent-encoded");
    assert_poison("{method: \"PUT\", path: [\"v1\", .data.x]}", "{}", "neither text nor number");
    assert_poison("{method: \"PUT\", path: [\"v1\", \"..\"]}", "{}", "another resource");
    assert_poison("{method: \"PUT\", path: [\"v1\", \"\"]}", "{}", "no resource to name");
    assert_poison("{method: \"PUT\", path: \"/\", headers: {\"X-A\": \"a\\r\\nX-B: 1\"}}", "{}",
                  "no header can carry");
    assert_poison("{method: \"PUT\", path: \"/\","
                  " headers: ([range(100) | {(\"X-\" + tostring): \"v\"}] | add)}",
                  "{}", "more than 64 headers");
    assert_poison("{method: \"PUT\", path: \"/\", headers: {\"Host\": \"a\"}}", "{}", "the worker's own");
    assert_poison("halt", "{}", "it halted");
}

static void a_wrong_program_is_named_at_the_start(void **state)
{
    (void)state;
    assert_null(program("{"));
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_non_null(strstr(err.message, "jq_request: "));
    assert_null(program("nope(1)"));
    assert_non_null(strstr(err.message, "nope/1"));
    assert_null(program("import \"a\" as a; ."));
}

/* Each is ended, and the next event finds the program well. */
static void a_program_that_runs_away_costs_its_event_and_no_more(void **state)
{
    (void)state;
    const struct {
        const char *text, *says;
    } runaways[] = {
        {"if .data.bad then def f: f; f else null end", "longer than jq_cpu_max"},
        {"if .data.bad then last(range(1e12)) else null end", "longer than jq_cpu_max"},
        {"if .data.bad then {body: (\"x\" * 100000)} else null end", "too large"},
    };
    for (size_t i = 0; i < ARRAY_LEN(runaways); i++) {
        assert_poison(runaways[i].text, "{\"bad\":true}", runaways[i].says);
        assert_int_equal(map("{}"), TARGET_SKIP);
        assert_int_equal(map("{\"bad\":true}"), TARGET_POISON);
        assert_int_equal(map("{}"), TARGET_SKIP);
    }
}

/* Sanitizers reserve terabytes of addresses, so there is no limit with them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_MEMORY_LIMIT 0
#else
#define HAS_MEMORY_LIMIT 1
#endif

#if HAS_MEMORY_LIMIT
static void a_program_that_wants_too_much_memory_costs_its_event_and_no_more(void **state)
{
    (void)state;
    /* Of no constants: jq 1.7 works those out when it reads the program, and refuses it there. */
    const char *texts[] = {"if .data.bad then (\"x\" * .data.bad | length) else null end",
                           "if .data.bad then ([range(.data.bad)] | length) else null end"};
    const struct jq_limits limits = {
        .cpu_ns = 20 * NS_PER_S, .memory_bytes = 64 << 20, .output_bytes = 65536};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        jq_helper_free(helper);
        helper = jq_helper_new("jq_request", texts[i], &limits, NULL);
        assert_non_null(helper);
        assert_int_equal(map("{\"bad\":1000000000}"), TARGET_POISON);
        if (!strstr(err.message, "more than jq_memory_max"))
            fail_msg("%s: %s", texts[i], err.message);
        assert_int_equal(map("{}"), TARGET_SKIP);
        assert_int_equal(map("{\"bad\":1000000000}"),
                         TARGET_POISON); /* a fresh one is asked too, and says the same */
        assert_int_equal(map("{}"), TARGET_SKIP);
    }
}
#endif

static void a_program_sees_neither_environment_nor_files(void **state)
{
    (void)state;
    setenv("TANDEM_API_KEY", "planted-secret", 1);
    assert_non_null(program("{method: \"PUT\", path: \"/\", body: [$ENV, env, input_filename]}"));
    assert_int_equal(map("{}"), TARGET_SEND);
    assert_string_equal(req.body.data, "[{},{},null]");
    assert_poison("input", "{}", "jq_request");
    assert_poison("\"/etc/hostname\" | modulemeta", "{}", "jq_request");
    unsetenv("TANDEM_API_KEY");
}

static void a_payload_larger_than_a_socket_goes_through(void **state)
{
    (void)state;
    static char value[2000003];
    memset(value, 'x', sizeof value - 1);
    value[0] = value[sizeof value - 2] = '"';
    assert_non_null(program("{method: \"PUT\", path: \"/\", headers: {\"X-Len\": (.data | length)}}"));
    assert_int_equal(map(value), TARGET_SEND);
    assert_string_equal(buf_str(&req.headers), "X-Len: 2000000");
}

static void an_answer_becomes_a_verdict_or_is_left_to_the_rules(void **state)
{
    (void)state;
    struct ruling ruling = {.verdict = VERDICT_COUNT};
    struct answer a = {.transport = TRANSPORT_OK,
                       .status = 409,
                       .headers = SLICE_LIT("HTTP/1.1 409 Conflict\r\nX-Why: Lock\r\nx-why: other\r\n\r\n"),
                       .body = SLICE_LIT("{\"code\":7}"),
                       .ev = &ev,
                       .req = &req};
    bool decided;
    event_of(&ev, "order.placed", "o/1", "{}");
    err_clear(&err);
    assert_non_null(program(
        "if .status == 409 and .headers[\"x-why\"] == \"Lock\" and (.body | if type == \"object\" then .code "
        "else null end) == 7 and "
        ".event.key == \"o/1\""
        " and (.repeated | not) then \"poison:conflict\" elif .body == \"text\" then \"retry\" else null "
        "end"));
    assert_int_equal(http_jq_judge(helper, &a, &decided, &ruling, &err), 0);
    assert_true(decided && ruling.verdict == VERDICT_POISON && ruling.reason == REASON_CONFLICT);
    a.body = SLICE_LIT("text");
    assert_int_equal(http_jq_judge(helper, &a, &decided, &ruling, &err), 0);
    assert_true(decided && ruling.verdict == VERDICT_RETRY);
    a.body = SLICE_LIT("");
    assert_int_equal(http_jq_judge(helper, &a, &decided, &ruling, &err), 0);
    assert_false(decided);
    const char *wrong[] = {"\"dead\"", "\"retry\\u0000\"", "7", "error(\"x\")", "def f: f; f"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_non_null(program(wrong[i]));
        assert_int_equal(http_jq_judge(helper, &a, &decided, &ruling, &err), -1);
    }
}

/* ---- runners that somebody ends --------------------------------------------------------------------------------------------- */

/* The keeper's child, if it is alive; 0: there is none. */
static pid_t runner_of(pid_t keeper)
{
    DIR *proc = opendir("/proc");
    pid_t found = 0;
    assert_non_null(proc);
    for (const struct dirent *e = readdir(proc); e && !found; e = readdir(proc)) {
        char path[300], line[256] = "", life = 'Z';
        int parent = 0;
        snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        FILE *f = isdigit((unsigned char)e->d_name[0]) ? fopen(path, "r") : NULL;
        if (!f)
            continue;
        const char *name_end = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
        fclose(f);
        if (name_end && sscanf(name_end, ") %c %d", &life, &parent) == 2 && parent == keeper && life != 'Z')
            found = (pid_t)strtol(e->d_name, NULL, 10);
    }
    closedir(proc);
    return found;
}

static void end_runner(int number)
{
    pid_t runner = runner_of(jq_helper_keeper(helper));
    assert_true(runner > 0);
    assert_int_equal(kill(runner, number), 0);
}

/* The kernel, out of memory, took one that had nothing to do: the next event was dead-lettered for "longer than jq_cpu_max". */
static void a_runner_that_was_ended_between_events_costs_none(void **state)
{
    (void)state;
    const int numbers[] = {SIGKILL, SIGABRT, SIGSEGV};
    assert_non_null(program("if .data.go then {method: \"PUT\", path: \"/\"} else null end"));
    end_runner(SIGKILL); /* has not answered yet */
    assert_int_equal(map("{}"), TARGET_SKIP);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        end_runner(numbers[i]);
        if (map("{\"go\":true}") != TARGET_SEND)
            fail_msg("signal %d: %s", numbers[i], err.message);
    }
}

/* An answer that the program would have refused was delivered. */
static void a_runner_that_was_ended_between_answers_judges_the_next_all_the_same(void **state)
{
    (void)state;
    const int numbers[] = {SIGKILL, SIGABRT};
    struct ruling ruling;
    struct answer a = {.transport = TRANSPORT_OK,
                       .status = 200,
                       .body = SLICE_LIT("{\"accepted\":false}"),
                       .ev = &ev,
                       .req = &req};
    event_of(&ev, "order.placed", "o/1", "{}");
    assert_non_null(program("if .body.accepted == false then \"poison:conflict\" else null end"));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        bool decided = false;
        err_clear(&err);
        assert_int_equal(http_jq_judge(helper, &a, &decided, &ruling, &err), 0);
        end_runner(numbers[i]);
        decided = false;
        if (http_jq_judge(helper, &a, &decided, &ruling, &err) < 0)
            fail_msg("signal %d: %s", numbers[i], err.message);
        assert_true(decided && ruling.verdict == VERDICT_POISON);
    }
}

/* Kills each runner, until it is ended itself. */
static pid_t killer_start(pid_t keeper)
{
    pid_t killer = fork();
    assert_true(killer >= 0);
    if (killer > 0)
        return killer;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        pid_t runner = runner_of(keeper);
        if (runner > 0)
            kill(runner, SIGKILL);
    }
}

static void an_event_whose_runners_are_killed_is_poison_and_an_answer_ends_the_worker(void **state)
{
    (void)state;
    const struct jq_limits limits = {
        .cpu_ns = 60 * NS_PER_S, .memory_bytes = 64 << 20, .output_bytes = 65536};
    struct ruling ruling;
    struct answer a = {
        .transport = TRANSPORT_OK, .status = 200, .body = SLICE_LIT("{}"), .ev = &ev, .req = &req};
    bool decided = false;
    jq_helper_free(helper);
    helper = jq_helper_new("jq_response", "def f: f; f", &limits, NULL);
    assert_non_null(helper);
    pid_t killer = killer_start(jq_helper_keeper(helper));
    assert_int_equal(map("{}"), TARGET_POISON);
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_non_null(strstr(err.message, "killed from outside"));
    err_clear(&err);
    assert_int_equal(http_jq_judge(helper, &a, &decided, &ruling, &err), -1);
    assert_int_equal(err.kind, ERR_FATAL);
    kill(killer, SIGKILL);
    assert_int_equal(waitpid(killer, NULL, 0), killer);
}

/* Somebody ends it: the worker has to end too, and not dead-letter everything. */
static void without_its_keeper_nothing_is_said_of_any_event(void **state)
{
    (void)state;
    siginfo_t end;
    assert_non_null(program("null"));
    assert_int_equal(map("{}"), TARGET_SKIP);
    kill(jq_helper_keeper(helper), SIGKILL);
    /* Its runner is ended before this returns (PR_SET_PDEATHSIG); whoever frees the helper waits for it once more. */
    assert_int_equal(waitid(P_PID, (id_t)jq_helper_keeper(helper), &end, WEXITED | WNOWAIT), 0);
    assert_int_equal(map("{}"), TARGET_BROKEN);
    assert_int_equal(err.kind, ERR_FATAL);
}

static int done(void **state)
{
    (void)state;
    request_done(&req);
    jq_helper_free(helper);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_becomes_what_the_program_makes_of_it),
        cmocka_unit_test(a_text_as_body_goes_as_it_is_and_null_is_none),
        cmocka_unit_test(a_path_as_text_may_end_with_a_slash),
        cmocka_unit_test(a_number_goes_as_the_program_writes_it),
        cmocka_unit_test(a_number_that_fits_no_machine_word_is_a_result_like_any),
        cmocka_unit_test(a_header_of_the_program_replaces_the_routes_of_that_name),
        cmocka_unit_test(a_header_that_is_replaced_takes_no_second_place),
        cmocka_unit_test(null_or_nothing_says_that_the_event_is_not_for_this_api),
        cmocka_unit_test(what_is_no_request_is_poison_and_says_why),
        cmocka_unit_test(a_wrong_program_is_named_at_the_start),
        cmocka_unit_test(a_program_that_runs_away_costs_its_event_and_no_more),
#if HAS_MEMORY_LIMIT
        cmocka_unit_test(a_program_that_wants_too_much_memory_costs_its_event_and_no_more),
#endif
        cmocka_unit_test(a_program_sees_neither_environment_nor_files),
        cmocka_unit_test(a_payload_larger_than_a_socket_goes_through),
        cmocka_unit_test(an_answer_becomes_a_verdict_or_is_left_to_the_rules),
        cmocka_unit_test(a_runner_that_was_ended_between_events_costs_none),
        cmocka_unit_test(a_runner_that_was_ended_between_answers_judges_the_next_all_the_same),
        cmocka_unit_test(an_event_whose_runners_are_killed_is_poison_and_an_answer_ends_the_worker),
        cmocka_unit_test(without_its_keeper_nothing_is_said_of_any_event),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
