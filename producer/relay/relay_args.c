/* The table of the verbs' flags, and which of their values and words can be. */
#include "producer/relay/relay_args.h"

#include <string.h>

#include "common/flags.h"
#include "producer/relay/core/park_reason.h"
#include "producer/relay/relay_shard.h"

#define IDS_BYTES_MAX (RELAY_WORDS_MAX * 40)
#define KEY_BYTES_MAX 16384 /* a key of 4096 bytes in hex, and something over */

#define ON(verb) (1u << RELAY_VERB_##verb)
#define CHANGES (ON(PARKED_RETRY) | ON(PARKED_DROP))
#define PARKED (ON(PARKED_LS) | CHANGES)
#define FLAG(name_, kind_, verbs_, member_, value_, prose_)                                                  \
    {                                                                                                        \
        "--" name_, FLAG_##kind_, verbs_, offsetof(struct relay_args, member_), value_, prose_               \
    }

static const struct flag FLAGS[] = {
    FLAG("reason", WORD, PARKED, reason, "REASON", "only rows parked for this reason (status lists them)"),
    FLAG("topic", WORD, PARKED | ON(REPUBLISH), topic, "TOPIC",
         "only rows of this topic, as the row names it"),
    FLAG("key", WORD, PARKED | ON(REPUBLISH), key, "KEY",
         "only rows of this key; \\x and hex for one that is no text"),
    FLAG("type", WORD, ON(REPUBLISH), type, "TYPE", "only rows of this CloudEvents type"),
    FLAG("since", WORD, ON(REPUBLISH), since, "TIME",
         "inserted at or after: 2026-01-02, 2026-01-02T03:04:05Z (UTC), or 2h (ago)"),
    FLAG("until", WORD, ON(REPUBLISH), until, "TIME", "inserted before"),
    FLAG("from-id", WORD, ON(REPUBLISH), from_id, "ID", "with this id of the outbox or a higher one"),
    FLAG("to-id", WORD, ON(REPUBLISH), to_id, "ID", "with this id or a lower one"),
    FLAG("new-ids", BOOL, ON(REPUBLISH), new_ids, NULL,
         "with new event ids: consumers take them for new events; else each keeps its own"),
    FLAG("limit", WORD, ON(PARKED_LS), limit, "N", "no more than so many (100 when not given)"),
    FLAG("all", BOOL, CHANGES, all, NULL, "every parked row"),
    FLAG("then-retry", BOOL, ON(PARKED_DROP), then_retry, NULL,
         "publish again what then remains parked of the same keys"),
    FLAG("yes", BOOL, CHANGES | ON(REPUBLISH) | ON(SHARDS), yes, NULL,
         "do it; without this nothing is changed"),
    FLAG("json", BOOL, PARKED | ON(PARKED_SHOW) | ON(STATUS) | ON(REPUBLISH), json, NULL,
         "JSON on stdout, one object a line"),
};

static const char *const VERBS[RELAY_VERB_COUNT] = {
    [RELAY_VERB_RUN] = "run",
    [RELAY_VERB_SETUP_DROP] = "setup drop",
    [RELAY_VERB_SETUP] = "setup",
    [RELAY_VERB_STATUS] = "status",
    [RELAY_VERB_PARKED_LS] = "parked ls",
    [RELAY_VERB_PARKED_SHOW] = "parked show",
    [RELAY_VERB_PARKED_RETRY] = "parked retry",
    [RELAY_VERB_PARKED_DROP] = "parked drop",
    [RELAY_VERB_REPUBLISH] = "republish",
    [RELAY_VERB_SHARDS] = "shards",
};

static const struct flag_set SET = {FLAGS, ARRAY_LEN(FLAGS), VERBS, RELAY_VERB_COUNT};

const char *relay_verb_name(enum relay_verb verb)
{
    ENSURE(verb < RELAY_VERB_COUNT);
    return VERBS[verb];
}

