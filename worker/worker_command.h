/* What an operator tells a running worker: `tandem-inventory breaker open` is POST /breaker/open at its admin port. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

/* X(id, "its words on the command line", "its path below the admin port", "what it does") */
#define WORKER_COMMANDS(X)                                                                                   \
    X(BREAKER_OPEN, "breaker open", "breaker/open", "Send nothing, not even a probe.")                       \
    X(BREAKER_CLOSE, "breaker close", "breaker/close", "Send, whatever fails.")                              \
    X(BREAKER_AUTO, "breaker auto", "breaker/auto", "Let the breaker's rules decide again.")                 \
    X(PAUSE, "pause", "pause", "Let requests under way end and send nothing more.")                          \
    X(RESUME, "resume", "resume", "Send again.")                                                             \
    X(STATUS, "status", "status", "Show what it does now.")                                                  \
    X(STATUS_JSON, "status --json", "status/json", "The same as one line of JSON.")
enum worker_command {
#define X(id, words, path, prose) COMMAND_##id,
    WORKER_COMMANDS(X)
#undef X
        COMMAND_COUNT
};

#define COMMAND_WORDS_MAX 2
/* Takes --json, which is of a command and no option, out of the command line; true: it was there. */
bool worker_command_take_json(int *argc, char **argv);
/* enum worker_command, -1: none. `status json` is the older form of `status --json`. */
int worker_command_of(const char *const *words, size_t count, bool json);
int worker_command_at(const char *path);                      /* of a path with its leading slash; -1: none */
const char *worker_command_path(enum worker_command command); /* without it */

/*
 * Tell the worker that listens at admin_listen (its option) and print what it says now. -1: PERMANENT when nobody can be asked there,
 * TEMPORARY when the worker does not answer or does not do it.
 */
NODISCARD int worker_http_command(const char *admin_listen, enum worker_command command, struct err *err);
