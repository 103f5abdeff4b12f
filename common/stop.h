/* SIGTERM and SIGINT as facts: the first asks to drain, the second to stop now. */
#pragma once

#include "common/compiler.h"
#include "common/err.h"

enum stop_state { STOP_NO, STOP_DRAIN, STOP_NOW };

/* Install the handlers and ignore SIGPIPE. Before any thread. */
NODISCARD int stop_init(struct err *err);
enum stop_state stop_state(void);
/* Readable when a signal came: add it to a poll set (never read it yourself). */
int stop_fd(void);
/* The program itself asks for the drain (end of a bounded run, fatal error): a signal after it is still the first one. */
void stop_request(void);
