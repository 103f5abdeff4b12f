/* Reads INI text line by line. */
#include "common/options_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/options_names.h"

#define SPACE " \t\r\n\v\f"

int options_file_read(const char *path, struct buf *into, struct err *err)
{
    char chunk[4096];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, ERR_PERMANENT, "cannot read \"%s\": %s", path, strerror(errno));

    int rc = 0;
    while (rc == 0 && (n = read(fd, chunk, sizeof(chunk))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_set(err, ERR_PERMANENT, "cannot read \"%s\": %s", path, strerror(errno));
        else if (memchr(chunk, '\0', (size_t)n))
            rc = err_set(err, ERR_PERMANENT, "\"%s\" is not text: it has a NUL byte", path);
        else if (buf_append(into, chunk, (size_t)n) < 0)
            rc = err_set(err, ERR_PERMANENT, "\"%s\" is longer than %zu bytes", path, into->limit);
    }
    explicit_bzero(chunk, sizeof(chunk));
    close(fd);
    return rc;
}

void options_file_begin(struct options_file *f, char *text)
{
    static const char byte_order_mark[] = "\xEF\xBB\xBF"; /* some editors put it in front of UTF-8 */
    if (strncmp(text, byte_order_mark, 3) == 0)
        text += 3;
    *f = (struct options_file){.next = text, .section = ""};
}

char *options_trim(char *s)
{
    s += strspn(s, SPACE);
    size_t len = strlen(s);
    while (len > 0 && strchr(SPACE, s[len - 1]))
        len--;
    s[len] = '\0';
    return s;
}

static char *next_line(struct options_file *f)
{
    char *line = f->next;
    char *end = strchr(line, '\n');
    if (end) {
        *end = '\0';
        f->next = end + 1;
    } else {
        f->next = line + strlen(line);
    }
    f->line++;
    return options_trim(line);
}

static int take_section(struct options_file *f, char *line, struct err *err)
{
    size_t len = strlen(line);
    if (line[len - 1] != ']')
        return err_set(err, ERR_PERMANENT, "\"%.64s\" is not a section: ']' is missing", line);
    line[len - 1] = '\0';
    f->section = options_trim(line + 1);
    return 0;
}

/* Quotes no more of it than a name: in "sasl.password: hunter2" there is a secret. */
static int is_no_setting(const char *line, struct err *err)
{
    int len = (int)options_name_len(line);
    if (len == 0)
        return err_set(err, ERR_PERMANENT, "the line is not `name = value`");
    return err_set(err, ERR_PERMANENT, "\"%.*s\" is not `name = value`", len, line);
}

int options_file_next(struct options_file *f, char **ret_name, char **ret_value, struct err *err)
{
    while (*f->next) {
        char *line = next_line(f);
        if (*line == '\0' || *line == '#' || *line == ';')
            continue;
        if (*line == '[') {
            if (take_section(f, line, err) < 0)
                return -1;
            continue;
        }
        char *equals = strchr(line, '=');
        if (!equals || equals == line)
            return is_no_setting(line, err);
        *equals = '\0';
        *ret_name = options_trim(line);
        if ((*ret_name)[strcspn(*ret_name, ":" SPACE)]) /* the '=' is one of the value's */
            return is_no_setting(*ret_name, err);
        *ret_value = options_trim(equals + 1);
        return 1;
    }
    return 0;
}
