/* Serves HTTP/1.1 on libmicrohttpd: reads a whole request within its limit, asks the handler, sends its answer. */
#include "common/httpd.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_BYTES_MAX (1 << 20)
#define DISCARD_BYTES_MAX                                                                                    \
    (1 << 20) /* of a body over its limit: read on so far, so that the client gets to see the 413 */
#define IDLE_SECONDS 60
#define STOP_SECONDS 5 /* for the answers that are under way */

struct httpd {
    struct MHD_Daemon *daemon;
    httpd_handler handler;
    void *context;
    size_t body_limit;
    int port;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    int active; /* requests begun and not completely answered */
};

/* One request while it comes in. */
struct incoming {
    struct buf body;
    size_t discarded;
};

/* ---- the listening socket ------------------------------------------------------------------------------------- */

/* "host:port", ":port", "[v6]:port": host is "" for all addresses. */
static int split_listen(const char *listen_at, char host[256], char port[8], struct err *err)
{
    const char *colon = strrchr(listen_at, ':');
    const char *begin = listen_at;
    size_t len = colon ? (size_t)(colon - listen_at) : 0;

    if (colon && *begin == '[' && len >= 2 && begin[len - 1] == ']') {
        begin++;
        len -= 2;
    } else if (memchr(begin, ':', len)) {
        colon = NULL; /* an IPv6 address without brackets: where would its port begin? */
    }
    size_t digits = colon ? strlen(colon + 1) : 0;
    if (!colon || len > 255 || digits == 0 || digits > 5 || strspn(colon + 1, "0123456789") != digits ||
        strtol(colon + 1, NULL, 10) > 65535)
        return err_set(err, ERR_PERMANENT,
                       "\"%.100s\" is not an address to listen at: write HOST:PORT, :PORT or [IPV6]:PORT",
                       listen_at);
    snprintf(host, 256, "%.*s", (int)len, begin);
    snprintf(port, 8, "%s", colon + 1);
    return 0;
}

int httpd_check(const char *listen_at, struct err *err)
{
    char host[256], port[8];
    return split_listen(listen_at, host, port, err);
}

static int open_socket(const struct addrinfo *address, bool all)
{
    const int on = 1, off = 0;
    int fd =
        socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, all ? &off : &on, sizeof(on));
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    int saved_errno = errno;
    close(fd);
    errno = saved_errno;
    return -1;
}

static int open_listener(const char *listen_at, struct err *err)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    char host[256] = "", port[8] = "";
    struct addrinfo *found = NULL;
    int fd = -1;

    if (split_listen(listen_at, host, port, err) < 0)
        return -1;
    int rc = getaddrinfo(*host ? host : NULL, port, &hints, &found);
    if (rc != 0)
        return err_set(err, rc == EAI_AGAIN ? ERR_TEMPORARY : ERR_PERMANENT, "cannot listen at \"%s\": %s",
                       listen_at, gai_strerror(rc));
    /* All addresses: one IPv6 socket takes IPv4 as well; where there is no IPv6, the second round takes what works. */
    for (int round = 0; round < 2 && fd < 0; round++)
        for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
            if (round == 1 || *host || a->ai_family == AF_INET6)
                fd = open_socket(a, *host == '\0');
    int saved_errno = errno;
    freeaddrinfo(found);
    if (fd < 0)
        err_set(err, saved_errno == EADDRINUSE ? ERR_TEMPORARY : ERR_PERMANENT, "cannot listen at \"%s\": %s",
                listen_at, strerror(saved_errno));
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        return 0;
    if (address.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)&address)->sin6_port);
    return ntohs(((const struct sockaddr_in *)(const void *)&address)->sin_port);
}

/* ---- a request ------------------------------------------------------------------------------------------------ */

static enum MHD_Result send_plain(struct MHD_Connection *connection, unsigned status, const char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; charset=utf-8");
    enum MHD_Result rc = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return rc;
}

static bool add_headers(struct MHD_Response *response, const struct httpd_response *res)
{
    if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, res->content_type) != MHD_YES)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(res->extra_name); i++)
        if (res->extra_name[i][0] &&
            MHD_add_response_header(response, res->extra_name[i], res->extra_value[i]) != MHD_YES)
            return false; /* a line break in it, or no memory */
    return true;
}

static enum MHD_Result send_answer(struct MHD_Connection *connection, struct httpd_response *res)
{
    if (res->body.failed)
        return send_plain(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "the answer is too large\n");

    size_t len = res->body.len;
    void *data = res->body.data;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, data, data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    res->body.data = NULL; /* the response owns it now */
    enum MHD_Result rc = MHD_NO;
    if (add_headers(response, res))
        rc = MHD_queue_response(connection, (unsigned)res->status, response);
    else
        rc = send_plain(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "the answer has an impossible header\n");
    MHD_destroy_response(response);
    return rc;
}

