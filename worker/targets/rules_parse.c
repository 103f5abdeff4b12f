/* Takes a rule's line apart, and says in one line what is wrong with it. */
#include <ctype.h>
#include <string.h>

#include "worker/targets/json_pointer.h"
#include "worker/targets/rules_room.h"

struct parser {
    const char *rest;
    char word[RULE_BYTES_MAX + 1]; /* the present one; "" and not quoted: the line has ended */
    bool quoted;
};

/* ---- words ------------------------------------------------------------------------------------------------------------------ */

static int parser_quoted(struct parser *p, struct err *err)
{
    size_t len = 0;
    for (p->rest++; *p->rest && *p->rest != '"'; p->rest++) {
        if (*p->rest == '\\' && (p->rest[1] == '"' || p->rest[1] == '\\'))
            p->rest++;
        p->word[len++] = *p->rest;
    }
    p->word[len] = '\0';
    p->quoted = true;
    if (*p->rest != '"')
        return err_set(err, ERR_PERMANENT, "a closing quote is missing");
    p->rest++;
    return 0;
}

static int parser_next(struct parser *p, struct err *err)
{
    p->rest += strspn(p->rest, " \t");
    if (*p->rest == '"')
        return parser_quoted(p, err);
    size_t len = strcspn(p->rest, " \t");
    memcpy(p->word, p->rest, len);
    p->word[len] = '\0';
    p->rest += len;
    p->quoted = false;
    return 0;
}

static bool at(const struct parser *p, const char *word)
{
    return !p->quoted && strcmp(p->word, word) == 0;
}

static bool at_end(const struct parser *p)
{
    return at(p, "");
}

static char *parser_take(const struct parser *p)
{
    char *copy = strdup(p->word);
    ENSURE(copy);
    return copy;
}

/* ---- conditions --------------------------------------------------------------------------------------------------------------- */

static int digits(const char *text, size_t count)
{
    int n = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isdigit((unsigned char)text[i]))
            return -1;
        n = n * 10 + (text[i] - '0');
    }
    return n;
}

/* "404", "4xx", "400-404" */
static bool parse_status(const char *word, struct condition *c)
{
    size_t len = strlen(word);
    c->from = c->to = -1;
    if (len == 3 && strcmp(word + 1, "xx") == 0) {
        c->from = digits(word, 1) * 100;
        c->to = c->from + 99;
    } else if (len == 3) {
        c->from = c->to = digits(word, 3);
    } else if (len == 7 && word[3] == '-') {
        c->from = digits(word, 3);
        c->to = digits(word + 4, 3);
    }
    return c->from >= 100 && c->to <= 599 && c->from <= c->to;
}

static bool parse_transport(const char *word, struct condition *c)
{
    for (int t = TRANSPORT_OK + 1; t < TRANSPORT_CANCELLED; t++) {
        if (strcmp(word, transport_name((enum transport)t)) == 0) {
            c->transport = (enum transport)t;
            return true;
        }
    }
    return false;
}

static const struct {
    const char *word;
    enum condition_kind kind;
    bool has_name, has_value;
} words[] = {
    {"header", CONDITION_HEADER, true, true},       {"body", CONDITION_BODY, true, true},
    {"type", CONDITION_TYPE, true, false},          {"method", CONDITION_METHOD, true, false},
    {"if-match", CONDITION_IF_MATCH, false, false}, {"if-none-match", CONDITION_IF_NONE_MATCH, false, false},
    {"repeated", CONDITION_REPEATED, false, false},
};

/* The words after "header", "body", "type" or "method". */
static int parse_operands(struct parser *p, size_t i, struct condition *c, struct err *err)
{
    if (words[i].has_name) {
        if (parser_next(p, err) < 0)
            return -1;
        if (at_end(p) || at(p, "and") || at(p, "->") || at(p, "="))
            return err_set(err, ERR_PERMANENT, "something is missing after \"%s\"", words[i].word);
        c->name = parser_take(p);
        if (c->kind == CONDITION_BODY && json_pointer_check(c->name, err) < 0)
            return -1;
    }
    if (parser_next(p, err) < 0)
        return -1;
    if (!words[i].has_value || !at(p, "="))
        return 0;
    if (parser_next(p, err) < 0)
        return -1;
    if (at_end(p) || at(p, "and") || at(p, "->"))
        return err_set(err, ERR_PERMANENT, "a value is missing after \"%s %.64s =\"", words[i].word, c->name);
    c->value = parser_take(p);
    return parser_next(p, err);
}

static int parse_condition(struct parser *p, struct condition *c, struct err *err)
{
    if (!p->quoted && parse_status(p->word, c)) {
        c->kind = CONDITION_STATUS;
        return parser_next(p, err);
    }
    if (!p->quoted && parse_transport(p->word, c)) {
        c->kind = CONDITION_TRANSPORT;
        return parser_next(p, err);
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!at(p, words[i].word))
            continue;
        c->kind = words[i].kind;
        return parse_operands(p, i, c, err);
    }
    return err_set(
        err, ERR_PERMANENT,
        "\"%.64s\" is no condition: a status (404, 4xx, 400-404), a failure (connect, timeout-connect, "
        "timeout, reset, garbage, refused), header, body, type, method, if-match, if-none-match or "
        "repeated",
        p->word);
}

