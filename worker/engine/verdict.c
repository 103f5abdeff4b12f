/* The common table: what each status and each broken transport means, unless a target says otherwise. */
#include "worker/engine/verdict.h"

static const struct verdict_rule COMMON[] = {
    /* from, to, transport, verdict, reason */
    {200, 299, TRANSPORT_OK, VERDICT_DELIVERED, REASON_NONE},
    {300, 399, TRANSPORT_OK, VERDICT_RETRY,
     REASON_NONE}, /* never followed: the configured address is wrong or moved */
    {401, 401, TRANSPORT_OK, VERDICT_AUTH, REASON_NONE},
    {403, 403, TRANSPORT_OK, VERDICT_AUTH, REASON_NONE},
    {407, 407, TRANSPORT_OK, VERDICT_AUTH, REASON_NONE},
    {408, 408, TRANSPORT_OK, VERDICT_AMBIGUOUS, REASON_NONE}, /* it gave up on us, perhaps half-way */
    {423, 423, TRANSPORT_OK, VERDICT_RETRY, REASON_NONE},
    {425, 425, TRANSPORT_OK, VERDICT_RETRY, REASON_NONE},
    {429, 429, TRANSPORT_OK, VERDICT_THROTTLE, REASON_NONE},
    {400, 499, TRANSPORT_OK, VERDICT_POISON, REASON_REJECTED},
    {0, 0, TRANSPORT_CONNECT, VERDICT_RETRY, REASON_NONE},
    {0, 0, TRANSPORT_TIMEOUT_CONNECT, VERDICT_RETRY, REASON_NONE},
    {0, 0, TRANSPORT_TIMEOUT, VERDICT_AMBIGUOUS, REASON_NONE},
    {0, 0, TRANSPORT_RESET, VERDICT_AMBIGUOUS, REASON_NONE},
    {0, 0, TRANSPORT_GARBAGE, VERDICT_AMBIGUOUS, REASON_NONE},
    {0, 0, TRANSPORT_REFUSED, VERDICT_RETRY, REASON_NONE},
};

/* No rule (5xx, 1xx, nonsense): it may work later. */
static const struct verdict_rule OTHERWISE = {0, 0, TRANSPORT_OK, VERDICT_RETRY, REASON_NONE};

static bool rule_matches(const struct verdict_rule *rule, enum transport t, int status)
{
    if (rule->transport != t)
        return false;
    if (rule->status_from == 0 && rule->status_to == 0)
        return true;
    return t == TRANSPORT_OK && status >= rule->status_from && status <= rule->status_to;
}

static const struct verdict_rule *rule_find(const struct verdict_rule *rules, size_t count, enum transport t,
                                            int status)
{
    for (size_t i = 0; i < count; i++) {
        if (rule_matches(&rules[i], t, status))
            return &rules[i];
    }
    return NULL;
}

/* Is it the API that is in trouble, or only this event? A 4xx but 408 shows an API that works. */
static bool is_systemic(enum transport t, int status)
{
    if (t != TRANSPORT_OK)
        return t != TRANSPORT_CANCELLED;
    return status < 200 || (status >= 300 && status <= 399) || status == 408 || status >= 500;
}

struct judgement verdict_given(enum verdict v, enum reason reason, enum transport t, int status)
{
    if (reason == REASON_NONE)
        reason = REASON_REJECTED;
    bool failed = v == VERDICT_RETRY || v == VERDICT_AMBIGUOUS || v == VERDICT_THROTTLE;

    return (struct judgement){
        .verdict = v,
        .reason = v == VERDICT_POISON ? reason : REASON_NONE,
        .systemic = v == VERDICT_AUTH || (failed && is_systemic(t, status)),
    };
}

struct judgement verdict_of(const struct verdict_rule *rules, size_t count, enum transport t, int status)
{
    const struct verdict_rule *rule = rules == NULL ? NULL : rule_find(rules, count, t, status);

    if (rule == NULL)
        rule = rule_find(COMMON, ARRAY_LEN(COMMON), t, status);
    if (rule == NULL)
        rule = &OTHERWISE;
    return verdict_given(rule->verdict, rule->reason, t, status);
}

const char *verdict_name(enum verdict v)
{
    static const char *const names[VERDICT_COUNT] = {
#define VERDICT(id, name, prose) name,
#define REASON(id, name, prose)
#include "worker/engine/verdict.def"
#undef VERDICT
#undef REASON
    };
    ENSURE((unsigned)v < VERDICT_COUNT);
    return names[v];
}

const char *reason_name(enum reason r)
{
    static const char *const names[REASON_COUNT] = {
#define VERDICT(id, name, prose)
#define REASON(id, name, prose) name,
#include "worker/engine/verdict.def"
#undef VERDICT
#undef REASON
    };
    ENSURE((unsigned)r < REASON_COUNT);
    return names[r];
}

const char *reason_prose(enum reason r)
{
    static const char *const proses[REASON_COUNT] = {
#define VERDICT(id, name, prose)
#define REASON(id, name, prose) prose,
#include "worker/engine/verdict.def"
#undef VERDICT
#undef REASON
    };
    ENSURE((unsigned)r < REASON_COUNT);
    return proses[r];
}

const char *transport_name(enum transport t)
{
    static const char *const names[TRANSPORT_COUNT] = {
        [TRANSPORT_OK] = "ok",
        [TRANSPORT_CONNECT] = "connect",
        [TRANSPORT_TIMEOUT_CONNECT] = "timeout-connect",
        [TRANSPORT_TIMEOUT] = "timeout",
        [TRANSPORT_RESET] = "reset",
        [TRANSPORT_GARBAGE] = "garbage",
        [TRANSPORT_REFUSED] = "refused",
        [TRANSPORT_CANCELLED] = "cancelled",
    };
    ENSURE((unsigned)t < TRANSPORT_COUNT);
    return names[t];
}