static enum MHD_Result answer(struct httpd *h, struct MHD_Connection *connection, const char *method,
                              const char *path, const struct incoming *in)
{
    const struct httpd_request req = {
        .method = method,
        .path = path,
        .body = in->body.len ? in->body.data : NULL,
        .body_len = in->body.len,
        .connection = connection,
    };
    struct httpd_response res = {.status = 200, .content_type = "text/plain; charset=utf-8"};
    buf_init(&res.body, ANSWER_BYTES_MAX);
    h->handler(h->context, &req, &res);
    enum MHD_Result rc = res.close_without_answer ? MHD_NO : send_answer(connection, &res);
    buf_done(&res.body);
    return rc;
}

static void count_active(struct httpd *h, int change)
{
    pthread_mutex_lock(&h->lock);
    h->active += change;
    if (h->active == 0)
        pthread_cond_broadcast(&h->idle);
    pthread_mutex_unlock(&h->lock);
}

/* microhttpd calls this when the headers are there, for each piece of the body, and once more at its end. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *data, size_t *len,
                                  void **request)
{
    struct httpd *h = context;
    struct incoming *in = *request;
    (void)version;

    if (!in) {
        in = calloc(1, sizeof(*in));
        if (!in)
            return MHD_NO;
        buf_init(&in->body, h->body_limit);
        *request = in;
        count_active(h, 1);
        return MHD_YES;
    }
    if (*len) {
        if (in->body.failed || buf_append(&in->body, data, *len) < 0)
            in->discarded += *len;
        *len = 0;
        return in->discarded > DISCARD_BYTES_MAX ? MHD_NO : MHD_YES;
    }
    if (in->body.failed)
        return send_plain(connection, MHD_HTTP_CONTENT_TOO_LARGE, "the request is too large\n");
    return answer(h, connection, method, path, in);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code)
{
    struct incoming *in = *request;
    (void)connection;
    (void)code;
    if (!in)
        return;
    buf_done(&in->body);
    free(in);
    *request = NULL;
    count_active(context, -1);
}

const char *httpd_header(const struct httpd_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

const char *httpd_query(const struct httpd_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_GET_ARGUMENT_KIND, name);
}

/* ---- the server ----------------------------------------------------------------------------------------------- */

static struct MHD_Daemon *start_daemon(struct httpd *h, const struct httpd_config *cfg, int fd)
{
    unsigned threads = cfg->threads > 1 && !cfg->thread_per_connection ? (unsigned)cfg->threads : 0;
    unsigned flags = MHD_USE_ITC;
    flags |= cfg->thread_per_connection
                 ? (unsigned)MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL
                 : (unsigned)MHD_USE_EPOLL_INTERNAL_THREAD;
    /* clang-format off */
    const struct MHD_OptionItem options[] = {
        {MHD_OPTION_LISTEN_SOCKET, fd, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, cfg->connection_limit, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, NULL},
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, h},
        {threads ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, threads, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    /* clang-format on */
    return MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
}

struct httpd *httpd_start(const struct httpd_config *cfg, httpd_handler handler, void *context,
                          struct err *err)
{
    ENSURE(cfg->connection_limit > 0 && cfg->threads > 0);
    int fd = open_listener(cfg->listen, err);
    if (fd < 0)
        return NULL;
    struct httpd *h = calloc(1, sizeof(*h));
    if (!h) {
        close(fd);
        err_set(err, ERR_TEMPORARY, "no memory for the server at \"%s\"", cfg->listen);
        return NULL;
    }
    h->handler = handler;
    h->context = context;
    h->body_limit = cfg->body_limit;
    h->port = port_of(fd);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&h->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    h->daemon = start_daemon(h, cfg, fd);
    if (h->daemon)
        return h;
    err_set(err, ERR_TEMPORARY, "cannot start the server at \"%s\"", cfg->listen);
    close(fd);
    httpd_stop(h);
    return NULL;
}

static void wait_idle(struct httpd *h)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += STOP_SECONDS;
    pthread_mutex_lock(&h->lock);
    while (h->active > 0 && pthread_cond_timedwait(&h->idle, &h->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&h->lock);
}

void httpd_stop(struct httpd *h)
{
    if (!h)
        return;
    if (h->daemon) {
        int fd = MHD_quiesce_daemon(h->daemon); /* no new connections; the socket is ours again */
        wait_idle(h);
        MHD_stop_daemon(h->daemon);
        if (fd >= 0)
            close(fd);
    }
    pthread_cond_destroy(&h->idle);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int httpd_port(const struct httpd *h)
{
    return h->port;
}
