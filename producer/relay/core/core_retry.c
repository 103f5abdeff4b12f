/* Publishes parked rows again when an operator asks for it, one at a time. */
#include "producer/relay/core/core_state.h"

void relay_core_parked_page(struct relay_core *c, int64_t now, void *page, const struct relay_row *rows,
                            int count)
{
    (void)now;
    (void)page;
    (void)rows;
    (void)count;
    ENSURE(c->db == RELAY_READ_PARKED);
    c->db = DB_IDLE;
}
