"""One checkpoint at several keep rates: its figures and its costs at each."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from model.datasets import Corpus
from model.errors import ModelError
from model.evaluation.categories import evaluate
from model.evaluation.scoring import encode_pictures
from model.matcher import Matcher
from model.metrics import CategoryMetrics
from model.network import Costs, Method, Network, Tokens, as_zse, costs

# So many pairs give a steady time and take only seconds.
TIMED_SKETCHES = 4
TIMED_PHOTOS = 128
TIMED_ROUNDS = 5


@dataclass(frozen=True)
class KeepRates:
    """r_S, r_I and r_CA, each in (0, 1]."""

    sketch: float
    photo: float
    cross: float

    def __str__(self) -> str:
        return f"{self.sketch:g}/{self.photo:g}/{self.cross:g}"

    @staticmethod
    def parse(text: str, cross: float) -> KeepRates:
        """From "r" (for r_S and r_I), "r_S/r_I" or "r_S/r_I/r_CA"; ``cross`` is r_CA where the text has none."""
        try:
            values = [float(part) for part in text.split("/")]
        except ValueError:
            values = []
        if not 1 <= len(values) <= 3 or any(not 0 < value <= 1 for value in values):
            raise ModelError(f"keep rates are r, r_S/r_I or r_S/r_I/r_CA with numbers in (0, 1], not {text!r}")
        photo = values[1] if len(values) > 1 else values[0]
        return KeepRates(values[0], photo, values[2] if len(values) == 3 else cross)


@dataclass(frozen=True)
class KeepFigures:
    """One setting.

    Attributes:
        rates: the keep rates.
        methods: the figures of each method.
        costs: computed from the configuration.
        milliseconds: time of one pair on this machine: the photo's projection, cross-attention and relation network.
    """

    rates: KeepRates
    methods: dict[str, CategoryMetrics]
    costs: Costs
    milliseconds: float


def sweep(
    matcher: Matcher, corpus: Corpus, settings: Sequence[KeepRates], methods: Sequence[Method] | None = None
) -> tuple[KeepFigures, ...]:
    """Evaluates the same weights at each setting in turn."""
    found = []
    for rates in settings:
        other = at_rates(matcher, rates)
        result = evaluate(other, corpus, methods)
        figures = {method: part.overall for method, part in result.methods.items()}
        found.append(
            KeepFigures(rates, figures, costs(as_zse(other.network).config), milliseconds_a_pair(other, corpus))
        )
    return tuple(found)


def at_rates(matcher: Matcher, rates: KeepRates) -> Matcher:
    """The same weights at other keep rates. Raises ModelError where the network cannot work at them."""
    config = dataclasses.replace(
        as_zse(matcher.network).config, keep_sketch=rates.sketch, keep_photo=rates.photo, keep_cross=rates.cross
    )
    network = Network(config, matcher.calibration).requires_grad_(False).eval()
    network.load_state_dict(matcher.network.state_dict())
    network.to(matcher.device).set_precision(matcher.dtype)
    return Matcher(network, matcher.checkpoint_sha256, chunk=matcher.chunk, variants=matcher.variants)


def milliseconds_a_pair(matcher: Matcher, corpus: Corpus) -> float:
    """Time of one pair of some of these pictures, see ``time_pairs``."""
    sketches = encode_pictures(matcher, corpus.sketches[:TIMED_SKETCHES], "sketch")
    return time_pairs(matcher, sketches, encode_pictures(matcher, corpus.photos[:TIMED_PHOTOS], "photo"))


def time_pairs(matcher: Matcher, sketches: Tokens, photos: Tokens) -> float:
    """Milliseconds of one pair: the median of TIMED_ROUNDS rounds, after one round to warm up."""
    rounds = []
    for _ in range(1 + TIMED_ROUNDS):
        start = time.perf_counter()
        matcher.relation_logits(sketches, photos)
        rounds.append(time.perf_counter() - start)
    return 1000 * statistics.median(rounds[1:]) / (len(sketches) * len(photos))
