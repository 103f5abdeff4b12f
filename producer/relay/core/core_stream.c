/* Takes the facts of the stream: rows behind those of the table, keepalives, and that it came or went. */
#include "producer/relay/core/core_state.h"

void relay_core_stream_up(struct relay_core *c, int64_t now, uint64_t start_lsn)
{
    (void)start_lsn;
    (void)now;
    ENSURE(c->cfg.kind != RELAY_KIND_TABLE);
}

void relay_core_stream_down(struct relay_core *c, int64_t now)
{
    (void)now;
    ENSURE(c->cfg.kind != RELAY_KIND_TABLE);
}

void relay_core_streamed(struct relay_core *c, int64_t now, void *page, const struct relay_stream_row *rows,
                         int count)
{
    (void)now;
    (void)page;
    (void)rows;
    ENSURE(count <= relay_core_stream_room(c));
}

void relay_core_stream_alive(struct relay_core *c, int64_t now, uint64_t lsn, bool wanted)
{
    (void)now;
    (void)lsn;
    (void)wanted;
    ENSURE(c->cfg.kind != RELAY_KIND_TABLE);
}

int relay_core_stream_room(const struct relay_core *c)
{
    ENSURE(c->cfg.kind != RELAY_KIND_TABLE);
    return 0;
}
