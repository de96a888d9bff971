"""`jaxrelu info`: what is installed, and whether the device computes rightly."""

import jax
import numpy as np
import pytest

from jaxrelu.cli import main
from jaxrelu.core import device


def run():
    with pytest.raises(SystemExit) as stop:
        main(["info"])
    return stop.value.code


def test_a_right_device_is_exit_code_0(capsys):
    assert run() == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for word in (f"jax      {jax.__version__}", "devices  ", "float64  sums", "float32  sums"):
        assert word in shown.out


def test_a_wrong_device_is_exit_code_1_and_a_sentence(capsys, monkeypatch):
    true = device._computed

    def wrong(A):
        sums, products, *rest = true(A)
        return (sums, np.asarray(products) * 1.01, *rest)

    monkeypatch.setattr(device, "_computed", wrong)
    assert run() == 1
    sentence = capsys.readouterr().err
    assert "is off in products in float64, products in float32" in sentence
    assert len(sentence.splitlines()) == 1
