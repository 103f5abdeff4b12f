/* The client certificate of mutual TLS and its key: watched together, so that a half-changed pair is never used. */
#pragma once

#include "common/compiler.h"
#include "common/err.h"
#include "worker/auth_secret.h"

struct auth_identity {
    struct auth_secret cert_file, key_file; /* as they are on disk */
    char *cert, *key;                       /* PEM, the pair in force; NULL: no identity */
    unsigned generation;                    /* rises with each new pair; 0: no identity */
};

/* Both paths "": none. They are borrowed. -1 PERMANENT: unreadable, no PEM, or not a pair. */
NODISCARD int auth_identity_init(struct auth_identity *id, const char *cert_path, const char *key_path,
                                 struct err *err);
/* The option's file of authorities, "": none. -1 PERMANENT: TLS could not take it. */
NODISCARD int auth_identity_check_authorities(const char *option, const char *path, struct err *err);
void auth_identity_done(struct auth_identity *id);
bool auth_identity_look(struct auth_identity *id); /* true: there is a new pair */
