/* The worker's side of a jq program: starts its keeper, asks its runner, and says why one had to be ended. */
#include "worker/targets/http_jq_helper.h"

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"

#define START_TIMEOUT_MS 30000
#define SLACK_MS 10000 /* beyond the limit of CPU time: another process may have the CPU */

struct jq_helper {
    const char *name;
    struct jq_limits limits;
    int control, runner; /* sockets */
    bool has_answered;   /* this runner */
    pid_t keeper;
    struct buf answer;
};

static int helper_gone(const struct jq_helper *h, struct err *err)
{
    return err_set(err, ERR_FATAL, "the process that runs %s is gone", h->name);
}

/* ---- birth and death ------------------------------------------------------------------------------------------------------------------ */

static int receive_socket(int control, struct jq_runner_end *end)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } room;
    struct iovec data = {end, sizeof *end};
    struct msghdr m = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = room.bytes, .msg_controllen = sizeof room.bytes};
    int fd;
    if (recvmsg(control, &m, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof *end)
        return -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (!c || c->cmsg_type != SCM_RIGHTS)
        return -1;
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

/* A runner, in place of the one before it; its end is told in *end. */
static int helper_renew(struct jq_helper *h, struct jq_runner_end *end, struct err *err)
{
    if (h->runner >= 0)
        close(h->runner);
    h->has_answered = false;
    h->runner = jq_send(h->control, "n", 1) < 0 ? -1 : receive_socket(h->control, end);
    return h->runner < 0 ? helper_gone(h, err) : 0;
}

/* What the compiler says. */
static int helper_compiled(struct jq_helper *h, struct err *err)
{
    char text[512] = "";
    struct jq_answer a;
    if (jq_receive(h->control, &a, sizeof a, START_TIMEOUT_MS) < 0 || a.len >= sizeof text ||
        jq_receive(h->control, text, a.len, START_TIMEOUT_MS) < 0)
        return helper_gone(h, err);
    for (char *c = text; *c; c++)
        *c = *c == '\n' ? ' ' : *c;
    return a.kind == JQ_NOTHING ? 0 : err_set(err, ERR_PERMANENT, "%s: %s", h->name, text);
}

static int helper_start(struct jq_helper *h, const char *program, struct err *err)
{
    struct jq_runner_end end;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return err_set(err, ERR_TEMPORARY, "no socket for %s", h->name);
    fflush(NULL); /* or both would write what is buffered */
    h->control = ends[0];
    h->keeper = fork();
    if (h->keeper == 0)
        jq_keeper_run(ends[1], program, &h->limits);
    close(ends[1]);
    if (h->keeper < 0)
        return err_set(err, ERR_TEMPORARY, "no process for %s", h->name);
    return helper_compiled(h, err) < 0 ? -1 : helper_renew(h, &end, err);
}

struct jq_helper *jq_helper_new(const char *name, const char *program, const struct jq_limits *limits,
                                struct err *err)
{
    struct jq_helper *h = calloc(1, sizeof *h);
    ENSURE(h);
    *h = (struct jq_helper){.name = name, .limits = *limits, .control = -1, .runner = -1, .keeper = -1};
    buf_init(&h->answer, limits->output_bytes + 512);
    if (helper_start(h, program, err) == 0)
        return h;
    jq_helper_free(h);
    return NULL;
}

void jq_helper_free(struct jq_helper *h)
{
    if (!h)
        return;
    if (h->runner >= 0)
        close(h->runner);
    if (h->control >= 0)
        close(h->control); /* the keeper ends */
    if (h->keeper > 0)
        waitpid(h->keeper, NULL, 0);
    buf_done(&h->answer);
    free(h);
}

pid_t jq_helper_keeper(const struct jq_helper *h)
{
    return h->keeper;
}

/* ---- a question ------------------------------------------------------------------------------------------------------------------------ */

static int helper_exchange(struct jq_helper *h, const struct jq_question *q, struct jq_answer *a)
{
    struct jq_frame f = {.about_len = (uint32_t)strlen(q->about),
                         .text_len = (uint32_t)q->text.len,
                         .has_text = q->text.data != NULL,
                         .must_be_json = q->must_be_json};
    int timeout_ms = SLACK_MS + (int)(h->limits.cpu_ns / NS_PER_MS);
    char chunk[4096];

    snprintf(f.name, sizeof f.name, "%s", q->name);
    if (jq_send(h->runner, &f, sizeof f) < 0 || jq_send(h->runner, q->about, f.about_len) < 0 ||
        jq_send(h->runner, q->text.data, f.text_len) < 0 ||
        jq_receive(h->runner, a, sizeof *a, timeout_ms) < 0)
        return -1;
    buf_reset(&h->answer);
    for (size_t left = a->len; left > 0;) {
        size_t n = left < sizeof chunk ? left : sizeof chunk;
        if (jq_receive(h->runner, chunk, n, timeout_ms) < 0 || buf_append(&h->answer, chunk, n) < 0)
            return -1;
        left -= n;
    }
    return 0;
}

/* Has the runner ended by itself, or by somebody's hand? Otherwise it does not answer, and the keeper will end it. */
static bool runner_is_gone(const struct jq_helper *h)
{
    struct pollfd p = {.fd = h->runner};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
}

/* How a runner came to its end while it had a question. */
struct death {
    bool by_itself;
    bool had_answered;
    int number; /* of the signal */
};

/* Another runner in its place. */
static int helper_bury(struct jq_helper *h, struct death *ret, struct err *err)
{
    struct jq_runner_end end = {0};
    *ret = (struct death){.by_itself = runner_is_gone(h), .had_answered = h->has_answered};
    if (helper_renew(h, &end, err) < 0)
        return -1;
    ret->number = WIFSIGNALED(end.wait_status) ? WTERMSIG(end.wait_status) : 0;
    return 0;
}

/* No limit of ours sends SIGKILL: it came from outside, perhaps from a kernel that is out of memory. */
static bool was_killed(const struct death *d)
{
    return d->by_itself && d->number == SIGKILL;
}

/* Can it have been another's fault than this question's? */
static bool is_doubtful(const struct death *d)
{
    return was_killed(d) || (d->by_itself && d->had_answered && d->number != SIGPROF);
}

static int helper_blame(const struct jq_helper *h, const struct death *d, struct err *err)
{
    if (was_killed(d))
        return err_set(err, ERR_TEMPORARY,
                       "%s: its process was killed from outside: is there less memory than jq_memory_max?",
                       h->name);
    if (d->number == SIGPROF || d->number == SIGKILL)
        return err_set(err, ERR_PERMANENT, "%s: it ran longer than jq_cpu_max, %lld ms", h->name,
                       (long long)(h->limits.cpu_ns / NS_PER_MS));
    return err_set(err, ERR_PERMANENT,
                   "%s: it needs more than jq_memory_max, or too deep a stack (signal %d)", h->name,
                   d->number);
}

/* Until a runner has answered, or what ended it is this question. */
static int helper_answer(struct jq_helper *h, const struct jq_question *q, struct jq_answer *a,
                         struct err *err)
{
    for (bool again = false;; again = true) {
        struct death d;
        if (helper_exchange(h, q, a) == 0)
            break;
        if (helper_bury(h, &d, err) < 0)
            return -1;
        if (again || !is_doubtful(&d))
            return helper_blame(h, &d, err);
    }
    h->has_answered = true;
    return 0;
}

int jq_result_read(const char *name, struct slice text, struct json_source *ret, struct err *err)
{
    struct err why = {0};
    if (json_source_read(ret, text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why) == 0)
        return 0;
    return err_set(err, ERR_PERMANENT, "%s: its result cannot be read: %s", name, why.message);
}

int jq_helper_ask(struct jq_helper *h, const struct jq_question *q, struct json_source *ret, struct err *err)
{
    struct jq_answer a;

    if (h->runner < 0)
        return helper_gone(h, err);
    if (helper_answer(h, q, &a, err) < 0)
        return -1;
    *ret = (struct json_source){.root = NULL};
    if (a.kind == JQ_ERROR)
        return err_set(err, ERR_PERMANENT, "%s: %s", h->name, buf_str(&h->answer));
    if (a.kind == JQ_NOTHING)
        return 0;
    return jq_result_read(h->name, (struct slice){buf_str(&h->answer), h->answer.len}, ret, err);
}
