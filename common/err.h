/* What went wrong, and whether trying again can help: the one error value every function fills. */
#pragma once

#include "common/compiler.h"

enum err_kind {
    ERR_NONE = 0,
    ERR_TEMPORARY, /* the same call may succeed later: retry with backoff; at start-up exit 111 when it lasts */
    ERR_PERMANENT, /* this input can never succeed: dead letter, park, or refuse the option (exit 100) */
    ERR_FATAL      /* this process must not go on (fenced, corrupted state): exit 111 at once */
};

#define ERR_MESSAGE_BYTES 512

/* Owned by the caller, plain memory, no cleanup needed. Start with `struct err err = {0};`. */
struct err {
    enum err_kind kind;
    /* lower-case fact, offending value in quotes, then the hint; cut at the limit */
    char message[ERR_MESSAGE_BYTES];
};

/* Record an error; the first one wins, err may be NULL. Always returns -1, so `return err_set(...)` reads well. */
int err_set(struct err *err, enum err_kind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Put words before the message that is there ("reading \"x.ini\": " + message); no effect without an error. */
void err_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
void err_clear(struct err *err);
const char *err_kind_name(enum err_kind kind); /* "none" "temporary" "permanent" "fatal" */
/* The exit code of a program that ends with this error: 0, 100 (permanent), 111 (temporary, fatal). */
int err_exit_code(const struct err *err);
