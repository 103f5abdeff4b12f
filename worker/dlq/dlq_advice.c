/* The operator's handbook in one table: for each reason, the next step. */
#include <string.h>

#include "worker/dlq/dlq_advice.h"
#include "worker/engine/verdict.h"

static const char *const NEXT[REASON_COUNT] = {
    [REASON_NONE] = "nothing is known about the reason: look at the headers and the payload",
    [REASON_REJECTED] = "read the answer: mend the data or the API's rule it names, then replay; the same "
                        "request will get the same "
                        "answer until something has changed",
    [REASON_CONFLICT] =
        "compare the API's state with the event: somebody else changed it, or an earlier attempt of "
        "ours did; discard what is there already, replay after the state is mended",
    [REASON_ATTEMPTS] = "the API failed at this event while it served others: look for the event id in the "
                        "API's log, have it mended, "
                        "then replay",
    [REASON_AGE] = "the API did not take it in time (retry_age_max): when the event still matters, replay it",
    [REASON_NOT_CLOUDEVENT] = "something other than the relay wrote to the source topic: find the producer "
                              "by the headers; a replay "
                              "will not help",
    [REASON_HEADERS] = "make the producer send fewer or smaller headers; a replay will not help",
    [REASON_TOO_LARGE] = "raise payload_max of the worker when the API can take it, then replay; else send a "
                         "reference instead of the data",
    [REASON_NOT_MAPPABLE] = "the message names the field: deploy a worker that can map it, then replay; or "
                            "correct it at the source",
    [REASON_TOMBSTONE] = "the destination knows no meaning for an empty event: nothing to do, unless the "
                         "producer sent it by mistake",
    [REASON_PARKED_BEHIND] =
        "nothing is wrong with this one: settle the event it is parked behind; a replay of either takes the "
        "whole key in order",
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
    return r == REASON_COUNT ? "read the message; a newer tandem-dlq knows more" : NEXT[r];
}
