"""The vocabulary of a trained network (``model.network.vocabulary``): its words, and their directions among photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.datasets import IMAGENET_PART, Picture
from model.errors import ModelError
from model.evaluation import encode_pictures
from model.network import Network, Vocabulary, guess_log_probabilities
from model.papers.zse.names import imagenet_names
from model.papers.zse.wordlist import Entry, word_list
from model.training import trained_matcher
from model.words import Names, WordBook

# Of the photos' classes, and of what the ViT believes, in a photo that has both.
LABEL_SHARE = 0.5
# How much words are held back: the classifier's near where a linear map from [Ret] puts them, the others near 0. Both
# were chosen on photos that the fit did not see; ten times as much or as little changed hardly anything.
MAP_RIDGE = 0.02
WORD_RIDGE = 1e-4
# The same of what sketches show; chosen on validation classes and on sketches that the fit did not see.
THING_RIDGE = 2e-2
STEPS = 40
GUESS_STEPS = 100
# The logit of no word lies between minus this and this, which 16 bits hold; here no word is ever guessed.
MOST_NONE = 1e4
# What may not be.
_NEVER = -1e9


@dataclass(frozen=True)
class Shown:
    """What is known of some photos.

    Attributes:
        ret: (n, d) float32, their [Ret] by the network that is to get a vocabulary.
        labels: each photo's class; None for one that has none.
        beliefs: (n, k) float32, the pretrained ViT's probabilities for its classes; k = 0 where there are none.
    """

    ret: torch.Tensor
    labels: tuple[str | None, ...]
    beliefs: torch.Tensor


def with_vocabulary(
    network: Network,
    photos: Sequence[Picture],
    beliefs: torch.Tensor,
    sketches: Sequence[Picture],
    drawn: Sequence[Picture] = (),
    synonyms: Sequence[Names] = (),
) -> Network:
    """A copy of the network with a vocabulary; one that it has already is replaced.

    Its words are the classes of the photos, and those of ImageNet-1k if the ViT has its classifier.

    Args:
        photos: those that it is fitted on.
        beliefs: (n, k), what the ViT believes of each.
        sketches: those that the guesses are calibrated on, best not trained on. Without any there are no guesses.
        drawn: those that guesses are learned from, others than ``sketches``. Without any, or where all show one thing,
            guesses are made by the directions of photos.
        synonyms: names of one thing each, from which words get further names.

    Raises ModelError where there is no word.
    """
    plain = network.without_vocabulary()
    matcher = trained_matcher(plain, methods=("ret",))
    # The classes of these photos are known by number only, and the classifier's beliefs have them.
    labels = tuple(None if photo.source == IMAGENET_PART else photo.label for photo in photos)
    names = imagenet_names()
    shown = Shown(encode_pictures(matcher, photos, "photo").ret, labels, beliefs)
    labelled = sorted({label for label in labels if label})
    entries = word_list(labelled, names if beliefs.shape[1] == len(names) else (), synonyms)
    if not entries:
        raise ModelError("a vocabulary needs photos in folders of their classes")
    directions, biases = fit_words(shown, entries)
    words = tuple(entry.names for entry in entries)
    book = WordBook(words)
    labels_drawn = sorted({sketch.label for sketch in drawn})
    things = {label: number for number, label in enumerate(labels_drawn)} if len(labels_drawn) > 1 else {}
    vocabulary = Vocabulary(len(words), plain.config.width, [_word_of(label, book) for label in things])
    vocabulary.directions.copy_(directions)
    vocabulary.biases.copy_(biases)
    vocabulary.guess_none.fill_(MOST_NONE)
    if things:
        numbers = torch.tensor([things[sketch.label] for sketch in drawn])
        directions, biases = fit_things(encode_pictures(matcher, drawn, "sketch").ret, numbers)
        vocabulary.sketch_directions.copy_(directions)
        vocabulary.sketch_biases.copy_(biases)
    if sketches:
        shows = vocabulary.things(encode_pictures(matcher, sketches, "sketch").ret)
        targets = [things.get(s.label, -1) if things else _word_of(s.label, book) for s in sketches]
        scale, none = fit_guesses(shows, torch.tensor(targets))
        vocabulary.guess_scale.fill_(scale)
        vocabulary.guess_none.fill_(none)
    return plain.vocabulary_replaced(vocabulary, words)


def fit_words(shown: Shown, entries: Sequence[Entry]) -> tuple[torch.Tensor, torch.Tensor]:
    """The words' directions (w, d) and biases (w,): a multinomial regression from [Ret] to what the photos show.

    The target of a photo with a class is its word and what the ViT believes, LABEL_SHARE of the first; that of another
    photo is what the ViT believes, among the ViT's words alone, because nobody said whether it shows another. The
    classifier's words begin where a linear regression of the ViT's log-probabilities puts them.
    """
    inputs, mean, spread = _standardised(shown.ret)
    beliefs = shown.beliefs if shown.beliefs.shape[1] else torch.zeros(len(inputs), 1)
    known = shown.beliefs.shape[1] > 0
    belongs = torch.zeros(beliefs.shape[1], len(entries))
    numbers: dict[str, int] = {}
    for number, entry in enumerate(entries):
        belongs[list(entry.classes), number] = 1
        numbers |= dict.fromkeys(entry.labels, number)
    labels = torch.tensor([-1 if label is None else numbers.get(label, -1) for label in shown.labels])
    labelled = (labels >= 0)[:, None]
    of_label = F.one_hot(labels.clamp(min=0), len(entries)).float() * labelled
    targets = torch.where(labelled, LABEL_SHARE, 1.0) * (beliefs @ belongs) + of_label * (LABEL_SHARE if known else 1.0)
    classified = belongs.sum(dim=0)
    masks = torch.where(labelled | (classified > 0), 0.0, _NEVER)
    weights, first = _mapped(inputs, beliefs)
    weights, first = (
        (weights @ belongs) / classified.clamp(min=1),
        torch.where(classified > 0, first @ belongs / classified.clamp(min=1), first.mean()),
    )
    moved, biases = _regressed(inputs, targets, masks, weights, first, WORD_RIDGE)
    directions = (moved / spread).T
    return directions, biases - directions @ mean


def fit_things(ret: torch.Tensor, things: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The things' directions (k, d) and biases (k,): a multinomial regression from [Ret] of sketches to what they show.

    ret: (n, d), any scale. things: (n,) int64, numbers from 0 of which each is there.
    """
    inputs, mean, spread = _standardised(ret)
    targets = F.one_hot(things).float()
    count = targets.shape[1]
    none = torch.zeros(len(inputs), 1)
    moved, biases = _regressed(
        inputs, targets, none, torch.zeros(inputs.shape[1], count), torch.zeros(count), THING_RIDGE
    )
    directions = (moved / spread).T
    return directions, biases - directions @ mean


