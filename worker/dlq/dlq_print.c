/* Escapes bytes for people and packs facts for programs. */
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/show.h"
#include "common/utf8.h"
#include "worker/dlq/dlq_print.h"

void dlq_print_bytes(FILE *out, struct slice s)
{
    show_text(out, s.data, s.len, "");
}

void dlq_print_lines(FILE *out, struct slice s)
{
    show_text(out, s.data, s.len, "\n\t");
}

void dlq_print_hex(FILE *out, struct slice s, size_t max_bytes)
{
    show_hex(out, s.data, s.len, max_bytes);
}

struct slice dlq_text_slice(const struct dlq_text *t)
{
    return t ? (struct slice){t->data, t->len} : (struct slice){NULL, 0};
}

void dlq_print_text(FILE *out, const struct dlq_text *t, const char *missing)
{
    if (t)
        dlq_print_bytes(out, dlq_text_slice(t));
    else
        fputs(missing, out);
}

void dlq_print_column(FILE *out, const struct dlq_text *t, const char *missing, size_t width)
{
    struct slice s = t ? dlq_text_slice(t) : (struct slice){missing, strlen(missing)};
    for (size_t written = show_text(out, s.data, s.len, ""); written < width; written++)
        fputc(' ', out);
}

/* ---- JSON ---- */

static void set_base64(json_t *object, const char *name, struct slice s)
{
    char field[128];
    struct buf text;
    buf_init(&text, s.len / 3 * 4 + 8);
    snprintf(field, sizeof(field), "%s_base64", name);
    if (buf_base64(&text, s.data, s.len) == 0) {
        json_object_set_new(object, name, json_null());
        json_object_set_new(object, field, json_string(buf_str(&text)));
    }
    buf_done(&text);
}

void dlq_json_set(json_t *object, const char *name, struct slice s)
{
    if (!s.data)
        json_object_set_new(object, name, json_null());
    else if (utf8_valid(s.data, s.len))
        json_object_set_new(object, name, json_stringn(s.data, s.len));
    else
        set_base64(object, name, s);
}

void dlq_json_int(json_t *object, const char *name, int64_t n)
{
    json_object_set_new(object, name, n < 0 ? json_null() : json_integer(n));
}

void dlq_json_time(json_t *object, const char *name, int64_t wall_ns)
{
    char text[CLOCK_RFC3339_BYTES];
    json_object_set_new(object, name, wall_ns ? json_string(clock_rfc3339(wall_ns, text)) : json_null());
}

static void set_id(json_t *object, const char *destination, const struct dlq_entry *e)
{
    struct buf id;
    buf_init(&id, DLQ_ID_BYTES_MAX);
    if (buf_printf(&id, "%s/", destination) == 0 && buf_append(&id, e->topic->data, e->topic->len) == 0 &&
        buf_printf(&id, "/%d/%lld/%d", e->partition, (long long)e->offset, e->replay_count) == 0)
        dlq_json_set(object, "id", (struct slice){buf_str(&id), id.len});
    buf_done(&id);
}

json_t *dlq_json_entry(const char *destination, const struct dlq_entry *e)
{
    json_t *o = json_object();
    set_id(o, destination, e);
    dlq_json_set(o, "event_id", dlq_text_slice(e->event_id));
    json_object_set_new(o, "state", json_string(dlq_state_name(e->state)));
    dlq_json_set(o, "reason", dlq_text_slice(e->reason));
    dlq_json_int(o, "status", e->status);
    dlq_json_set(o, "key", dlq_text_slice(e->key));
    dlq_json_set(o, "type", dlq_text_slice(e->type));
    dlq_json_set(o, "parked_behind", dlq_text_slice(e->behind));
    dlq_json_int(o, "attempts", e->attempts);
    dlq_json_int(o, "replay_count", e->replay_count);
    dlq_json_time(o, "at", e->time_ns);
    dlq_json_set(o, "topic", dlq_text_slice(e->topic));
    dlq_json_int(o, "partition", e->partition);
    dlq_json_int(o, "offset", e->offset);
    dlq_json_int(o, "dlq_partition", e->dlq_partition);
    dlq_json_int(o, "dlq_offset", e->dlq_offset);
    return o;
}

int dlq_json_line(FILE *out, json_t *object, struct err *err)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text)
        return err_set(err, ERR_TEMPORARY, "no memory for a line of JSON");
    fputs(text, out);
    fputc('\n', out);
    free(text);
    return 0;
}
