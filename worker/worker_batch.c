/* Makes one request of several events and reads what its answer says of each. */
#include "worker/worker_batch.h"

#include <openssl/evp.h>
#include <string.h>

#include "worker/json_scan.h"

/* ---- what may go together ------------------------------------------------------------------------------------------- */

void batch_kinds_done(struct batch_kinds *k)
{
    for (size_t i = 0; i < ARRAY_LEN(k->slots); i++)
        free(k->slots[i].text);
    *k = (struct batch_kinds){0};
}

void batch_kinds_forget(struct batch_kinds *k, uint64_t kind)
{
    for (size_t i = 0; kind > 0 && i < ARRAY_LEN(k->slots); i++)
        if (k->slots[i].kind == kind)
            k->slots[i].records--;
}

/* All that a batch's request takes over from its first event. */
static void append_mapping(struct buf *out, const struct request *req, const char *path)
{
    (void)buf_printf(out, "%s ", req->method);
    (void)buf_puts(out, *path ? path : buf_str(&req->path));
    (void)buf_puts(out, "\n");
    (void)buf_append(out, buf_str(&req->headers), req->headers.len);
}

/* Its slot, or one that nobody needs; -1: all are other records'. */
static int find_slot(const struct batch_kinds *k, const struct buf *mapping)
{
    int vacant = -1;

    for (size_t i = 0; i < ARRAY_LEN(k->slots); i++) {
        if (k->slots[i].text && k->slots[i].len == mapping->len &&
            memcmp(k->slots[i].text, mapping->data, mapping->len) == 0)
            return (int)i;
        if (k->slots[i].records == 0 && vacant < 0)
            vacant = (int)i;
    }
    return vacant;
}

static uint64_t kind_in(struct batch_kinds *k, int slot, const struct buf *mapping)
{
    bool same = k->slots[slot].text && k->slots[slot].len == mapping->len &&
                memcmp(k->slots[slot].text, mapping->data, mapping->len) == 0;

    if (!same) {
        free(k->slots[slot].text);
        k->slots[slot].text = malloc(mapping->len);
        ENSURE(k->slots[slot].text);
        memcpy(k->slots[slot].text, mapping->data, mapping->len);
        k->slots[slot].len = mapping->len;
        k->slots[slot].kind = ++k->last;
        k->slots[slot].records = 0;
    }
    k->slots[slot].records++;
    return k->slots[slot].kind;
}

static uint64_t kind_of(struct batch_kinds *k, const struct request *req, const char *path)
{
    struct buf mapping;

    buf_init(&mapping, REQUEST_PATH_BYTES_MAX + REQUEST_HEADER_BYTES_MAX + 64);
    append_mapping(&mapping, req, path);
    int slot = mapping.failed ? -1 : find_slot(k, &mapping);
    uint64_t kind = slot < 0 ? ++k->last : kind_in(k, slot, &mapping);
    buf_done(&mapping);
    return kind;
}

/* ---- an event as one item --------------------------------------------------------------------------------------------------- */

static void append_attribute(struct buf *out, const char *name, struct slice value)
{
    if (!value.data)
        return;
    (void)buf_printf(out, ",\"%s\":", name);
    (void)json_scan_quote(out, value);
}

static bool has_suffix(struct slice s, const char *suffix)
{
    size_t len = strlen(suffix);
    return s.len >= len && strncasecmp(s.data + s.len - len, suffix, len) == 0;
}

/* CloudEvents JSON format 3.1: "application/json", "text/json", or anything with "+json"; none counts as JSON too. */
static bool says_json(struct slice type)
{
    const char *end = type.data ? memchr(type.data, ';', type.len) : NULL;
    if (end)
        type.len = (size_t)(end - type.data);
    while (type.len > 0 && type.data[type.len - 1] == ' ')
        type.len--;
    return type.len == 0 || has_suffix(type, "/json") || has_suffix(type, "+json");
}

static struct slice content_type_of(const struct record *rec, const struct event *ev)
{
    const char *own = rec->request.content_type;
    return own ? (struct slice){own, strlen(own)} : ev->content_type;
}

