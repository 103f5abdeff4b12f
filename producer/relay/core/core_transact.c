/* Takes the facts of Kafka's transactions: a position travels in the same transaction as the rows it covers. */
#include "producer/relay/core/core_state.h"

void relay_core_opened(struct relay_core *c, int64_t now, struct position *p)
{
    (void)now;
    ENSURE(c->cfg.exactly_once);
    position_done(p);
}

void relay_core_committed(struct relay_core *c, int64_t now, enum relay_commit how)
{
    (void)now;
    (void)how;
    ENSURE(c->cfg.exactly_once);
}
