"""The network again, from the paper's equations: one image and one pair at a time, in float64.

It shares no code with the package and reads the same weights by name.
"""

import math
from fractions import Fraction

import torch
import torch.nn.functional as F

from sketch_search.model.engine import ZseConfig

State = dict[str, torch.Tensor]


def layer_norm(x: torch.Tensor, state: State, name: str, eps: float) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(n, d), (m, d), (m, d) -> what is gathered (n, d), and by head the weights (n, m)."""
    parts = zip(q.chunk(heads, 1), k.chunk(heads, 1), strict=True)
    weights = [(a @ b.T / math.sqrt(a.shape[1])).softmax(dim=1) for a, b in parts]
    return torch.cat([w @ part for w, part in zip(weights, v.chunk(heads, 1), strict=True)], dim=1), weights


def best(importance: torch.Tensor, rate: float) -> list[int]:
    count = math.ceil(Fraction(str(rate)) * len(importance))
    ranked = sorted(range(len(importance)), key=lambda i: (-float(importance[i]), i))
    return sorted(ranked[:count])


def encode(config: ZseConfig, state: State, image: torch.Tensor, modality: str) -> tuple[torch.Tensor, list[int]]:
    """Encodes one (3, H, W) image -> tokens (n, d) after the final norm, and the grid cells of the patch tokens."""
    patch = "encoder.tokenizer.patch"
    maps = F.conv2d(image[None], state[f"{patch}.weight"], state[f"{patch}.bias"], stride=config.patch_size)
    if config.tokenizer == "learnable":
        learned = image[None]
        for index, size in zip((0, 2, 4, 6), (7, 3, 3, 3), strict=True):
            learned = learned.relu() if index else learned
            w = state[f"encoder.tokenizer.learnable.layers.{index}.weight"]
            learned = F.conv2d(learned, w, stride=2, padding=size // 2)
        maps = maps + learned
    x, position = maps[0].flatten(1).T, state["encoder.position"][0]
    x = x + position[1:] if config.ret == "mean" else torch.cat([state["encoder.ret"][0], x]) + position
    cells = list(range(config.grid**2))
    for layer in range(config.depth):
        name = f"encoder.blocks.{layer}"
        y = layer_norm(x, state, f"{name}.norm1", config.norm_eps)
        q, k, v = linear(y, state, f"{name}.attn.qkv").chunk(3, dim=1)
        gathered, weights = attention(q, k, v, config.heads)
        x = x + linear(gathered, state, f"{name}.attn.proj")
        if layer in config.select_after and config.ret == "token":
            importance = torch.stack(weights)[:, 0, 1:].mean(dim=0)
            chosen = best(importance, config.keep_sketch if modality == "sketch" else config.keep_photo)
            x = x[[0, *(1 + i for i in chosen)]]
            cells = [cells[i] for i in chosen]
        y = linear(layer_norm(x, state, f"{name}.norm2", config.norm_eps), state, f"{name}.mlp.fc1")
        x = x + linear(F.gelu(y), state, f"{name}.mlp.fc2")
    x = layer_norm(x, state, "encoder.norm", config.norm_eps)
    return (torch.cat([x.mean(dim=0, keepdim=True), x]) if config.ret == "mean" else x), cells


def selected(config: ZseConfig, state: State, sketch: torch.Tensor, photo: torch.Tensor) -> list[int]:
    """The patches of the photo that the sketch's [Ret] selects in the cross-attention (eq. 7)."""
    query, key = linear(sketch[:1], state, "cross.sketch.query"), linear(photo, state, "cross.sketch.key")
    _, weights = attention(query, key, photo, config.cross_heads)
    return best(torch.stack(weights)[:, 0, 1:].mean(dim=0), config.keep_cross)


def cross(config: ZseConfig, state: State, side: str, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Tokens of one side of a pair after cross-attention to the other one (eq. 6)."""
    name = f"cross.{side}"
    query, key = linear(own, state, f"{name}.query"), linear(other, state, f"{name}.key")
    value = linear(own if config.released_value_from_query else other, state, f"{name}.value")
    gathered, _ = attention(query, key, value, config.cross_heads)
    y = layer_norm(own + linear(gathered, state, f"{name}.out"), state, f"{name}.norm1", 1e-5)
    z = y + linear(linear(y, state, f"{name}.ffn.0").relu(), state, f"{name}.ffn.3")
    return layer_norm(z, state, f"{name}.norm2", 1e-5)


def cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The kernel of eq. 8, in which a token of zeros is like none."""
    return F.normalize(rows, dim=1) @ F.normalize(columns, dim=1).T


def downsampled(config: ZseConfig, state: State, x: torch.Tensor, cells: list[int]) -> torch.Tensor:
    """A token for each 2x2 block of cells; zero where none of the four was kept."""
    weight, bias = state["relation.downsample.weight"], state["relation.downsample.bias"]
    at = dict(zip(cells, x[1:], strict=True))
    out = []
    for r in range(0, config.grid, 2):
        for c in range(0, config.grid, 2):
            block = [(dr, dc, (r + dr) * config.grid + c + dc) for dr in (0, 1) for dc in (0, 1)]
            kept = [weight[:, :, dr, dc] @ at[cell] for dr, dc, cell in block if cell in at]
            out.append(bias + torch.stack(kept).sum(dim=0) if kept else torch.zeros_like(bias))
    return torch.stack(out)


def relation_logit(config: ZseConfig, state: State, sketch: torch.Tensor, photo: torch.Tensor) -> float:
    state = {name: tensor.double() for name, tensor in state.items()}
    s, s_cells = encode(config, state, sketch.double(), "sketch")
    p, p_cells = encode(config, state, photo.double(), "photo")
    if config.ret == "mean":
        s, p = s[1:], p[1:]
    s2, p2 = s, p
    if config.keep_cross < 1:
        chosen = selected(config, state, s, p)
        p, p_cells = p[[0, *(1 + i for i in chosen)]], [p_cells[i] for i in chosen]
    if config.cross_attention:
        s2, p2 = cross(config, state, "sketch", s, p), cross(config, state, "photo", p, s)
    if config.ret == "mean":
        s2, p2 = torch.cat([s2[:1], s2]), torch.cat([p2[:1], p2])
    if config.relation != "best-match":
        rows, columns = downsampled(config, state, s2, s_cells), downsampled(config, state, p2, p_cells)
        x = cosines(rows, columns).flatten()
        if config.relation == "pair-mlp":
            parts = [state[f"relation.{side}_part.weight"] for side in ("sketch", "photo")]
            weight, bias = torch.cat(parts, dim=1), state["relation.sketch_part.bias"]
            hidden = torch.stack([(weight @ torch.cat([a, b]) + bias).relu() for a in rows for b in columns])
            x = linear(hidden, state, "relation.metric")[:, 0].sigmoid()
        for index in (0, 3):
            x = linear(x, state, f"relation.mlp.{index}").relu()
        logit = linear(x, state, "relation.mlp.6")[0]
    else:
        w = linear(s2[1:], state, "relation.sketch_worth")[:, 0].softmax(dim=0)
        v = linear(p2[1:], state, "relation.photo_worth")[:, 0].softmax(dim=0)
        kernel = cosines(s2[1:], p2[1:])
        matched = w @ kernel.amax(dim=1) + v @ kernel.amax(dim=0)
        logit = state["relation.scale"] * matched / 2 + state["relation.bias"]
    if config.relation_ret:
        logit = logit + state["ret_term.scale"] * cosines(s[:1], p[:1])[0, 0]
    return float(logit)
