/* A place in a JSON document, as RFC 6901 writes it: "/error/code", "/lines/0/sku"; "": all of it. */
#pragma once

#include <stdbool.h>

#include "common/compiler.h"
#include "common/err.h"

struct json_t;

/* -1 PERMANENT: it does not begin with "/", or has a "~" that is neither ~0 nor ~1. */
NODISCARD int json_pointer_check(const char *pointer, struct err *err);
/* NULL: there is nothing, or root is NULL. The pointer has been checked. Borrowed from root. */
const struct json_t *json_pointer_get(const struct json_t *root, const char *pointer);
/* Is it this string, number, true, false or null? Objects and arrays are none of them. */
bool json_pointer_is(const struct json_t *value, const char *text);
