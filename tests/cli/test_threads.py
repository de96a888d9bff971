"""Threads of a run of the command."""

import sys

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from jaxrelu.cli.threads import import_ahead, one_lapack_thread


def lapack_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture
def two_threads():
    with threadpool_limits(limits=2, user_api="blas"):
        if lapack_threads() != {2}:
            pytest.skip("this LAPACK has no threads to limit")
        yield


def test_lapack_has_one_thread_while_the_command_runs(monkeypatch, two_threads):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    with one_lapack_thread():
        assert lapack_threads() == {1}
    assert lapack_threads() == {2}


def test_what_the_environment_says_holds(monkeypatch, two_threads):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with one_lapack_thread():
        assert lapack_threads() == {2}


def test_without_threadpoolctl_nothing_changes(monkeypatch, two_threads):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with one_lapack_thread():
        assert lapack_threads() == {2}


def test_modules_are_imported_and_a_missing_one_is_left_to_who_needs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "xml.dom.pulldom", raising=False)
    import_ahead("xml.dom.pulldom", "no_such_module").join()
    assert "xml.dom.pulldom" in sys.modules
    with pytest.MonkeyPatch.context() as patch:
        failed = []
        patch.setattr("threading.excepthook", failed.append)
        import_ahead("no_such_module").join()
    assert not failed
