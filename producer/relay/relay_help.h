/* What tandem-relay says about its verbs. */
#pragma once

#include "producer/relay/relay_args.h"

/* Behind the options in --help: verbs, examples, exit codes. */
extern const char RELAY_HELP_TAIL[];
void relay_help_verb(enum relay_verb verb, struct buf *out);
