/* The request for a token: its own handle, one at a time, bounded like any other. */
#include "worker/worker_http_token.h"

#include <string.h>

struct token_fetch {
    struct worker *w;
    CURLM *multi;
    struct transfer transfer;
    struct buf form, authorization, line;
    struct curl_slist list[3];
};

struct token_fetch *token_fetch_new(struct worker *w, CURLM *multi)
{
    struct token_fetch *f = calloc(1, sizeof *f);
    ENSURE(f);
    f->w = w;
    f->multi = multi;
    buf_init(&f->form, AUTH_OAUTH_FORM_BYTES_MAX);
    buf_init(&f->authorization, AUTH_VALUE_BYTES_MAX);
    buf_init(&f->line, AUTH_VALUE_BYTES_MAX + 64);
    transfer_init(&f->transfer, w, TO_TOKEN_SERVER, NULL, NULL);
    curl_easy_setopt(f->transfer.easy, CURLOPT_URL, w->opt.oauth_token_url);
    return f;
}

static void wipe(struct buf *b)
{
    if (b->data)
        explicit_bzero(b->data, b->cap);
    buf_done(b);
}

void token_fetch_free(struct token_fetch *f)
{
    if (!f)
        return;
    curl_multi_remove_handle(f->multi, f->transfer.easy); /* no effect when none is under way */
    transfer_done(&f->transfer);
    wipe(&f->form);
    wipe(&f->authorization);
    wipe(&f->line);
    free(f);
}

static void fetch_start(struct token_fetch *f)
{
    CURL *easy = f->transfer.easy;
    int r = auth_token_request(f->w->auth, &f->form, &f->authorization, NULL);
    ENSURE(r == 0); /* tried when the secret was read */

    transfer_begin(&f->transfer);
    f->list[0] = (struct curl_slist){(char *)(uintptr_t) "Accept: application/json", &f->list[1]};
    f->list[1] = (struct curl_slist){(char *)(uintptr_t) "Expect:", NULL};
    if (f->authorization.len) {
        buf_reset(&f->line);
        r = buf_printf(&f->line, "Authorization: %s", f->authorization.data);
        ENSURE(r == 0);
        f->list[1].next = &f->list[2];
        f->list[2] = (struct curl_slist){f->line.data, NULL};
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, f->list);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)f->form.len);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, f->form.data);
    auth_token_asked(&f->w->auth->token);
    CURLMcode code = curl_multi_add_handle(f->multi, easy);
    ENSURE(code == CURLM_OK);
}

bool token_fetch_ready(struct token_fetch *f, int64_t now)
{
    const struct auth_token *token = &f->w->auth->token;
    if (auth_token_should_fetch(token, now))
        fetch_start(f);
    return auth_token_good(token, now);
}

bool token_fetch_owns(const struct token_fetch *f, const CURL *easy)
{
    return f && f->transfer.easy == easy;
}

int token_fetch_end(struct token_fetch *f, int64_t now, CURLcode code, char trouble[HTTP_TROUBLE_BYTES])
{
    struct transfer *t = &f->transfer;
    struct auth *auth = f->w->auth;
    struct err err = {0};
    long status = 0;
    int rc;

    if (code == CURLE_OK) {
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        rc = auth_token_answer(auth, now, (int)status, (struct slice){t->body.data, t->body.len}, &err);
    } else {
        char why[HTTP_TROUBLE_BYTES];
        transfer_trouble(t, code, why);
        auth_token_missed(&auth->token, now);
        rc = err_set(&err, ERR_TEMPORARY, "%s", why);
    }
    curl_multi_remove_handle(f->multi, t->easy);
    if (t->body.data)
        explicit_bzero(t->body.data, t->body.cap);
    if (rc < 0)
        snprintf(trouble, HTTP_TROUBLE_BYTES, "no token from the token server: %.300s", err.message);
    return rc;
}
