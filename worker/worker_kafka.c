/* Turns Kafka messages into records of the engine, and the engine's commits into requests. */
#include "worker/worker_kafka.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define KAFKA_WAIT_MS 5000
#define KAFKA_WAIT_BUSY_MS 1000

/* ---- messages ----------------------------------------------------------------------------------------------------------- */

static struct slice message_slice(const void *data, size_t len)
{
    return (struct slice){data, data ? len : 0};
}

static size_t message_measure(const rd_kafka_headers_t *headers, size_t *ret_count)
{
    const char *name;
    const void *value;
    size_t len, bytes = 0, n = 0;

    while (headers && rd_kafka_header_get_all(headers, n, &name, &value, &len) == 0) {
        bytes += strlen(name) + (value ? len : 0);
        n++;
    }
    *ret_count = n;
    return bytes;
}

int worker_stream_of(const struct worker *w, const char *topic, int partition)
{
    int source = sources_find(&w->sources, topic);
    return source < 0 ? sources_replay(&w->sources, partition)
                      : sources_stream(&w->sources, source, partition);
}

/* Known by its name only where there are several: comparing it for each record is not for nothing. */
int worker_stream_of_message(const struct worker *w, enum stream_kind kind, const rd_kafka_message_t *m)
{
    if (kind == STREAM_REPLAY)
        return sources_replay(&w->sources, m->partition);
    if (w->sources.count == 1)
        return sources_stream(&w->sources, 0, m->partition);
    return worker_stream_of(w, rd_kafka_topic_name(m->rkt), m->partition);
}

static struct record *message_copy(const struct worker *w, enum stream_kind kind, const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *headers = NULL;
    const char *name;
    const void *value;
    size_t len, count = 0;
    rd_kafka_timestamp_type_t stamp_kind;
    int64_t stamp_ms = rd_kafka_message_timestamp(m, &stamp_kind);
    struct record_origin from = {
        .kind = kind,
        .stream = worker_stream_of_message(w, kind, m),
        .partition = m->partition,
        .leader_epoch = -1,
        .offset = m->offset,
        .timestamp_ns =
            stamp_kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || stamp_ms < 0 ? 0 : stamp_ms * NS_PER_MS,
    };
    from.topic = kind == STREAM_REPLAY ? w->replay_topic : sources_topic(&w->sources, from.stream);
#if RD_KAFKA_VERSION >= 0x020100ff
    from.leader_epoch = rd_kafka_message_leader_epoch(m);
#endif
    (void)rd_kafka_message_headers(m, &headers);
    size_t bytes = message_measure(headers, &count);
    struct record *rec =
        record_new(&from, message_slice(m->key, m->key_len), message_slice(m->payload, m->len), count, bytes);
    ENSURE(
        rec); /* the windows bound what we hold: no memory here means the limits are set beyond the machine */
    for (size_t i = 0; i < count && rd_kafka_header_get_all(headers, i, &name, &value, &len) == 0; i++)
        record_add_header(rec, message_slice(name, strlen(name)), message_slice(value, len));
    return rec;
}

/* A batch goes to batch_path, whatever the paths of its events. */
static uint64_t route_of(const struct record *rec, const char *batch_path)
{
    const struct request *req = &rec->request;
    return request_endpoint(req->method, rec->batch && *batch_path ? batch_path : buf_str(&req->path),
                            rec->key);
}

/* In a batch an item and its comma. */
static size_t request_bytes(const struct record *rec)
{
    const struct request *req = &rec->request;
    return rec->batch ? rec->item.len + 1 : req->path.len + req->headers.len + req->body.len;
}

void worker_take_message(struct worker *w, int64_t now, enum stream_kind kind, const rd_kafka_message_t *m)
{
    /* After one that nothing is known about no further one: the engine would take the gap for progress. */
    if (w->failure.kind)
        return;
    struct record *rec = message_copy(w, kind, m);
    const struct intake in = worker_intake(w);
    record_admit(rec, w->targeting, &in, &w->scratch);
    if (rec->broken) {
        err_set(&w->failure, ERR_FATAL, "%s", rec->broken);
        record_free(rec);
        return;
    }
    if (w->opt.batch_max_events > 1)
        batch_admit(&w->batch_kinds, rec, (enum batch_format)w->opt.batch_format, w->opt.batch_path,
                    &w->scratch);
    struct engine_record er = {
        .stream = rec->stream,
        .offset = rec->offset,
        .leader_epoch = rec->leader_epoch,
        .key = rec->key,
        .event_id = rec->event_id,
        .bytes = rec->bytes,
        .request_bytes = request_bytes(rec),
        .route = route_of(rec, w->opt.batch_path),
        .batch = rec->batch,
        .ref = rec,
        .poison = rec->poison,
        .poison_reason = rec->poison_reason,
        .skip = rec->skip,
        .replay_count = rec->origin.replay_count,
    };
    engine_record(w->engine, now, &er);
}

/* ---- what retention took ------------------------------------------------------------------------------------------------- */

