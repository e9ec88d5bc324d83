import os
import signal
import subprocess
import sys

from tests.own_processes import orphans_adopted
from tests.waiting import until

LEAVES_ONE_BEHIND = """
import subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)
print(left.pid)
"""


def test_orphans_adopted_process_left_behind_is_found_until_it_ends():
    with orphans_adopted() as left_over:
        done = subprocess.run([sys.executable, "-c", LEAVES_ONE_BEHIND], stdout=subprocess.PIPE, text=True)
        left = int(done.stdout)
        assert list(left_over()) == [left]
        os.kill(left, signal.SIGKILL)
        until(lambda: not left_over())
        os.waitpid(left, 0)


def test_orphans_adopted_process_from_before_is_no_orphan():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        with orphans_adopted() as left_over:
            assert left_over() == {}
        other.kill()