int relay_verb_of(const char *const *words, size_t count, size_t *ret_words)
{
    for (int v = 0; v < RELAY_VERB_COUNT && count > 0; v++) {
        const char *space = strchr(VERBS[v], ' ');
        size_t first = space ? (size_t)(space - VERBS[v]) : strlen(VERBS[v]);
        if (strlen(words[0]) != first || strncmp(words[0], VERBS[v], first) != 0)
            continue;
        if (space && (count < 2 || strcmp(words[1], space + 1) != 0))
            continue;
        *ret_words = space ? 2 : 1;
        return v;
    }
    return -1;
}

/* ---- taking flags ---- */

int relay_args_take(struct relay_args *args, int *argc, char **argv, struct err *err)
{
    *args = (struct relay_args){0};
    buf_init(&args->numbers, IDS_BYTES_MAX);
    buf_init(&args->uuids, IDS_BYTES_MAX);
    buf_init(&args->key_bytes, KEY_BYTES_MAX);
    return flags_take(&SET, args, argc, argv, &args->given, &args->help, err);
}

void relay_args_done(struct relay_args *args)
{
    buf_done(&args->numbers);
    buf_done(&args->uuids);
    buf_done(&args->key_bytes);
}

int relay_args_verb(struct relay_args *args, const char *const *words, size_t count,
                    enum relay_verb *ret_verb, struct err *err)
{
    size_t taken = 0;
    int verb = count ? relay_verb_of(words, count, &taken) : RELAY_VERB_RUN;

    if (verb < 0 && strcmp(words[0], "parked") == 0)
        return err_set(err, ERR_PERMANENT, "parked: say which: ls, show, retry or drop");
    if (verb < 0)
        return err_set(
            err, ERR_PERMANENT,
            "no verb \"%s\": run, setup, status, parked, republish or shards; tandem-relay --help tells more",
            words[0]);
    memcpy(args->words, words + taken, (count - taken) * sizeof(*words));
    args->word_count = count - taken;
    *ret_verb = (enum relay_verb)verb;
    return 0;
}

/* ---- checking values ---- */

static int check_reason(const char *reason, struct err *err)
{
    struct buf known;

    for (int r = 0; r < PARK_REASON_COUNT; r++)
        if (strcmp(reason, park_reason_name((enum park_reason)r)) == 0)
            return 0;
    buf_init(&known, 1024);
    for (int r = 0; r < PARK_REASON_COUNT; r++)
        buf_printf(&known, " %s", park_reason_name((enum park_reason)r));
    err_set(err, ERR_PERMANENT, "--reason: no reason \"%s\"; known are%s", reason, buf_str(&known));
    buf_done(&known);
    return -1;
}

static bool is_number(const char *text)
{
    size_t len = strlen(text);

    return len > 0 && len <= 18 && strspn(text, "0123456789") == len;
}

static bool is_uuid(const char *text)
{
    if (strlen(text) != 36 || strspn(text, "0123456789abcdefABCDEF-") != 36)
        return false;
    for (size_t i = 0; i < 36; i++)
        if ((text[i] == '-') != (i == 8 || i == 13 || i == 18 || i == 23))
            return false;
    return true;
}

static int check_number(const char *flag, const char *text, struct err *err)
{
    if (!text || is_number(text))
        return 0;
    return err_set(err, ERR_PERMANENT, "%s: \"%s\" is not a number", flag, text);
}

static int check_ids(struct relay_args *args, struct err *err)
{
    buf_puts(&args->numbers, "{");
    buf_puts(&args->uuids, "{");
    for (size_t i = 0; i < args->word_count; i++) {
        struct buf *list = is_number(args->words[i]) ? &args->numbers : &args->uuids;
        if (list == &args->uuids && !is_uuid(args->words[i]))
            return err_set(err, ERR_PERMANENT,
                           "\"%s\" is no id: give the number of the outbox row or the event id",
                           args->words[i]);
        buf_printf(list, "%s%s", list->len > 1 ? "," : "", args->words[i]);
    }
    buf_puts(&args->numbers, "}");
    buf_puts(&args->uuids, "}");
    return args->numbers.failed || args->uuids.failed ? err_set(err, ERR_TEMPORARY, "no memory for the ids")
                                                      : 0;
}

