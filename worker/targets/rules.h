/*
 * What odd answers mean, one line each; the first line that matches decides:
 *
 *     MATCH and MATCH … -> VERDICT
 *
 *     404  4xx  400-404                    the status
 *     connect  timeout-connect  timeout  reset  garbage  refused      no answer (enum transport)
 *     header NAME    header NAME = VALUE   the answer has this header; with this value
 *     body POINTER   body POINTER = VALUE  its body is JSON that has this (RFC 6901); which is this string, word, or number as it is written
 *     type TYPE      type order.*          the event's type; "*" at the end: it begins so
 *     method NAME    if-match    if-none-match                        what the request was
 *     repeated                             an earlier attempt may have been executed without our knowing
 *
 * A word with spaces stands in "quotes", where \" and \\ are a quote and a backslash. VERDICT: a name of verdict.def; poison may name its
 * reason, as in poison:conflict. Every rule looks at a status, a failure, a header or a body. A failure is never poison nor done: that would
 * dead-letter, or lose, everything during an outage (G7).
 */
#pragma once

#include "worker/targets/target.h"

#define RULES_MAX 256
#define RULE_CONDITIONS_MAX 8
#define RULE_BYTES_MAX 1024

struct rules;
struct rules *rules_new(void);
void rules_free(struct rules *r); /* NULL-safe */
/* -1 PERMANENT: the line and what is wrong with it. */
NODISCARD int rules_add(struct rules *r, const char *line, struct err *err);
bool rules_concern(const struct rules *r, enum transport transport, int status); /* could one match? */
bool rules_want_headers(const struct rules *r);
/* "retry", "poison:conflict" */
NODISCARD int ruling_parse(const char *text, struct ruling *ret, struct err *err);
/* false: none matches. */
bool rules_decide(const struct rules *r, const struct answer *a, struct ruling *ret);
