/* The dead-letter tool has a next step for every reason, and never says that nothing is to be done while a key is parked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/dlq/dlq_advice.h"
#include "worker/engine/verdict.h"

static struct dlq_text *text(const char *s)
{
    size_t len = strlen(s);
    struct dlq_text *t = malloc(sizeof(*t) + len + 1);
    assert_non_null(t);
    t->len = (uint32_t)len;
    memcpy(t->data, s, len + 1);
    return t;
}

/* What is advised for a dead letter of this reason in this state; key NULL: none. */
static const char *advice(const char *reason, const char *key, enum dlq_state state)
{
    struct dlq_text *name = text(reason), *of = key ? text(key) : NULL;
    struct dlq_entry e = {.reason = name, .key = of, .state = state};
    const char *next = dlq_advice_next(&e);
    free(name);
    free(of);
    return next;
}

/* blocks-the-window had none, and `show` of such an event crashed. */
static void every_reason_has_a_meaning_and_a_next_step(void **state)
{
    (void)state;
    for (int r = 0; r < REASON_COUNT; r++) {
        const char *name = reason_name((enum reason)r);
        struct dlq_text *t = text(name);
        if (strlen(dlq_advice_meaning(t)) < 10)
            fail_msg("%s: no meaning", name);
        for (int s = 0; s < DLQ_STATE_COUNT; s++)
            for (int keyed = 0; keyed < 2; keyed++) {
                const char *next = advice(name, keyed ? "k" : NULL, (enum dlq_state)s);
                if (!next || strlen(next) < 10)
                    fail_msg("%s: no advice", name);
            }
        free(t);
    }
}

static void a_reason_of_a_newer_worker_gets_a_general_text(void **state)
{
    (void)state;
    struct dlq_text *t = text("of-tomorrow");
    assert_non_null(strstr(dlq_advice_meaning(t), "does not know"));
    assert_non_null(strstr(advice("of-tomorrow", "k", DLQ_OPEN), "newer"));
    free(t);
}

static void a_key_behind_what_can_never_be_delivered_is_said_to_stay_parked_until_it_is_freed(void **state)
{
    (void)state;
    static const enum reason HOPELESS[] = {REASON_TOMBSTONE, REASON_NOT_CLOUDEVENT, REASON_HEADERS,
                                           REASON_CONFLICT,  REASON_TOO_LARGE,      REASON_NOT_MAPPABLE};
    for (size_t i = 0; i < ARRAY_LEN(HOPELESS); i++) {
        const char *name = reason_name(HOPELESS[i]);
        const char *keyed = advice(name, "o-1", DLQ_FAILED_AGAIN), *keyless = advice(name, NULL, DLQ_OPEN);
        if (!strstr(keyed, "its key stays parked") || !strstr(keyed, "freed by hand"))
            fail_msg("%s: %s", name, keyed);
        if (strstr(keyed, "nothing to do") || strstr(keyed, "discard"))
            fail_msg("%s: %s", name, keyed);
        if (strstr(keyless, "parked"))
            fail_msg("%s without a key parks nothing: %s", name, keyless);
    }
    assert_null(strstr(advice("rejected", "o-1", DLQ_OPEN), "by hand"));
    assert_null(strstr(advice("tombstone", "o-1", DLQ_RESOLVED), "by hand"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reason_has_a_meaning_and_a_next_step),
        cmocka_unit_test(a_reason_of_a_newer_worker_gets_a_general_text),
        cmocka_unit_test(a_key_behind_what_can_never_be_delivered_is_said_to_stay_parked_until_it_is_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
