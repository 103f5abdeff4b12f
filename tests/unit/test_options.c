/* Options: file, environment and flags, their precedence, and every error that a user can make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/options.h"

#define SAMPLE_OPTIONS(OPTION, GROUP)                                                                        \
    GROUP("Delivery")                                                                                        \
    OPTION(max_attempts, INT, "8", 1, 100, "COUNT", "Attempts that count. Then comes the dead letter.")      \
    OPTION(request_timeout, DURATION, "10s", NS_PER_MS, 600 * NS_PER_S, "TIME", "For one request.")          \
    OPTION(payload_max, BYTES, "1MiB", 1, INT64_C(1) << 30, "SIZE", "Largest value.")                        \
    OPTION(share, RATIO, "50%", 0, 0, "SHARE", "Share of failures.")                                         \
    OPTION(on_dead_letter, ENUM, "park", 0, 0, "park|continue", "What happens to later events of its key.")  \
    GROUP("Connection")                                                                                      \
    OPTION(create_topics, BOOL, "true", 0, 0, "", "Create what is missing.")                                 \
    OPTION(api_url, STRING, "", 0, 100, "URL", "Where the API is.")                                          \
    OPTION(rule, LIST, "", 0, 3, "RULE", "What an answer means.")                                            \
    OPTION(api_key, SECRET, "", 0, 0, "TEXT", "Sent as X-API-Key.")

#define MEMBER(name, type, ...) OPTION_MEMBER_##type(name)
#define ROW(...) OPTION_ROW(struct sample, __VA_ARGS__),
#define GROUP_ROW(title) OPTION_GROUP_ROW(title),
#define NOTHING(title)

struct sample {
    SAMPLE_OPTIONS(MEMBER, NOTHING)
    struct option_pairs kafka;
};
static const struct option rows[] = {SAMPLE_OPTIONS(ROW, GROUP_ROW)};
static const struct option_set set = {
    .program = "tandem-sample",
    .summary = "shows options.",
    .usage = "tandem-sample [options]",
    .help_tail = "Exit codes: 0 done.",
    .options = rows,
    .option_count = ARRAY_LEN(rows),
    .kafka = true,
    .identity = "api_url",
};

static const struct option_set *in_force = &set;
static struct sample got;
static struct err err;
static const char *rest[4];
static size_t rest_count;

#define FLAGS(...) load(NULL, (const char *const[]){"tandem-sample", __VA_ARGS__, NULL})
#define NO_FLAGS() load(NULL, (const char *const[]){"tandem-sample", NULL})
#define FILE_TEXT(text) load((text), (const char *const[]){"tandem-sample", NULL})

static char dir[] = "/tmp/tandem-options-XXXXXX";
static char file_path[64];

static void write_file(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
}

static void forget(void)
{
    options_done(&set, &got, &got.kafka, NULL);
    memset(&got, 0, sizeof(got));
    err_clear(&err);
}

static int load_into(struct sample *into, const char *const *words)
{
    char *argv[16];
    enum options_result result = OPTIONS_EXIT;
    int argc = 0;
    while (words[argc])
        argc++;
    memcpy(argv, words, ((size_t)argc + 1) * sizeof(*argv)); /* main's argv is not const */
    int rc = options_load(in_force, argc, argv, into, &into->kafka, NULL, rest, ARRAY_LEN(rest), &rest_count,
                          &result, &err);
    if (rc == 0)
        assert_int_equal(result, OPTIONS_RUN);
    return rc;
}

static int load(const char *text, const char *const *argv)
{
    forget();
    if (text) {
        write_file(file_path, text, strlen(text));
        setenv("TANDEM_CONFIG", file_path, 1);
    } else {
        unsetenv("TANDEM_CONFIG");
    }
    return load_into(&got, argv);
}

static void assert_says(const char *part)
{
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_null(strchr(err.message, '\n'));
    if (!strstr(err.message, part))
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
}

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(file_path, sizeof(file_path), "%s/sample.ini", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    forget();
    unlink(file_path);
    return rmdir(dir);
}

