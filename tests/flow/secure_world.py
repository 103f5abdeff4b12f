"""Servers that ask who is there: TLS by an authority of the test's own, a token server by Authlib, a proxy that says no."""
import base64
import datetime
import http.server
import select
import socket
import ssl
import threading

import trustme
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server
from worker_world import RecordingApi


class Authority:
    """A certificate authority, and certificates by it, as files."""

    def __init__(self, directory, name="authority"):
        self.directory = directory
        self.ca = trustme.CA(organization_name=name)
        self.file = directory / f"{name}.pem"
        self.ca.cert_pem.write_to_path(self.file)

    def certificate(self, *names, expired=False):
        when = {"not_after": datetime.datetime(2020, 1, 2), "not_before": datetime.datetime(2020, 1, 1)} if expired else {}
        return self.ca.issue_cert(*(names or ("localhost", "127.0.0.1")), **when)

    def server_context(self, *names, expired=False, client_authority=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate(*names, expired=expired).configure_cert(context)
        if client_authority:
            context.verify_mode = ssl.CERT_REQUIRED
            client_authority.ca.configure_trust(context)
        return context

    def client_files(self, name, cert_path, key_path):
        """Write a client certificate for name; the files appear whole, each by itself."""
        certificate = self.ca.issue_cert(common_name=name)
        pem = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        for path, text in ((cert_path, pem), (key_path, certificate.private_key_pem.bytes())):
            if path:
                replace(path, text)
        return certificate


def replace(path, text):
    """As secrets are changed where programs run: a new file takes the old one's name."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(text if isinstance(text, bytes) else text.encode())
    fresh.replace(path)


class SecureApi(RecordingApi):
    """Over TLS (context None: without); answers what answer(headers, body) says, (200, b"") by default, with headers of its own as a third."""

    def __init__(self, context=None, answer=None):
        self.context = context
        self.answer = answer or (lambda headers, body: (200, b""))
        self.peers = []      # the subject of each connection's client certificate
        self.resumed = []    # of each connection: was its TLS session an earlier one?
        self.names = []      # of each connection: the name that the client wanted (SNI)
        if context:
            self.watch(context)
        super().__init__()
        self.port = self.server_address[1]
        self.url = f"{'https' if context else 'http'}://localhost:{self.port}"

    def watch(self, context):
        context.sni_callback = lambda connection, name, _: self.names.append(name)

    class Handler(RecordingApi.Handler):
        def setup(self):
            if self.server.context:
                self.request = self.server.context.wrap_socket(self.request, server_side=True)
                subject = (self.request.getpeercert() or {}).get("subject", ())
                self.server.peers.append({k: v for part in subject for k, v in part}.get("commonName"))
                self.server.resumed.append(self.request.session_reused)
            super().setup()

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.server.requests.append((self.command, self.path, self.headers, body))
            status, text, *more = self.server.answer(self.headers, body)
            self.send_response(status)
            for name, value in more[0].items() if more else ():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_DELETE = do_GET = answer  # noqa: N815

    def handle_error(self, *_):
        """A handshake that failed is what some tests want."""


class Client(ClientMixin):
    def __init__(self, client_id, secret, method, scope):
        self.client_id, self.secret, self.method, self.scope = client_id, secret, method, scope

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return " ".join(word for word in (scope or "").split() if word in self.scope.split())

    def check_client_secret(self, secret):
        return secret == self.secret

    def check_endpoint_auth_method(self, method, _endpoint):
        return method == self.method

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


class ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


class TokenServer:
    """Authlib decides; .tokens are those it gave. before(request) may answer in its place."""

    def __init__(self, context, client, life_s=3600, port=0):
        from flask import request
        self.tokens, self.asked, self.before = [], [], None
        app = Flask("tokens")
        app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {"client_credentials": life_s}
        app.config["OAUTH2_SCOPES_SUPPORTED"] = client.scope.split()
        server = AuthorizationServer(app, query_client=lambda name: client if name == client.client_id else None,
                                     save_token=lambda token, _: self.tokens.append(token))
        server.register_grant(ClientCredentials)

        @app.post("/token")
        def _token():
            self.asked.append(dict(request.form))
            answer = self.before(request) if self.before else None
            return answer or server.create_token_response()

        class Quiet(WSGIRequestHandler):
            def log(self, *_):
                pass

        self.http = make_server("127.0.0.1", port, app, threaded=True, ssl_context=context, request_handler=Quiet)
        self.url = f"https://localhost:{self.http.server_port}/token"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def knows(self, headers):
        """Is the request's bearer token one of ours?"""
        return any(headers.get("Authorization") == f"Bearer {t['access_token']}" for t in self.tokens)

    def close(self):
        self.http.shutdown()
        self.http.server_close()


class Proxy(http.server.ThreadingHTTPServer):
    """Forwards CONNECT and whole requests to who they name; login: what Proxy-Authorization must be, as user:password."""

    daemon_threads = True

    def __init__(self, login=None):
        self.login = login and "Basic " + base64.b64encode(login.encode()).decode()
        self.asked = []  # (method, target)
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def allowed(self):
            self.server.asked.append((self.command, self.path))
            if self.server.login in (None, self.headers.get("Proxy-Authorization")):
                return True
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False

        def do_CONNECT(self):  # noqa: N802
            if not self.allowed():
                return
            host, port = self.path.rsplit(":", 1)
            with socket.create_connection((host, int(port))) as far:
                self.send_response(200)
                self.end_headers()
                pump(self.connection, far)
            self.close_connection = True

        def do_POST(self):  # noqa: N802
            if not self.allowed():
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            host = self.path.split("/")[2]
            name, port = host.rsplit(":", 1)
            with socket.create_connection((name, int(port))) as far:
                path = "/" + self.path.split("/", 3)[3]
                head = f"{self.command} {path} HTTP/1.1\r\nConnection: close\r\n"
                for header, value in self.headers.items():
                    if not header.lower().startswith(("proxy-", "connection")):
                        head += f"{header}: {value}\r\n"
                far.sendall(head.encode() + b"\r\n" + body)
                while data := far.recv(65536):
                    self.wfile.write(data)
            self.close_connection = True

        def log_message(self, *_):
            pass

    def handle_error(self, *_):
        pass

    def close(self):
        self.shutdown()
        self.server_close()


def pump(one, other):
    """Bytes both ways until one side ends."""
    while True:
        for ready in select.select([one, other], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            (other if ready is one else one).sendall(data)
