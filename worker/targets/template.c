/* Fills an event into a text; nothing that is filled in can mean more than a value. */
#include "worker/targets/template.h"

#include <jansson.h>
#include <string.h>

#include "worker/targets/json_pointer.h"

enum part_kind { PART_TEXT, PART_ATTRIBUTE, PART_HEADER, PART_DATA };

struct part {
    enum part_kind kind;
    char *text;       /* TEXT; the name of HEADER; the pointer of DATA; ATTRIBUTE: for errors */
    size_t attribute; /* offset of its slice in struct event */
};

struct template
{
    struct part parts[TEMPLATE_PARTS_MAX];
    size_t count;
};

static const struct {
    const char *name;
    size_t offset;
} attributes[] = {
    {"key", offsetof(struct event, key)},         {"id", offsetof(struct event, id)},
    {"type", offsetof(struct event, type)},       {"source", offsetof(struct event, source)},
    {"subject", offsetof(struct event, subject)}, {"time", offsetof(struct event, time)},
};

/* ---- what is filled in -------------------------------------------------------------------------------------------------------- */

const struct json_source *facts_data(struct facts *f, struct err *err)
{
    struct err why = {0};
    if (f->data.root ||
        json_source_read(&f->data, f->ev->value, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why) == 0)
        return &f->data;
    err_set(err, ERR_PERMANENT, "the payload is not JSON: %s", why.message);
    return NULL;
}

void facts_done(struct facts *f)
{
    json_source_done(&f->data);
    *f = (struct facts){.ev = f->ev};
}

/* ---- taking a text apart ------------------------------------------------------------------------------------------------------- */

static char *copy_of(const char *from, size_t len)
{
    char *copy = strndup(from, len);
    ENSURE(copy);
    return copy;
}

static int parse_place(const char *name, size_t len, struct part *p, struct err *err)
{
    static const char header[] = "header ", data[] = "data/";

    for (size_t i = 0; i < ARRAY_LEN(attributes); i++) {
        if (strlen(attributes[i].name) == len && memcmp(attributes[i].name, name, len) == 0) {
            *p = (struct part){PART_ATTRIBUTE, copy_of(name, len), attributes[i].offset};
            return 0;
        }
    }
    if (len > sizeof header - 1 && memcmp(name, header, sizeof header - 1) == 0) {
        *p = (struct part){PART_HEADER, copy_of(name + sizeof header - 1, len - (sizeof header - 1)), 0};
        return 0;
    }
    if (len > sizeof data - 1 && memcmp(name, data, sizeof data - 1) == 0) {
        *p = (struct part){PART_DATA, copy_of(name + 4, len - 4), 0};
        return json_pointer_check(p->text, err);
    }
    return err_set(
        err, ERR_PERMANENT,
        "\"{%.*s}\" is no place: {key}, {id}, {type}, {source}, {subject}, {time}, {header NAME} or "
        "{data/POINTER}",
        len < 64 ? (int)len : 64, name);
}

/* Text up to the next place; {{ and }} are braces. */
static int parse_text(const char **from, struct part *p, struct err *err)
{
    size_t len = 0;
    char *text = malloc(strlen(*from) + 1);
    ENSURE(text);
    const char *c = *from;
    for (; *c && !(*c == '{' && c[1] != '{'); c++) {
        if (*c == '}' && c[1] != '}') {
            free(text);
            return err_set(err, ERR_PERMANENT, "a \"}\" without \"{\": as a character it is written \"}}\"");
        }
        text[len++] = *c;
        c += *c == '{' || *c == '}';
    }
    text[len] = '\0';
    *p = (struct part){PART_TEXT, text, 0};
    *from = c;
    return 0;
}

static int parse_part(const char **from, struct part *p, struct err *err)
{
    if (**from != '{' || (*from)[1] == '{')
        return parse_text(from, p, err);
    const char *end = strchr(*from, '}');
    if (!end)
        return err_set(err, ERR_PERMANENT, "a \"{\" is not closed: as a character it is written \"{{\"");
    int r = parse_place(*from + 1, (size_t)(end - *from - 1), p, err);
    *from = end + 1;
    return r;
}

struct template *template_parse(const char *text, struct err *err)
{
    struct template *t = calloc(1, sizeof *t);
    ENSURE(t);
    int r = strlen(text) <= TEMPLATE_BYTES_MAX
                ? 0
                : err_set(err, ERR_PERMANENT, "longer than %d bytes", TEMPLATE_BYTES_MAX);
    while (r == 0 && *text) {
        if (t->count == TEMPLATE_PARTS_MAX)
            r = err_set(err, ERR_PERMANENT, "more than %d places and texts between them", TEMPLATE_PARTS_MAX);
        else
            r = parse_part(&text, &t->parts[t->count++], err);
    }
    if (r == 0)
        return t;
    template_free(t);
    return NULL;
}

void template_free(struct template *t)
{
    for (size_t i = 0; t && i < t->count; i++)
        free(t->parts[i].text);
    free(t);
}

/* ---- paths ------------------------------------------------------------------------------------------------------------------------- */

