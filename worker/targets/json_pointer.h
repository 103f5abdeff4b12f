/* A place in a JSON document, as RFC 6901 writes it: "/error/code", "/lines/0/sku"; "": all of it. */
#pragma once

#include "common/compiler.h"
#include "common/err.h"

struct json_t;

/* -1 PERMANENT: it does not begin with "/", or has a "~" that is neither ~0 nor ~1. */
NODISCARD int json_pointer_check(const char *pointer, struct err *err);
/* NULL: there is nothing, or root is NULL. The pointer has been checked. Borrowed from root. */
const struct json_t *json_pointer_get(const struct json_t *root, const char *pointer);
