"""The network again, slowly and from the paper's equations: one image, one head, one token at a time, in float64.

It shares no code with the package and reads the same weights by name.
"""

import math
from fractions import Fraction

import torch

from model.engine import ZseConfig

State = dict[str, torch.Tensor]


def softmax(row: torch.Tensor) -> torch.Tensor:
    e = torch.exp(row - row.max())
    return e / e.sum()


def layer_norm(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, eps: float) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * w + b


def linear(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention_rows(q: torch.Tensor, k: torch.Tensor, heads: int) -> torch.Tensor:
    """(n, d), (m, d) -> (heads, n, m), softmax over m."""
    dk = q.shape[1] // heads
    out = torch.empty(heads, len(q), len(k), dtype=torch.float64)
    for h in range(heads):
        part = slice(h * dk, (h + 1) * dk)
        for i in range(len(q)):
            out[h, i] = softmax(torch.stack([(q[i, part] * k[j, part]).sum() / math.sqrt(dk) for j in range(len(k))]))
    return out


def mix(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(heads, n, m), (m, d) -> (n, d)."""
    heads = len(weights)
    dk = v.shape[1] // heads
    return torch.cat([weights[h] @ v[:, h * dk : (h + 1) * dk] for h in range(heads)], dim=1)


def best(importance: torch.Tensor, rate: float) -> list[int]:
    count = math.ceil(Fraction(str(rate)) * len(importance))
    ranked = sorted(range(len(importance)), key=lambda i: (-float(importance[i]), i))
    return sorted(ranked[:count])


def encode(config: ZseConfig, state: State, image: torch.Tensor, modality: str) -> tuple[torch.Tensor, list[int]]:
    """Encodes one (3, H, W) image -> tokens (n, d) after the final norm, and the grid cells of the patch tokens."""
    p, grid = config.patch_size, config.grid
    kernel = state["encoder.tokenizer.patch.weight"].flatten(1)
    patches = [
        kernel @ image[:, r * p : (r + 1) * p, c * p : (c + 1) * p].flatten() + state["encoder.tokenizer.patch.bias"]
        for r in range(grid)
        for c in range(grid)
    ]
    x = torch.stack(patches)
    maps = image[None]
    if config.tokenizer == "learnable":
        for index, size in zip((0, 2, 4, 6), (7, 3, 3, 3), strict=True):
            if index:
                maps = maps.clamp(min=0)
            w = state[f"encoder.tokenizer.learnable.layers.{index}.weight"]
            maps = torch.nn.functional.conv2d(maps, w, stride=2, padding=size // 2)
        x = x + maps[0].flatten(1).T
    x = torch.cat([state["encoder.ret"][0], x]) + state["encoder.position"][0]
    cells = list(range(grid * grid))
    rate = config.keep_sketch if modality == "sketch" else config.keep_photo
    for layer in range(config.depth):
        name = f"encoder.blocks.{layer}"
        y = layer_norm(x, state[f"{name}.norm1.weight"], state[f"{name}.norm1.bias"], config.norm_eps)
        q, k, v = linear(y, state, f"{name}.attn.qkv").chunk(3, dim=1)
        weights = attention_rows(q, k, config.heads)
        x = x + linear(mix(weights, v), state, f"{name}.attn.proj")
        if layer in config.select_after:
            chosen = best(weights[:, 0, 1:].mean(0), rate)
            x = torch.stack([x[0]] + [x[1 + i] for i in chosen])
            cells = [cells[i] for i in chosen]
        y = layer_norm(x, state[f"{name}.norm2.weight"], state[f"{name}.norm2.bias"], config.norm_eps)
        y = linear(y, state, f"{name}.mlp.fc1")
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        x = x + linear(y, state, f"{name}.mlp.fc2")
    return layer_norm(x, state["encoder.norm.weight"], state["encoder.norm.bias"], config.norm_eps), cells


def branch(state: State, name: str, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    y = x + linear(attended, state, f"{name}.out")
    y = layer_norm(y, state[f"{name}.norm1.weight"], state[f"{name}.norm1.bias"], 1e-5)
    z = y + linear(linear(y, state, f"{name}.ffn.0").clamp(min=0), state, f"{name}.ffn.3")
    return layer_norm(z, state[f"{name}.norm2.weight"], state[f"{name}.norm2.bias"], 1e-5)


def cross(config: ZseConfig, state: State, s: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of one sketch and one photo after cross-attention."""
    heads = config.cross_heads
    forth = attention_rows(linear(s, state, "cross.sketch.query"), linear(p, state, "cross.sketch.key"), heads)
    back = attention_rows(linear(p, state, "cross.photo.query"), linear(s, state, "cross.photo.key"), heads)
    return (
        branch(state, "cross.sketch", s, mix(forth, linear(p, state, "cross.sketch.value"))),
        branch(state, "cross.photo", p, mix(back, linear(s, state, "cross.photo.value"))),
    )


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    norms = a.norm() * b.norm()
    return (a * b).sum() / norms if norms > 0 else torch.zeros((), dtype=torch.float64)


def downsampled(config: ZseConfig, state: State, x: torch.Tensor, cells: list[int]) -> list[torch.Tensor]:
    """A token for each 2x2 block of cells; zero where none of the four was kept."""
    weight, bias = state["relation.downsample.weight"], state["relation.downsample.bias"]
    at = dict(zip(cells, x[1:], strict=True))
    out = []
    for r in range(0, config.grid, 2):
        for c in range(0, config.grid, 2):
            block = [(dr, dc, (r + dr) * config.grid + c + dc) for dr in (0, 1) for dc in (0, 1)]
            if not any(cell in at for _, _, cell in block):
                out.append(torch.zeros_like(bias))
                continue
            out.append(bias + sum(weight[:, :, dr, dc] @ at[cell] for dr, dc, cell in block if cell in at))
    return out


def mlp(state: State, x: torch.Tensor) -> torch.Tensor:
    for index in (0, 3):
        x = linear(x, state, f"relation.mlp.{index}").clamp(min=0)
    return linear(x, state, "relation.mlp.6")[0]


def relation_logit(config: ZseConfig, state: State, sketch: torch.Tensor, photo: torch.Tensor) -> float:
    state = {name: tensor.double() for name, tensor in state.items()}
    s, s_cells = encode(config, state, sketch.double(), "sketch")
    p, p_cells = encode(config, state, photo.double(), "photo")
    s2, p2 = cross(config, state, s, p) if config.cross_attention else (s, p)
    if config.relation == "kernel-mlp":
        rows, columns = downsampled(config, state, s2, s_cells), downsampled(config, state, p2, p_cells)
        logit = mlp(state, torch.stack([cosine(a, b) for a in rows for b in columns]))
    else:
        w = softmax(linear(s2[1:], state, "relation.sketch_worth")[:, 0])
        v = softmax(linear(p2[1:], state, "relation.photo_worth")[:, 0])
        kernel = torch.stack([torch.stack([cosine(a, b) for b in p2[1:]]) for a in s2[1:]])
        matched = sum(w[i] * kernel[i].max() for i in range(len(w))) + sum(
            v[j] * kernel[:, j].max() for j in range(len(v))
        )
        logit = state["relation.scale"] * matched / 2 + state["relation.bias"]
    if config.relation_ret:
        logit = logit + state["ret_term.scale"] * cosine(s[0], p[0])
    return float(logit)
