/* What `tandem-inventory status` shows of a running worker: one screen, or JSON with stable names (docs/formats.md). */
#pragma once

#include "worker/worker.h"

#define STATUS_SECONDS 10 /* the rate is of so long */
#define STATUS_LOOKS 40   /* looks kept for it */

/* Deliveries over the last ten seconds. Zeroed: none yet. */
struct status_rate {
    struct {
        int64_t at_ns, delivered;
    } looks[STATUS_LOOKS];
    int next, count;
};
void status_look(struct status_rate *r, int64_t now, int64_t delivered); /* four times a second */

/* The texts are complete lines. reasons: what /readyz says. */
struct status_facts {
    const struct worker *w;
    const struct engine_counts *counts;
    const struct status_rate *rate;
    const char *reasons;
    bool ready;
    int64_t now;
};
void status_screen(const struct status_facts *f,
                   struct buf *out); /* at most 80 columns but for names and errors */
void status_json(const struct status_facts *f, struct buf *out);
