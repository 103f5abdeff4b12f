/* One JSON line per fact on stderr. */
#pragma once

#include <stdint.h>

#include "common/compiler.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* program: borrowed for the life of the process. Lines below level are dropped. Call once, before any thread. */
void log_init(const char *program, enum log_level level);
/* 0 and *ret_level set, or -1 for a word other than debug, info, warn, error. */
NODISCARD int log_level_parse(const char *word, enum log_level *ret_level);

/*
 * LOG("partition assigned", LOG_STR("topic", topic), LOG_INT("partition", p)) writes
 * {"ts":"…Z","level":"info","program":"tandem-inventory","msg":"partition assigned","topic":"…","partition":3}
 * Strings are copied as UTF-8, invalid bytes replaced, values cut at 1,024 bytes. Thread-safe, one write(2) a line.
 * Never give it a secret.
 */
struct log_field {
    const char *name;
    const char *str; /* NULL: the number is meant */
    size_t str_len;
    int64_t num;
};
/* NULL is "": a function, because a compiler warns when the macro asks an array whether it is NULL. */
static inline const char *log_text(const char *s)
{
    return s ? s : "";
}
#define LOG_STR(name_, s_) LOG_BYTES(name_, s_, SIZE_MAX)
#define LOG_BYTES(name_, s_, n_) ((struct log_field){.name = (name_), .str = log_text(s_), .str_len = (n_)})
#define LOG_INT(name_, n_) ((struct log_field){.name = (name_), .num = (int64_t)(n_)})
#define LOG_AT(level_, msg_, ...)                                                                            \
    log_write((level_), (msg_), (const struct log_field[]){__VA_ARGS__, {.name = NULL}})
#define LOG(msg_, ...) LOG_AT(LOG_INFO, msg_, __VA_ARGS__)
#define LOG_WARNING(msg_, ...) LOG_AT(LOG_WARN, msg_, __VA_ARGS__)
#define LOG_ERR(msg_, ...) LOG_AT(LOG_ERROR, msg_, __VA_ARGS__)
/* A fact without fields. */
#define LOG_PLAIN(level_, msg_) log_write((level_), (msg_), &(const struct log_field){.name = NULL})

/* fields ends with one whose name is NULL. */
void log_write(enum log_level level, const char *msg, const struct log_field *fields);
