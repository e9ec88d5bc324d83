"""Runs test_ml_backend_app.py in label-studio-ml's own environment: its versions of 2021 do not fit ours."""

import os
import re
import subprocess

import pytest
from tests.missing import skip_missing
from tests.paths import ML_HOST_ENV, REPOSITORY

PYTHON = ML_HOST_ENV / "bin" / "python"
TESTS = "tests/integration/test_ml_backend_app.py"


@pytest.mark.timeout(300)
def test_ml_backend_inside_label_studio_ml_passes_its_tests():
    if not PYTHON.exists():
        skip_missing("label-studio-ml", f"make {ML_HOST_ENV.name}/.installed")
    sources = os.pathsep.join(str(REPOSITORY / folder) for folder in ("backend", "plugin"))
    done = subprocess.run(
        [PYTHON, "-m", "pytest", TESTS, "-q", "-p", "no:cacheprovider"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": sources},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d passed in", done.stdout), done.stdout
