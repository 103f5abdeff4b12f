/* The operator's handbook in one table: for each reason, the next step. */
#include <string.h>

#include "worker/dlq/dlq_advice.h"
#include "worker/engine/verdict.h"

/* A reason of verdict.def without a text here does not compile. */
#define NEXT_NONE "nothing is known about the reason: look at the headers and the payload"
#define NEXT_REJECTED                                                                                        \
    "read the answer: mend the data or the API's rule it names, then replay; the same request will get the " \
    "same answer until something has changed"
#define NEXT_CONFLICT                                                                                        \
    "compare the API's state with the event: somebody else changed it, or an earlier attempt of ours did; "  \
    "mend the state, or give the worker a rule by which this answer counts as done, then replay"
#define NEXT_ATTEMPTS                                                                                        \
    "the API failed at this event while it served others: look for the event id in the API's log, have it "  \
    "mended, then replay"
#define NEXT_BLOCKING                                                                                        \
    "the API failed at this event while it served others, and its key's next events filled the window of "   \
    "their partition: look for the event id in the API's log, have it mended, then replay"
#define NEXT_AGE "the API did not take it in time (retry_age_max): when the event still matters, replay it"
#define NEXT_NOT_CLOUDEVENT                                                                                  \
    "something other than the relay wrote to the source topic: find the producer by the headers; a replay "  \
    "brings it back as it is"
#define NEXT_HEADERS                                                                                         \
    "make the producer send fewer or smaller headers from now on; a replay brings this one back as it is"
#define NEXT_TOO_LARGE                                                                                       \
    "raise payload_max of the worker when the API can take it, then replay; else send a reference instead "  \
    "of the data from now on"
#define NEXT_NOT_MAPPABLE                                                                                    \
    "the message names the field: deploy a worker that can map it, then replay; or correct it at the "       \
    "source from now on"
#define NEXT_TOMBSTONE                                                                                       \
    "the destination knows no meaning for an empty event, and a replay brings it back as it is: look "       \
    "whether the producer meant it"
#define NEXT_PARKED_BEHIND                                                                                   \
    "nothing is wrong with this one: settle the event it is parked behind; a replay of either takes the "    \
    "whole key in order"

static const char *const NEXT[REASON_COUNT] = {
#define VERDICT(id, name, prose)
#define REASON(id, name, prose) [REASON_##id] = NEXT_##id,
#include "worker/engine/verdict.def"
#undef VERDICT
#undef REASON
};

/* Of an event with a key, where it may be that no replay is ever delivered: nothing but a person ends that. */
#define BY_HAND "; its key stays parked (on_dead_letter = park) until it is freed by hand, see man tandem-dlq"
#define BY_HAND_ELSE                                                                                         \
    "; when this one can never be delivered, its key stays parked (on_dead_letter = park) until it is "      \
    "freed by hand, see man tandem-dlq"

static const char *const NEXT_OF_A_KEY[REASON_COUNT] = {
    [REASON_CONFLICT] = NEXT_CONFLICT BY_HAND_ELSE,         [REASON_HEADERS] = NEXT_HEADERS BY_HAND,
    [REASON_NOT_CLOUDEVENT] = NEXT_NOT_CLOUDEVENT BY_HAND,  [REASON_TOO_LARGE] = NEXT_TOO_LARGE BY_HAND_ELSE,
    [REASON_NOT_MAPPABLE] = NEXT_NOT_MAPPABLE BY_HAND_ELSE, [REASON_TOMBSTONE] = NEXT_TOMBSTONE BY_HAND,
};

/* REASON_COUNT when the name is not one of ours. */
static enum reason reason_of(const struct dlq_text *name)
{
    for (int r = 0; r < REASON_COUNT; r++)
        if (strcmp(name->data, reason_name((enum reason)r)) == 0)
            return (enum reason)r;
    return REASON_COUNT;
}

const char *dlq_advice_meaning(const struct dlq_text *reason)
{
    enum reason r = reason_of(reason);
    return r == REASON_COUNT ? "a reason that this version does not know" : reason_prose(r);
}

const char *dlq_advice_next(const struct dlq_entry *e)
{
    if (e->state == DLQ_RESOLVED)
        return "nothing: it has been replayed and is complete";
    if (e->state == DLQ_REPLAYING)
        return "wait: the worker has the replay before it; nothing moves while the API is down or the worker "
               "does not run";
    enum reason r = reason_of(e->reason);
    if (r == REASON_COUNT)
        return "read the message; a newer tandem-dlq knows more";
    return e->key && NEXT_OF_A_KEY[r] ? NEXT_OF_A_KEY[r] : NEXT[r];
}
