/* Answers held back until their time without a thread each: suspended connections in a heap, resumed by the loop that serves. */
#pragma once

#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"

struct MHD_Connection;
struct MHD_Daemon;
struct sockaddr_storage;
struct hold;

struct hold *hold_new(size_t max, struct err *err);
void hold_free(struct hold *h); /* NULL-safe; after the server has stopped */
/* Called by the request's handler: suspend it until then (clock_monotonic_ns). -1 when max are held: answer at once. */
int hold_until(struct hold *h, struct MHD_Connection *c, int64_t due_ns);
void hold_release_all(struct hold *h);
/* Serves, in this thread, until stop_fd is readable; then lets all go and returns. The daemon has no thread and uses epoll. */
void hold_run(struct hold *h, struct MHD_Daemon *d, int stop_fd);

/* "127.0.0.1:8081", ":0" or "[::1]:0" as a socket address. */
NODISCARD int sample_listen_address(const char *text, struct sockaddr_storage *ret_address, struct err *err);
