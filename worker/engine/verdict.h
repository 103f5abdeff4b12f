/* What an answer means: the table of verdicts and reasons that engine, targets, metrics and manuals are made from. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/compiler.h"

/* How the attempt ended below HTTP. The curl room maps CURLcode to these; the engine knows no curl. */
enum transport {
    TRANSPORT_OK,              /* a whole answer with a status came */
    TRANSPORT_CONNECT,         /* resolve, connect or TLS handshake failed: surely not executed */
    TRANSPORT_TIMEOUT_CONNECT, /* no connection in time: surely not executed */
    TRANSPORT_TIMEOUT,         /* no answer in time after sending: ambiguous */
    TRANSPORT_RESET,           /* connection lost after sending, half an answer: ambiguous */
    TRANSPORT_GARBAGE,         /* not HTTP, body over the cap, bad encoding: ambiguous */
    TRANSPORT_REFUSED,         /* we refuse: redirect target, forbidden address, certificate not trusted */
    TRANSPORT_CANCELLED,
    TRANSPORT_COUNT
};

/* VERDICT(id, "name", "what happens") in verdict.def */
enum verdict {
#define VERDICT(id, name, prose) VERDICT_##id,
#define REASON(id, name, prose)
#include "worker/engine/verdict.def"
#undef VERDICT
#undef REASON
    VERDICT_COUNT
};

/* REASON(id, "name", "prose"): why a dead letter; the names are a stable format (x-dlq-reason) and metric labels. */
enum reason {
#define VERDICT(id, name, prose)
#define REASON(id, name, prose) REASON_##id,
#include "worker/engine/verdict.def"
#undef VERDICT
#undef REASON
    REASON_COUNT
};

const char *verdict_name(enum verdict v);
const char *reason_name(enum reason r);
const char *reason_prose(enum reason r);
const char *transport_name(enum transport t);

/* A rule: the first that matches wins; target rules come before the common ones. */
struct verdict_rule {
    int status_from, status_to; /* both 0: any status (the transport decides) */
    enum transport transport;   /* TRANSPORT_OK for rules about a status */
    enum verdict verdict;
    enum reason reason; /* for VERDICT_POISON; REASON_NONE otherwise */
};

struct judgement {
    enum verdict verdict;
    enum reason reason;
    bool systemic; /* counts for the breaker: the API's trouble, not this event's */
};
/* rules may be NULL. Every (transport, status) has an answer; unknown 4xx are poison, everything else unknown is retry. */
struct judgement verdict_of(const struct verdict_rule *rules, size_t count, enum transport t, int status);
/* The judgement when somebody who has read the answer (the target) gave the verdict; reason: of a poison, REASON_NONE: rejected. */
struct judgement verdict_given(enum verdict v, enum reason reason, enum transport t, int status);
