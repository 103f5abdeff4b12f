/* Keeps one secret, and reads its file again when that changes. */
#include "worker/auth_secret.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "common/log.h"
#include "common/options.h"

void auth_secret_wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

void auth_secret_init(struct auth_secret *s, const char *name, const char *text, const char *path)
{
    *s = (struct auth_secret){.name = name, .path = path, .text = text ? strdup(text) : NULL};
    ENSURE(s->text || !text);
}

void auth_secret_done(struct auth_secret *s)
{
    auth_secret_wipe(s->text);
    s->text = NULL;
}

/* A secret that is mounted anew changes the file behind the path; one that is written over changes the times. */
static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

char *auth_secret_look(struct auth_secret *s)
{
    struct stat now = {0};
    struct err err = {0};
    struct buf text;

    /* A pipe has been read to its end, and would make the loop wait. A missing file is looked for again. */
    if (!s->path || (stat(s->path, &now) == 0 && (!S_ISREG(now.st_mode) || is_same_file(&now, &s->seen))))
        return NULL;
    bool was_there = s->seen.st_ino != 0;
    s->seen = now; /* before reading: what changes meanwhile is seen the next time */
    buf_init(&text, OPTIONS_TEXT_BYTES_MAX);
    char *fresh = NULL;
    if (options_secret_read(s->path, &text, &err) == 0) {
        if (!s->text || strcmp(s->text, text.data) != 0)
            fresh = strdup(text.data);
    } else if (now.st_ino || was_there)
        LOG_WARNING("a secret cannot be read again: the old one stays in force", LOG_STR("option", s->name),
                    LOG_STR("error", err.message));
    if (text.data)
        explicit_bzero(text.data, text.cap);
    buf_done(&text);
    return fresh;
}
