/*
 * The fault switch: rules that make a sample API misbehave, for a share of its requests, some keys, some methods, some times.
 *
 * A rule is a JSON object; only mode is required, the first rule that matches a request decides:
 *   mode          status    answer `status` (default 500), nothing is executed
 *                 delay     execute, answer after delay_ms
 *                 hang      answer nothing; the connection closes after delay_ms (default 60 s)
 *                 close     close the connection at once
 *                 throttle  429 with Retry-After: retry_after (seconds, default 1; or any text)
 *                 garbage   bytes that are no HTTP, then close
 *                 half      an answer that stops in the middle of its body
 *                 redirect  307 to another path of this server
 *                 endless   200 with a body that never ends
 *                 execute-then-500   execute, and say that it failed
 *   status, delay_ms, retry_after      as above; delay_ms works with every mode that answers
 *   execute       true: execute before misbehaving (an answer that got lost)
 *   share         0..1, default 1
 *   keys          list of order ids; default all
 *   methods       list of methods; default all
 *   times         how often it may act; default without end
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"

#define FAULT_RULES_MAX 32
#define FAULT_KEYS_MAX 256

enum fault_mode {
    FAULT_NONE,
    FAULT_STATUS,
    FAULT_DELAY,
    FAULT_HANG,
    FAULT_CLOSE,
    FAULT_THROTTLE,
    FAULT_GARBAGE,
    FAULT_HALF,
    FAULT_REDIRECT,
    FAULT_ENDLESS
};

/* What to do with one request. */
struct fault {
    enum fault_mode mode;
    bool execute;
    int status;
    int64_t delay_ns;
    const char *retry_after; /* borrowed until the rules change */
};

struct faults;

struct faults *faults_new(void);
void faults_free(struct faults *f); /* NULL-safe */
NODISCARD int faults_add(struct faults *f, const char *json, size_t len, struct err *err);
void faults_clear(struct faults *f);
void faults_list(const struct faults *f, struct buf *out); /* JSON */
struct fault faults_pick(struct faults *f, const char *method, const char *order_id);