static void append_data(struct buf *out, const struct record *rec, struct slice type)
{
    struct slice body = rec->request.body;
    const char *why;
    size_t at;

    if (says_json(type) && json_scan_valid(body, &why, &at)) {
        (void)buf_puts(out, ",\"data\":");
        (void)buf_append(out, body.data, body.len);
        return;
    }
    (void)buf_puts(out, ",\"data_base64\":\"");
    (void)buf_base64(out, body.data, body.len);
    (void)buf_puts(out, "\"");
}

/* As it goes with a single event: nobody bounds what a producer writes there, and what is no trace is left out. */
static void append_trace(struct buf *out, const struct event *ev)
{
    char parent[TRACE_PARENT_BYTES];
    struct trace trace;

    if (trace_parse(ev->traceparent, &trace) == 0)
        append_attribute(out, "traceparent",
                         (struct slice){trace_format(&trace, parent), TRACE_PARENT_BYTES - 1});
}

#define ITEM_ATTRIBUTES_BYTES_MAX 65536 /* seven of at most 1 KiB, each byte as "\u00XX" at worst */

/* Intake has bounded the attributes (event_check, and record_admit the subject), so it always fits. */
static void make_item(struct record *rec, const struct event *ev)
{
    struct buf *out = &rec->own_item;
    struct slice type = content_type_of(rec, ev);

    buf_init(out, ITEM_ATTRIBUTES_BYTES_MAX + rec->request.body.len / 3 * 4 + 4);
    (void)buf_puts(out, "{\"specversion\":");
    (void)json_scan_quote(out, event_header(ev, "ce_specversion"));
    append_attribute(out, "id", ev->id);
    append_attribute(out, "source", ev->source);
    append_attribute(out, "type", ev->type);
    append_attribute(out, "time", ev->time);
    append_attribute(out, "subject", ev->subject);
    append_attribute(out, "datacontenttype", type);
    append_trace(out, ev);
    append_data(out, rec, type);
    (void)buf_puts(out, "}");
    ENSURE(!out->failed);
    rec->item = (struct slice){out->data, out->len};
    rec->bytes += out->cap;
}

void batch_admit(struct batch_kinds *k, struct record *rec, enum batch_format format, const char *path,
                 const struct event *ev)
{
    char text[160];
    const char *why;
    size_t at;

    if (rec->poison || rec->skip || !rec->request.body.data)
        return;
    if (format == BATCH_ARRAY && !json_scan_valid(rec->request.body, &why, &at)) {
        snprintf(text, sizeof text, "the body is not JSON, as batches of format array need it: %s (byte %zu)",
                 why, at);
        record_poison(rec, REASON_NOT_MAPPABLE, text);
        return;
    }
    rec->batch = kind_of(k, &rec->request, path);
    rec->item = rec->request.body;
    if (format == BATCH_CLOUDEVENTS)
        make_item(rec, ev);
}

/* ---- the request ------------------------------------------------------------------------------------------------------ */

const char *batch_content_type(enum batch_format format)
{
    return format == BATCH_ARRAY ? "application/json" : "application/cloudevents-batch+json; charset=utf-8";
}

int batch_body(struct buf *out, struct record *const *members, int count)
{
    bool first = true;

    (void)buf_append(out, "[", 1);
    for (int i = 0; i < count; i++) {
        if (!members[i])
            continue;
        if (!first)
            (void)buf_append(out, ",", 1);
        first = false;
        (void)buf_append(out, members[i]->item.data, members[i]->item.len);
    }
    (void)buf_append(out, "]", 1);
    return out->failed ? -1 : 0;
}

#define KEY_BYTES 16 /* of the digest */

