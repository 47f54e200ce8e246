"""Fault 25 (ED1, ED2): what a trusted proxy says of the client is what the application sees, on TCP and on a Unix socket; of others nothing is believed.

Starts the command: its addresses, and whom it trusts there, are the subject.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest
from needs import needs
from what_applications_see import THERE, seen, start

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

SAID = ("X-Forwarded-For: 198.51.100.66, 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example")
BY_PATH = [name for name in THERE if name != "node"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """The peers of its TCP port, which are on this machine, are trusted by default."""
    with start(tmp_path_factory.mktemp("proxied")) as running:
        yield running


@pytest.fixture(scope="module")
def unix_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with start(tmp_path_factory.mktemp("unix"), "--socket", str(tmp_path_factory.mktemp("s") / "http")) as running:
        yield running


def facts(about: dict[str, object], name: str) -> tuple[object, ...]:
    """Scheme, client, host and HTTPS, as the interface has them."""
    if name == "asgi":
        host = dict(about["headers"]).get("host")  # type: ignore[call-overload]
        client = about["client"]
        return about["scheme"], client and client[0], host, None  # type: ignore[index]
    scheme = "https" if about.get("HTTPS") == "on" else "http"
    key = {"wsgi": "wsgi.url_scheme", "rack": "rack.url_scheme"}[name]
    assert about[key] == scheme
    return scheme, about["REMOTE_ADDR"], about["HTTP_HOST"], about.get("HTTPS")


@pytest.mark.parametrize("name", BY_PATH)
def test_ED1_a_trusted_proxy_is_believed(server: Supervisor, name: str) -> None:
    lines = (*SAID[:2], f"X-Forwarded-Host: {name}.test:8443", "X-Forwarded-Port: 8443")
    about = seen(server, name, "Host: backend.internal", *lines)
    on = None if name == "asgi" else "on"
    assert facts(about, name) == ("https", "203.0.113.9", f"{name}.test:8443", on)
    if name == "asgi":
        assert about["server"] == ["asgi.test", 8443]
    else:
        assert (about["SERVER_NAME"], about["SERVER_PORT"]) == (f"{name}.test", "8443")
    if name == "rack":
        assert about["url"] == "https://rack.test:8443"
    server.wait_access_log("203.0.113.9 - - ")


@pytest.mark.parametrize("name", BY_PATH)
def test_ED1_forwarded_of_RFC_7239_is_too(server: Supervisor, name: str) -> None:
    about = seen(server, name, f'Forwarded: for=203.0.113.9;proto=https;host="{name}.test:81"')
    assert facts(about, name)[:3] == ("https", "203.0.113.9", f"{name}.test:81")


def test_ED1_an_application_that_speaks_http_gets_the_fields(server: Supervisor) -> None:
    """Node.js hears of the client in the usual way (Express: ``trust proxy``); so it does if the proxy has said it in the other one."""
    needs("node" in THERE, "Node.js")
    for lines in (SAID[:2], ("Forwarded: for=203.0.113.9;proto=https",)):
        headers = seen(server, "node", *lines)["headers"]
        assert headers["x-forwarded-for"].endswith("203.0.113.9, 127.0.0.1")
        assert headers["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("option", ["--trusted-proxies", "--forwarded-allow-ips"])
def test_ED1_others_are_not_believed(tmp_path: Path, option: str) -> None:
    with start(tmp_path, option, "192.0.2.1,10.0.0.0/8", names=["wsgi"]) as server:
        about = seen(server, "wsgi", *SAID, "Forwarded: for=203.0.113.9;proto=https;host=shop.example")
        assert facts(about, "wsgi") == ("http", "127.0.0.1", "wsgi.test", None)
        assert not [name for name in about if "FORWARDED" in name]


@pytest.mark.parametrize("name", BY_PATH)
def test_ED2_a_peer_of_a_unix_socket_has_no_address(unix_server: Supervisor, name: str) -> None:
    about = seen(unix_server, name)
    assert facts(about, name)[1] == (None if name == "asgi" else "")
    if name == "asgi":
        assert about["server"] == [unix_server.address, None]
    else:
        assert (about["SERVER_NAME"], about["SERVER_PORT"]) == ("localhost", "80")


@pytest.mark.parametrize("name", BY_PATH)
def test_ED2_our_own_user_on_a_unix_socket_is_believed(unix_server: Supervisor, name: str) -> None:
    about = seen(unix_server, name, *SAID[:2])
    assert facts(about, name)[:2] == ("https", "203.0.113.9")
    if name != "asgi":
        assert about["SERVER_PORT"] == "443"


def test_ED2_nothing_is_appended_for_a_peer_without_address(unix_server: Supervisor) -> None:
    needs("node" in THERE, "Node.js")
    assert "x-forwarded-for" not in seen(unix_server, "node")["headers"]
    assert seen(unix_server, "node", *SAID[:2])["headers"]["x-forwarded-for"] == "198.51.100.66, 203.0.113.9"


@pytest.mark.parametrize("trusted", [True, False])
def test_ED2_another_user_on_a_unix_socket_is_believed_if_that_is_said(tmp_path: Path, trusted: bool) -> None:
    needs(os.getuid() == 0, "root, to be another user")
    needs(shutil.which("curl") is not None, "curl")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = str(Path(directory) / "http")
        options = ("--trusted-proxies", "unix") if trusted else ()
        with start(tmp_path, "--socket", path, *options, names=["wsgi"]) as server:
            eventually(lambda: os.path.exists(path))
            os.chmod(path, 0o666)
            fields = [f"-H{field}" for field in SAID[:2]]
            told = subprocess.run(
                ["curl", "-sS", "--unix-socket", path, *fields, "http://wsgi.test/x"],
                user=65534,
                group=65534,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                check=True,
            ).stdout
            assert b'"wsgi.url_scheme": "%s"' % (b"https" if trusted else b"http") in told
            assert b'"REMOTE_ADDR": "%s"' % (b"203.0.113.9" if trusted else b"") in told
            assert (b"FORWARDED" in told) == trusted
            if not trusted:
                server.wait_log(
                    "fields of user 65534 on the Unix socket are removed; if that is your proxy: --trusted-proxies unix"
                )


NGINX = """
daemon off; pid {home}/pid; error_log {home}/error.log; worker_processes 1;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c; uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
    server {{
        listen unix:{home}/tls ssl;
        ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem;
        set_real_ip_from unix:; real_ip_header X-Test-Client;
        location / {{
            proxy_pass http://{upstream};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Port "";
            proxy_set_header Forwarded "";
        }}
    }}
}}
"""


LIES = (
    "X-Forwarded-Proto: gopher",
    "X-Forwarded-For: 198.51.100.66",
    "X-Forwarded-Host: evil.example",
    "Forwarded: for=198.51.100.66",
    "X-Forwarded-Port: 81",
)
"""What a client says of itself, who is none."""


@contextmanager
def nginx(home: Path, behind: Supervisor) -> Iterator[Callable[[str], tuple[str, str]]]:
    """nginx with TLS in front; gives what asks a URL of it: head and body of the answer."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    needs(program is not None, "nginx")
    needs(shutil.which("openssl") is not None and shutil.which("curl") is not None, "openssl and curl")
    address = behind.address
    upstream = f"unix:{address}:" if isinstance(address, str) else f"{address[0]}:{address[1]}"
    user = "user root;" if os.getuid() == 0 else ""
    (home / "nginx.conf").write_text(NGINX.format(home=home, upstream=upstream, user=user))
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=wsgi.test -keyout key.pem -out cert.pem"
    subprocess.run(made.split(), cwd=home, check=True, capture_output=True)

    def ask(url: str) -> tuple[str, str]:
        fields = [f"-H{field}" for field in ("X-Test-Client: 203.0.113.9", *LIES)]
        command = ["curl", "-sSki", "--unix-socket", str(home / "tls"), *fields, url]
        told = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
        head, _, body = told.partition("\r\n\r\n")
        return head, body

    command = [str(program), "-p", str(home), "-c", str(home / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as proxy:
        try:
            eventually((home / "tls").exists)
            yield ask
        finally:
            proxy.terminate()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_ED1_behind_nginx_with_tls(tmp_path: Path, kind: str, server: Supervisor, unix_server: Supervisor) -> None:
    """The configuration of docs/connections.md; what the client itself says of who it is counts for nothing."""
    with nginx(tmp_path, server if kind == "tcp" else unix_server) as ask:
        for name in BY_PATH:
            _, told = ask(f"https://{name}.test/x")
            assert facts(json.loads(told), name)[:3] == ("https", "203.0.113.9", f"{name}.test"), told


FLASK = """
from flask import Flask, redirect, request, url_for

application = Flask(__name__)

@application.get("/here")
def here():
    return f"{url_for('here', _external=True)} {request.remote_addr} {request.is_secure}"

@application.get("/folder/")
def folder():
    return ""
"""
DJANGO = """
import os
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["django.test"], ROOT_URLCONF=__name__, SECRET_KEY="x", MIDDLEWARE=["django.middleware.common.CommonMiddleware"])

def here(request):
    return HttpResponse(f"{request.build_absolute_uri()} {request.META['REMOTE_ADDR']} {request.is_secure()}")

urlpatterns = [path("here", here), path("folder/", here)]
application = get_wsgi_application()
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def here(request):
    return PlainTextResponse(f"{request.url_for('here')} {request.client.host} {request.url.scheme == 'https'}")

application = Starlette(routes=[Route("/here", here, name="here"), Route("/folder/", here)])
"""


def test_ED1_frameworks_behind_nginx_with_tls(tmp_path: Path) -> None:
    """External URLs, redirects and is_secure(), of frameworks as they are: no ProxyFix, no SECURE_PROXY_SSL_HEADER, no middleware."""
    sources = {"flask": ("wsgi", FLASK), "django": ("wsgi", DJANGO), "starlette": ("asgi", STARLETTE)}
    config = ""
    for name, (kind, text) in sources.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"passenger_{kind}.py").write_text(text)
        config += f'[[app]]\nroot = "{name}"\nhost_name = ["{name}.test"]\n'
    (tmp_path / "passenger-trio.toml").write_text(config)
    with (
        Supervisor.start(tmp_path, "--max-pool-size", "3", "-e", "production") as server,
        nginx(tmp_path, server) as ask,
    ):
        for name in sources:
            assert ask(f"https://{name}.test/here")[1] == f"https://{name}.test/here 203.0.113.9 True"
            head, _ = ask(f"https://{name}.test/folder")
            place = next(line for line in head.splitlines() if line.lower().startswith("location: "))[10:]
            assert urljoin(f"https://{name}.test/folder", place) == f"https://{name}.test/folder/"