static int clean_environment(void **state)
{
    (void)state;
    static const char *const names[] = {
        "TANDEM_CONFIG",
        "TANDEM_MAX_ATTEMPTS",
        "TANDEM_API_KEY",
        "TANDEM_API_KEY_FILE",
        "TANDEM_KAFKA_SECURITY_PROTOCOL",
        "TANDEM_POSTGRES_SSLMODE",
        "TANDEM_MAX_ATEMPTS",
        "TANDEM_API_URL",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unsetenv(names[i]);
    forget();
    return 0;
}

static void defaults_hold_when_nothing_is_said(void **state)
{
    (void)state;
    assert_int_equal(NO_FLAGS(), 0);
    assert_int_equal(got.max_attempts, 8);
    assert_int_equal(got.request_timeout, 10 * NS_PER_S);
    assert_int_equal(got.payload_max, 1 << 20);
    assert_true(got.share > 0.49 && got.share < 0.51);
    assert_int_equal(got.on_dead_letter, 0);
    assert_true(got.create_topics);
    assert_string_equal(got.api_url, "");
    assert_null(got.api_key);
}

static void flags_win_over_variables_and_variables_over_the_file(void **state)
{
    (void)state;
    const char *text = "max_attempts = 2\non_dead_letter = continue\n";
    assert_int_equal(FILE_TEXT(text), 0);
    assert_int_equal(got.max_attempts, 2);
    setenv("TANDEM_MAX_ATTEMPTS", "3", 1);
    assert_int_equal(FILE_TEXT(text), 0);
    assert_int_equal(got.max_attempts, 3);
    assert_int_equal(load(text, (const char *const[]){"x", "--max-attempts", "4", NULL}), 0);
    assert_int_equal(got.max_attempts, 4);
    assert_int_equal(got.on_dead_letter, 1);
}

static void an_empty_variable_counts_as_not_set(void **state)
{
    (void)state;
    setenv("TANDEM_MAX_ATTEMPTS", "", 1);
    assert_int_equal(NO_FLAGS(), 0);
    assert_int_equal(got.max_attempts, 8);
}

static void a_bool_flag_alone_means_true_and_takes_only_a_bool_word(void **state)
{
    (void)state;
    assert_int_equal(FLAGS("--create-topics", "false"), 0);
    assert_false(got.create_topics);
    assert_int_equal(FLAGS("--create-topics=off"), 0);
    assert_false(got.create_topics);
    assert_int_equal(FLAGS("--create-topics", "ls"), 0);
    assert_true(got.create_topics);
    assert_int_equal(rest_count, 1);
    assert_string_equal(rest[0], "ls");
}

static void a_wrong_word_after_a_bool_flag_is_named_as_its_value(void **state)
{
    (void)state;
    char program[] = "tandem-sample", flag[] = "--create-topics", word[] = "maybe";
    char *argv[] = {program, flag, word, NULL};
    enum options_result result;
    assert_int_equal(options_load(&set, 3, argv, &got, &got.kafka, NULL, NULL, 0, NULL, &result, &err), -1);
    assert_says("--create-topics: \"maybe\" is neither true nor false");
}

static void words_after_a_double_dash_are_no_flags(void **state)
{
    (void)state;
    assert_int_equal(FLAGS("show", "--", "--max-attempts"), 0);
    assert_int_equal(rest_count, 2);
    assert_string_equal(rest[1], "--max-attempts");
    assert_int_equal(FLAGS("1", "2", "3", "4", "5"), -1);
    assert_says("too many words at \"5\"");
}

static void an_unknown_name_is_an_error_with_the_nearest_one(void **state)
{
    (void)state;
    assert_int_equal(FLAGS("--max-atempts", "3"), -1);
    assert_says("unknown option \"--max-atempts\"; the nearest is --max-attempts");
    assert_int_equal(FLAGS("--max_attempts", "3"), -1);
    assert_says("--max-attempts");
    assert_int_equal(FLAGS("-x"), -1);
    assert_says("\"-x\"");
    assert_int_equal(FILE_TEXT("\n# fine\nmax_atempts = 3\n"), -1);
    assert_says("sample.ini:3: unknown option \"max_atempts\"; the nearest is max_attempts");
    assert_int_equal(FLAGS("--xyzzy"), -1);
    assert_says("unknown option \"--xyzzy\"; tandem-sample --help tells more");
}

/* The variable was another program's: the worker joined the group of its destination and took half of its events. */
static void a_variable_that_says_the_program_is_another_than_in_the_file_is_refused(void **state)
{
    (void)state;
    const char *text = "max_attempts = 3\napi_url = shipping\n";
    setenv("TANDEM_API_URL", "inventory", 1);
    assert_int_equal(FILE_TEXT(text), -1);
    assert_says("TANDEM_API_URL is \"inventory\", but ");
    assert_says("sample.ini:2: api_url is \"shipping\": unset the variable, or say with --api-url");
    assert_int_equal(load(text, (const char *const[]){"tandem-sample", "--api-url", "shipping", NULL}), 0);
    assert_string_equal(got.api_url, "shipping");
    assert_int_equal(FILE_TEXT("max_attempts = 3\n"), 0);
    assert_string_equal(got.api_url, "inventory");
    setenv("TANDEM_API_URL", "shipping", 1);
    assert_int_equal(FILE_TEXT(text), 0);
    setenv("TANDEM_MAX_ATTEMPTS", "4", 1); /* other options: as ever */
    assert_int_equal(FILE_TEXT(text), 0);
    assert_int_equal(got.max_attempts, 4);
}

static void an_unknown_variable_is_not_an_error(void **state)
{
    (void)state;
    setenv("TANDEM_MAX_ATEMPTS", "3", 1); /* perhaps another program's: a warning in the log */
    assert_int_equal(NO_FLAGS(), 0);
    assert_int_equal(got.max_attempts, 8);
}

static void a_wrong_value_is_named_with_its_source(void **state)
{
    (void)state;
    assert_int_equal(FLAGS("--max-attempts", "0"), -1);
    assert_says("--max-attempts: \"0\" is out of range, which is 1 to 100");
    assert_int_equal(FLAGS("--request-timeout=5"), -1);
    assert_says("--request-timeout: \"5\" is not a time");
    assert_int_equal(FLAGS("--request-timeout=2h"), -1);
    assert_says("out of range, which is 1ms to 10m");
    assert_int_equal(FILE_TEXT("a = 1\n"), -1);
    assert_says("sample.ini:1: ");
    assert_int_equal(FILE_TEXT("\n\npayload_max = 5MB\n"), -1);
    assert_says("sample.ini:3: payload_max: \"5MB\" is not a size");
    setenv("TANDEM_MAX_ATTEMPTS", "many", 1);
    assert_int_equal(NO_FLAGS(), -1);
    assert_says("TANDEM_MAX_ATTEMPTS: \"many\" is not a whole number");
    unsetenv("TANDEM_MAX_ATTEMPTS");
    assert_int_equal(FLAGS("--on-dead-letter", "drop"), -1);
    assert_says("--on-dead-letter: \"drop\" is not one of park|continue");
    assert_int_equal(FLAGS("--on-dead-letter="), -1);
    assert_int_equal(FLAGS("--max-attempts"), -1);
    assert_says("--max-attempts: needs a value");
    assert_int_equal(FLAGS("--api-url", "a\nb"), -1);
    assert_says("control characters");
}

static void a_broken_file_is_named_with_its_line(void **state)
{
    (void)state;
    assert_int_equal(FILE_TEXT("max_attempts = 2\nmax_attempts = 3\n"), -1);
    assert_says("sample.ini:2: \"max_attempts\" a second time, first at ");
    assert_int_equal(FILE_TEXT("max_attempts\n"), -1);
    assert_says("sample.ini:1: \"max_attempts\" is not `name = value`");
    assert_int_equal(FILE_TEXT("[kafka\n"), -1);
    assert_says("sample.ini:1: \"[kafka\" is not a section");
    assert_int_equal(FILE_TEXT("[other]\na = b\n"), -1);
    assert_says("sample.ini:2: tandem-sample has no section [other]");
    assert_int_equal(FLAGS("--config", "/nonexistent/x.ini"), -1);
    assert_says("\"/nonexistent/x.ini\": No such file");
}

/* The whole line was quoted, and with a '=' in the password all before that was taken for the name. */
static void what_is_wrong_with_a_line_is_told_without_what_may_be_a_secret(void **state)
{
    (void)state;
    static const char *const lines[] = {"sasl.password: hunter2",   "sasl.password:hunter2",
                                        "sasl.password hunter2",    "sasl.password\thunter2",
                                        "sasl.password: hunter2=x", "sasl.password hunter2 = x"};
    char text[100];
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        snprintf(text, sizeof text, "[kafka]\n%s\n", lines[i]);
        assert_int_equal(FILE_TEXT(text), -1);
        assert_says("sample.ini:2: \"sasl.password\" is not `name = value`");
        assert_null(strstr(err.message, "hunter2"));
        snprintf(text, sizeof text, "api_key%s\n", lines[i] + strlen("sasl.password"));
        assert_int_equal(FILE_TEXT(text), -1);
        assert_says("sample.ini:1: \"api_key\" is not `name = value`");
        assert_null(strstr(err.message, "hunter2"));
        assert_int_equal(FLAGS("--kafka", lines[i]), -1);
        assert_says("--kafka: \"sasl.password\" is not NAME=VALUE");
        assert_null(strstr(err.message, "hunter2"));
    }
    /* Of a key in PEM that goes on in the next line. */
    assert_int_equal(
        FILE_TEXT("[kafka]\nssl.key.pem = -----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n"),
        -1);
    assert_says("sample.ini:3: the line is not `name = value`");
    assert_int_equal(FILE_TEXT("= hunter2\n"), -1);
    assert_null(strstr(err.message, "hunter2"));
}

