/* What a jq program says: of an event, its request; of an answer, the verdict. */
#pragma once

#include "worker/targets/http_jq_helper.h"
#include "worker/targets/http_target.h"

/*
 * The program's input is the event in CloudEvents' JSON format, with "key" and its payload as "data". Its result is null or nothing, the
 * event is not for this API; or an object that says more than the route did, or something else: "method"; "path", as text or as an array of
 * segments; "query", an object; "headers", an object, of which each takes the place of one of that name that req has, null changes none;
 * "body", a text as it is, anything else as JSON, null for none.
 * Called after the route has filled req (req->method NULL: there are no routes).
 */
enum target_answer http_jq_map(struct jq_helper *h, const struct event *ev, struct request *req,
                               struct err *err);
/*
 * Its input is {"status", "headers" (names in lower case), "body" (JSON, or a text), "repeated", "event" (without data)}. Its result is a
 * verdict as in a rule, "retry" or "poison:conflict", or null: the rules decide. -1 PERMANENT: no verdict came. FATAL: whatever the program
 * would have said, nobody heard it.
 */
NODISCARD int http_jq_judge(struct jq_helper *h, const struct answer *a, bool *ret_decided,
                            struct ruling *ret, struct err *err);

/* How both read what came out of the program; without a root, or NULL: nothing. Borrowed. */
enum target_answer http_jq_take_request(const struct json_source *result, struct request *req,
                                        struct err *err);
NODISCARD int http_jq_take_verdict(const struct json_t *result, bool *ret_decided, struct ruling *ret,
                                   struct err *err);
