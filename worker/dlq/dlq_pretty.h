/* JSON laid out for reading, without touching a single character of its values. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "common/event.h"

/* Print s indented when it is JSON; false, and nothing printed, when it is not. Numbers and strings stay as they were written. */
bool dlq_pretty_json(FILE *out, struct slice s);