#define DELETED                                                                                              \
    "the topic's retention has deleted records before they were delivered: going on with the oldest "        \
    "that is there; give the topic a longer retention.ms"

static void tell_gap(struct worker *w, const char *topic, int partition, struct gap_found found)
{
    if (found.from == found.to)
        return;
    w->deleted += found.to - found.from;
    LOG_ERR(DELETED, LOG_STR("topic", topic), LOG_INT("partition", partition),
            LOG_INT("expected", found.from), LOG_INT("oldest", found.to),
            LOG_INT("deleted", found.to - found.from));
}

/* As the last fetch said, so no question to the broker; -1: nothing was fetched yet. */
static int64_t log_start(rd_kafka_t *rk, const char *topic, int partition)
{
    int64_t low = -1, high = -1;
    return rd_kafka_get_watermark_offsets(rk, topic, partition, &low, &high) == 0 ? low : -1;
}

/* Offsets that begin again are another log under the old name; nothing of it may be taken for what we had. */
static void tell_anew(struct worker *w, int stream, const rd_kafka_message_t *m, int64_t next)
{
    gap_begin(&w->gaps[stream], m->offset);
    LOG_ERR("the partition's offsets begin again: the topic was made anew, or has lost its end; taking its "
            "records from there",
            LOG_STR("topic", rd_kafka_topic_name(m->rkt)), LOG_INT("partition", m->partition),
            LOG_INT("expected", next), LOG_INT("offset", m->offset));
}

void gap_look_at_record(struct worker *w, rd_kafka_t *rk, enum stream_kind kind, const rd_kafka_message_t *m)
{
    int stream = worker_stream_of_message(w, kind, m);
    int64_t next = engine_expects(w->engine, stream);
    const char *topic = rd_kafka_topic_name(m->rkt);

    if (next >= 0 && m->offset < next)
        tell_anew(w, stream, m, next);
    if (next >= 0 && m->offset > next)
        tell_gap(w, topic, m->partition,
                 gap_before_record(&w->gaps[stream], next, m->offset, log_start(rk, topic, m->partition)));
}

void gap_look_at_end(struct worker *w, rd_kafka_t *rk, const rd_kafka_topic_partition_t *p)
{
    int stream = worker_stream_of(w, p->topic, p->partition);
    int64_t next = engine_expects(w->engine, stream);

    tell_gap(w, p->topic, p->partition,
             gap_at_end(&w->gaps[stream], next, p->offset, log_start(rk, p->topic, p->partition)));
}

/* ---- commits ------------------------------------------------------------------------------------------------------------ */

void commits_add(struct commits *c, const struct worker *w, const struct action *a)
{
    bool replay = sources_is_replay(&w->sources, a->stream);
    const char *topic = replay ? w->replay_topic : sources_topic(&w->sources, a->stream);

    if (!c->list)
        c->list = rd_kafka_topic_partition_list_new(8);
    rd_kafka_topic_partition_t *p =
        rd_kafka_topic_partition_list_add(c->list, topic, sources_partition(&w->sources, a->stream));
    p->offset = a->offset;
#if RD_KAFKA_VERSION >= 0x020100ff
    rd_kafka_topic_partition_set_leader_epoch(p, a->leader_epoch);
#endif
    if (c->bare || !a->metadata || !*a->metadata)
        return;
    p->metadata = strdup(a->metadata);
    ENSURE(p->metadata);
    p->metadata_size = strlen(a->metadata);
}

static void commit_ended(struct worker *w, int64_t now, const rd_kafka_topic_partition_t *p, bool ok)
{
    engine_committed(w->engine, now, worker_stream_of(w, p->topic, p->partition), ok);
}

void commits_flush(struct commits *c, struct worker *w, int64_t now, rd_kafka_t *rk, rd_kafka_queue_t *queue)
{
    if (!c->list)
        return;
    /* Always an explicit list: rd_kafka_commit(NULL) drops the metadata. */
    rd_kafka_resp_err_t code = rd_kafka_commit_queue(rk, c->list, queue, NULL, (void *)c->round);
    for (int i = 0; code && i < c->list->cnt; i++)
        commit_ended(w, now, &c->list->elems[i], false);
    commits_done(c);
}

static void commit_failed(struct commits *c, const rd_kafka_topic_partition_t *p, rd_kafka_resp_err_t code)
{
    if (code == RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE && !c->bare) {
        c->bare = true;
        LOG_ERR("the broker refuses our commit metadata (offset.metadata.max.bytes below 4096?): committing "
                "positions only, "
                "a restart will repeat deliveries",
                LOG_STR("topic", p->topic), LOG_INT("partition", p->partition));
        return;
    }
    LOG_WARNING("a commit failed", LOG_STR("topic", p->topic), LOG_INT("partition", p->partition),
                LOG_STR("error", rd_kafka_err2str(code)));
}

/*
 * One partition that fails makes the whole call fail although the others were committed (librdkafka 2.0.2): each is judged by its
 * own code, and by the call's only when none has one.
 */
