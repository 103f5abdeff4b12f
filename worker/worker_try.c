/* `try`: prints the request that an event in a file would become, and what an answer to it would mean; nothing is sent. */
#include "worker/worker_try.h"

#include <jansson.h>
#include <string.h>

#include "common/clock.h"
#include "common/options_file.h"
#include "worker/targets/json_source.h"
#include "worker/worker_request.h"

#define EVENT_BYTES_MAX (1 << 20)
#define HEADERS_MAX 32
#define JSON_ESCAPE_BYTES 6

/* ---- a record, as the relay would have written it ---------------------------------------------------------------------------------- */

static const struct {
    const char *attribute, *header;
} attributes[] = {{"specversion", "ce_specversion"},
                  {"id", "ce_id"},
                  {"source", "ce_source"},
                  {"type", "ce_type"},
                  {"time", "ce_time"},
                  {"subject", "ce_subject"},
                  {"datacontenttype", "content-type"}};

struct headers {
    struct slice names[HEADERS_MAX], values[HEADERS_MAX];
    size_t count, bytes;
};

static void headers_add(struct headers *h, const char *name, const json_t *value)
{
    if (!json_is_string(value) || h->count == HEADERS_MAX)
        return;
    h->names[h->count] = (struct slice){name, strlen(name)};
    h->values[h->count] = (struct slice){json_string_value(value), json_string_length(value)};
    h->bytes += h->names[h->count].len + h->values[h->count].len;
    h->count++;
}

/* The payload: a text as it is where the content type is not JSON's, anything else as JSON; data NULL: none. */
static struct slice payload_of(const struct json_source *event, struct buf *out)
{
    const json_t *data = json_object_get(event->root, "data");
    const char *type = json_string_value(json_object_get(event->root, "datacontenttype"));
    if (!data || json_is_null(data))
        return (struct slice){NULL, 0};
    int r = json_is_string(data) && type && !strstr(type, "json") ? buf_puts(out, json_string_value(data))
                                                                  : json_source_write(event, data, out);
    ENSURE(r == 0);
    return (struct slice){buf_str(out), out->len};
}

static struct record *record_from(const struct json_source *event, const char *topic)
{
    const struct record_origin from = {.kind = STREAM_SOURCE, .topic = topic, .leader_epoch = -1};
    struct headers h = {.count = 0};
    const char *name, *key = json_string_value(json_object_get(event->root, "key"));
    json_t *value;
    struct buf payload;

    for (size_t i = 0; i < ARRAY_LEN(attributes); i++)
        headers_add(&h, attributes[i].header, json_object_get(event->root, attributes[i].attribute));
    json_object_foreach(json_object_get(event->root, "headers"), name, value)
    {
        headers_add(&h, name, value);
    }
    buf_init(&payload, EVENT_BYTES_MAX * JSON_ESCAPE_BYTES);
    struct record *rec = record_new(&from, (struct slice){key, key ? strlen(key) : 0},
                                    payload_of(event, &payload), h.count, h.bytes);
    ENSURE(rec);
    for (size_t i = 0; i < h.count; i++)
        record_add_header(rec, h.names[i], h.values[i]);
    buf_done(&payload);
    return rec;
}

/* Into text, from which the event borrows. */
static int event_read(const char *path, struct buf *text, struct json_source *ret, struct err *err)
{
    struct err why = {.message = "no object"};
    if (options_file_read(path, text, err) < 0)
        return -1;
    int r = json_source_read(ret, (struct slice){buf_str(text), text->len}, JSON_REJECT_DUPLICATES, &why);
    if (r == 0 && json_is_object(ret->root))
        return 0;
    return err_set(err, ERR_PERMANENT, "\"%s\" is not an event in JSON: %s", path, why.message);
}

/* ---- what is printed ----------------------------------------------------------------------------------------------------------------- */

/* The form in which it goes: of a batch, that of one event. */
struct form {
    const char *path;
    struct slice body;
    struct request_batch batch;
    struct buf array, key;
};

static void form_make(const struct worker *w, struct record *rec, struct form *f)
{
    *f = (struct form){.path = buf_str(&rec->request.path), .body = rec->request.body};
    buf_init(&f->array, rec->item.len + 2);
    buf_init(&f->key, EVENT_ATTRIBUTE_BYTES_MAX);
    if (!rec->batch)
        return;
    int r = batch_body(&f->array, &rec, 1);
    ENSURE(r == 0);
    batch_key(&f->key, &rec, 1);
    f->path = *w->opt.batch_path ? w->opt.batch_path : f->path;
    f->body = (struct slice){buf_str(&f->array), f->array.len};
    f->batch = (struct request_batch){
        {buf_str(&f->key), f->key.len}, f->body, batch_content_type((enum batch_format)w->opt.batch_format)};
}

static void form_done(struct form *f)
{
    buf_done(&f->array);
    buf_done(&f->key);
}