static int parse_conditions(struct parser *p, struct rule *r, struct err *err)
{
    for (;;) {
        if (parser_next(p, err) < 0)
            return -1;
        if (r->condition_count == RULE_CONDITIONS_MAX)
            return err_set(err, ERR_PERMANENT, "more than %d conditions", RULE_CONDITIONS_MAX);
        if (parse_condition(p, &r->conditions[r->condition_count++], err) < 0)
            return -1;
        if (at(p, "->"))
            return 0;
        if (!at(p, "and"))
            return err_set(err, ERR_PERMANENT,
                           "\"and\" or \"->\" is expected before \"%.64s\"; words are apart by spaces",
                           p->word);
    }
}

/* ---- the verdict ---------------------------------------------------------------------------------------------------------------- */

/* Those that say something about an answer. */
static const enum reason reasons[] = {REASON_REJECTED, REASON_CONFLICT, REASON_TOO_LARGE,
                                      REASON_NOT_MAPPABLE};

static int parse_reason(const char *word, struct ruling *ret, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        if (strcmp(word, reason_name(reasons[i])) == 0) {
            ret->reason = reasons[i];
            return 0;
        }
    }
    return err_set(err, ERR_PERMANENT,
                   "\"%.64s\" is not a reason of poison: rejected, conflict, too-large or not-mappable",
                   word);
}

int ruling_parse(const char *text, struct ruling *ret, struct err *err)
{
    const char *colon = strchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : strlen(text);

    *ret = (struct ruling){.reason = REASON_NONE};
    for (int v = 0; v < VERDICT_COUNT; v++) {
        const char *name = verdict_name((enum verdict)v);
        if (strlen(name) != len || memcmp(name, text, len) != 0)
            continue;
        ret->verdict = (enum verdict)v;
        if (colon && v != VERDICT_POISON)
            return err_set(err, ERR_PERMANENT, "only poison has a reason, as in poison:conflict");
        return colon ? parse_reason(colon + 1, ret, err) : 0;
    }
    return err_set(
        err, ERR_PERMANENT,
        "\"%.64s\" is no verdict: delivered, duplicate-ok, retry, throttle, auth, poison or ambiguous", text);
}

static size_t count_of(const struct rule *r, enum condition_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < r->condition_count; i++)
        n += r->conditions[i].kind == kind;
    return n;
}

/* Could it do what it says, and no harm? */
static int rule_check(const struct rule *r, struct err *err)
{
    size_t statuses = count_of(r, CONDITION_STATUS), failures = count_of(r, CONDITION_TRANSPORT);
    size_t contents = count_of(r, CONDITION_HEADER) + count_of(r, CONDITION_BODY);
    enum verdict v = r->ruling.verdict;

    if (statuses + failures + contents == 0)
        return err_set(err, ERR_PERMANENT,
                       "it would decide about every answer: add a status, a failure, header or body");
    if (statuses > 1 || failures > 1 || (failures && statuses + contents))
        return err_set(err, ERR_PERMANENT, "its conditions can never be true together");
    if (failures && (v == VERDICT_POISON || v == VERDICT_DELIVERED || v == VERDICT_DUPLICATE_OK))
        return err_set(err, ERR_PERMANENT,
                       "where no answer came, %s would hit every event during an outage: retry or ambiguous",
                       verdict_name(v));
    return 0;
}

static int parse_line(struct parser *p, struct rule *r, struct err *err)
{
    if (parse_conditions(p, r, err) < 0 || parser_next(p, err) < 0)
        return -1;
    if (at_end(p))
        return err_set(err, ERR_PERMANENT, "a verdict is missing after \"->\"");
    if (ruling_parse(p->word, &r->ruling, err) < 0 || parser_next(p, err) < 0)
        return -1;
    if (!at_end(p))
        return err_set(err, ERR_PERMANENT, "\"%.64s\" is too much after the verdict", p->word);
    return rule_check(r, err);
}

int rule_parse(const char *line, struct rule *ret, struct err *err)
{
    static struct parser p; /* options are read once, at the start */
    struct err why = {0};

    if (strlen(line) > RULE_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "rule \"%.64s…\": longer than %d bytes", line, RULE_BYTES_MAX);
    p = (struct parser){.rest = line};
    if (parse_line(&p, ret, &why) == 0)
        return 0;
    return err_set(err, ERR_PERMANENT, "rule \"%.200s\": %s", line, why.message);
}

void rule_done(struct rule *r)
{
    for (size_t i = 0; i < r->condition_count; i++) {
        free(r->conditions[i].name);
        free(r->conditions[i].value);
    }
}