bool commits_result(struct commits *c, struct worker *w, int64_t now, rd_kafka_event_t *ev)
{
    rd_kafka_resp_err_t call = rd_kafka_event_error(ev);
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(ev);
    bool told = false, reached = false;

    uintptr_t round = (uintptr_t)rd_kafka_event_opaque(ev);

    for (int i = 0; list && i < list->cnt; i++)
        told |= list->elems[i].err != 0;
    for (int i = 0; list && i < list->cnt; i++) {
        rd_kafka_resp_err_t code = told ? list->elems[i].err : call;
        reached |= code == 0;
        if (round < c->since[list->elems[i].partition])
            continue; /* of somebody who gave it up: the engine knows nothing of it */
        if (code)
            commit_failed(c, &list->elems[i], code);
        commit_ended(w, now, &list->elems[i], code == 0);
    }
    return reached;
}

void commits_done(struct commits *c)
{
    if (c->list)
        rd_kafka_topic_partition_list_destroy(c->list);
    c->list = NULL;
}

void commits_forget(struct commits *c, const int *partitions, int count)
{
    c->round++;
    for (int i = 0; i < count; i++)
        c->since[partitions[i]] = c->round;
    for (int i = c->list ? c->list->cnt - 1 : -1; i >= 0; i--)
        if (c->since[c->list->elems[i].partition] == c->round)
            rd_kafka_topic_partition_list_del_by_idx(c->list, i);
    if (c->list && c->list->cnt == 0)
        commits_done(c);
}

/* ---- committed offsets -------------------------------------------------------------------------------------------------- */

/*
 * With KIP-848's protocol, or when they had to wait, partitions are taken on while others are at work: if requests time out before anybody
 * looks, they come again.
 */
int kafka_wait_ms(const struct worker *w)
{
    bool again =
        w->consume && worker_consume_waiting(w->consume) > 0; /* the one that was silent may still be */

    return again || engine_counts(w->engine).streams > 0 ? KAFKA_WAIT_BUSY_MS : KAFKA_WAIT_MS;
}

const char *committed_metadata(const rd_kafka_topic_partition_t *p)
{
    return p->offset >= 0 && p->metadata ? p->metadata : "";
}

/* A committed offset past the end can only mean that the topic was made anew: the old position would swallow new events. */
static void forget_past_end(rd_kafka_topic_partition_t *p, int64_t end)
{
    if (p->offset < 0 || p->offset <= end)
        return;
    LOG_ERR("the committed offset is past the end of the partition: the topic was made anew; starting from "
            "its beginning",
            LOG_STR("topic", p->topic), LOG_INT("partition", p->partition), LOG_INT("committed", p->offset),
            LOG_INT("end", end));
    p->offset = RD_KAFKA_OFFSET_BEGINNING;
}

/* Retention was faster than we: nothing can bring those records back, but nobody shall have to find out by counting. */
static void tell_deleted(struct worker *w, const rd_kafka_topic_partition_t *p, int64_t beginning)
{
    if (p->offset < 0 || p->offset >= beginning)
        return;
    w->deleted += beginning - p->offset;
    LOG_ERR(DELETED, LOG_STR("topic", p->topic), LOG_INT("partition", p->partition),
            LOG_INT("committed", p->offset), LOG_INT("oldest", beginning),
            LOG_INT("deleted", beginning - p->offset));
}

void places_believe(struct worker *w, struct places *p)
{
    for (int i = 0; i < p->list->cnt; i++) {
        rd_kafka_topic_partition_t *at = &p->list->elems[i];
        int64_t begin = p->begins->elems[i].offset;
        forget_past_end(at, p->ends->elems[i].offset);
        tell_deleted(w, at, begin);
        gap_begin(&w->gaps[worker_stream_of(w, at->topic, at->partition)], begin);
    }
}

/* ---- small things ------------------------------------------------------------------------------------------------------- */

void partition_pause(rd_kafka_t *rk, const char *topic, int partition, bool pause)
{
    rd_kafka_topic_partition_list_t *one = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(one, topic, partition);
    if (pause)
        rd_kafka_pause_partitions(rk, one);
    else
        rd_kafka_resume_partitions(rk, one);
    rd_kafka_topic_partition_list_destroy(one);
}

bool worker_kafka_error(struct worker *w, rd_kafka_t *rk, rd_kafka_event_t *ev, const char *who)
{
    rd_kafka_resp_err_t code = rd_kafka_event_error(ev);
    char why[512];

    /* Newer libraries tell of some under their own code: a static id that is in use would wait for ever. */
    rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(rk, why, sizeof why);
    if (code == RD_KAFKA_RESP_ERR__FATAL || fatal) {
        code = fatal;
        err_set(&w->failure, ERR_FATAL, "the %s must stop: %s (%s)", who, rd_kafka_err2name(code), why);
        return true;
    }
    /* One broken connection makes several of these; "all brokers are down" follows when it matters. */
    LOG_AT(code == RD_KAFKA_RESP_ERR__TRANSPORT ? LOG_DEBUG : LOG_WARN, who,
           LOG_STR("code", rd_kafka_err2name(code)), LOG_STR("error", rd_kafka_event_error_string(ev)));
    return false;
}
