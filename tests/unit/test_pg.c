/* Postgres' door: which refusals are for good, and that no password is told. The server is a thread that says what it is told to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/pg.h"

static struct err err;

/* ---- a server that speaks just enough of the protocol (version 3) ---------------------------------------------- */

struct server {
    int listener, port;
    pthread_t thread;
    struct buf greeting; /* sent when a client has sent its startup message */
    struct buf answer;   /* sent for each message after that */
};

static void put_int(struct buf *b, uint32_t n)
{
    n = htonl(n);
    assert_int_equal(buf_append(b, &n, 4), 0);
}

static void put_message(struct buf *b, char type, const void *body, size_t len)
{
    assert_int_equal(buf_append(b, &type, 1), 0);
    put_int(b, (uint32_t)len + 4);
    assert_int_equal(buf_append(b, body, len), 0);
}

static void put_error(struct buf *b, const char *severity, const char *state, const char *text)
{
    struct buf body;
    buf_init(&body, 4096);
    buf_printf(&body, "S%s", severity);
    buf_append(&body, "", 1);
    buf_printf(&body, "V%s", severity);
    buf_append(&body, "", 1);
    buf_printf(&body, "C%s", state);
    buf_append(&body, "", 1);
    buf_printf(&body, "M%s", text);
    buf_append(&body, "\0", 2);
    put_message(b, 'E', body.data, body.len);
    buf_done(&body);
}

static void put_welcome(struct buf *b)
{
    put_message(b, 'R', "\0\0\0\0", 4);
    put_message(b, 'Z', "I", 1);
}

/* One row of one text column; value NULL: null. */
static void put_row(struct buf *b, const char *value)
{
    struct buf body;
    buf_init(&body, 4096);
    put_message(b, 'T', "\0\1c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0", 22);
    buf_append(&body, "\0\1", 2);
    put_int(&body, value ? (uint32_t)strlen(value) : UINT32_MAX);
    if (value)
        buf_puts(&body, value);
    put_message(b, 'D', body.data, body.len);
    put_message(b, 'C', "SELECT 1", 9);
    put_message(b, 'Z', "I", 1);
    buf_done(&body);
}

static void serve_one(const struct server *s, int fd)
{
    char bytes[4096];
    if (read(fd, bytes, sizeof(bytes)) <= 0)
        return;
    if (send(fd, s->greeting.data, s->greeting.len, MSG_NOSIGNAL) < 0)
        return;
    while (read(fd, bytes, sizeof(bytes)) > 0 && bytes[0] == 'Q' && s->answer.len)
        if (send(fd, s->answer.data, s->answer.len, MSG_NOSIGNAL) < 0)
            return;
}

static void *serve(void *arg)
{
    const struct server *s = arg;
    for (int fd = accept(s->listener, NULL, NULL); fd >= 0; fd = accept(s->listener, NULL, NULL)) {
        serve_one(s, fd);
        close(fd);
    }
    return NULL;
}

static struct server server;

static int begin(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    err_clear(&err);
    buf_init(&server.greeting, 4096);
    buf_init(&server.answer, 4096);
    server.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server.listener, (const struct sockaddr *)&address, len) < 0 || listen(server.listener, 5) < 0 ||
        getsockname(server.listener, (struct sockaddr *)&address, &len) < 0)
        return -1;
    server.port = ntohs(address.sin_port);
    return 0;
}

static int end(void **state)
{
    (void)state;
    shutdown(server.listener, SHUT_RDWR);
    if (server.thread)
        pthread_join(server.thread, NULL);
    server.thread = 0;
    close(server.listener);
    buf_done(&server.greeting);
    buf_done(&server.answer);
    return 0;
}

/* What the server says must be there before. */
static const char *its_url(void)
{
    static char url[200];
    if (!server.thread)
        assert_int_equal(pthread_create(&server.thread, NULL, serve, &server), 0);
    snprintf(url, sizeof(url), "postgres://u:hushhush@127.0.0.1:%d/db?sslmode=disable&gssencmode=disable",
             server.port);
    return url;
}

static PGconn *connect_to_it(void)
{
    return pg_connect(its_url(), NULL, "tandem-test", &err);
}

