/* Takes passwords out of text that people will read: connection strings, and messages that quote them. */
#pragma once

#include <stdbool.h>

#include "common/buf.h"

/*
 * Append text to out with "***" in place of what follows "password=" (also inside sslpassword=, sasl.password=) up to a space, '&' or
 * quote, and in place of the password in scheme://user:password@host. Rather too much than too little. 0, or -1 as buf_append.
 */
int redact_text(struct buf *out, const char *text);
/* Does a setting of this name hold a secret? ("sasl.password", "ssl.key.pem", "sasl.jaas.config", …) */
bool redact_is_secret_name(const char *name);