static void a_long_line_and_a_semicolon_reach_the_value_whole(void **state)
{
    (void)state;
    char line[400];
    memset(line, 'x', sizeof(line));
    assert_true(snprintf(line, sizeof(line), "[kafka]\r\n  sasl.oauthbearer.config = scope=a ;b%0300d \r\n",
                         7) > 300);
    assert_int_equal(FILE_TEXT(line), 0);
    assert_int_equal(got.kafka.count, 1);
    assert_string_equal(got.kafka.items[0].name, "sasl.oauthbearer.config");
    assert_int_equal(strlen(got.kafka.items[0].value), strlen("scope=a ;b") + 300);
    assert_non_null(strstr(got.kafka.items[0].origin, "sample.ini:2"));
}

static void library_settings_pass_through_from_everywhere(void **state)
{
    (void)state;
    const char *text = "[kafka]\nfetch.min.bytes = 1\nsecurity.protocol = plaintext\n";
    setenv("TANDEM_KAFKA_SECURITY_PROTOCOL", "ssl", 1);
    setenv("TANDEM_POSTGRES_SSLMODE", "require", 1); /* for another program */
    assert_int_equal(
        load(text, (const char *const[]){"x", "--kafka", "linger.ms=5", "--kafka=fetch.min.bytes=9", NULL}),
        0);
    assert_int_equal(got.kafka.count, 3);
    assert_string_equal(got.kafka.items[0].value, "9");
    assert_string_equal(got.kafka.items[0].origin, "--kafka");
    assert_string_equal(got.kafka.items[1].name, "security.protocol");
    assert_string_equal(got.kafka.items[1].value, "ssl");
    assert_string_equal(got.kafka.items[1].origin, "TANDEM_KAFKA_SECURITY_PROTOCOL");
    assert_string_equal(got.kafka.items[2].value, "5");
    assert_int_equal(FLAGS("--kafka", "linger.ms"), -1);
    assert_says("\"linger.ms\" is not NAME=VALUE");
    assert_int_equal(FLAGS("--postgres", "sslmode=require"), -1);
}

