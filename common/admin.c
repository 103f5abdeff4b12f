/* Serves a program's admin port: metrics for Prometheus, health and readiness for whoever restarts and routes. */
#include <string.h>

#include "common/httpd.h"
#include "common/stats.h"

static const char *const paths[] = {"/metrics", "/healthz", "/readyz"};

#define ADMIN_BODY_LIMIT 1024
#define ADMIN_CONNECTIONS 64

static void serve_metrics(const struct admin_hooks *hooks, struct httpd_response *res)
{
    res->content_type = "text/plain; version=0.0.4; charset=utf-8";
    stats_render(hooks->stats, &res->body);
    if (hooks->extra)
        hooks->extra(hooks->context, &res->body);
}

static void serve_health(const struct admin_hooks *hooks, struct httpd_response *res)
{
    bool alive = hooks->alive(hooks->context);
    res->status = alive ? 200 : 503;
    buf_puts(&res->body, alive ? "ok\n" : "the program's loop has not turned for 30 s\n");
}

/* What the hook writes is shown also when ready: "ready, but the breaker is open". */
static void serve_ready(const struct admin_hooks *hooks, struct httpd_response *res)
{
    struct buf why;
    buf_init(&why, 65536);
    bool ready = hooks->ready(hooks->context, &why);
    res->status = ready ? 200 : 503;
    buf_puts(&res->body, ready ? "ready\n" : "not ready\n");
    buf_puts(&res->body, buf_str(&why));
    if (why.len && why.data[why.len - 1] != '\n')
        buf_puts(&res->body, "\n");
    buf_done(&why);
}

static void serve_links(const struct admin_hooks *hooks, struct httpd_response *res)
{
    res->content_type = "text/html; charset=utf-8";
    buf_puts(&res->body, "<!doctype html><title>tandem</title><ul>");
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        buf_printf(&res->body, "<li><a href=\"%s\">%s</a>", paths[i], paths[i]);
    for (const char *const *look = hooks->looks; look && *look; look++)
        buf_printf(&res->body, "<li><a href=\"%s\">%s</a>", *look, *look);
    buf_puts(&res->body, "</ul>\n");
}

static void serve_nothing(const struct admin_hooks *hooks, struct httpd_response *res)
{
    res->status = 404;
    buf_puts(&res->body, "here are");
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        buf_printf(&res->body, "%s %s", i ? "," : "", paths[i]);
    for (const char *const *look = hooks->looks; look && *look; look++)
        buf_printf(&res->body, ", %s", *look);
    buf_puts(&res->body, hooks->command ? "; commands are POST\n" : "\n");
}

static bool is_look(const struct admin_hooks *hooks, const char *path)
{
    for (const char *const *look = hooks->looks; look && *look; look++)
        if (strcmp(*look, path) == 0)
            return true;
    return false;
}

static void serve_command(const struct admin_hooks *hooks, const struct httpd_request *req,
                          struct httpd_response *res)
{
    if (httpd_header(req, "Origin")) {
        res->status = 403;
        buf_puts(&res->body, "commands are not taken from web pages\n");
        return;
    }
    res->status = hooks->command(hooks->context, req->path, &res->body);
}

static void admin_handler(void *context, const struct httpd_request *req, struct httpd_response *res)
{
    const struct admin_hooks *hooks = context;

    if (hooks->command && strcmp(req->method, "POST") == 0) {
        serve_command(hooks, req, res);
        return;
    }
    if (strcmp(req->method, "GET") != 0 && strcmp(req->method, "HEAD") != 0) {
        res->status = 405;
        snprintf(res->extra_name[0], sizeof(res->extra_name[0]), "Allow");
        snprintf(res->extra_value[0], sizeof(res->extra_value[0]),
                 hooks->command ? "GET, HEAD, POST" : "GET, HEAD");
        return;
    }
    if (strcmp(req->path, "/metrics") == 0) {
        serve_metrics(hooks, res);
    } else if (strcmp(req->path, "/healthz") == 0) {
        serve_health(hooks, res);
    } else if (strcmp(req->path, "/readyz") == 0) {
        serve_ready(hooks, res);
    } else if (strcmp(req->path, "/") == 0) {
        serve_links(hooks, res);
    } else if (is_look(hooks, req->path)) {
        serve_command(hooks, req, res);
    } else {
        serve_nothing(hooks, res);
    }
}

int admin_check(const char *listen, struct err *err)
{
    if (strcmp(listen, "off") == 0 || httpd_check(listen, err) == 0)
        return 0;
    err_prefix(err, "admin_listen: ");
    return -1;
}

struct httpd *admin_start(const char *listen, const struct admin_hooks *hooks, struct err *err)
{
    const struct httpd_config cfg = {
        .listen = listen,
        .threads = 1,
        .body_limit = ADMIN_BODY_LIMIT,
        .connection_limit = ADMIN_CONNECTIONS,
    };
    if (strcmp(listen, "off") == 0)
        return NULL;
    struct httpd *httpd = httpd_start(&cfg, admin_handler, (void *)(uintptr_t)hooks, err);
    if (!httpd)
        err_prefix(err, "admin_listen: ");
    return httpd;
}
