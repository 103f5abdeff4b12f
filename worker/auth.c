/* Puts a worker's credentials together from its options, and follows their files. */
#include "worker/auth.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/worker.h"

#define AUTH_LOOK_NS NS_PER_S
#define WEBHOOK_TEXT_MIN 4 /* shorter words are not looked for */

/* ---- redaction ----------------------------------------------------------------------------------------------------------- */

static void hide(struct auth *a, enum auth_word word, const char *text)
{
    static const char prefix[] = "whsec_"; /* of webhook secrets; who echoes one may leave it out */
    if (!text)
        return;
    if ((word == AUTH_WORD_WEBHOOK || word == AUTH_WORD_WEBHOOK_OLD) &&
        strncmp(text, prefix, sizeof prefix - 1) == 0 && strlen(text) >= sizeof prefix - 1 + WEBHOOK_TEXT_MIN)
        text += sizeof prefix - 1;
    auth_hidden_add(&a->hidden[word], text);
}

/* What stands behind "Basic " or "Bearer ". */
static void hide_value(struct auth *a, enum auth_word word, const struct buf *value)
{
    const char *space = strchr(buf_str(value), ' ');
    if (space)
        hide(a, word, space + 1);
}

int auth_redact(const struct auth *a, struct slice text, enum hidden_cut cut, struct buf *out)
{
    return auth_hidden_redact(a ? a->hidden : NULL, a ? AUTH_WORDS : 0, text, cut, out);
}

/* ---- which kind ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    enum auth_word word;
    enum auth_kind kind;
} givens[] = {
    {"api_key", AUTH_WORD_API_KEY, AUTH_APIKEY},
    {"basic_password", AUTH_WORD_PASSWORD, AUTH_BASIC},
    {"oauth_client_secret", AUTH_WORD_CLIENT_SECRET, AUTH_OAUTH},
};

/* Who names himself and no secret means to be asked for one: without this his requests would go without credentials. */
static int check_no_lone_name(const struct worker_options *o, struct err *err)
{
    const struct {
        const char *name, *value, *secret;
    } names[] = {{"basic_user", o->basic_user, "basic_password"},
                 {"oauth_client_id", o->oauth_client_id, "oauth_client_secret"}};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (*names[i].value)
            return err_set(
                err, ERR_PERMANENT,
                "%s is \"%.100s\", but %s is not given: give %s_file, or take %s away, or set auth to none",
                names[i].name, names[i].value, names[i].secret, names[i].secret, names[i].name);
    return 0;
}

/* The kind whose secret is given; there may be only one. */
static int choose_kind(struct auth *a, struct err *err)
{
    const char *chosen = NULL;
    a->kind = AUTH_NONE;
    for (size_t i = 0; i < ARRAY_LEN(givens); i++) {
        if (!auth_secret_text(a, givens[i].word))
            continue;
        if (chosen)
            return err_set(err, ERR_PERMANENT, "both %s and %s are given: say with auth which one counts",
                           chosen, givens[i].name);
        chosen = givens[i].name;
        a->kind = givens[i].kind;
    }
    if (a->kind == AUTH_NONE)
        return check_no_lone_name(a->opt, err);
    return 0;
}

static int check_kind(const struct auth *a, struct err *err)
{
    const struct worker_options *o = a->opt;
    for (size_t i = 0; i < ARRAY_LEN(givens); i++)
        if (a->kind == givens[i].kind && !auth_secret_text(a, givens[i].word))
            return err_set(err, ERR_PERMANENT, "auth needs %s: give %s_file or the variable", givens[i].name,
                           givens[i].name);
    if (a->kind == AUTH_APIKEY)
        return auth_apikey_header(o->api_key_header, err);
    if (a->kind == AUTH_BASIC)
        return auth_basic_check("basic_user", o->basic_user, err);
    if (a->kind != AUTH_OAUTH)
        return 0;
    if (*o->oauth_token_url == '\0')
        return err_set(err, ERR_PERMANENT, "oauth_token_url is missing: where the token server answers");
    if (*o->oauth_client_id == '\0')
        return err_set(err, ERR_PERMANENT, "oauth_client_id is missing");
    return 0;
}

