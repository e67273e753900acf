from __future__ import annotations

import pytest
import torch

from model.network import precision
from model.network.precision import fastest_dtype, multiplies_bf16
from tests.networks import tiny_network


@pytest.mark.parametrize(("native", "faster"), [(True, True), (True, False), (False, True)])
def test_bfloat16_is_for_cpus_that_have_it_and_are_faster_with_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, faster: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(precision, "_faster_in_bf16", lambda: faster)
    multiplies_bf16.cache_clear()
    try:
        assert multiplies_bf16() == (native and faster)
        chosen = fastest_dtype(tiny_network(), torch.device("cpu"))
        assert (native and faster) or chosen == torch.float32
    finally:
        multiplies_bf16.cache_clear()


def test_measuring_the_precisions_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        precision._faster_in_bf16()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
