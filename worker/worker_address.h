/* Is an address one of the public internet? For refuse_private: judged on what a connection is made to, not on what a name said. */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

/* Everything but globally reachable IPv4 and IPv6 is private; an IPv4 address inside an IPv6 one is judged by itself. */
bool address_is_private(const struct sockaddr *addr);
#define ADDRESS_TEXT_BYTES 64
/* "10.0.0.1", "::1", or "?" for another family; returns out. */
const char *address_text(const struct sockaddr *addr, char out[ADDRESS_TEXT_BYTES]);
