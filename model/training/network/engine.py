"""Runs every network by PyTorch as an engine: numpy in, numpy out (``model.engine.Engine``)."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_search.model.engine import Aligned, Engine, Floats, Matching, Modality, Observed, SelfAttention, grid_maps
from sketch_search.model.engine import Tokens as Arrays
from sketch_search.model.engine import average_variants as averaged
from sketch_search.model.engine.surface import lost_by_blocks
from sketch_search.model.errors import ModelError
from sketch_search.model.training.network.relation import BestMatchRelation, Tokens, as_tensor
from sketch_search.model.training.network.vit import EncoderTrace, RetNetwork
from sketch_search.model.training.network.zse import Network, as_zse

# Tokens of sketches, and those of all patches of the first; and what encodes pixels (b, 3, H, W).
Encoded: TypeAlias = tuple[Tokens, torch.Tensor | None]
Run: TypeAlias = Callable[[torch.Tensor], Encoded]

# Photos that are encoded at once. On a CPU such chunks are computed side by side, each in threads of its own.
CHUNK, GPU_CHUNK = 16, 256
# Numbers of sketches, such as a sketch's variants, for which a GPU keeps the pass of the network as one graph.
GRAPHS = 8


class Captured:
    """A pass over pictures of one shape as one CUDA graph: a GPU waits for each of hundreds of calls otherwise."""

    def __init__(self, run: Run, pictures: torch.Tensor) -> None:
        """Raises RuntimeError if a step cannot be captured."""
        self._pictures, self._graph, stream = pictures.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        # The first pass prepares what cannot be captured.
        with torch.cuda.stream(stream):
            run(self._pictures)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph):
            self._found = run(self._pictures)

    def __call__(self, pictures: torch.Tensor) -> Encoded:
        self._pictures.copy_(pictures)
        self._graph.replay()
        return self._found


class TorchEngine(Engine):
    """A network in evaluation mode, on the device and in the precision that it has."""

    def __init__(self, network: RetNetwork) -> None:
        self.network = network.eval()
        self.kind, self.config, self.calibration = network.kind, network.config, network.calibration
        self.prior, self.vocabulary = network.prior, network.vocabulary
        self.projection, self.parting = network.projection, network.parting
        self._device = next(network.parameters()).device
        self.device = self._device.type
        self.dtype = str(network.precision).removeprefix("torch.")
        self.captured: dict[tuple[int, bool], Run] = {}
        self._replaying = threading.Lock()

    def encode(self, pictures: Floats, modality: Modality) -> Arrays:
        chunk = CHUNK if self.device == "cpu" else GPU_CHUNK
        parts = [pictures[start : start + chunk] for start in range(0, len(pictures), chunk)]
        threads = torch.get_num_threads()
        workers = min(threads, len(parts)) if self.device == "cpu" else 1
        if workers == 1:
            return Arrays.cat([self._encode(part, modality) for part in parts])
        # PyTorch's own threads would share one chunk, and wait for each other after each step of the network. While
        # other work needs a core, such as decoding the next photos, that takes several times as long.
        try:
            with ThreadPoolExecutor(workers, "encode", torch.set_num_threads, (threads // workers,)) as pool:
                return Arrays.cat(list(pool.map(lambda part: self._encode(part, modality), parts)))
        finally:
            # The pool's threads set the number for themselves and so for all threads that start later.
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def _encode(self, pictures: Floats, modality: Modality) -> Arrays:
        if modality == "sketch":
            return self._sketches(pictures, whole=False)[0]
        return self.reduce_regions(as_arrays(self.network.encode(pictures, modality)))

    @torch.inference_mode()
    def encode_whole(self, variants: Floats) -> tuple[Arrays, Floats]:
        tokens, patches = self._sketches(variants, whole=True)
        if patches is None:
            raise ModelError(f"{self.config.name} has no tokens of all patches; only two-sided networks have")
        return tokens, patches

    def _sketches(self, pictures: Floats, *, whole: bool) -> tuple[Arrays, Floats | None]:
        """Encodes sketches: their tokens, and if asked for, those of all patches of the first."""

        def run(pixels: torch.Tensor) -> Encoded:
            trace = EncoderTrace(attends=False) if whole else None
            tokens = self.network.encode(pixels, "sketch", trace)
            return tokens, None if trace is None or trace.patches is None else trace.patches[:, 0].float()

        pixels, key = self._tensor(pictures).float(), (len(pictures), whole)
        # What a graph finds lies where its next replay writes.
        with self._replaying if self.device == "cuda" else nullcontext():
            if self.device == "cuda" and len(pictures) <= GRAPHS and key not in self.captured:
                try:
                    self.captured[key] = Captured(run, pixels)
                except RuntimeError:
                    self.captured[key] = run
            tokens, patches = self.captured.get(key, run)(pixels)
            return as_arrays(tokens), None if patches is None else as_array(patches)

    @torch.inference_mode()
    def relate(self, sketch: Arrays, photos: Arrays) -> Floats:
        network = as_zse(self.network)
        sides = network.project(self._tokens(sketch), "sketch"), network.project(self._tokens(photos), "photo")
        return as_array(network.relate(*sides)).astype(np.float32)

    @torch.inference_mode()
    def observe(self, pictures: Floats, modality: Modality) -> Observed:
        trace, grid = EncoderTrace(), self.config.grid
        tokens = averaged(self.reduce_regions(as_arrays(self.network.encode(pictures, modality, trace))))
        blocks = [
            grid_maps(as_array(positions[0]), as_array(attention[0].float()), grid)
            for attention, positions in zip(trace.attention, trace.positions, strict=True)
        ]
        kept = [grid_maps(as_array(cells[0]), np.ones(cells.shape[1], np.bool_), grid) for cells in trace.kept]
        return Observed(
            tokens,
            SelfAttention(np.stack(blocks), tuple(kept)),
            None if trace.everything is None else as_arrays(trace.everything),
            None if trace.local is None else as_array(trace.local[0].float()),
        )

    @torch.inference_mode()
    def align(self, sketch: Arrays, photo: Arrays) -> Aligned | None:
        network = self.network
        if not isinstance(network, Network):
            return None
        sides = network.project(self._tokens(sketch), "sketch"), network.project(self._tokens(photo), "photo")
        forth, back = (as_array(weights[0]) for weights in network.cross.attention(*sides))
        of_sketch, of_photo = network.align(*sides)
        drawn, shown = (as_array(tokens.patches[0].float()) for tokens in (of_sketch, of_photo))
        places, cells = (as_array(tokens.positions[0]) for tokens in (of_sketch, of_photo))
        matching, lost, relation = None, None, network.relation
        if isinstance(relation, BestMatchRelation):
            worths = (as_array(worth[0]) for worth in relation.token_weights(of_sketch, of_photo))
            matching = Matching(float(relation.scale), *worths)
        elif not relation.untransposed:
            kernel, read = as_array(relation.kernel(of_sketch, of_photo)[0]), relation.read
            lost = lost_by_blocks(kernel, lambda k: as_array(read(self._tensor(k))), (drawn, shown), (places, cells))
        return Aligned(forth, back, drawn, shown, cells, matching, lost)

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        return as_tensor(values, self._device)

    def _tokens(self, tokens: Arrays) -> Tokens:
        summary = None if tokens.summary is None else self._tensor(tokens.summary).float()
        return Tokens(self._tensor(tokens.features).float(), self._tensor(tokens.positions).long(), summary)


def find_device(name: str) -> torch.device:
    """Returns the device of this name; "auto" is a GPU if there is one. Raises ModelError if it cannot be used."""
    try:
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r} cannot be used here ({error}); use cpu") from error
    return device


def as_arrays(tokens: Tokens) -> Arrays:
    """Returns the tokens as arrays: float32, on the CPU."""
    summary, regions = (None if part is None else as_array(part.float()) for part in (tokens.summary, tokens.regions))
    return Arrays(as_array(tokens.features.float()), as_array(tokens.positions), summary, regions)


def as_array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