/* ---- what is made of the secrets -------------------------------------------------------------------------------------------- */

static int make_value(struct auth *a, struct err *err)
{
    const struct worker_options *o = a->opt;
    struct buf made;
    int rc = 0;

    buf_init(&made, AUTH_VALUE_BYTES_MAX);
    if (a->kind == AUTH_APIKEY)
        rc = auth_apikey_value(auth_secret_text(a, AUTH_WORD_API_KEY), &made, err);
    else if (a->kind == AUTH_BASIC)
        rc = auth_basic_value(o->basic_user, auth_secret_text(a, AUTH_WORD_PASSWORD), &made, err);
    if (rc == 0 && made.len) {
        buf_reset(&a->value);
        rc = buf_append(&a->value, made.data, made.len);
        if (a->kind == AUTH_BASIC)
            hide_value(a, AUTH_WORD_BASIC, &a->value);
    }
    if (made.data)
        explicit_bzero(made.data, made.cap);
    buf_done(&made);
    return rc;
}

static int make_webhook(struct auth *a, struct err *err)
{
    const char *secret = auth_secret_text(a, AUTH_WORD_WEBHOOK),
               *old = auth_secret_text(a, AUTH_WORD_WEBHOOK_OLD);
    if (old && !secret)
        return err_set(err, ERR_PERMANENT, "webhook_secret_old is given without webhook_secret");
    return secret ? auth_webhook_set(&a->webhook, secret, old, err) : 0;
}

/* libcurl makes it again for itself: here it is made to be hidden. */
static int make_proxy(struct auth *a, struct err *err)
{
    const char *password = auth_secret_text(a, AUTH_WORD_PROXY);
    struct buf value;
    struct err why = {0};

    if (!password)
        return 0;
    buf_init(&value, AUTH_VALUE_BYTES_MAX);
    int rc = auth_basic_value(a->opt->proxy_user, password, &value, &why);
    if (rc == 0)
        hide_value(a, AUTH_WORD_PROXY_BASIC, &value);
    else
        err_set(err, ERR_PERMANENT, "proxy_password: %s", why.message);
    if (value.data)
        explicit_bzero(value.data, value.cap);
    buf_done(&value);
    return rc;
}

/* Also tries what is only asked for later, so that a wrong secret is said now. */
static int make_all(struct auth *a, struct err *err)
{
    struct buf form, authorization;
    int rc = 0;

    if (make_value(a, err) < 0 || make_webhook(a, err) < 0 || make_proxy(a, err) < 0)
        return -1;
    if (a->kind != AUTH_OAUTH)
        return 0;
    buf_init(&form, AUTH_OAUTH_FORM_BYTES_MAX);
    buf_init(&authorization, AUTH_VALUE_BYTES_MAX);
    rc = auth_token_request(a, &form, &authorization, err);
    buf_done(&form);
    buf_done(&authorization);
    return rc;
}

/* ---- birth and death --------------------------------------------------------------------------------------------------------- */

static void take_secrets(struct auth *a)
{
    const struct worker_options *o = a->opt;
    struct auth_secret *s = a->secrets;
    auth_secret_init(&s[AUTH_WORD_API_KEY], "api_key", o->api_key, o->api_key_path);
    auth_secret_init(&s[AUTH_WORD_PASSWORD], "basic_password", o->basic_password, o->basic_password_path);
    auth_secret_init(&s[AUTH_WORD_CLIENT_SECRET], "oauth_client_secret", o->oauth_client_secret,
                     o->oauth_client_secret_path);
    auth_secret_init(&s[AUTH_WORD_WEBHOOK], "webhook_secret", o->webhook_secret, o->webhook_secret_path);
    auth_secret_init(&s[AUTH_WORD_WEBHOOK_OLD], "webhook_secret_old", o->webhook_secret_old,
                     o->webhook_secret_old_path);
    auth_secret_init(&s[AUTH_WORD_PROXY], "proxy_password", o->proxy_password, o->proxy_password_path);
    for (int i = 0; i < AUTH_SECRETS; i++)
        hide(a, (enum auth_word)i, s[i].text);
}

