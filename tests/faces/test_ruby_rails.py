"""A Rails application, made by ``rails new`` and a scaffold, with a migration on SQLite and a channel of Action Cable: started with no option, driven like
a browser does.

Starts the command: that it needs no option is the subject, and one Rails is kept for all.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from passenger_trio.testing import Supervisor, eventually

pytestmark = [pytest.mark.os, pytest.mark.slow]

GEMFILE = 'gem "rails"\ngem "sqlite3"\ngem "sprockets-rails"\n'
UPLOADS = """
class UploadsController < ApplicationController
  skip_forgery_protection
  def create
    render plain: "#{params[:file].original_filename} #{Digest::SHA256.hexdigest(params[:file].read)}"
  end
  def connection
    render plain: "#{Process.pid} #{Note.count} #{ActiveRecord::Base.connection.execute('select 1').size}"
  end
end
"""
ROUTES = 'Rails.application.routes.draw do\n  resources :notes\n  post "uploads", to: "uploads#create"\n  get "connection", to: "uploads#connection"\nend\n'
CABLE = {
    "app/channels/application_cable/connection.rb": """
module ApplicationCable
  class Connection < ActionCable::Connection::Base
    identified_by :name
    def connect
      self.name = request.params[:name] || reject_unauthorized_connection
    end
  end
end
""",
    "app/channels/application_cable/channel.rb": "module ApplicationCable\n  class Channel < ActionCable::Channel::Base\n  end\nend\n",
    "app/channels/room_channel.rb": """
class RoomChannel < ApplicationCable::Channel
  def subscribed
    stream_from "room"
    Rails.root.join("log/cable").open("a") { |file| file.puts "#{name} came" }
  end
  def unsubscribed
    Rails.root.join("log/cable").open("a") { |file| file.puts "#{name} went" }
  end
  def speak(data)
    ActionCable.server.broadcast("room", { "name" => name, "text" => data["text"], "pid" => Process.pid })
  end
end
""",
    "config/cable.yml": "development:\n  adapter: async\n",
}


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rails") / "notebook"

    def run(*command: str, cwd: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in ("RAILS_ENV", "RACK_ENV")}
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    skipped = ["--minimal", "--skip-bundle", "--skip-git", "--skip-javascript", "--skip-spring", "--skip-listen"]
    run("rails", "new", "notebook", *skipped, "-d", "sqlite3", cwd=root.parent)
    (root / "Gemfile").write_text(GEMFILE)
    run("bin/rails", "generate", "scaffold", "Note", "title:string", "body:text", "--no-test-framework", cwd=root)
    run("bin/rails", "db:migrate", cwd=root)
    (root / "app/controllers/uploads_controller.rb").write_text(UPLOADS)
    (root / "config/routes.rb").write_text(ROUTES)
    requires = root / "config/application.rb"
    requires.write_text(
        requires.read_text().replace('# require "action_cable/engine"', 'require "action_cable/engine"')
    )
    for path, text in CABLE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.fixture(scope="module")
def server(application: Path) -> Iterator[Supervisor]:
    with Supervisor.start(application) as running:
        yield running


@pytest.fixture
def client(server: Supervisor) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, follow_redirects=True, timeout=60) as it:
        yield it


def test_it_is_served(client: httpx.Client, server: Supervisor) -> None:
    assert server.ready["applications"][0]["app_type"] == "rack"
    answer = client.get("/notes")
    assert answer.status_code == 200
    assert "<h1>Notes</h1>" in answer.text


def test_a_form(client: httpx.Client) -> None:
    form = client.get("/notes/new").text
    token = re.search(r'name="authenticity_token" value="([^"]+)"', form)
    assert token is not None
    note = {"note[title]": "Größe", "note[body]": "of\r\nthings"}
    assert client.post("/notes", data=note).status_code == 422  # forgery protection
    answer = client.post("/notes", data={**note, "authenticity_token": token[1]})
    assert (answer.status_code, answer.history[0].status_code) == (200, 302)
    assert "Note was successfully created." in answer.text
    assert "Größe" in answer.text
    assert "Größe" in client.get("/notes").text


def test_an_upload(client: httpx.Client) -> None:
    content = random.Random(6).randbytes(2_000_000)
    answer = client.post("/uploads", files={"file": ("scan.pdf", content)})
    assert answer.text == f"scan.pdf {hashlib.sha256(content).hexdigest()}"


def test_each_forked_process_has_its_own_connection_to_the_database(application: Path) -> None:
    with Supervisor.start(application, "--min-instances", "2", "--max-pool-size", "2") as server:
        eventually(lambda: len(server.pids) == 2)
        held: dict[int, set[str]] = {}
        for pid in server.pids:
            held[pid] = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
            assert not [target for target in held[pid] if "sqlite3" in target], "a connection went through the fork"
        assert server.get("/connection").status == 200


@contextmanager
def cable(server: Supervisor, query: str, origin: str = "") -> Iterator[Cable]:
    url = server.url.replace("http", "ws", 1) + "/cable" + query
    protocols = [Subprotocol("actioncable-v1-json"), Subprotocol("actioncable-unsupported")]
    with connect(url, origin=Origin(origin or server.url), subprotocols=protocols, open_timeout=60) as socket:
        yield Cable(socket)


class Cable:
    """What the browser's side of Action Cable does."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.identifier = json.dumps({"channel": "RoomChannel"})

    def subscribe(self) -> Cable:
        assert self.next()["type"] == "welcome"
        self.send("subscribe")
        assert self.next() == {"identifier": self.identifier, "type": "confirm_subscription"}
        return self

    def send(self, command: str, **data: str) -> None:
        more = {"data": json.dumps(data)} if data else {}
        self.socket.send(json.dumps({"command": command, "identifier": self.identifier, **more}))

    def speak(self, text: str) -> dict[str, Any]:
        """Say something, and hear it with everybody in the room."""
        self.send("message", action="speak", text=text)
        message: dict[str, Any] = self.next()["message"]
        assert message["text"] == text
        return message

    def is_closed(self) -> bool:
        """The other side ends it, and says nothing more but pings."""
        try:
            self.next()
        except ConnectionClosed:
            return True
        return False

    def next(self) -> dict[str, Any]:
        """The next message that is no ping."""
        while True:
            message: dict[str, Any] = json.loads(self.socket.recv(60))
            if message.get("type") != "ping":
                return message


