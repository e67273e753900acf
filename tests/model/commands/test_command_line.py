from __future__ import annotations

import pytest

from model.commands import main
from model.datasets.tasks import PROTOCOLS


def test_a_name_that_is_none_is_a_sentence_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--protocol", "zeroshot"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: Invalid value for '--protocol': 'zeroshot' is not one of ")
    assert all(f"'{name}'" in err for name in PROTOCOLS)
    assert err.endswith("`sketch-search model evaluate --help` lists what there is.\n")