static struct pg_target its_target(void)
{
    static struct pg_place at = {.host = "localhost", .hostaddr = "127.0.0.1"};

    snprintf(at.port, sizeof(at.port), "%d", server.port);
    return (struct pg_target){.url = its_url(), .program = "tandem-test", .place = &at};
}

static int turn_it(struct pg_dial *dial, PGconn *conn)
{
    int rc = 0;

    while (rc == 0) {
        struct pollfd fd = {PQsocket(conn), dial->events, 0};
        assert_int_equal(poll(&fd, 1, 10000), 1);
        rc = pg_dial_turn(dial, conn, &err);
    }
    return rc;
}

/* -1: it failed; 1: *ret_conn is of use. */
static int dial_it(PGconn **ret_conn)
{
    const struct pg_target to = its_target();
    struct pg_dial dial;

    *ret_conn = pg_dial(&dial, &to, &err);
    assert_non_null(*ret_conn);
    return turn_it(&dial, *ret_conn);
}

static void assert_says(enum err_kind kind, const char *part)
{
    if (err.kind != kind)
        fail_msg("\"%s\" is %s", err.message, err_kind_name(err.kind));
    if (!strstr(err.message, part))
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_null(strstr(err.message, "hushhush"));
    assert_null(strchr(err.message, '\n'));
}

/* ---- connecting ----------------------------------------------------------------------------------------------- */

static void assert_refusal(const char *state, const char *text, enum err_kind kind)
{
    PGconn *conn;
    begin(NULL);
    put_error(&server.greeting, "FATAL", state, text);
    assert_null(connect_to_it());
    assert_says(kind, text);
    err_clear(&err);
    assert_int_equal(dial_it(&conn), -1);
    assert_says(kind, text);
    PQfinish(conn);
    end(NULL);
}

static void a_refusal_says_whether_to_try_again(void **state)
{
    (void)state;
    assert_refusal("57P03", "the database system is starting up", ERR_TEMPORARY);
    assert_refusal("53300", "sorry, too many clients already", ERR_TEMPORARY);
    assert_refusal("57P03", "the database system is shutting down", ERR_TEMPORARY);
    assert_refusal("55000", "database \"db\" is not currently accepting connections", ERR_TEMPORARY);
    assert_refusal("28P01", "password authentication failed for user \"u\"", ERR_PERMANENT);
    assert_refusal("28000", "role \"u\" does not exist", ERR_PERMANENT);
    assert_refusal("3D000", "database \"db\" does not exist", ERR_PERMANENT);
    assert_refusal("28000", "no pg_hba.conf entry for host \"127.0.0.1\", user \"u\"", ERR_PERMANENT);
}

static void a_dial_waits_for_nothing_and_is_of_use_when_it_is_answered(void **state)
{
    (void)state;
    struct pg_dial dial;
    PGconn *conn;

    put_welcome(&server.greeting);
    const struct pg_target to = its_target();
    conn = pg_dial(&dial, &to, &err);
    assert_int_equal(pg_dial_turn(&dial, conn, &err), 0);
    dial.events = 0; /* as if the server said nothing */
    assert_int_equal(pg_dial_turn(&dial, conn, &err), 0);
    dial.by = 0;
    assert_int_equal(pg_dial_turn(&dial, conn, &err), -1);
    assert_says(ERR_TEMPORARY, "has not answered");
    PQfinish(conn);
    assert_int_equal(dial_it(&conn), 1);
    assert_int_equal(PQstatus(conn), CONNECTION_OK);
    assert_true(PQisnonblocking(conn));
    PQfinish(conn);
}

/* A url of several hosts, as the outbox's own connection found one: each attempt waited for those in front of it that say nothing. */
static void a_dial_goes_to_its_place_whatever_hosts_the_url_names(void **state)
{
    (void)state;
    struct pg_dial dial;
    struct pg_place at;
    char url[300];

    put_welcome(&server.greeting);
    struct pg_target to = its_target();
    snprintf(url, sizeof(url),
             "postgres://u:hushhush@nowhere.invalid,nowhere.invalid/db"
             "?hostaddr=192.0.2.1,192.0.2.2&sslmode=disable&gssencmode=disable");
    to.url = url;
    PGconn *conn = pg_dial(&dial, &to, &err);
    assert_non_null(conn);
    assert_int_equal(turn_it(&dial, conn), 1);
    pg_place_of(conn, &at);
    assert_string_equal(at.host, "localhost"); /* its name stays: certificates have it */
    assert_string_equal(at.hostaddr, "127.0.0.1");
    assert_string_equal(at.port, to.place->port);
    PQfinish(conn);
}