static void a_secret_comes_from_a_file_or_the_environment_only(void **state)
{
    (void)state;
    char path[80];
    snprintf(path, sizeof(path), "%s/key", dir);
    write_file(path, "s3cret \n", 8);
    assert_int_equal(FLAGS("--api-key-file", path), 0);
    assert_string_equal(got.api_key, "s3cret ");
    assert_int_equal(FLAGS("--api-key", "s3cret"), -1);
    assert_says("--api-key: a secret is not given on the command line: write --api-key-file PATH");
    assert_null(strstr(err.message, "s3cret"));
    assert_int_equal(FILE_TEXT("api_key = s3cret\n"), -1);
    assert_says("api_key_file");
    assert_null(strstr(err.message, "s3cret"));
    setenv("TANDEM_API_KEY", "other", 1);
    assert_int_equal(NO_FLAGS(), 0);
    assert_string_equal(got.api_key, "other");
    setenv("TANDEM_API_KEY_FILE", path, 1);
    assert_int_equal(NO_FLAGS(), -1);
    assert_says("is set as well");
    unsetenv("TANDEM_API_KEY");
    unlink(path);
    assert_int_equal(NO_FLAGS(), -1);
    assert_says("TANDEM_API_KEY_FILE: cannot read \"");
    write_file(path, "\n", 1);
    assert_int_equal(NO_FLAGS(), -1);
    assert_says("is empty");
    write_file(path, "a\0b", 3);
    assert_int_equal(NO_FLAGS(), -1);
    assert_says("NUL");
    unlink(path);
}

