/* What each kind of credential makes of its secrets; between auth.c and the auth_*.c files. */
#pragma once

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"

#define AUTH_SECRET_BYTES_MAX 8192 /* of one secret */
#define AUTH_TOKEN_BYTES_MAX 12288 /* of an access token */
#define AUTH_VALUE_BYTES_MAX 16384 /* of the header's value: the longest of these, encoded */

/* All: 0, or -1 PERMANENT with a message that never quotes a secret. value is replaced; it is born with AUTH_VALUE_BYTES_MAX. */
NODISCARD int auth_value_check(const char *option, const char *secret, struct err *err);
NODISCARD int auth_apikey_header(const char *header, struct err *err);
NODISCARD int auth_apikey_value(const char *key, struct buf *value, struct err *err);
NODISCARD int auth_basic_check(const char *option, const char *user, struct err *err);
NODISCARD int auth_basic_value(const char *user, const char *password, struct buf *value, struct err *err);
