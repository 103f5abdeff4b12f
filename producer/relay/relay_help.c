/* What tandem-relay says about its verbs: short, with examples to copy. */
#include "producer/relay/relay_help.h"

const char RELAY_HELP_TAIL[] =
    "Verbs (tandem-relay VERB --help tells more):\n"
    "  run           publish, until stopped (also without a verb)\n"
    "  setup         make and check what the sources wal and message need in Postgres; setup drop\n"
    "                takes it away\n"
    "  status        what the relay does, how far it is behind, what waits for you: one screen\n"
    "  parked ls     rows that Kafka did not take; parked show, parked retry, parked drop\n"
    "  shards        how many relays share the outbox, each with the keys of its shard\n"
    "  republish     put rows that are still in the outbox into it again\n"
    "\n"
    "A second relay on the same database waits and takes over when the first one goes.\n"
    "\n"
    "Examples:\n"
    "  tandem-relay --database-url postgresql://tandem@db/shop --kafka-brokers kafka:9092\n"
    "  tandem-relay status --database-url postgresql://tandem@db/shop\n"
    "\n"
    "Exit codes: 0 done, or stopped by a signal after draining; 1 done in part; 100 wrong use or "
    "configuration; 111 the "
    "environment failed.\n";

struct verb_help {
    const char *usage, *prose, *examples;
};

static const struct verb_help HELP[RELAY_VERB_COUNT] = {
    [RELAY_VERB_SETUP] =
        {"setup [drop]",
         "Makes the publication and the replication slot that the sources wal and message need, where\n"
         "they are missing, and checks them where they are there. Safe to run again; says what it did.\n"
         "Run it as a role with REPLICATION that owns tandem.outbox and may CREATE in the database, or\n"
         "as a superuser. Slots are named in a whole cluster: a second database needs another --slot.",
         "  tandem-relay setup --source wal\n"
         "  tandem-relay setup --source wal --slot tandem_relay_shop\n"},
    [RELAY_VERB_SETUP_DROP] =
        {"setup drop",
         "Takes the replication slot and the publication away again. With the source message, events\n"
         "that the relay has not read yet are lost with the slot.",
         "  tandem-relay setup drop --source wal\n"},
    [RELAY_VERB_STATUS] =
        {"status [--json]",
         "One screen: who works, how far it is behind (by the stored position and the database's\n"
         "clock), replication slots and the log they hold back, parked rows by reason, the outbox's\n"
         "tables. Takes a second, to measure rates. Works without any relay.",
         "  tandem-relay status\n"
         "  tandem-relay status --json | jq .shards[0].lag_rows\n"},
    [RELAY_VERB_PARKED_LS] = {"parked ls [filters] [--limit N] [--json]",
                              "One line for each parked row, in the order of the outbox.",
                              "  tandem-relay parked ls --reason too-large\n"
                              "  tandem-relay parked ls --topic tandem.orders --key o-17 --json\n"},
    [RELAY_VERB_PARKED_SHOW] =
        {"parked show ID [--json]",
         "All about one parked row: why, what to do, its headers and payload. ID is the number\n"
         "of the outbox row or the event id.",
         "  tandem-relay parked show 4294967301\n"},
    [RELAY_VERB_PARKED_RETRY] =
        {"parked retry ID… | filters | --all  [--yes] [--json]",
         "Has the relay publish parked rows again. A key goes as a whole and in order, so its other\n"
         "parked rows go along. What is refused again stays parked, with its new reason. Without\n"
         "--yes nothing is changed and the rows are shown.",
         "  tandem-relay parked retry --reason too-large\n"
         "  tandem-relay parked retry --reason too-large --yes\n"},
    [RELAY_VERB_PARKED_DROP] =
        {"parked drop ID… | filters | --all  [--then-retry] [--yes] [--json]",
         "Deletes parked rows: they are not published (but see republish). Rows parked behind them\n"
         "stay; --then-retry has those published. Without --yes nothing is changed and the rows are\n"
         "shown.\n"
         "`parked show ID --json` keeps a copy.",
         "  tandem-relay parked drop 4294967301 --then-retry\n"
         "  tandem-relay parked drop 4294967301 --then-retry --yes\n"},
    [RELAY_VERB_SHARDS] =
        {"shards [COUNT] [--yes]",
         "Says how many shards the outbox has, or makes COUNT of them (1 to 32). Each is worked by a relay\n"
         "with its --shard, and has a lease, a position and a slot of its own; a key belongs to one shard.\n"
         "Stop all relays first. From several shards to another number every row has to be published\n"
         "before: stop what writes to the outbox, let the relays finish, stop them. Without --yes it is\n"
         "only tried: what stands in the way is said, and nothing is changed.",
         "  tandem-relay shards\n"
         "  tandem-relay shards 4 --yes\n"
         "  tandem-relay --shard 3\n"},
    [RELAY_VERB_REPUBLISH] =
        {"republish --since TIME | --from-id ID  [filters] [--new-ids] [--yes] [--json]",
         "Puts published rows that are still in the outbox (see --retention) into it again, as new rows\n"
         "in the same order with the same event ids: for a topic that was lost, or a new consumer.\n"
         "Consumers that know an event id do nothing; with --new-ids they take each for a new event.\n"
         "The copies come after everything that is there: for one key, old events after newer ones.\n"
         "Rows not published yet, and parked ones, are left out; rows that parked drop took away are\n"
         "not, for the outbox still has them. Without --yes nothing is changed.",
         "  tandem-relay republish --since 2h --topic tandem.orders\n"
         "  tandem-relay republish --since 2026-01-02T03:00:00Z --until 2026-01-02T04:00:00Z --yes\n"},
};

void relay_help_verb(enum relay_verb verb, struct buf *out)
{
    const struct verb_help *help = &HELP[verb];
    size_t flags;

    ENSURE(verb < RELAY_VERB_COUNT && help->usage);
    buf_printf(out, "Usage: tandem-relay %s\n\n%s\n\n", help->usage, help->prose);
    flags = out->len;
    relay_args_help(verb, out);
    buf_printf(out, "%sExamples:\n%s\nWhere to look (--database-url, …): tandem-relay --help\n",
               out->len > flags ? "\n" : "", help->examples);
}
