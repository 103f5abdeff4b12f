/* tandem-relay setup: what the sources wal and message need in Postgres, made when it is missing, and checked. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "common/compiler.h"
#include "common/err.h"

struct relay_options;

/*
 * Publication first, then the slot (a slot that is older than its publication cannot be read). Safe to run again: what is as it should be
 * stays, and out gets one line for each thing. drop: take both away instead. -1: PERMANENT names what a person has to change.
 */
NODISCARD int relay_setup(const struct relay_options *opt, bool drop, FILE *out, struct err *err);