static void what_is_printed_can_be_read_back(void **state)
{
    (void)state;
    struct buf first, second;
    buf_init(&first, 1 << 20);
    buf_init(&second, 1 << 20);
    assert_int_equal(FLAGS("--share=0.125", "--request-timeout", "1500ms", "--payload-max=512", "--api-url",
                           "http://[::1]:8/#;x", "--kafka=linger.ms=5", "--on-dead-letter=continue",
                           "--create-topics=no"),
                     0);
    options_print(&set, &got, &got.kafka, NULL, &first);
    assert_int_equal(FILE_TEXT(buf_str(&first)), 0);
    assert_int_equal(got.request_timeout, 1500 * NS_PER_MS);
    options_print(&set, &got, &got.kafka, NULL, &second);
    assert_string_equal(buf_str(&first), buf_str(&second));
    buf_done(&first);
    buf_done(&second);
}

static void no_secret_is_printed(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1 << 20);
    setenv("TANDEM_API_KEY", "hushhush", 1);
    assert_int_equal(FLAGS("--api-url", "http://u:hushhush@h/x", "--kafka", "sasl.password=hushhush"), 0);
    options_print(&set, &got, &got.kafka, NULL, &out);
    assert_null(strstr(buf_str(&out), "hushhush"));
    assert_non_null(strstr(buf_str(&out), "# api_key: (set)\n"));
    assert_non_null(strstr(buf_str(&out), "# sasl.password: (set)\n"));
    assert_non_null(strstr(buf_str(&out), "# api_url = http://u:***@h/x\n"));
    buf_done(&out);
}

#define PAIRS_OF(...)                                                                                        \
    {                                                                                                        \
        .items = {__VA_ARGS__}, .count = ARRAY_LEN(((struct option_pair[]){__VA_ARGS__}))                    \
    }

/* Settings were hidden by their names only: an address with a password in it was printed. */
static void no_secret_in_the_value_of_a_librarys_setting_is_printed(void **state)
{
    (void)state;
    char dbname[] = "dbname", address[] = "postgresql://u:hunter2@h/db", options[] = "service",
         words[] = "host=h password=hunter2", endpoint[] = "sasl.oauthbearer.token.endpoint.url",
         login[] = "https://id:hunter2@idp/", crl[] = "ssl.crl.location", url[] = "http://id:hunter2@pki/",
         certificate[] = "ssl.certificate.pem", lines[] = "-----BEGIN\r\nsasl.mechanism = PLAIN",
         rack[] = "client.rack", plain[] = "a:b@c";
    struct option_pairs kafka = PAIRS_OF({endpoint, login, NULL}, {crl, url, NULL},
                                         {certificate, lines, NULL}, {rack, plain, NULL}),
                        postgres = PAIRS_OF({dbname, address, NULL}, {options, words, NULL});
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_int_equal(NO_FLAGS(), 0);
    options_print(&set, &got, &kafka, &postgres, &out);
    assert_null(strstr(buf_str(&out), "hunter2"));
    assert_non_null(strstr(buf_str(&out), "\n# sasl.oauthbearer.token.endpoint.url: (set)\n"));
    assert_non_null(
        strstr(buf_str(&out), "\n# the password is not shown\n# ssl.crl.location = http://id:***@pki/\n"));
    assert_non_null(strstr(buf_str(&out), "\n# several lines are not shown\n# ssl.certificate.pem: (set)\n"));
    assert_null(strstr(buf_str(&out), "PLAIN"));
    assert_non_null(strstr(buf_str(&out), "\nclient.rack = a:b@c\n"));
    assert_non_null(strstr(buf_str(&out), "\n# dbname = postgresql://u:***@h/db\n"));
    assert_non_null(strstr(buf_str(&out), "\n# service = host=h password=***\n"));
    buf_done(&out);
}

