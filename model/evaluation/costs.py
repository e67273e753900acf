"""Counts what a network costs."""

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.network import Network, RetNetwork


def costs_of(network: RetNetwork) -> dict[str, float]:
    """Counts parameters, and by PyTorch's counter multiply-adds of a photo and of a pair; 0 if it compares no pairs."""
    side = network.config.image_size
    blank = torch.zeros(1, 3, side, side)

    def flops(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return int(counter.get_total_flops())

    with sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        of_photo, of_pair = flops(lambda: network.encode(blank, "photo")), 0
        if isinstance(network, Network):
            sketch = network.project(network.encode(blank, "sketch"), "sketch")
            photo = network.project(network.encode(blank, "photo"), "photo")
            of_pair = flops(lambda: network.relate(sketch, photo))
    parameters = sum(tensor.numel() for tensor in network.parameters())
    return {"M parameters": parameters / 1e6, "G a photo": of_photo / 2e9, "M a pair": of_pair / 2e6}
