/*
 * A jq program in a process of its own. libjq cannot be stopped, has no limit of memory, and its language reaches the environment and files:
 * so a program that runs away is ended by its limits as a process, and finds neither.
 *
 *     worker ──fork──▶ keeper, has the program compiled ──fork──▶ runner: answers one question after the other
 *        ▲                                                           │
 *        ╰────────────────── a socket, handed up ────────────────────╯     a runner that was ended is replaced by the keeper
 *
 * The keeper is forked at the start, while the worker has one thread. Both end when the worker does.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/event.h"
#include "worker/targets/json_source.h"

struct jq_limits {
    int64_t cpu_ns;      /* of one run */
    size_t memory_bytes; /* of the runner, beyond what it starts with */
    size_t output_bytes; /* of a result, as JSON text */
};

struct jq_helper;
/* name: of the option, for errors. NULL: PERMANENT, the program is wrong; TEMPORARY: no process. */
struct jq_helper *jq_helper_new(const char *name, const char *program, const struct jq_limits *limits,
                                struct err *err);
void jq_helper_free(struct jq_helper *h);          /* NULL-safe */
pid_t jq_helper_keeper(const struct jq_helper *h); /* of the process */

/* about: a JSON object; the text is put into it under this name, as JSON or, where it need not be, as a string. */
struct jq_question {
    const char *about;
    const char *name;
    struct slice text; /* data NULL: null */
    bool must_be_json;
};
/*
 * Run the program once. 0: *ret is its one result, to be done with before the next question, or without a root when it had none. -1:
 * PERMANENT, the program failed at this, took too long or too much; TEMPORARY: its process was killed from outside, and the one after it as
 * well; FATAL: the keeper is gone, ask no more.
 * A runner that is ended without having used up its CPU time may have died of others' questions (libjq 1.6 leaks), or by the hand of the
 * kernel that is out of memory: so a fresh one is asked too, once, before anything is said of this question.
 */
NODISCARD int jq_helper_ask(struct jq_helper *h, const struct jq_question *q, struct json_source *ret,
                            struct err *err);

/* What a runner wrote as its result, which is from a process that may be anything by now. -1: PERMANENT. name: of the option. */
NODISCARD int jq_result_read(const char *name, struct slice text, struct json_source *ret, struct err *err);

/* ---- http_jq_process.c: the keeper's life; never returns ---- */

/* A question: both lengths, then both texts. An answer: kind and length, then the text. */
struct jq_frame {
    uint32_t about_len, text_len;
    char name[16];
    uint8_t has_text, must_be_json;
};
enum jq_answer_kind { JQ_VALUE, JQ_NOTHING, JQ_ERROR };
struct jq_answer {
    uint32_t kind, len;
};
/* What the keeper says with each runner's socket: how the runner before it ended, 0: it has not. */
struct jq_runner_end {
    int wait_status;
};
void jq_keeper_run(int control, const char *program, const struct jq_limits *limits)
    __attribute__((noreturn));
NODISCARD int jq_send(int fd, const void *data, size_t len);
NODISCARD int jq_receive(int fd, void *data, size_t len, int timeout_ms); /* timeout -1: none */