/* Empty, "." or "..", a dot written as "%2e" or not: the two are the same to a server (RFC 3986 6.2.2). */
static bool is_other_resource(const char *segment, size_t len)
{
    size_t dots = 0;

    for (size_t i = 0; i < len; dots++) {
        bool encoded = len - i >= 3 && strncasecmp(segment + i, "%2e", 3) == 0;
        if (!encoded && segment[i] != '.')
            return false;
        i += encoded ? 3 : 1;
    }
    return dots <= 2;
}

/* Each segment, from its "/" to the next one. may_end_open: "/v1/orders/" is meant so. */
static int check_segments(const char *path, bool may_end_open, struct err *err)
{
    for (const char *slash = path; *slash == '/';) {
        size_t len = strcspn(slash + 1, "/?");
        bool open_end = len == 0 && slash[1] != '/';
        if (is_other_resource(slash + 1, len) && !(open_end && may_end_open))
            return err_set(err, ERR_PERMANENT,
                           "the path \"%.200s\" has a segment \"%.*s\": it would name another resource", path,
                           (int)len, slash + 1);
        slash += 1 + len;
    }
    return 0;
}

/* Does the template's own text end the path with "/"? What a place leaves empty behind one is a segment that is missing. */
static bool ends_open(const struct template *t)
{
    bool open = false;
    for (size_t i = 0; i < t->count; i++) {
        const char *text = t->parts[i].text;
        size_t len = t->parts[i].kind == PART_TEXT ? strcspn(text, "?") : 0;
        if (len > 0 || t->parts[i].kind != PART_TEXT)
            open = len > 0 && text[len - 1] == '/';
        if (t->parts[i].kind == PART_TEXT && text[len] == '?')
            break;
    }
    return open;
}

/* Segments without a place are as they will be. */
static int check_own_segments(const struct template *t, struct err *err)
{
    struct buf path;
    buf_init(&path, TEMPLATE_BYTES_MAX);
    for (size_t i = 0; i < t->count; i++)
        (void)buf_puts(&path, t->parts[i].kind == PART_TEXT ? t->parts[i].text : "{}");
    int r = check_segments(buf_str(&path), true, err);
    buf_done(&path);
    return r;
}

int template_check_path(const struct template *t, struct err *err)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%/?:@!$&'()*+,;=";

    if (t->count == 0 || t->parts[0].kind != PART_TEXT || t->parts[0].text[0] != '/')
        return err_set(err, ERR_PERMANENT, "the path does not begin with \"/\"");
    for (size_t i = 0; i < t->count; i++) {
        const char *text = t->parts[i].kind == PART_TEXT ? t->parts[i].text : "";
        const char *wrong = text + strspn(text, allowed);
        if (*wrong)
            return err_set(err, ERR_PERMANENT, "the path has \"%.1s\", which is written percent-encoded",
                           wrong);
    }
    return check_own_segments(t, err);
}

/* ---- filling in ----------------------------------------------------------------------------------------------------------------- */

static enum template_result no_room(const struct buf *out, struct err *err)
{
    err_set(err, ERR_PERMANENT, "what the template makes is longer than %zu bytes", out->limit);
    return TEMPLATE_FAILED;
}

static enum template_result put(struct buf *out, struct slice value, bool encode, struct err *err)
{
    int r = encode ? buf_percent(out, value.data, value.len) : buf_append(out, value.data, value.len);
    return r < 0 ? no_room(out, err) : TEMPLATE_DONE;
}

static enum template_result missing(const char *what, const char *name, struct err *err)
{
    err_set(err, ERR_PERMANENT, "the event has no %s%.128s", what, name);
    return TEMPLATE_MISSING;
}

static enum template_result fill_data(const struct part *p, struct facts *f, bool encode, struct buf *out,
                                      struct err *err)
{
    const struct json_source *data = facts_data(f, err);
    if (!data)
        return TEMPLATE_FAILED;
    struct slice value = json_source_scalar(data, json_pointer_get(data->root, p->text));
    return value.data ? put(out, value, encode, err) : missing("string or number at ", p->text, err);
}

static enum template_result fill_part(const struct part *p, struct facts *f, bool encode, struct buf *out,
                                      struct err *err)
{
    struct slice value = {p->text, strlen(p->text)};

    if (p->kind == PART_DATA)
        return fill_data(p, f, encode, out, err);
    if (p->kind == PART_TEXT)
        return put(out, value, false, err);
    if (p->kind == PART_HEADER)
        value = event_header(f->ev, p->text);
    else
        memcpy(&value, (const char *)f->ev + p->attribute, sizeof value);
    if (!value.data)
        return missing(p->kind == PART_HEADER ? "header " : "", p->text, err);
    return put(out, value, encode, err);
}

enum template_result template_fill(const struct template *t, struct facts *f, struct buf *out,
                                   struct err *err)
{
    enum template_result r = TEMPLATE_DONE;
    for (size_t i = 0; i < t->count && r == TEMPLATE_DONE; i++)
        r = fill_part(&t->parts[i], f, false, out, err);
    return r;
}

enum template_result template_fill_path(const struct template *t, struct facts *f, struct buf *out,
                                        struct err *err)
{
    enum template_result r = TEMPLATE_DONE;
    for (size_t i = 0; i < t->count && r == TEMPLATE_DONE; i++)
        r = fill_part(&t->parts[i], f, true, out, err);
    if (r == TEMPLATE_DONE && check_segments(buf_str(out), ends_open(t), err) < 0)
        return TEMPLATE_FAILED;
    return r;
}
