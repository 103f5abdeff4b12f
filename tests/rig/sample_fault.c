/* The rules of the fault switch: read from JSON, matched against each request. */
#include "tests/rig/sample_fault.h"

#include <jansson.h>
#include <string.h>

#include "common/clock.h"

struct rule {
    json_t *source; /* as it was given: for the list, and owner of all strings */
    enum fault_mode mode;
    bool execute;
    int status;
    int64_t delay_ns;
    char retry_after[64];
    double share;
    json_t *keys, *methods; /* borrowed from source; NULL: all */
    json_int_t times;       /* left; negative: without end */
};

struct faults {
    struct rule rules[FAULT_RULES_MAX];
    size_t count;
    uint64_t random;
};

static const struct {
    const char *name;
    enum fault_mode mode;
    bool execute;
} modes[] = {
    {"status", FAULT_STATUS, false},     {"delay", FAULT_DELAY, true},
    {"hang", FAULT_HANG, false},         {"close", FAULT_CLOSE, false},
    {"throttle", FAULT_THROTTLE, false}, {"garbage", FAULT_GARBAGE, false},
    {"half", FAULT_HALF, false},         {"redirect", FAULT_REDIRECT, false},
    {"endless", FAULT_ENDLESS, false},   {"execute-then-500", FAULT_STATUS, true},
};

struct faults *faults_new(void)
{
    struct faults *f = calloc(1, sizeof(*f));
    if (f)
        f->random = 0x9e3779b97f4a7c15;
    return f;
}

void faults_free(struct faults *f)
{
    if (!f)
        return;
    faults_clear(f);
    free(f);
}

void faults_clear(struct faults *f)
{
    for (size_t i = 0; i < f->count; i++)
        json_decref(f->rules[i].source);
    f->count = 0;
}

static int rule_set_mode(struct rule *r, const char *name, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        if (strcmp(modes[i].name, name) == 0) {
            r->mode = modes[i].mode;
            r->execute = modes[i].execute;
            return 0;
        }
    }
    return err_set(err, ERR_PERMANENT, "unknown mode \"%s\"", name);
}

static int64_t default_delay_ms(enum fault_mode mode)
{
    return mode == FAULT_HANG ? 60000 : 0;
}

static int rule_check(const struct rule *r, struct err *err)
{
    if (r->status < 100 || r->status > 599)
        return err_set(err, ERR_PERMANENT, "status %d is not between 100 and 599", r->status);
    if (r->share < 0 || r->share > 1)
        return err_set(err, ERR_PERMANENT, "share %g is not between 0 and 1", r->share);
    if (r->delay_ns < 0 || r->delay_ns > 3600 * NS_PER_S)
        return err_set(err, ERR_PERMANENT, "delay_ms is not between 0 and an hour");
    if (json_array_size(r->keys) > FAULT_KEYS_MAX || json_array_size(r->methods) > FAULT_KEYS_MAX)
        return err_set(err, ERR_PERMANENT, "more than %d keys or methods", FAULT_KEYS_MAX);
    return 0;
}

static int rule_read(struct rule *r, json_t *source, struct err *err)
{
    const char *mode = NULL, *retry_text = NULL;
    json_int_t status = 500, delay_ms = -1, times = -1;
    json_t *retry_after = NULL;
    json_error_t why;
    int execute = -1;

    *r = (struct rule){.source = source, .share = 1};
    if (json_unpack_ex(source, &why, JSON_STRICT, "{s:s, s?I, s?I, s?o, s?F, s?o, s?o, s?I, s?b}", "mode",
                       &mode, "status", &status, "delay_ms", &delay_ms, "retry_after", &retry_after, "share",
                       &r->share, "keys", &r->keys, "methods", &r->methods, "times", &times, "execute",
                       &execute) < 0)
        return err_set(err, ERR_PERMANENT, "%s", why.text);
    if (rule_set_mode(r, mode, err) < 0)
        return -1;
    if (execute >= 0)
        r->execute = execute;
    r->status = status < 0 || status > 999 ? 0 : (int)status;
    r->times = times;
    r->delay_ns = (delay_ms < 0 ? default_delay_ms(r->mode) : delay_ms) * NS_PER_MS;
    retry_text = json_string_value(retry_after);
    if (retry_text)
        snprintf(r->retry_after, sizeof(r->retry_after), "%s", retry_text);
    else
        snprintf(r->retry_after, sizeof(r->retry_after), "%lld",
                 retry_after ? (long long)json_integer_value(retry_after) : 1LL);
    return rule_check(r, err);
}

int faults_add(struct faults *f, const char *json, size_t len, struct err *err)
{
    json_error_t why;

    if (f->count == FAULT_RULES_MAX)
        return err_set(err, ERR_PERMANENT, "%d rules are there already", FAULT_RULES_MAX);
    json_t *source = json_loadb(json ? json : "", len, JSON_REJECT_DUPLICATES, &why);
    if (!source)
        return err_set(err, ERR_PERMANENT, "not JSON: %s", why.text);
    if (rule_read(&f->rules[f->count], source, err) < 0) {
        json_decref(source);
        return -1;
    }
    f->count++;
    return 0;
}

void faults_list(const struct faults *f, struct buf *out)
{
    buf_puts(out, "[");
    for (size_t i = 0; i < f->count; i++) {
        char *text = json_dumps(f->rules[i].source, JSON_COMPACT);
        buf_printf(out, "%s%s", i ? "," : "", text ? text : "null");
        free(text);
    }
    buf_puts(out, "]");
}

static bool listed(const json_t *list, const char *word)
{
    size_t i;
    json_t *item;

    if (!list)
        return true;
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(item);
        if (text && strcmp(text, word) == 0)
            return true;
    }
    return false;
}

/* xorshift64*: the same requests meet the same faults in each run. */
static double draw(struct faults *f)
{
    f->random ^= f->random >> 12;
    f->random ^= f->random << 25;
    f->random ^= f->random >> 27;
    return (double)((f->random * UINT64_C(2685821657736338717)) >> 11) / (double)(UINT64_C(1) << 53);
}

struct fault faults_pick(struct faults *f, const char *method, const char *order_id)
{
    for (size_t i = 0; i < f->count; i++) {
        struct rule *r = &f->rules[i];
        if (r->times == 0 || !listed(r->keys, order_id) || !listed(r->methods, method))
            continue;
        if (r->share < 1 && draw(f) >= r->share)
            continue;
        if (r->times > 0)
            r->times--;
        return (struct fault){r->mode, r->execute, r->status, r->delay_ns, r->retry_after};
    }
    return (struct fault){.mode = FAULT_NONE, .execute = true};
}