static void print_request(const struct worker *w, struct record *rec)
{
    struct request_lines lines;
    struct trace span;
    struct form form;
    size_t base = strlen(w->opt.url);

    while (base > 0 && w->opt.url[base - 1] == '/')
        base--;
    trace_child(record_trace(rec), &span);
    struct event *ev = malloc(sizeof *ev);
    ENSURE(ev);
    record_event(rec, ev);
    form_make(w, rec, &form);
    const struct request_facts facts = {.rec = rec,
                                        .ev = ev,
                                        .span = &span,
                                        .user_agent = w->target->program,
                                        .batch = rec->batch ? &form.batch : NULL};
    request_lines_init(&lines);
    printf("%s %.*s%s\n", rec->request.method, (int)base, w->opt.url, form.path);
    if (request_lines_build(&lines, &facts, NULL) == 0)
        for (size_t i = 0; i < lines.count; i++)
            if (strchr(request_line(&lines, i), ' ')) /* the others take a header of the library out */
                printf("%s\n", request_line(&lines, i));
    printf("\n");
    if (form.body.data)
        printf("%.*s\n", (int)form.body.len, form.body.data);
    request_lines_done(&lines);
    form_done(&form);
    free(ev);
}

/* "404" or the name of a failure. */
static int answer_parse(const char *text, struct answer *a, struct err *err)
{
    for (int t = TRANSPORT_OK + 1; t < TRANSPORT_CANCELLED; t++)
        if (strcmp(text, transport_name((enum transport)t)) == 0)
            a->transport = (enum transport)t;
    if (a->transport != TRANSPORT_OK)
        return 0;
    if (strlen(text) == 3 && strspn(text, "0123456789") == 3)
        a->status = (text[0] - '0') * 100 + (text[1] - '0') * 10 + (text[2] - '0');
    if (a->status < 100 || a->status > 599)
        return err_set(err, ERR_PERMANENT, "\"%.64s\" is neither a status nor a failure like timeout", text);
    return 0;
}

/* An answer to a batch may have a result for each event; one that cannot be read is none. */
static void take_item(const struct worker *w, struct record *rec, struct answer *a)
{
    struct batch_item item;
    struct err why = {0};

    if (!rec->batch || a->transport != TRANSPORT_OK || w->opt.batch_answer == 1)
        return;
    int r = batch_answer(a->status, a->body, (enum batch_format)w->opt.batch_format, &rec, 1, &item, &why);
    if (r == 1) {
        a->status = item.status;
        a->body = item.text;
    } else if (r < 0) {
        a->transport = TRANSPORT_GARBAGE;
        printf("%s\n", why.message);
    }
}

static int print_verdict(const struct worker *w, struct record *rec, const char *status,
                         const char *body_path, struct err *err)
{
    struct event *ev = malloc(sizeof *ev);
    struct answer a = {.transport = TRANSPORT_OK, .ev = ev, .req = &rec->request, .headers = {"", 0}};
    struct ruling ruling;
    struct buf body;

    ENSURE(ev);
    record_event(rec, ev);
    buf_init(&body, (size_t)w->opt.response_body_max);
    int r = answer_parse(status, &a, err);
    if (r == 0 && body_path)
        r = options_file_read(body_path, &body, err);
    if (r == 0) {
        a.body = (struct slice){buf_str(&body), body.len};
        take_item(w, rec, &a);
        struct err why = {0};
        struct judgement j = targeting_judge(w->targeting, &a, &ruling, &why)
                                 ? verdict_given(ruling.verdict, ruling.reason, a.transport, a.status)
                                 : verdict_of(NULL, 0, a.transport, a.status);
        if (why.kind == ERR_FATAL)
            r = err_set(err, ERR_FATAL, "%s", why.message);
        else if (why.kind)
            fprintf(stderr, "%s: no verdict by the target, the rules decide: %s\n", w->target->program,
                    why.message);
        bool poison = j.verdict == VERDICT_POISON;
        if (r == 0)
            printf("%s -> %s%s%s\n", status, verdict_name(j.verdict), poison ? ":" : "",
                   poison ? reason_name(j.reason) : "");
    }
    buf_done(&body);
    free(ev);
    return r;
}

static int try_record(const struct worker *w, struct record *rec, const char *const *words, size_t count,
                      struct err *err)
{
    if (rec->broken)
        return err_set(err, ERR_FATAL, "%s", rec->broken);
    if (rec->poison)
        return err_set(err, ERR_PERMANENT, "a dead letter, %s: %s", reason_name(rec->poison_reason),
                       rec->poison);
    if (rec->skip) {
        printf("skipped: nothing to tell this API\n");
        return 0;
    }
    print_request(w, rec);
    return count > 2 ? print_verdict(w, rec, words[2], count > 3 ? words[3] : NULL, err) : 0;
}

int worker_try(struct worker *w, const char *const *words, size_t count, struct err *err)
{
    if (count < 2)
        return err_set(err, ERR_PERMANENT, "try: which event? try EVENT.json [STATUS [BODY.json]]");
    if (sources_parse(w->opt.topic, &w->sources, err) < 0)
        return -1;
    w->targeting = targeting_new(w->target, w->opt.own, &w->opt.rule, err);
    struct json_source event = {.root = NULL};
    struct buf text;
    buf_init(&text, EVENT_BYTES_MAX);
    int r = -1;
    if (w->targeting && event_read(words[1], &text, &event, err) == 0) {
        struct record *rec = record_from(&event, w->sources.topics[0]);
        const struct intake in = worker_intake(w);
        record_admit(rec, w->targeting, &in, &w->scratch);
        if (w->opt.batch_max_events > 1)
            batch_admit(&w->batch_kinds, rec, (enum batch_format)w->opt.batch_format, w->opt.batch_path,
                        &w->scratch);
        r = try_record(w, rec, words, count, err);
        record_free(rec);
    }
    json_source_done(&event);
    buf_done(&text);
    batch_kinds_done(&w->batch_kinds);
    targeting_free(w->targeting);
    w->targeting = NULL;
    sources_done(&w->sources);
    return r;
}