/* --key as a literal of type bytea: what begins with \x is hex already. */
static int check_key(struct relay_args *args, struct err *err)
{
    const char *key = args->key;
    size_t len = strlen(key);
    bool hex = strncmp(key, "\\x", 2) == 0;

    if (hex && (len % 2 != 0 || strspn(key + 2, "0123456789abcdefABCDEF") != len - 2))
        return err_set(err, ERR_PERMANENT, "--key: \"%s\" is not \\x and pairs of hex digits", key);
    buf_puts(&args->key_bytes, hex ? key : "\\x");
    for (size_t i = 0; i < len && !hex; i++)
        buf_printf(&args->key_bytes, "%02x", (unsigned char)key[i]);
    return args->key_bytes.failed ? err_set(err, ERR_PERMANENT, "--key: longer than any key") : 0;
}

/* A change of everything is a mistake unless somebody says that it is not. */
static int check_selection(const struct relay_args *args, enum relay_verb verb, struct err *err)
{
    int ways = (args->word_count > 0) + args->filtered + args->all;

    if (ways == 0)
        return err_set(err, ERR_PERMANENT,
                       "%s: say which: ids, a filter such as --reason too-large, or --all",
                       relay_verb_name(verb));
    if (ways > 1)
        return err_set(err, ERR_PERMANENT, "%s: ids, filters and --all exclude each other",
                       relay_verb_name(verb));
    return 0;
}

static int check_shards(const struct relay_args *args, struct err *err)
{
    int64_t count = args->word_count ? strtoll(args->words[0], NULL, 10) : 1;

    if (args->word_count > 1)
        return err_set(err, ERR_PERMANENT, "shards: \"%s\" is one word too many", args->words[1]);
    if (args->yes && args->word_count == 0)
        return err_set(err, ERR_PERMANENT, "shards: say how many: tandem-relay shards 4 --yes");
    if (args->word_count && (!is_number(args->words[0]) || count < 1 || count > RELAY_SHARDS_MAX))
        return err_set(err, ERR_PERMANENT, "shards: \"%s\" is not a number from 1 to %d", args->words[0],
                       RELAY_SHARDS_MAX);
    return 0;
}

static int check_words(const struct relay_args *args, enum relay_verb verb, struct err *err)
{
    if ((1u << verb) & CHANGES)
        return check_selection(args, verb, err);
    if (verb == RELAY_VERB_PARKED_SHOW && args->word_count != 1)
        return err_set(err, ERR_PERMANENT,
                       "parked show: one id is needed, the number of the outbox row or the event id");
    if (verb == RELAY_VERB_SHARDS)
        return check_shards(args, err);
    if (verb != RELAY_VERB_PARKED_SHOW && args->word_count > 0)
        return err_set(err, ERR_PERMANENT, "%s: \"%s\" is one word too many", relay_verb_name(verb),
                       args->words[0]);
    if (verb == RELAY_VERB_REPUBLISH && !args->since && !args->from_id)
        return err_set(err, ERR_PERMANENT, "republish: say from where: --since TIME or --from-id ID");
    return 0;
}

int relay_args_check(struct relay_args *args, enum relay_verb verb, struct err *err)
{
    if (flags_check(&SET, args->given, verb, err) < 0)
        return -1;
    args->filtered = args->reason || args->topic || args->key;
    if (args->reason && check_reason(args->reason, err) < 0)
        return -1;
    if (check_number("--limit", args->limit, err) < 0 || check_number("--from-id", args->from_id, err) < 0 ||
        check_number("--to-id", args->to_id, err) < 0)
        return -1;
    if (args->key && check_key(args, err) < 0)
        return -1;
    if (check_words(args, verb, err) < 0)
        return -1;
    return args->word_count && verb != RELAY_VERB_SHARDS ? check_ids(args, err) : 0;
}

/* ---- telling ---- */

void relay_args_help(enum relay_verb verb, struct buf *out)
{
    flags_help(&SET, verb, out);
}

void relay_args_mdoc(struct buf *out)
{
    flags_mdoc(&SET, out);
}
