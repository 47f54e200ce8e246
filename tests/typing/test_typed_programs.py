"""LI9: programs that use the installed package are checked by pyright, too, the strict way, and need no cast."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STRICT = ("public_faces.py", "beside_asyncio.py", "queue_consumer.py")
"""Quart and Hypercorn, which another example uses, are not typed through and through."""


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_LI9_pyright_reads_the_public_face_as_mypy_does(tmp_path: Path) -> None:
    """Copies in a directory of their own see the package as installed (``py.typed``), not as sources beside them."""
    programs = [Path(__file__).parent / "public_faces.py", *sorted((ROOT / "examples").glob("*.py"))]
    for program in programs:
        shutil.copy(program, tmp_path)
    settings = {"strict": STRICT, "pythonVersion": "3.11", "reportUnnecessaryTypeIgnoreComment": True}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=False,
    )
    report = json.loads(done.stdout)
    assert [f"{Path(one['file']).name}: {one['message']}" for one in report["generalDiagnostics"]] == []
    assert report["summary"]["filesAnalyzed"] == len(programs)
