from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from model.network.config import preset
from model.network.layers.cross import CrossAttention, Side, StdNorm, dot_product_attention
from model.network.layers.relation import kernel_matrix
from model.network.tokens import Tokens

# Which of query, key and value are one image's for all: the paper's two directions, and the released network's.
SHARED = [(1, 5, 5), (5, 1, 1), (32, 1, 1), (1, 5, 1), (5, 1, 5), (5, 5, 5), (1, 1, 1)]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("counts", SHARED, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_one_image_beside_many_gathers_what_it_does_beside_each(
    counts: tuple[int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    query, key, value = (
        numbers(count, 3, tokens, 8, seed=seed).to(dtype)
        for seed, (count, tokens) in enumerate(zip(counts, (7, 11, 11), strict=True))
    )
    gathered = dot_product_attention(query, key, value)
    assert gathered.shape == (max(counts), 3, 7, 8)
    for image in range(max(counts)):
        q, k, v = (t[image % len(t)].double() for t in (query, key, value))
        expected = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1) @ v
        torch.testing.assert_close(gathered[image].double(), expected, atol=tolerance, rtol=tolerance)


def test_gradients_go_through_the_fused_attention_in_any_precision() -> None:
    query = numbers(2, 3, 7, 8).bfloat16().requires_grad_()
    key, value = numbers(2, 3, 11, 8, seed=1).bfloat16(), numbers(2, 3, 11, 8, seed=2).bfloat16()
    assert torch.equal(dot_product_attention(query, key, value), F.scaled_dot_product_attention(query, key, value))


@pytest.mark.parametrize("released", [False, True])
def test_one_sketch_beside_many_photos_aligns_as_beside_each(released: bool) -> None:
    config = dataclasses.replace(
        preset("zse-ti16"), width=48, cross_ffn=64, released_value_from_query=released, released_cross_norm=released
    )
    cross = CrossAttention(config).requires_grad_(False).eval()

    def side(count: int, modality: str) -> Side:
        features = numbers(count, 9, 48, seed=count)
        return cross.project(Tokens(features, torch.arange(8).expand(count, -1)), modality)  # type: ignore[arg-type]

    sketch, photos = side(1, "sketch"), side(4, "photo")
    together = cross(sketch, photos)
    for index in range(4):
        alone = cross(sketch, photos.rows(slice(index, index + 1)))
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole.features[index], part.features[0], atol=1e-5, rtol=0)
            assert torch.equal(whole.positions[index], part.positions[0])


@pytest.mark.parametrize("spread", [0.3, 1.0, 30.0])
def test_the_released_norm_divides_by_the_unbiased_std_and_its_eps(spread: float) -> None:
    norm = StdNorm(48).requires_grad_(False)
    norm.weight[:], norm.bias[:] = numbers(48, seed=1), numbers(48, seed=2)
    x = numbers(5, 7, 48) * spread + 0.1
    expected = norm.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + norm.bias
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(norm(torch.full((1, 48), 0.5)), norm.bias[None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_kernel_in_any_precision_holds_cosines_and_zeros_for_a_zero_token(dtype: torch.dtype) -> None:
    sketch, photo = numbers(2, 5, 48), numbers(2, 7, 48, seed=1)
    sketch[0, 2] = 0
    kernel = kernel_matrix(sketch.to(dtype), photo.to(dtype))
    assert kernel.dtype == torch.float32
    assert (kernel[0, 2] == 0).all()
    expected = F.cosine_similarity(sketch[:, :, None], photo[:, None], dim=-1)
    torch.testing.assert_close(kernel, expected, atol=1e-5 if dtype == torch.float32 else 1e-2, rtol=0)
