/* `tandem-dlq show ID`: everything about one dead letter, in words, and what to do next. */
#include <string.h>

#include "common/show.h"
#include "worker/dlq/dlq.h"
#include "worker/dlq/dlq_advice.h"
#include "worker/dlq/dlq_pretty.h"
#include "worker/dlq/dlq_print.h"

#define HEX_BYTES_MAX 4096

static void line(FILE *out, const char *name, struct slice value)
{
    if (!value.data)
        return;
    fprintf(out, "%-16s", name);
    dlq_print_bytes(out, value);
    fputc('\n', out);
}

static void line_text(FILE *out, const char *name, const char *value)
{
    line(out, name, (struct slice){value, strlen(value)});
}

static void print_attempts(FILE *out, const struct dlq_record *rec)
{
    fprintf(out, "%-16s", "attempts");
    if (rec->attempts >= 0)
        fprintf(out, "%lld", (long long)rec->attempts);
    if (rec->attempts_in_all > rec->attempts)
        fprintf(out, " in this round, %lld in all", (long long)rec->attempts_in_all);
    if (rec->first_attempt.data && rec->last_attempt.data) {
        fputs(", from ", out);
        dlq_print_bytes(out, rec->first_attempt);
        fputs(" to ", out);
        dlq_print_bytes(out, rec->last_attempt);
    }
    fputc('\n', out);
    if (rec->ambiguous)
        line_text(
            out, "",
            "at least one may have been executed without a known result (same Idempotency-Key each time)");
}

/* The earlier rounds of the event: neighbours before it in the index. */
static void print_rounds(FILE *out, const struct dlq_index *ix, const struct dlq_entry *e)
{
    const struct dlq_entry *first = e;
    while (first > ix->entries && dlq_same_event(first - 1, e))
        first--;
    for (const struct dlq_entry *r = first; r < ix->entries + ix->count && dlq_same_event(r, e); r++) {
        char time[CLOCK_RFC3339_BYTES];
        fprintf(out, "%-16s%d: %s at %s, dead letter %d/%lld%s\n", r == first ? "rounds" : "",
                r->replay_count, r->reason->data, r->time_ns ? clock_rfc3339(r->time_ns, time) : "-",
                r->dlq_partition, (long long)r->dlq_offset, r == e ? " (this)" : "");
    }
}

static void print_about(const struct dlq *dlq, const struct dlq_entry *e, const struct dlq_message *msg)
{
    FILE *out = dlq->out;
    const struct dlq_record *rec = &msg->rec;
    line(out, "event", rec->event_id);
    fprintf(out, "%-16s%s: %s\n", "state", dlq_state_name(e->state), dlq_state_prose(e->state));
    fprintf(out, "%-16s%s: %s\n", "reason", e->reason->data, dlq_advice_meaning(e->reason));
    line(out, "message", rec->message);
    line_text(out, "what to do", dlq_advice_next(e));
    fputc('\n', out);
    line(out, "id", rec->id_text);
    line(out, "key", msg->key);
    line(out, "type", rec->type);
    line(out, "source", rec->source);
    line(out, "event time", rec->event_time);
    line(out, "trace", rec->traceparent);
    line(out, "parked behind", rec->parked_behind);
    line(out, "last status", rec->http_status_text);
    line(out, "transport", rec->curl_code);
    line(out, "answer", rec->response_body);
    print_attempts(out, rec);
    line(out, "worker", rec->worker);
    line(out, "group", rec->group);
    fprintf(out, "%-16s%s partition %d offset %lld\n", "first stood at", e->topic->data, e->partition,
            (long long)e->offset);
    print_rounds(out, &dlq->index, e);
}