/* libpq knows a list of ports that are all empty, and no port of the one it is connected to. */
static void the_place_of_a_url_whose_hosts_have_no_ports_has_one(void **state)
{
    (void)state;
    struct pg_place at;
    PGconn *conn = PQconnectStart("postgres://127.0.0.1,127.0.0.2/db");

    assert_non_null(conn);
    pg_place_of(conn, &at);
    assert_string_equal(at.hostaddr, "127.0.0.1");
    assert_string_equal(at.port, "5432");
    PQfinish(conn);
}

/* By its directory alone: a socket has no address. */
static void a_dial_goes_to_a_socket_s_directory(void **state)
{
    (void)state;
    char dir[] = "/tmp/tandem-pg-XXXXXX";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct pg_place at = {.port = "5433"}, of;
    struct pg_dial dial;

    assert_non_null(mkdtemp(dir));
    snprintf(at.host, sizeof(at.host), "%s", dir);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.5433", dir);
    close(server.listener);
    server.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(bind(server.listener, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
                listen(server.listener, 5) == 0);
    put_welcome(&server.greeting);
    struct pg_target to = its_target();
    to.place = &at;
    PGconn *conn = pg_dial(&dial, &to, &err);
    assert_non_null(conn);
    assert_int_equal(turn_it(&dial, conn), 1);
    pg_place_of(conn, &of);
    assert_string_equal(of.host, dir);
    assert_string_equal(of.hostaddr, "");
    assert_string_equal(of.port, "5433");
    PQfinish(conn);
    unlink(address.sun_path);
    rmdir(dir);
}

static void nobody_listening_is_temporary(void **state)
{
    (void)state;
    char url[100];
    close(server.listener);
    snprintf(url, sizeof(url), "postgres://u:hushhush@127.0.0.1:%d/db", server.port);
    assert_null(pg_connect(url, NULL, "tandem-test", &err));
    assert_says(ERR_TEMPORARY, "Connection refused");
}

static void a_malformed_url_is_permanent_and_does_not_tell_the_password(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "postgres://u:p@hushhush:hushhush@h/db",
        "postgres//u:hushhush@h/db",
        "postgres://u:hushhush@h:port/db",
        "postgres://u:hushhush@h/db?nonsense=1",
        "host=h password='hushhush",
        "postgres://u:a%hushhush@h/db",
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        err_clear(&err);
        assert_null(pg_connect(wrong[i], NULL, "tandem-test", &err));
        assert_says(ERR_PERMANENT, "postgres");
    }
    err_clear(&err);
    assert_int_equal(pg_check(wrong[1], NULL, &err), -1);
    assert_says(ERR_PERMANENT, "database_url: libpq cannot read it (write postgresql://");
}

static void words_of_libpq_are_shown_and_no_other_ones(void **state)
{
    (void)state;
    assert_int_equal(pg_check("host=h user", NULL, &err), -1);
    assert_says(ERR_PERMANENT, "missing \"=\" after \"user\" in connection info string");
    err_clear(&err);
    assert_int_equal(pg_check("host=h password=hush hushhush", NULL, &err), -1);
    assert_says(ERR_PERMANENT, "missing \"=\" after \"***\" in connection info string");
    err_clear(&err);
    assert_int_equal(pg_check("host=h hushhush=1", NULL, &err), -1);
    assert_says(ERR_PERMANENT, "invalid connection option \"***\"");
}

static char pair_name[] = "sslmod", pair_value[] = "hushhush", pair_origin[] = "relay.ini:7";