static void the_sample_file_holds_the_defaults(void **state)
{
    (void)state;
    struct buf sample, text;
    buf_init(&sample, 1 << 20);
    buf_init(&text, 1 << 20);
    options_sample(&set, &sample);
    /* As a user would: take the '#' away from each setting, but for the secret's empty path. */
    for (const char *line = buf_str(&sample); *line; line += strcspn(line, "\n") + 1) {
        bool setting = line[0] == '#' && line[1] != ' ' && strncmp(line, "#api_key_file", 13) != 0;
        buf_append(&text, line + setting, strcspn(line, "\n") + 1 - setting);
    }
    assert_non_null(strstr(buf_str(&text), "\nrequest_timeout = 10s\n"));
    assert_int_equal(FILE_TEXT(buf_str(&text)), 0);
    assert_int_equal(got.request_timeout, 10 * NS_PER_S);
    buf_done(&sample);
    buf_done(&text);
}

static void help_and_manual_name_every_option(void **state)
{
    (void)state;
    struct buf help, manual;
    buf_init(&help, 1 << 20);
    buf_init(&manual, 1 << 20);
    options_help(&set, &help);
    options_mdoc(&set, &manual);
    assert_non_null(strstr(buf_str(&help), "--max-attempts COUNT\n"));
    assert_non_null(strstr(buf_str(&help), "Default 8, 1 to 100."));
    assert_non_null(strstr(buf_str(&help), "--api-key-file PATH\n"));
    assert_non_null(strstr(buf_str(&help), "\nConnection:\n"));
    assert_non_null(strstr(buf_str(&help), "Exit codes: 0 done."));
    assert_non_null(strstr(buf_str(&manual), ".It Fl Fl request-timeout Ar \"TIME\"\n"));
    assert_non_null(strstr(buf_str(&manual), "Attempts that count.\nThen comes"));
    buf_done(&help);
    buf_done(&manual);
}