static int auth_prepare(struct auth *a, struct err *err)
{
    a->kind = (enum auth_kind)a->opt->auth;
    if (a->kind == AUTH_AUTO && choose_kind(a, err) < 0)
        return -1;
    if (check_kind(a, err) < 0 || make_all(a, err) < 0)
        return -1;
    if (a->kind != AUTH_NONE)
        a->header = a->kind == AUTH_APIKEY ? a->opt->api_key_header : "Authorization";
    return auth_identity_init(&a->identity, a->opt->tls_cert_file, a->opt->tls_key_file, err);
}

struct auth *auth_new(const struct worker_options *opt, struct err *err)
{
    struct auth *a = calloc(1, sizeof *a);
    ENSURE(a);
    a->opt = opt;
    buf_init(&a->value, AUTH_VALUE_BYTES_MAX);
    take_secrets(a);
    if (auth_prepare(a, err) == 0)
        return a;
    auth_free(a);
    return NULL;
}

void auth_free(struct auth *a)
{
    if (!a)
        return;
    for (int i = 0; i < AUTH_SECRETS; i++)
        auth_secret_done(&a->secrets[i]);
    for (int i = 0; i < AUTH_WORDS; i++)
        auth_hidden_done(&a->hidden[i]);
    if (a->value.data)
        explicit_bzero(a->value.data, a->value.cap);
    buf_done(&a->value);
    auth_webhook_done(&a->webhook);
    auth_identity_done(&a->identity);
    free(a);
}

/* ---- files that change -------------------------------------------------------------------------------------------------------- */

static void take_changed(struct auth *a, enum auth_word word, char *fresh)
{
    struct auth_secret *s = &a->secrets[word];
    struct err err = {0};
    char *before = s->text;

    s->text = fresh;
    if (make_all(a, &err) == 0) {
        /* Not before: what is refused goes to nobody who could echo it, and would take the place of what is in force. */
        hide(a, word, fresh);
        auth_secret_wipe(before);
        a->reloaded++;
        LOG("a secret was read again", LOG_STR("option", s->name));
        return;
    }
    s->text = before;
    auth_secret_wipe(fresh);
    LOG_WARNING("a changed secret cannot be used: the old one stays in force", LOG_STR("option", s->name),
                LOG_STR("error", err.message));
}

void auth_tick(struct auth *a, int64_t now)
{
    if (now < a->look_at)
        return;
    a->look_at = now + AUTH_LOOK_NS;
    for (int i = 0; i < AUTH_SECRETS; i++) {
        char *fresh = auth_secret_look(&a->secrets[i]);
        if (fresh)
            take_changed(a, (enum auth_word)i, fresh);
    }
    if (auth_identity_look(&a->identity)) {
        a->reloaded++;
        LOG("a secret was read again", LOG_STR("option", "tls_cert_file"));
    }
}

/* ---- oauth ---------------------------------------------------------------------------------------------------------------------- */

int auth_token_request(struct auth *a, struct buf *form, struct buf *authorization, struct err *err)
{
    const struct worker_options *o = a->opt;
    const struct auth_oauth_request req = {.client_auth = (enum auth_oauth_client)o->oauth_client_auth,
                                           .client_id = o->oauth_client_id,
                                           .client_secret = auth_secret_text(a, AUTH_WORD_CLIENT_SECRET),
                                           .scope = o->oauth_scope,
                                           .audience = o->oauth_audience};
    if (auth_oauth_form(&req, form, err) < 0 || auth_oauth_client_value(&req, authorization, err) < 0)
        return -1;
    hide_value(a, AUTH_WORD_CLIENT_BASIC, authorization);
    return 0;
}

int auth_token_answer(struct auth *a, int64_t now, int status, struct slice body, struct err *err)
{
    int64_t life_ns = 0;
    if (auth_oauth_answer(status, body, &a->value, &life_ns, err) < 0) {
        auth_token_missed(&a->token, now);
        return -1;
    }
    hide_value(a, AUTH_WORD_TOKEN, &a->value);
    auth_token_came(&a->token, now, life_ns);
    return 0;
}
