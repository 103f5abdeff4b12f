/* What the tool says about itself: short, with examples to copy. */
#include "worker/dlq/dlq_help.h"

const char DLQ_HELP_TAIL[] =
    "Verbs (tandem-dlq VERB --help tells more):\n"
    "  stats         how many dead letters, why, in what state, of which keys\n"
    "  ls            one line for each, with filters\n"
    "  show ID       everything about one, and what to do next\n"
    "  replay        send events to the worker again: a dry run unless --execute is given\n"
    "\n"
    "States: open, failed-again (both wait for you), replaying, resolved.\n"
    "\n"
    "Examples:\n"
    "  tandem-dlq --destination inventory stats\n"
    "  tandem-dlq --destination inventory ls --reason rejected --since 2h\n"
    "  tandem-dlq --destination inventory show 019abc00-0000-7000-8000-000000000001\n"
    "  tandem-dlq --destination inventory replay --reason rejected\n"
    "  tandem-dlq --destination inventory replay --reason rejected --execute\n"
    "\n"
    "Data on stdout, notes and errors on stderr. Exit codes: 0 done; 1 done in part;\n"
    "100 wrong use or configuration; 111 Kafka or the machine failed, try again.\n";

struct verb_help {
    const char *usage, *prose, *examples;
};

static const struct verb_help HELP[DLQ_VERB_COUNT] = {
    [DLQ_STATS] = {"stats [--json]",
                   "Counts the events of the dead-letter topic by state, reason, last HTTP status and key\n"
                   "(those with most waiting first), and says how old the oldest is. The place to begin.",
                   "  tandem-dlq --destination inventory stats\n"
                   "  tandem-dlq --destination crm stats --json | jq .states\n"},
    [DLQ_LS] = {"ls [filters] [--json]",
                "One line for each event, the oldest first: when, state, reason, last status, key, type,\n"
                "and last the event id, which show and replay take. Filters are all to hold together.",
                "  tandem-dlq --destination inventory ls --state open\n"
                "  tandem-dlq --destination inventory ls --key o-17\n"
                "  tandem-dlq --destination inventory ls --since 2h --json --limit 1000\n"},
    [DLQ_SHOW] =
        {"show ID [--json]",
         "All about one dead letter: what its reason means and what to do next, the API's last\n"
         "answer, its rounds, headers and payload (JSON indented, other bytes in hex). ID is an event\n"
         "id, an x-dlq-id, or partition/offset in the dead-letter topic. Of several dead letters with one\n"
         "id it is the one that waits, and the others are named.",
         "  tandem-dlq --destination inventory show 019abc00-0000-7000-8000-000000000001\n"
         "  tandem-dlq --destination inventory show 3/1204\n"},
    [DLQ_REPLAY] =
        {"replay ID… | filters | --all  [--execute] [--rate N/s] [--limit N] [--json]",
         "Puts events before the worker again, by a topic that only this destination's worker reads:\n"
         "other APIs see nothing. Without --execute nothing is changed and the plan is shown.\n"
         "Only open and failed-again events are taken; what is replaying or resolved is skipped.\n"
         "A key is replayed as a whole and in order, so its other waiting events go along.\n"
         "A run is one Kafka transaction: all of it or nothing. With --rate each second is one.\n"
         "One run at a time: a second one takes over and stops the first.",
         "  tandem-dlq --destination inventory replay 019abc00-0000-7000-8000-000000000001\n"
         "  tandem-dlq --destination inventory replay --reason rejected --limit 10 --execute\n"
         "  tandem-dlq --destination inventory replay --all --rate 50/s --execute\n"},
};

void dlq_help_verb(enum dlq_verb verb, struct buf *out)
{
    ENSURE(verb < DLQ_VERB_COUNT);
    const struct verb_help *help = &HELP[verb];
    buf_printf(out, "Usage: tandem-dlq --destination NAME %s\n\n%s\n\n", help->usage, help->prose);
    dlq_args_help(verb, out);
    buf_printf(out, "\nExamples:\n%s\nWhere to look (--kafka-brokers, --group, …): tandem-dlq --help\n",
               help->examples);
}
