"""A Rails application, made by ``rails new`` and a scaffold, with a migration on SQLite: started with no option, driven like a browser does."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

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


def test_a_bundle_for_another_ruby_is_explained(application: Path, tmp_path: Path) -> None:
    root = tmp_path / "old"
    shutil.copytree(application, root)
    (root / "Gemfile").write_text('ruby "2.0.0"\n' + GEMFILE)
    with Supervisor.start(root) as server:
        page = server.get("/", Accept="text/html").text
        assert "2.0.0" in page
        assert "Choose the Ruby that the Gemfile asks for with --ruby" in page
