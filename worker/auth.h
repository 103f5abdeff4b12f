/* Credentials of requests: each kind (auth_*.c) answers with the header to send and takes its secret out of texts. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

struct auth {
    char *header; /* name of the header that carries the credential */
    char *value;  /* its value: the secret, or made of it */
};

/* An API key in a header of the API's choosing. NULL: PERMANENT, the name or the key cannot be in a header. */
struct auth *auth_apikey_new(const char *header, const char *key, struct err *err);
void auth_free(struct auth *a); /* NULL-safe; wipes the secret */
/* Append text to out with each occurrence of the secret replaced by "[redacted]". a NULL: as it is. */
NODISCARD int auth_redact(const struct auth *a, const char *text, size_t len, struct buf *out);
