/* tandem-http: a target that is made of options, for an API that nobody has written a target for. */
#pragma once

#include "worker/targets/target.h"

struct http_options {
#define OPTION(name, type, ...) OPTION_MEMBER_##type(name)
#define OPTION_GROUP(title)
#include "worker/targets/http_options.def"
#undef OPTION
#undef OPTION_GROUP
};

extern const struct target http_target;

/* ---- http_routes.c: which request an event becomes ---- */

struct http_routes;
/* NULL: PERMANENT, names the line and what is wrong with it. */
struct http_routes *http_routes_new(const struct option_list *routes, const struct option_list *headers,
                                    struct err *err);
void http_routes_free(struct http_routes *r); /* NULL-safe */
enum target_answer http_routes_map(const struct http_routes *r, const struct event *ev, struct request *req,
                                   enum reason *ret_reason, struct err *err);
/* A method that a request may have, as a string that lives for ever; NULL: none of them. */
const char *http_method(const char *name);
/* May a configuration set this header? Not those that the worker or the HTTP library writes. */
NODISCARD int http_header_check(const char *name, struct err *err);
/* Add it to the request, whatever it is about: a precondition, the content type, or any other. */
NODISCARD int http_header_put(struct request *req, const char *name, struct slice value, struct err *err);
