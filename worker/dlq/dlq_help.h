/* Help texts of the tool and of each verb. */
#pragma once

#include "common/buf.h"
#include "worker/dlq/dlq_args.h"

extern const char DLQ_HELP_TAIL[]; /* behind the options in `tandem-dlq --help` */
void dlq_help_verb(enum dlq_verb verb, struct buf *out);
