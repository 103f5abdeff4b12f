/* `tandem-dlq show ID`: everything about one dead letter, in words, and what to do next. */
#include <string.h>

#include "common/show.h"
#include "worker/dlq/dlq.h"
#include "worker/dlq/dlq_advice.h"
#include "worker/dlq/dlq_pretty.h"
#include "worker/dlq/dlq_print.h"

#define HEX_BYTES_MAX 4096
#define OTHERS_MAX 10 /* of the same name, that are listed */

/* What is shown: a record, and what the scan knows of it. */
struct shown {
    const struct dlq_entry *e; /* NULL: the scan has nothing of it */
    int32_t partition;
    int64_t offset;
    const struct dlq_message *msg;
};

/* A crash may write a dead letter twice; the scan keeps the first. */
static bool is_copy(const struct shown *s)
{
    return s->e && (s->e->dlq_partition != s->partition || s->e->dlq_offset != s->offset);
}

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
        fprintf(out, "%-16s%d: ", r == first ? "rounds" : "", r->replay_count);
        dlq_print_text(out, r->reason, "-");
        fprintf(out, " at %s, dead letter %d/%lld%s\n", r->time_ns ? clock_rfc3339(r->time_ns, time) : "-",
                r->dlq_partition, (long long)r->dlq_offset, r == e ? " (this)" : "");
    }
}

/* Other events that the ids of this one name as well: each has a position of its own. */
static void print_others(FILE *out, const struct dlq_index *ix, const struct dlq_entry *e)
{
    size_t count = 0;
    for (size_t i = 0; i < ix->count; i++) {
        const struct dlq_entry *o = &ix->entries[i];
        if (!o->newest || !dlq_entry_shares_a_name(o, e))
            continue;
        if (count++ < OTHERS_MAX)
            fprintf(out, "%-16s%d/%lld, %s: the same id, another dead letter; show %d/%lld tells of it\n",
                    count == 1 ? "others" : "", o->dlq_partition, (long long)o->dlq_offset,
                    dlq_state_name(o->state), o->dlq_partition, (long long)o->dlq_offset);
    }
    if (count > OTHERS_MAX)
        fprintf(out, "%-16s%zu more; ls --json has their positions\n", "", count - OTHERS_MAX);
}

static void print_copy(FILE *out, const struct shown *s)
{
    if (is_copy(s))
        fprintf(out,
                "%-16s%d/%lld is the same dead letter written again after a crash; it counts as %d/%lld\n",
                "copy", s->partition, (long long)s->offset, s->e->dlq_partition, (long long)s->e->dlq_offset);
}

static void print_about(const struct dlq *dlq, const struct shown *s)
{
    FILE *out = dlq->out;
    const struct dlq_entry *e = s->e;
    const struct dlq_message *msg = s->msg;
    const struct dlq_record *rec = &msg->rec;
    line(out, "event", rec->event_id);
    fprintf(out, "%-16s%s: %s\n", "state", dlq_state_name(e->state), dlq_state_prose(e->state));
    fprintf(out, "%-16s", "reason");
    dlq_print_text(out, e->reason, "-");
    fprintf(out, ": %s\n", dlq_advice_meaning(e->reason));
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
    fprintf(out, "%-16s", "first stood at");
    dlq_print_text(out, e->topic, "-");
    fprintf(out, " partition %d offset %lld\n", e->partition, (long long)e->offset);
    print_rounds(out, &dlq->index, e);
    print_copy(out, s);
    print_others(out, &dlq->index, e);
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

static json_t *others_json(const struct dlq_index *ix, const struct dlq_entry *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ix->count; i++) {
        const struct dlq_entry *o = &ix->entries[i];
        if (!o->newest || !dlq_entry_shares_a_name(o, e))
            continue;
        json_array_append_new(list,
                              json_pack("{s:s, s:i, s:I}", "state", dlq_state_name(o->state), "dlq_partition",
                                        o->dlq_partition, "dlq_offset", (json_int_t)o->dlq_offset));
    }
    return list;
}