void batch_key(struct buf *out, struct record *const *members, int count)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (count == 1) {
        (void)buf_append(out, members[0]->event_id.data, members[0]->event_id.len);
        return;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ENSURE(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    for (int i = 0; i < count; i++) {
        struct slice id = members[i]->event_id;
        ENSURE(EVP_DigestUpdate(ctx, id.data, id.len) == 1 && EVP_DigestUpdate(ctx, "\n", 1) == 1);
    }
    ENSURE(EVP_DigestFinal_ex(ctx, digest, &len) == 1 && len >= KEY_BYTES);
    EVP_MD_CTX_free(ctx);
    for (int i = 0; i < KEY_BYTES; i++)
        (void)buf_printf(out, "%02x", digest[i]);
}

/* ---- the answer --------------------------------------------------------------------------------------------------------- */

/* A status is three digits; -1: it is none. */
static int status_of(struct slice text)
{
    if (text.len != 3)
        return -1;
    for (size_t i = 0; i < 3; i++)
        if (text.data[i] < '0' || text.data[i] > '9')
            return -1;
    int status = (text.data[0] - '0') * 100 + (text.data[1] - '0') * 10 + (text.data[2] - '0');
    return status >= 100 && status <= 599 ? status : -1;
}

/* A string with an escape is not compared: ids have none, and an item is not refused for how it is written. */
static bool is_other_id(struct slice text, struct slice id)
{
    bool plain = text.len >= 2 && text.data[0] == '"' && !memchr(text.data, '\\', text.len);
    return plain && !slice_equal((struct slice){text.data + 1, text.len - 2}, id);
}

static const char *read_object(struct slice text, struct slice id, struct batch_item *item)
{
    struct json_scan s = json_scan_of(text);
    struct slice name, value;

    (void)json_scan_sign(&s, '{');
    item->status = -1;
    while (!json_scan_sign(&s, '}')) { /* it is JSON already: each step finds what it looks for */
        (void)json_scan_value(&s, &name);
        (void)json_scan_sign(&s, ':');
        (void)json_scan_value(&s, &value);
        (void)json_scan_sign(&s, ',');
        if (slice_is(name, "\"status\"")) {
            if (item->status >= 0)
                return "has two of \"status\"";
            item->status = status_of(value);
            if (item->status < 0)
                return "has a \"status\" that is no HTTP status";
        } else if (id.data && slice_is(name, "\"id\"") && is_other_id(value, id))
            return "has the id of another event";
    }
    return item->status < 0 ? "has no \"status\"" : NULL;
}

/* NULL, or what is wrong with it. */
static const char *read_item(struct slice text, struct slice id, struct batch_item *item)
{
    item->text = text;
    if (text.data[0] == '{')
        return read_object(text, id, item);
    item->status = status_of(text);
    return item->status < 0 ? "is neither a status nor an object with one" : NULL;
}

static int unreadable(struct err *err, int count, const char *why, int at)
{
    return err_set(err, ERR_TEMPORARY, "the answer to a batch of %d cannot be read: item %d %s", count,
                   at + 1, why);
}

/* Exactly count items; -1 with err. */
static int read_items(struct json_scan *s, struct record *const *members, int count, bool ids,
                      struct batch_item *items, struct err *err)
{
    int n = 0;

    if (json_scan_sign(s, ']'))
        return unreadable(err, count, "is missing", 0);
    do {
        struct slice text, id = {NULL, 0};
        if (!json_scan_value(s, &text))
            return unreadable(err, count, "is not JSON", n);
        if (n == count)
            return unreadable(err, count, "is one too many", n);
        if (ids && members[n])
            id = members[n]->event_id;
        const char *why = read_item(text, id, &items[n]);
        if (why)
            return unreadable(err, count, why, n);
        n++;
    } while (json_scan_sign(s, ','));
    if (n < count)
        return unreadable(err, count, "is missing", n);
    if (!json_scan_sign(s, ']') || !json_scan_end(s))
        return unreadable(err, count, "is followed by something else", n - 1);
    return 1;
}

int batch_answer(int status, struct slice body, enum batch_format format, struct record *const *members,
                 int count, struct batch_item *items, struct err *err)
{
    struct json_scan s = json_scan_of(body.data ? body : SLICE_LIT(""));

    if (status != 200 && status != 207)
        return 0;
    if (json_scan_sign(&s, '['))
        return read_items(&s, members, count, format == BATCH_CLOUDEVENTS, items, err);
    if (status == 207)
        return err_set(err, ERR_TEMPORARY, "the answer to a batch of %d is a 207 without an array of results",
                       count);
    return 0;
}
