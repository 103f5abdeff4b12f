/*
 * What an API says about its own limits beside Retry-After: "nothing left until then".
 *
 * The names and forms changed between the drafts of draft-ietf-httpapi-ratelimit-headers, and before them everybody had their own, so they
 * are read leniently: RateLimit-Remaining and RateLimit-Reset (drafts 00–06), RateLimit: limit=10, remaining=0, reset=7 (07),
 * RateLimit: "policy";r=0;t=7 (08 on), and X-RateLimit-… / X-Rate-Limit-… with a reset in seconds, in ms or as a time since 1970. Behind
 * a number its value ends, or "," or ";" follows: a date or "30s" says nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/event.h"

/* Zeroed is empty; one answer's headers are put in line by line. */
struct quota {
    bool has_remaining, has_reset;
    int64_t remaining, reset; /* as written; what reset means is decided at the end */
};

/* One header line, "Name: value", with or without its line end. What is not understood says nothing. */
void quota_header(struct quota *q, struct slice line);
/* How long nothing is left, in ns; -1: something is left, or nothing was said. wall_ns: the time now, since 1970 UTC. */
int64_t quota_wait(const struct quota *q, int64_t wall_ns);
