"""Fault 20 for Rack: a worker that is told to stop cancels what does not end, calls ``stopping_worker_process``, and runs the exit hooks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from ruby_rack import rubies, worker_of

from passenger_trio.testing.conformance import Loader, eventually, frame, request_head

pytestmark = pytest.mark.os
RUBIES = rubies()

SOURCE = """
def Kernel.note(text)
  File.open(ENV["EVENTS"], "a") { |file| file.write("#{text}\\n") }
end
at_exit { Kernel.note("at_exit") }
PhusionPassenger.on_event(:stopping_worker_process) { Kernel.note("stopping") }

class Endless
  def each
    loop { yield "x" * 100_000 }
  end

  def close
    Kernel.note("closed")
  end
end

run lambda { |env|
  path = env["PATH_INFO"]
  begin
    Kernel.note("began #{path}")
    case path
    when "/sleeps" then sleep 600
    when "/computes" then loop { 1000.times { |i| i * i } }
    when "/reads" then env["rack.input"].read
    when "/locks" then Queue.new.pop
    when "/stubborn"
      begin
        sleep 600
      rescue Exception
        Kernel.note("no")
        retry
      end
    end
    [200, {}, Endless.new]
  ensure
    Kernel.note("ended #{path}")
  end
}
"""
HANGING = ("/sleeps", "/computes", "/reads", "/locks", "/streams")


def begin(worker: Loader, streams: ExitStack, path: str) -> None:
    """Its end is never sent."""
    streams.enter_context(worker.open()).send(frame("H", request_head("POST", path)), frame("D", b"half"))


@pytest.mark.parametrize("ruby", RUBIES.values(), ids=RUBIES)
@pytest.mark.parametrize("threads", [1, len(HANGING) + 1])
def test_handlers_that_never_end(tmp_path: Path, ruby: str, threads: int) -> None:
    """Fault 20: an exception in the thread ends a sleep, a lock, a read. In a process with one thread, each kind by itself."""
    (tmp_path / "config.ru").write_text(SOURCE)
    events = tmp_path / "events"

    def noted() -> list[str]:
        return events.read_text().splitlines() if events.exists() else []

    # A start of JRuby takes seconds: there, one kind stands for all.
    batches = [HANGING] if threads > 1 else [(path,) for path in (HANGING if "jruby" not in ruby else HANGING[:1])]
    for paths in batches:
        events.unlink(missing_ok=True)
        env = {"EVENTS": str(events)}
        with (
            ExitStack() as streams,
            worker_of(ruby, tmp_path, env=env, threads=threads, shutdown_timeout=3.0) as worker,
        ):
            for path in paths:
                begin(worker, streams, path)
            began = {f"began {path}" for path in paths}
            eventually(lambda began=began: began <= set(noted()))  # type: ignore[misc]
            worker.shut_down()
            assert worker.exit_status() == 0
            wanted = {f"ended {path}" for path in paths} | ({"closed"} if "/streams" in paths else set())
            assert wanted <= set(noted())
            assert noted()[-2:] == ["stopping", "at_exit"]


@pytest.mark.parametrize("ruby", RUBIES.values(), ids=RUBIES)
def test_one_that_refuses_costs_only_itself(tmp_path: Path, ruby: str) -> None:
    """Fault 20: ``rescue Exception`` and again. The exit hooks run."""
    (tmp_path / "config.ru").write_text(SOURCE)
    events = tmp_path / "events"
    env = {"EVENTS": str(events)}
    with ExitStack() as streams, worker_of(ruby, tmp_path, env=env, threads=2, shutdown_timeout=3.0) as worker:
        begin(worker, streams, "/stubborn")
        eventually(lambda: events.exists() and "began /stubborn" in events.read_text())
        worker.shut_down()
        assert worker.exit_status() == 0
        assert events.read_text().splitlines()[-2:] == ["stopping", "at_exit"]
