/* What is delivered but not committed: while Kafka takes no commits nothing more is sent, so that a crash repeats little (G5). */
#include "worker/engine/engine_state.h"

/*
 * A commit is asked for each commit_interval. When what it would cover is twice as old, every stream of its consumer waits, not only this
 * one: a coordinator that is away takes nobody's commits, and streams that each used up their own time in turn would add up.
 * All source topics have one consumer, and the replay topic has one of its own.
 */
static bool is_too_old(const struct engine *e, enum stream_kind kind)
{
    struct heap_node *oldest = heap_first(&e->unsafe[kind]);
    return oldest != NULL && e->now - oldest->key >= 2 * e->cfg.commit_interval_ns;
}

void uncommitted_completed(struct engine *e, struct stream *s)
{
    if (!heap_has(&s->unsafe))
        heap_put(&e->unsafe[s->kind], &s->unsafe, e->now);
    if (s->commit_out && s->unsafe_after_commit_ns == 0)
        s->unsafe_after_commit_ns = e->now;
}

void uncommitted_commit_made(struct stream *s)
{
    s->unsafe_after_commit_ns = 0;
}

static void let_go(struct engine *e, enum stream_kind kind)
{
    if (is_too_old(e, kind))
        return;
    struct list *held = &e->held_back[kind];
    for (struct link *link = list_pop(held); link != NULL; link = list_pop(held))
        dispatch_ready(e, OWNER_OF(link, struct delivery, queue));
}

void uncommitted_commit_safe(struct engine *e, struct stream *s)
{
    heap_remove(&e->unsafe[s->kind], &s->unsafe);
    if (s->unsafe_after_commit_ns != 0)
        heap_put(&e->unsafe[s->kind], &s->unsafe, s->unsafe_after_commit_ns);
    s->unsafe_after_commit_ns = 0;
    let_go(e, s->kind);
}

void uncommitted_forget(struct engine *e, struct stream *s)
{
    heap_remove(&e->unsafe[s->kind], &s->unsafe);
    let_go(e, s->kind);
}

bool uncommitted_waits(const struct engine *e, const struct delivery *d)
{
#ifdef SIM_BUG_SENDS_UNREMEMBERED
    return false;
#endif
    return is_too_old(e, d->stream->kind);
}

bool uncommitted_holds_back(struct engine *e, struct delivery *d)
{
    if (!uncommitted_waits(e, d))
        return false;
    dispatch_forget(e, d);
    list_push(&e->held_back[d->stream->kind], &d->queue);
    return true;
}
