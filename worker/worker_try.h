/* What an event would become and an answer would mean, without sending anything: for who writes a target or a configuration. */
#pragma once

#include "worker/worker.h"

#define TRY_WORDS_MAX 4
/*
 * words: "try", a file with an event in CloudEvents' JSON format (with "key", and "headers" for those of its Kafka record), then perhaps a
 * status or the name of a failure, then perhaps a file with the answer's body. Prints to stdout. -1 PERMANENT: also when the event would be a
 * dead letter.
 */
NODISCARD int worker_try(struct worker *w, const char *const *words, size_t count, struct err *err);
