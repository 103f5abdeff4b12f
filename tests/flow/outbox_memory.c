/* libtandem-outbox with each of its allocations failing in turn: an error, nothing sent, nothing leaked, and the next call works. */
#include <stdlib.h>

static size_t allocations, fail_at; /* fail_at 0: none */

static void *failing_malloc(size_t size)
{
    return ++allocations == fail_at ? NULL : malloc(size);
}

static void *failing_calloc(size_t count, size_t size)
{
    return ++allocations == fail_at ? NULL : calloc(count, size);
}

#define malloc failing_malloc
#define calloc failing_calloc
#include "producer/outbox.c"
#include "producer/outbox_row.c"
#undef malloc
#undef calloc

#include "tests/flow/outbox_world.h"

static void every_allocation_may_fail_and_the_transaction_goes_on(void **state)
{
    struct world *w = *state;
    struct outbox_header header = {"n", "v"};
    w->ev.headers = &header;
    w->ev.header_count = 1;
    run(w->conn, "BEGIN");
    size_t failures = 0;
    for (fail_at = 1;; fail_at++) {
        allocations = 0;
        if (put(w, "a") == 0)
            break;
        failures++;
        assert_non_null(strstr(w->err.message, "no memory"));
        assert_int_equal(w->err.retriable, 1);
        assert_int_equal(PQtransactionStatus(w->conn), PQTRANS_INTRANS);
    }
    run(w->conn, "COMMIT");
    assert_int_equal(failures, 2); /* the connection's state, the headers */
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a");
    prepared_is(w, "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_allocation_may_fail_and_the_transaction_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
