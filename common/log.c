/* Writes one JSON line per fact on stderr, with one write(2), so that lines of threads and processes never
 * mix. */
#include "common/log.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/utf8.h"

#define LOG_VALUE_BYTES 1024
#define LOG_LINE_BYTES 65536

static const char *const level_words[] = {"debug", "info", "warn", "error"};
static const char *log_program = "tandem";
static enum log_level log_lowest = LOG_INFO;

void log_init(const char *program, enum log_level level)
{
    log_program = program;
    log_lowest = level;
}

int log_level_parse(const char *word, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_LEN(level_words); i++) {
        if (strcmp(word, level_words[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

static json_t *log_string(const char *s, size_t len)
{
    struct buf text;
    buf_init(&text, LOG_VALUE_BYTES);
    json_t *value = NULL;
    if (utf8_clean(&text, s, len, LOG_VALUE_BYTES) == 0)
        value = json_stringn_nocheck(buf_str(&text), text.len);
    buf_done(&text);
    return value;
}

static json_t *log_object(enum log_level level, const char *msg, const struct log_field *fields)
{
    char ts[CLOCK_RFC3339_BYTES];
    json_t *line = json_object();
    int rc = 0;

    rc |= json_object_set_new_nocheck(line, "ts", json_string_nocheck(clock_rfc3339(clock_wall_ns(), ts)));
    rc |= json_object_set_new_nocheck(line, "level", json_string_nocheck(level_words[level]));
    rc |= json_object_set_new_nocheck(line, "program", log_string(log_program, strlen(log_program)));
    rc |= json_object_set_new_nocheck(line, "msg", log_string(msg, strlen(msg)));
    for (; fields->name; fields++) {
        json_t *value = NULL;
        if (fields->str)
            value =
                log_string(fields->str, fields->str_len == SIZE_MAX ? strlen(fields->str) : fields->str_len);
        else
            value = json_integer(fields->num);
        rc |= json_object_set_new_nocheck(line, fields->name, value);
    }
    if (rc == 0)
        return line;
    json_decref(line); /* no memory */
    return NULL;
}

static int log_collect(const char *bytes, size_t len, void *out)
{
    return buf_append(out, bytes, len);
}

/* One write, unless the kernel takes only a part. A log that cannot be written must not stop the program. */
static void log_send(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        data += n;
        len -= (size_t)n;
    }
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
    if (level < log_lowest)
        return;

    static const char lost[] =
        "{\"level\":\"error\",\"msg\":\"a log line was too long or found no memory\"}\n";
    int saved_errno = errno;
    struct buf line;
    buf_init(&line, LOG_LINE_BYTES);
    json_t *object = log_object(level, msg, fields);
    int rc = object ? json_dump_callback(object, log_collect, &line, JSON_COMPACT) : -1;
    if (rc == 0)
        rc = buf_append(&line, "\n", 1);
    if (rc == 0)
        log_send(line.data, line.len);
    else
        log_send(lost, sizeof(lost) - 1);
    json_decref(object);
    buf_done(&line);
    errno = saved_errno;
}