static void an_unknown_setting_is_named_with_its_source(void **state)
{
    (void)state;
    const struct option_pairs pairs = {
        .count = 1, .items = {{.name = pair_name, .value = pair_value, .origin = pair_origin}}};
    assert_null(pg_connect("", &pairs, "tandem-test", &err));
    assert_says(ERR_PERMANENT, "relay.ini:7: libpq has no setting \"sslmod\"");
}

/* ---- statements ----------------------------------------------------------------------------------------------- */

static void assert_failure(const char *sqlstate, enum err_kind kind)
{
    begin(NULL);
    put_welcome(&server.greeting);
    put_error(&server.answer, "ERROR", sqlstate, "it failed");
    put_message(&server.answer, 'Z', "I", 1);
    PGconn *conn = connect_to_it();
    assert_non_null(conn);
    assert_int_equal(pg_exec(conn, "SELECT 1", &err), -1);
    assert_says(kind, "SELECT 1: ");
    assert_says(kind, sqlstate);
    PQfinish(conn);
    end(NULL);
}

static void a_failed_statement_says_whether_to_try_again(void **state)
{
    (void)state;
    static const char *const temporary[] = {"40001", "40P01", "55P03", "57P01", "57P03",
                                            "53200", "08006", "25006", "57014"};
    static const char *const permanent[] = {"42P01", "23505", "22P02", "42501", "XX000"};
    for (size_t i = 0; i < ARRAY_LEN(temporary); i++)
        assert_failure(temporary[i], ERR_TEMPORARY);
    for (size_t i = 0; i < ARRAY_LEN(permanent); i++)
        assert_failure(permanent[i], ERR_PERMANENT);
}

static void a_connection_lost_in_a_statement_is_temporary(void **state)
{
    (void)state;
    put_welcome(&server.greeting); /* and no answer: it hangs up */
    PGconn *conn = connect_to_it();
    assert_non_null(conn);
    assert_int_equal(pg_exec(conn, "SELECT 1", &err), -1);
    assert_says(ERR_TEMPORARY, "server closed the connection unexpectedly");
    PQfinish(conn);
}

static int check_schema(const char *version, const char *sqlstate)
{
    begin(NULL);
    put_welcome(&server.greeting);
    if (sqlstate) {
        put_error(&server.answer, "ERROR", sqlstate, "it failed");
        put_message(&server.answer, 'Z', "I", 1);
    } else {
        put_row(&server.answer, version);
    }
    PGconn *conn = connect_to_it();
    assert_non_null(conn);
    int rc = pg_check_schema(conn, &err);
    PQfinish(conn);
    end(NULL);
    return rc;
}

static void only_the_schema_of_this_program_will_do(void **state)
{
    (void)state;
    assert_int_equal(check_schema("5", NULL), 0);
    assert_int_equal(check_schema("4", NULL), -1);
    assert_says(ERR_PERMANENT, "version 4, this program (0.1.0) needs 5");
    assert_int_equal(check_schema("6", NULL), -1);
    assert_says(ERR_PERMANENT, "version 6, this program (0.1.0) needs 5");
    assert_int_equal(check_schema(NULL, NULL), -1);
    assert_says(ERR_PERMANENT, "version none");
    assert_int_equal(check_schema(NULL, "42P01"), -1);
    assert_says(ERR_PERMANENT, "version none");
    assert_int_equal(check_schema(NULL, "57P01"), -1);
    assert_says(ERR_TEMPORARY, "reading the schema version");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_says_whether_to_try_again),
        TEST(a_dial_waits_for_nothing_and_is_of_use_when_it_is_answered),
        TEST(a_dial_goes_to_its_place_whatever_hosts_the_url_names),
        cmocka_unit_test(the_place_of_a_url_whose_hosts_have_no_ports_has_one),
        TEST(a_dial_goes_to_a_socket_s_directory),
        TEST(nobody_listening_is_temporary),
        TEST(a_malformed_url_is_permanent_and_does_not_tell_the_password),
        TEST(words_of_libpq_are_shown_and_no_other_ones),
        TEST(an_unknown_setting_is_named_with_its_source),
        cmocka_unit_test(a_failed_statement_says_whether_to_try_again),
        TEST(a_connection_lost_in_a_statement_is_temporary),
        cmocka_unit_test(only_the_schema_of_this_program_will_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
