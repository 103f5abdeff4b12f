/* Whether a worker's options can be together: said at the start and by --print-config, not at the first event. */
#pragma once

#include "worker/worker.h"

/* What no single option can know: credentials, addresses, files, rules, the target's own. -1 PERMANENT, one line. */
NODISCARD int worker_check(const struct worker_options *o, const struct target *target, struct err *err);
