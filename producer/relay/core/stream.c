/* Keeps what is known of the stream: its state, the origin of rows on their way, and the transactions it may have passed over. */
#include "producer/relay/core/stream.h"

#include <string.h>

int stream_init(struct stream *s, size_t capacity, int page_rows, struct err *err)
{
    *s = (struct stream){.capacity = capacity, .waiting_max = page_rows};
    s->ring = calloc(capacity, sizeof(*s->ring));
    s->waiting = calloc((size_t)page_rows, sizeof(*s->waiting));
    if (!s->ring || !s->waiting)
        return err_set(err, ERR_TEMPORARY, "no memory for a stream of %zu rows", capacity);
    return 0;
}

void stream_done(struct stream *s)
{
    stream_drop(s);
    free(s->ring);
    free(s->waiting);
    *s = (struct stream){0};
}

bool stream_up(const struct stream *s)
{
    return s->state == STREAM_OVERLAP || s->state == STREAM_LIVE;
}

struct stream_origin *stream_origin(const struct stream *s, uint64_t seq)
{
    return s->ring ? &s->ring[seq & (s->capacity - 1)] : NULL;
}

void stream_drop(struct stream *s)
{
    s->state = STREAM_OFF;
    s->want_status = s->caught_up = false;
    s->look_counts = s->based = s->in_txn = s->grown = false;
    s->skipped_lsn = s->target_lsn = 0;
    s->waiting_count = 0;
    free(s->unsure);
    s->unsure = NULL;
    s->unsure_count = 0;
    if (s->refresh_held)
        snapshot_done(&s->refresh.snapshot);
    s->refresh_held = false;
}

/*
 * Not sure: the slot is new, or somebody moved it past the position. A transaction may have written its commit record before the start and be
 * in progress still, for it waits for a synchronous standby. It is in the list of this look then (which names all that were running, see
 * cursor.h; if it could not, the next look may), and in the table once it has ended.
 */
void stream_base(struct stream *s, const struct snapshot *known, uint64_t next_xid, bool sure)
{
    struct snapshot copy = {0};

    if (!sure && (known->xmax < next_xid || snapshot_copy(known, &copy, NULL) < 0))
        return;
    free(s->unsure);
    s->unsure = copy.xip;
    s->unsure_count = copy.xip_count;
    s->based = true;
}

void stream_seen(struct stream *s, const struct snapshot *known)
{
    size_t left = 0;

    for (size_t i = 0; i < s->unsure_count; i++)
        if (!snapshot_visible(known, s->unsure[i]))
            s->unsure[left++] = s->unsure[i];
    s->unsure_count = left;
}
