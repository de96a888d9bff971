"""The garbage collector of a run of the command is as before when the run is over."""

import gc
import subprocess
import sys

import pytest

from jaxrelu.cli.garbage import seldom_collected


@pytest.fixture
def before():
    given = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield gc.get_threshold()
    gc.set_threshold(*given)


def test_thresholds_are_those_of_before_whatever_happens(before):
    def fail():
        with seldom_collected():
            assert gc.get_threshold() > before
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert gc.get_threshold() == before


def test_nothing_is_left_to_collect_at_the_exit():
    code = (
        "import atexit, gc\n"
        "from jaxrelu.cli.garbage import seldom_collected\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "with seldom_collected(): pass\n"
        "print(gc.get_freeze_count() > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\nTrue\n", done.stderr