def test_action_cable(server: Supervisor, application: Path) -> None:
    with cable(server, "?name=eva") as ada:
        ada.subscribe()
        assert ada.speak("Größe")["name"] == "eva"
        eventually(lambda: server.status()["connections"]["upgraded"] == 1)
        while json.loads(ada.socket.recv(60)).get("type") != "ping":
            pass  # the server's own heart-beat
        assert ada.speak("again")["text"] == "again"
    lines = application / "log/cable"  # others come and go, too
    eventually(lambda: [line for line in lines.read_text().splitlines() if "eva" in line] == ["eva came", "eva went"])
    eventually(lambda: server.status()["connections"]["upgraded"] == 0)


def test_action_cable_refuses_whom_it_does_not_know(server: Supervisor) -> None:
    with pytest.raises(InvalidStatus) as refused, cable(server, "?name=eve", origin="http://elsewhere.example"):
        pass
    assert refused.value.response.status_code == 404
    with cable(server, "") as nobody:
        assert nobody.next() == {"type": "disconnect", "reason": "unauthorized", "reconnect": False}
        assert nobody.is_closed()


@pytest.mark.parametrize(
    "how", [("--unlimited-concurrency-paths", "/cable"), ("--force-max-concurrent-requests-per-process", "0")]
)
def test_several_cables_of_one_process(application: Path, how: tuple[str, str]) -> None:
    with Supervisor.start(application, *how) as server:
        with cable(server, "?name=ada") as ada, cable(server, "?name=ben") as ben:
            ada.subscribe()
            ben.subscribe()
            heard = ada.speak("hello")
            assert ben.next()["message"] == heard
            answer = server.get("/connection").text
            assert answer.startswith(f"{heard['pid']} "), "there is one process, which also serves requests"
            assert ben.speak("hi")["name"] == "ben"
            assert ada.next()["message"]["text"] == "hi"


def test_a_cable_lives_through_a_restart_for_its_time_and_then_connects_anew(application: Path) -> None:
    with Supervisor.start(application, "--websocket-drain", "3", "--max-pool-size", "2") as server:
        with cable(server, "?name=ada") as ada:
            ada.subscribe()
            old = ada.speak("before")["pid"]
            server.send_signal(signal.SIGHUP)
            eventually(lambda: server.pids and old not in server.pids, timeout=60)
            assert ada.speak("still there")["pid"] == old
            with cable(server, "?name=ada") as again:
                again.subscribe()
                assert again.speak("after")["pid"] != old
                assert ada.is_closed()
                began = time.monotonic()
                server.send_signal(signal.SIGTERM)
                assert again.is_closed()
                assert 2 <= time.monotonic() - began < 8
                assert server.wait() == 0


def test_a_bundle_for_another_ruby_is_explained(application: Path, tmp_path: Path) -> None:
    root = tmp_path / "old"
    shutil.copytree(application, root)
    (root / "Gemfile").write_text('ruby "2.0.0"\n' + GEMFILE)
    with Supervisor.start(root) as server:
        page = server.get("/", Accept="text/html").text
        assert "2.0.0" in page
        assert "Choose the Ruby that the Gemfile asks for with --ruby" in page
