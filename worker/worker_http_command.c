/* Tells a running worker what its operator wants, by a request to its admin port. */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "worker/worker_command.h"

#define ANSWER_BYTES_MAX 65536
#define COMMAND_SECONDS 10L

static size_t on_answer(char *data, size_t size, size_t n, void *context)
{
    return buf_append(context, data, size * n) < 0 ? 0 : size * n;
}

/* An address that listens everywhere is asked on loopback. */
static int make_url(const char *admin_listen, enum worker_command command, struct buf *url, struct err *err)
{
    const char *port = strrchr(admin_listen, ':');
    size_t host_len = port ? (size_t)(port - admin_listen) : 0;
    const char *host = admin_listen;

    if (!port || strcmp(port, ":0") == 0 || strstr(admin_listen, "://"))
        return err_set(
            err, ERR_PERMANENT,
            "admin_listen is \"%s\": give the address at which the worker's admin port is, as HOST:PORT",
            admin_listen);
    if (host_len == 0 || strncmp(admin_listen, "0.0.0.0:", 8) == 0) {
        host = "127.0.0.1";
        host_len = strlen(host);
    } else if (strncmp(admin_listen, "[::]:", 5) == 0) {
        host = "[::1]";
        host_len = strlen(host);
    }
    return buf_printf(url, "http://%.*s%s/%s", (int)host_len, host, port, worker_command_path(command));
}

static int ask(CURL *easy, const struct buf *url, struct buf *answer, struct err *err)
{
    char why[CURL_ERROR_SIZE] = "";
    long status = 0;

    curl_easy_setopt(easy, CURLOPT_URL, buf_str(url));
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, COMMAND_SECONDS);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer);
    CURLcode code = curl_easy_perform(easy);
    if (code != CURLE_OK)
        return err_set(err, ERR_TEMPORARY, "%s: %s: does the worker run, and with this admin_listen?",
                       buf_str(url), *why ? why : curl_easy_strerror(code));
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200)
        return err_set(err, ERR_TEMPORARY, "%s answers %ld: %s", buf_str(url), status, buf_str(answer));
    return 0;
}

int worker_http_command(const char *admin_listen, enum worker_command command, struct err *err)
{
    struct buf url, answer;
    int rc;

    buf_init(&url, 1024);
    buf_init(&answer, ANSWER_BYTES_MAX);
    rc = make_url(admin_listen, command, &url, err);
    if (rc == 0) {
        ENSURE(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
        CURL *easy = curl_easy_init();
        ENSURE(easy);
        rc = ask(easy, &url, &answer, err);
        curl_easy_cleanup(easy);
        curl_global_cleanup();
    }
    if (rc == 0)
        fputs(buf_str(&answer), stdout);
    buf_done(&url);
    buf_done(&answer);
    return rc;
}