def _standardised(ret: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[Ret] (n, d) normalised, with mean 0 and a spread of about 1; and the mean (d,) and the spread () before that."""
    ret = F.normalize(ret.float(), dim=1)
    mean, spread = ret.mean(dim=0), ret.std(dim=0).mean().clamp(min=1e-6)
    return (ret - mean) / spread, mean, spread


def _mapped(inputs: torch.Tensor, beliefs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (d, k) and biases (k,) of the linear regression from inputs (n, d) to centred log-probabilities."""
    logs = beliefs.clamp(min=1e-12).log()
    logs = logs - logs.mean(dim=1, keepdim=True)
    biases = logs.mean(dim=0)
    covariance = inputs.T @ inputs / len(inputs) + MAP_RIDGE * torch.eye(inputs.shape[1])
    return torch.linalg.solve(covariance, inputs.T @ (logs - biases) / len(inputs)), biases


def _regressed(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    masks: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    ridge: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights (d, w) and biases (w,) that fit targets (n, w), held back from leaving the given ones."""
    moves = torch.zeros_like(weights).requires_grad_()
    shifts = torch.zeros_like(biases).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [moves, shifts], max_iter=STEPS, history_size=8, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = inputs @ (weights + moves) + biases + shifts + masks
        total = -(targets * logits.log_softmax(dim=1)).sum() / len(inputs)
        total = total + ridge * (moves.square().sum() + 0.01 * shifts.square().sum())
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    return (weights + moves).detach(), (biases + shifts).detach()


def fit_guesses(logits: torch.Tensor, things: torch.Tensor) -> tuple[float, float]:
    """The scale, and the logit of none, by which sketches with logits (n, k) are most probably what they are.

    things: (n,) int64, what was drawn; -1 where it is none of them.
    """
    log_scale = torch.zeros(()).requires_grad_()
    none = logits.max(dim=1).values.mean().detach().clone().requires_grad_()
    targets = torch.where(things >= 0, things, logits.shape[1])
    optimiser = torch.optim.LBFGS([log_scale, none], max_iter=GUESS_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        total = F.nll_loss(guess_log_probabilities(logits, log_scale.exp(), none), targets)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    chosen = log_scale.detach().exp().clamp(max=100), none.detach().clamp(-MOST_NONE, MOST_NONE)
    return float(chosen[0]), float(chosen[1])


def _word_of(label: str, book: WordBook) -> int:
    number = book.of_class(label)
    return -1 if number is None else number