static void print_headers(FILE *out, const struct dlq_message *msg)
{
    fprintf(out, "\nheaders (%zu)\n", msg->header_count);
    size_t shown = msg->header_count < DLQ_SHOWN_HEADERS_MAX ? msg->header_count : DLQ_SHOWN_HEADERS_MAX;
    for (size_t i = 0; i < shown; i++) {
        fputs("  ", out);
        dlq_print_bytes(out, msg->headers[i].name);
        fputs(": ", out);
        if (msg->headers[i].value.data)
            dlq_print_bytes(out, msg->headers[i].value);
        else
            fputs("(null)", out);
        fputc('\n', out);
    }
    if (shown < msg->header_count)
        fprintf(out, "  … %zu more\n", msg->header_count - shown);
}

static void print_payload(FILE *out, struct slice value)
{
    if (!value.data) {
        fputs("\npayload: none (a tombstone)\n", out);
        return;
    }
    fprintf(out, "\npayload (%zu byte%s)\n", value.len, show_plural((int64_t)value.len));
    if (!dlq_pretty_json(out, value))
        dlq_print_hex(out, value, HEX_BYTES_MAX);
}

static json_t *headers_json(const struct dlq_message *msg)
{
    json_t *list = json_array();
    for (size_t i = 0; i < msg->header_count && i < DLQ_SHOWN_HEADERS_MAX; i++) {
        json_t *o = json_object();
        dlq_json_set(o, "name", msg->headers[i].name);
        dlq_json_set(o, "value", msg->headers[i].value);
        json_array_append_new(list, o);
    }
    return list;
}

static int show_json(const struct dlq *dlq, const struct dlq_entry *e, const struct dlq_message *msg,
                     struct err *err)
{
    json_t *o = e ? dlq_json_entry(dlq->opts->destination, e) : json_object();
    if (e) {
        json_object_set_new(o, "meaning", json_string(dlq_advice_meaning(e->reason)));
        json_object_set_new(o, "next", json_string(dlq_advice_next(e)));
        json_object_set_new(o, "ambiguous", json_boolean(msg->rec.ambiguous));
        dlq_json_int(o, "attempts_in_all", msg->rec.attempts_in_all);
        dlq_json_set(o, "message", msg->rec.message);
        dlq_json_set(o, "transport", msg->rec.curl_code);
        dlq_json_set(o, "answer", msg->rec.response_body);
    } else {
        dlq_json_set(o, "key", msg->key);
        json_object_set_new(o, "unreadable", json_string(msg->why.message));
    }
    json_object_set_new(o, "headers", headers_json(msg));
    json_object_set_new(o, "header_count", json_integer((json_int_t)msg->header_count));
    dlq_json_set(o, "payload", msg->value);
    return dlq_json_line(dlq->out, o, err);
}

/* Where the record lies: from the index, or as written by somebody who looks at a record that is no dead letter. */
static int find(const struct dlq *dlq, const char *text, const struct dlq_entry **ret_entry,
                int32_t *ret_partition, int64_t *ret_offset, struct err *err)
{
    const struct dlq_entry *e = dlq_index_find(&dlq->index, text);
    *ret_entry = e;
    if (e) {
        *ret_partition = e->dlq_partition;
        *ret_offset = e->dlq_offset;
        return 0;
    }
    if (dlq_position_parse(text, ret_partition, ret_offset) < 0)
        return err_set(err, ERR_PERMANENT, "no dead letter \"%s\" in %s: tandem-dlq ls shows them", text,
                       dlq_store_topic(dlq->store));
    return 0;
}

int dlq_show(struct dlq *dlq, struct err *err)
{
    const struct dlq_entry *e;
    const struct dlq_message *msg;
    int32_t partition;
    int64_t offset;
    if (dlq_load(dlq, err) < 0 || find(dlq, dlq->args->ids[0], &e, &partition, &offset, err) < 0 ||
        dlq_store_fetch(dlq->store, partition, offset, &msg, err) < 0)
        return -1;
    if (dlq->args->json)
        return show_json(dlq, e, msg, err);
    if (e)
        print_about(dlq, e, msg);
    else
        fprintf(dlq->out, "%d/%lld is not a dead letter that this version can read: %s\n", partition,
                (long long)offset, msg->why.message);
    print_headers(dlq->out, msg);
    print_payload(dlq->out, msg->value);
    return 0;
}