static void set_about(json_t *o, const struct dlq_index *ix, const struct shown *s)
{
    const struct dlq_record *rec = &s->msg->rec;
    json_object_set_new(o, "meaning", json_string(dlq_advice_meaning(s->e->reason)));
    json_object_set_new(o, "next", json_string(dlq_advice_next(s->e)));
    json_object_set_new(o, "ambiguous", json_boolean(rec->ambiguous));
    dlq_json_int(o, "attempts_in_all", rec->attempts_in_all);
    dlq_json_set(o, "message", rec->message);
    dlq_json_set(o, "transport", rec->curl_code);
    dlq_json_set(o, "answer", rec->response_body);
    dlq_json_int(o, "copy_at_dlq_offset", is_copy(s) ? s->offset : -1);
    json_object_set_new(o, "others", others_json(ix, s->e));
}

/* In one sentence, why nothing is said of what became of it. */
static struct slice why_unknown(const struct dlq *dlq, const struct shown *s)
{
    if (!s->msg->readable)
        return (struct slice){s->msg->why.message, strlen(s->msg->why.message)};
    if (dlq->index.partial)
        return SLICE_LIT(
            "it lies behind what was read, so what became of it is not known (--scan-max, --scan-bytes)");
    return SLICE_LIT("it was written after the topic was read, so what became of it is not known: ask again");
}

static int show_json(const struct dlq *dlq, const struct shown *s, struct err *err)
{
    const struct dlq_message *msg = s->msg;
    json_t *o = s->e ? dlq_json_entry(dlq->opts->destination, s->e) : json_object();
    if (s->e)
        set_about(o, &dlq->index, s);
    else {
        dlq_json_set(o, "key", msg->key);
        dlq_json_set(o, msg->readable ? "unread" : "unreadable", why_unknown(dlq, s));
    }
    json_object_set_new(o, "headers", headers_json(msg));
    json_object_set_new(o, "header_count", json_integer((json_int_t)msg->header_count));
    dlq_json_set(o, "payload", msg->value);
    return dlq_json_line(dlq->out, o, err);
}

static void print_unknown(const struct dlq *dlq, const struct shown *s)
{
    fprintf(dlq->out, "%d/%lld is %s: ", s->partition, (long long)s->offset,
            s->msg->readable ? "a dead letter" : "not a dead letter that this version can read");
    dlq_print_bytes(dlq->out, why_unknown(dlq, s));
    fputc('\n', dlq->out);
}

/* Where the record lies: from the index, or as written by somebody who looks at a record that is not in it. */
static int find(const struct dlq *dlq, const char *text, struct shown *s, struct err *err)
{
    s->e = dlq_index_find(&dlq->index, text);
    if (s->e) {
        s->partition = s->e->dlq_partition;
        s->offset = s->e->dlq_offset;
        return 0;
    }
    if (dlq_position_parse(text, &s->partition, &s->offset) < 0)
        return err_set(err, ERR_PERMANENT, "no dead letter \"%s\" in %s: tandem-dlq ls shows them", text,
                       dlq_store_topic(dlq->store));
    return 0;
}

int dlq_show(struct dlq *dlq, struct err *err)
{
    struct shown s;
    if (dlq_load(dlq, err) < 0 || find(dlq, dlq->args->ids[0], &s, err) < 0 ||
        dlq_store_fetch(dlq->store, s.partition, s.offset, &s.msg, err) < 0)
        return -1;
    if (!s.e && s.msg->readable)
        s.e = dlq_index_of_record(&dlq->index, &s.msg->rec);
    if (dlq->args->json)
        return show_json(dlq, &s, err);
    if (s.e)
        print_about(dlq, &s);
    else
        print_unknown(dlq, &s);
    print_headers(dlq->out, s.msg);
    print_payload(dlq->out, s.msg->value);
    return 0;
}
