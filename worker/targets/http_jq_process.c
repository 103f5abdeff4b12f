/* The processes that run a jq program: the keeper compiles it and forks runners, a runner answers within its limits. */
#include <errno.h>
#include <fcntl.h>
#include <jq.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "worker/targets/http_jq_helper.h"

#define MESSAGE_BYTES_MAX 400
#define FDS_MAX 4096 /* of those that the worker may have open when it forks */

/* ---- bytes ----------------------------------------------------------------------------------------------------------------------- */

int jq_send(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int jq_receive(int fd, void *data, size_t len, int timeout_ms)
{
    char *at = data;
    while (len > 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready =
            timeout_ms < 0 ? 1 : poll(&p, 1, timeout_ms); /* a runner may have no descriptor to poll */
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t n = ready > 0 ? recv(fd, at, len, 0) : -1;
        if (n < 0 && ready > 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

/* ---- a process that reaches nothing ------------------------------------------------------------------------------------------------ */

static void keep_only(int fd)
{
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i <= 2 && null >= 0; i++)
        dup2(null, i);
    for (int i = 3; i < FDS_MAX; i++)
        if (i != fd)
            close(i);
}

static void forget_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGTERM, SIG_IGN); /* the worker ends us, after it has drained */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPROF, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void forget_environment(void)
{
    static char *nothing[] = {NULL};
    extern char **environ;
    environ = nothing;
}

static size_t memory_now(void)
{
    size_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%zu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void limit(int resource, rlim_t value)
{
    const struct rlimit both = {value, value};
    (void)setrlimit((__rlimit_resource_t)resource, &both);
}

/* A sanitizer reserves terabytes of addresses, which are no memory. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_MEMORY_LIMIT false
#else
#define HAS_MEMORY_LIMIT true
#endif

/* No file can be opened any more: no module, no ~/.jq. */
static void runner_limits(const struct jq_limits *limits)
{
    if (HAS_MEMORY_LIMIT)
        limit(RLIMIT_AS, memory_now() + limits->memory_bytes);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_NOFILE, 0);
}

static void cpu_timer(int64_t ns)
{
    const struct itimerval t = {.it_value = {ns / NS_PER_S, ns % NS_PER_S / NS_PER_US}};
    (void)setitimer(ITIMER_PROF, &t, NULL);
}

/* ---- one run ------------------------------------------------------------------------------------------------------------------------ */

static void answer(int fd, enum jq_answer_kind kind, const char *text, size_t len)
{
    const struct jq_answer a = {.kind = (uint32_t)kind, .len = (uint32_t)len};
    if (jq_send(fd, &a, sizeof a) < 0 || jq_send(fd, text, len) < 0)
        _exit(0);
}

static void answer_text(int fd, enum jq_answer_kind kind, const char *text)
{
    size_t len = strlen(text);
    answer(fd, kind, text, len < MESSAGE_BYTES_MAX ? len : MESSAGE_BYTES_MAX);
}

/* Consumes v, a value or an invalid one with a message. */
static void answer_failure(int fd, jv v)
{
    jv message = jv_invalid_get_msg(v);
    if (jv_get_kind(message) != JV_KIND_STRING)
        message = jv_dump_string(message, 0);
    answer_text(fd, JQ_ERROR, jv_string_value(message));
    jv_free(message);
}

static void answer_value(int fd, jv v, const struct jq_limits *limits)
{
    jv text = jv_dump_string(v, 0);
    size_t len = (size_t)jv_string_length_bytes(jv_copy(text));
    if (len > limits->output_bytes)
        answer_text(fd, JQ_ERROR, "its result is too large");
    else
        answer(fd, JQ_VALUE, jv_string_value(text), len);
    jv_free(text);
}

/* Consumes input. One result, or none. */
static void run(jq_state *jq, int fd, jv input, const struct jq_limits *limits)
{
    jq_start(jq, input, 0);
    jv first = jq_next(jq);
    if (!jv_is_valid(first)) {
        if (jq_halted(jq))
            answer_text(fd, JQ_ERROR, "it halted");
        else if (jv_invalid_has_msg(jv_copy(first)))
            answer_failure(fd, jv_copy(first));
        else
            answer(fd, JQ_NOTHING, "", 0);
        jv_free(first);
        return;
    }
    jv second = jq_next(jq);
    bool more = jv_is_valid(second) || jv_invalid_has_msg(jv_copy(second));
    jv_free(second);
    if (more) {
        answer_text(fd, JQ_ERROR, "it has more than one result");
        jv_free(first);
    } else
        answer_value(fd, first, limits);
}

/* An invalid value with a message when the text should be JSON and is not. */
static jv read_text(const struct jq_frame *f, const char *text)
{
    if (!f->has_text)
        return jv_null();
    jv v = jv_parse_sized(text, (int)f->text_len);
    if (jv_is_valid(v) || f->must_be_json)
        return v;
    jv_free(v);
    return jv_string_sized(text, (int)f->text_len);
}

static void take_question(jq_state *jq, int fd, const struct jq_frame *f, const char *bytes,
                          const struct jq_limits *limits)
{
    cpu_timer(limits->cpu_ns);
    jv text = read_text(f, bytes + f->about_len);
    if (!jv_is_valid(text)) {
        cpu_timer(0);
        jv_free(text);
        answer_text(fd, JQ_ERROR, "the payload is not JSON");
        return;
    }
    jv input = jv_parse_sized(bytes, (int)f->about_len);
    run(jq, fd, jv_object_set(input, jv_string(f->name), text), limits);
    cpu_timer(0);
}

static void runner_run(jq_state *jq, int fd, const struct jq_limits *limits)
{
    struct jq_frame f;

    runner_limits(limits);
    while (jq_receive(fd, &f, sizeof f, -1) == 0) {
        size_t len = (size_t)f.about_len + f.text_len;
        char *bytes = malloc(len + 1);
        if (!bytes || jq_receive(fd, bytes, len, -1) < 0)
            abort();
        take_question(jq, fd, &f, bytes, limits);
        free(bytes);
    }
    _exit(0);
}

/* ---- the keeper ----------------------------------------------------------------------------------------------------------------------- */

static int send_socket(int control, int fd, const struct jq_runner_end *end)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } room = {.bytes = {0}};
    struct iovec data = {(void *)(uintptr_t)end, sizeof *end};
    struct msghdr m = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = room.bytes, .msg_controllen = sizeof room.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(control, &m, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static void on_compile_error(void *context, jv message)
{
    struct buf *first = context;
    jv text = jq_format_error(message);
    if (first->len == 0 && jv_get_kind(text) == JV_KIND_STRING)
        (void)buf_append(first, jv_string_value(text), strnlen(jv_string_value(text), MESSAGE_BYTES_MAX));
    jv_free(text);
}

static jq_state *compile(int control, const char *program)
{
    struct buf why;
    buf_init(&why, MESSAGE_BYTES_MAX);
    jq_state *jq = jq_init();
    if (!jq)
        _exit(1);
    jq_set_error_cb(jq, on_compile_error, &why);
    bool good = jq_compile(jq, program) != 0;
    answer_text(control, good ? JQ_NOTHING : JQ_ERROR, buf_str(&why));
    if (!good)
        _exit(0);
    jq_set_error_cb(jq, NULL, NULL);
    buf_done(&why);
    return jq;
}

/* A runner's pid, and its socket in *ret_fd. */
static pid_t start_runner(jq_state *jq, int control, const struct jq_limits *limits, int *ret_fd)
{
    int ends[2];
    pid_t keeper = getpid();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        _exit(1);
    pid_t pid = fork();
    if (pid < 0)
        _exit(1);
    if (pid == 0) {
        close(control);
        close(ends[0]);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != keeper) /* it ended before that */
            _exit(0);
        runner_run(jq, ends[1], limits);
    }
    close(ends[1]);
    *ret_fd = ends[0];
    return pid;
}

void jq_keeper_run(int control, const char *program, const struct jq_limits *limits)
{
    pid_t runner = 0;
    char wish;

    keep_only(control);
    limit(RLIMIT_CORE, 0);
    (void)prctl(PR_SET_DUMPABLE, 0); /* the worker's secrets are still in this copy of its memory */
    forget_signals();
    forget_environment();
    jq_state *jq = compile(control, program);
    while (jq_receive(control, &wish, 1, -1) == 0) {
        struct jq_runner_end end = {0};
        int fd = -1;
        if (runner) {
            kill(runner, SIGKILL); /* no effect when it has ended: the first signal counts */
            waitpid(runner, &end.wait_status, 0);
        }
        runner = start_runner(jq, control, limits, &fd);
        if (send_socket(control, fd, &end) < 0)
            break;
        close(fd);
    }
    if (runner) {
        kill(runner, SIGKILL);
        waitpid(runner, NULL, 0); /* or it would be left to whoever is process 1 of a container */
    }
    _exit(0);
}