static void times_and_sizes_have_exact_units(void **state)
{
    (void)state;
    int64_t n = 7;
    static const char *const bad[] = {
        "", "5", "-5s", "5 s", "5S", " 5s", "s", "5s ", "1.5s", "9999999999999h", "0x5s"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(options_parse_duration(bad[i], &n, NULL), -1);
    assert_int_equal(n, 7);
    assert_int_equal(options_parse_duration("2m", &n, NULL), 0);
    assert_int_equal(n, 120 * NS_PER_S);
    assert_int_equal(options_parse_bytes("3KiB", &n, NULL), 0);
    assert_int_equal(n, 3072);
    assert_int_equal(options_parse_bytes("3kb", &n, NULL), -1);
    assert_int_equal(options_parse_bytes("9223372036854775808", &n, NULL), -1);
}

static void assert_rules(size_t count, const char *const *expected)
{
    assert_int_equal(got.rule.count, count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(got.rule.items[i], expected[i]);
}

static void a_list_comes_line_by_line_and_flags_replace_it(void **state)
{
    (void)state;
    struct buf out;
    assert_int_equal(NO_FLAGS(), 0);
    assert_rules(0, NULL);
    assert_int_equal(FILE_TEXT("rule = a = b\nshare = 1\nrule = c\n"), 0);
    assert_rules(2, (const char *const[]){"a = b", "c"});

    buf_init(&out, 65536);
    options_print(&set, &got, &got.kafka, NULL, &out);
    assert_non_null(strstr(buf_str(&out), "\nrule = a = b\nrule = c\n"));
    buf_done(&out);

    const char *flags[] = {"tandem-sample", "--rule", "x", "--rule=y", NULL};
    assert_int_equal(load("rule = a\n", flags), 0);
    assert_rules(2, (const char *const[]){"x", "y"});

    setenv("TANDEM_RULE", "one\n\n  two \n", 1);
    int rc = load("rule = a\n", (const char *const[]){"tandem-sample", NULL});
    unsetenv("TANDEM_RULE");
    assert_int_equal(rc, 0);
    assert_rules(2, (const char *const[]){"one", "two"});
}

static int nothing_fits(const void *values, struct err *ret_err)
{
    const struct sample *s = values;
    return err_set(ret_err, ERR_PERMANENT,
                   *s->api_url ? "api_url: does not fit" : "max_attempts does not fit");
}

static void what_is_wrong_with_options_together_is_told_with_the_place_where_it_was_written(void **state)
{
    (void)state;
    struct option_set checked = set;
    checked.check = nothing_fits;
    in_force = &checked;
    assert_int_equal(FILE_TEXT("max_attempts = 2\napi_url = x\n"), -1);
    assert_says(":2: api_url: does not fit");
    assert_int_equal(FLAGS("--api-url", "x"), -1);
    assert_string_equal(err.message, "--api-url: does not fit");
    setenv("TANDEM_API_URL", "x", 1);
    assert_int_equal(NO_FLAGS(), -1);
    unsetenv("TANDEM_API_URL");
    assert_string_equal(err.message, "TANDEM_API_URL: does not fit");
    assert_int_equal(NO_FLAGS(), -1);
    assert_string_equal(err.message, "max_attempts does not fit");
    in_force = &set;
}

static void a_list_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(FILE_TEXT("rule = 1\nrule = 2\nrule = 3\nrule = 4\n"), -1);
    assert_says("rule: more than 3 of them");
    static char line[OPTIONS_ITEM_BYTES_MAX + 16];
    memset(line, 'x', sizeof line - 1);
    memcpy(line, "rule = ", 7);
    assert_int_equal(FILE_TEXT(line), -1);
    assert_says("has more than 4096 bytes");
    assert_int_equal(FILE_TEXT("rule = a\x01"
                               "b\n"),
                     -1);
    assert_says("control characters");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, clean_environment)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_comes_line_by_line_and_flags_replace_it),
        cmocka_unit_test(what_is_wrong_with_options_together_is_told_with_the_place_where_it_was_written),
        cmocka_unit_test(a_list_is_bounded),
        TEST(defaults_hold_when_nothing_is_said),
        TEST(flags_win_over_variables_and_variables_over_the_file),
        TEST(an_empty_variable_counts_as_not_set),
        TEST(a_bool_flag_alone_means_true_and_takes_only_a_bool_word),
        TEST(a_wrong_word_after_a_bool_flag_is_named_as_its_value),
        TEST(words_after_a_double_dash_are_no_flags),
        TEST(an_unknown_name_is_an_error_with_the_nearest_one),
        TEST(a_variable_that_says_the_program_is_another_than_in_the_file_is_refused),
        TEST(an_unknown_variable_is_not_an_error),
        TEST(a_wrong_value_is_named_with_its_source),
        TEST(a_broken_file_is_named_with_its_line),
        TEST(what_is_wrong_with_a_line_is_told_without_what_may_be_a_secret),
        TEST(a_long_line_and_a_semicolon_reach_the_value_whole),
        TEST(library_settings_pass_through_from_everywhere),
        TEST(a_secret_comes_from_a_file_or_the_environment_only),
        TEST(what_is_printed_can_be_read_back),
        TEST(no_secret_is_printed),
        TEST(no_secret_in_the_value_of_a_librarys_setting_is_printed),
        TEST(the_sample_file_holds_the_defaults),
        TEST(help_and_manual_name_every_option),
        TEST(times_and_sizes_have_exact_units),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
