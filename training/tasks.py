"""Chooses the queries and the gallery of every protocol, by the user's protocol, split and data folder.

Of ordinary photos it chooses memorable parts: scenes of several things, and the colour of one thing.
"""

import hashlib
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.errors import ModelError
from sketch_search.training import corpus as files
from sketch_search.training.corpus import WITHOUT_NAMESAKE, Box, Corpus, Picture, Scene, classes_of, rows_by_label

_Large = Literal["fresh", "everything", "everyday"]
Protocol = Literal["category", "zero-shot", "generalised", "cross-data-set", "fine-grained", "within", _Large, "clicks"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
# Protocols of large galleries, for which only the optional data has pictures.
LARGE_PROTOCOLS: tuple[Protocol, ...] = get_args(_Large)
# Protocols of zero-shot retrieval. "zero-shot" has the pictures of "category".
ZERO_SHOT_PROTOCOLS: tuple[Protocol, ...] = ("zero-shot", "generalised", "cross-data-set", "everything")
PARTS = ("val", "unseen", "train")
# Splits of public data sets. The numbers count the seen and the unseen classes.
STANDARD_SPLITS = ("sketchy_104_21", "sketchy_100_25", "tuberlin_220_30", "quickdraw_80_30")
# Share of the photos of each training class that the generalised protocol holds out of training.
HELD_OUT = 0.2
_SPLITS = Path(__file__).parent / "splits"
# The optional data's names of classes that the lists of public data sets name otherwise.
OTHER_NAMES = dict(line.split() for line in (_SPLITS / "other_names.txt").read_text(encoding="utf-8").splitlines())
# What people draw most: the names of Quick Draw's, TU-Berlin's, COCO's and VOC's kinds, but for abstract figures.
MOST_DRAWN = tuple((_SPLITS / "most_drawn.txt").read_text(encoding="utf-8").splitlines())
# Sets with sketches. Only Sketchy has photos of its own; the other two share the photos of all other sets.
SKETCH_SETS = ("sketchy", "tuberlin", "quickdraw")
_WITH_PHOTOS = "sketchy"
_ALL_TRAINED = "train+val+thin"
# Names of groups of queries.
TRAINED, UNSEEN, SUBSET = "trained", "unseen", "without namesake"
# The ranges of sizes for which figures are given. A size is the share of an ordinary photo that the thing covers.
SIZES = (("below 5%", 0.0, 0.05), ("5 to 20%", 0.05, 0.2), ("above 20%", 0.2, 1.01))
RememberedProtocol = Literal["scenes", "colours"]
REMEMBERED_PROTOCOLS: tuple[RememberedProtocol, ...] = get_args(RememberedProtocol)
#: The half of the photos on which choices are made, those of even numbers by file name, and the one for report.
HALVES = ("val", "unseen")
# Smaller things are not remembered: the share of the photo that the box of a thing covers.
_LEAST_SHARE = 0.04
_MOST_THINGS = 4
# The files of further photos.
_PHOTOS = (".jpg", ".jpeg", ".png")
# Each photo is remembered by so many choices of sketches, because another sketch can move a photo by many places.
_DRAWS = 4


@dataclass(frozen=True)
class Task:
    """The pictures of one evaluation.

    groups: classes of named queries, of TRAINED and UNSEEN also the harmonic mean. sizes: (q, g) bool, photos that
    are relevant in a size. each_class: whether each class is a group. plain: whether textbook figures are added.
    """

    corpus: Corpus
    protocol: Protocol = "zero-shot"
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sizes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    each_class: bool = False
    plain: bool = False
    about: tuple[str, ...] = ()

    def subsample(self, sketches: int, photos: int) -> "Task":
        """Takes every ``sketches``-th sketch and every ``photos``-th photo only."""
        sizes = {name: right[::sketches, ::photos] for name, right in self.sizes.items()}
        return replace(self, corpus=self.corpus.subsample(sketches, photos), sizes=sizes)

    def by_class(self) -> "Task":
        """Makes each class a group of its own."""
        corpus = answerable(self.corpus)
        groups = {label: frozenset({label}) for label in sorted({sketch.label for sketch in corpus.sketches})}
        return replace(self, corpus=corpus, groups=groups, each_class=True)


def read_task(
    protocol: Protocol = "zero-shot", split: str | None = None, trained_on: str | None = None, data: Path | None = None
) -> Task:
    """Reads the pictures of one protocol. Raises ModelError for contradictions and missing data.

    split: one of PARTS or STANDARD_SPLITS, or "all"; None for "val", or for all of ``data``.
    trained_on: for what the figures are valid: of SKETCH_SETS, a standard split, or parts joined by "+".
    data: a folder of class folders; None for the data that SKETCH_SEARCH_DATA names.
    """
    if protocol == "clicks":
        return replace(read_task("fine-grained", split, trained_on, data), protocol=protocol)
    if protocol in LARGE_PROTOCOLS:
        if data is not None:
            raise ModelError(f"--protocol {protocol} goes without --data")
        return _read_large(protocol, split, trained_on)
    parted = protocol in ("generalised", "fine-grained") and data is None
    if trained_on is not None and protocol != "cross-data-set" and not parted:
        raise ModelError(
            "--trained-on is for --protocol cross-data-set, and without --data generalised and fine-grained"
        )
    if data is not None:
        return _read_folders(protocol, split, trained_on, data)
    if protocol == "fine-grained" and trained_on is not None:
        if split is not None:
            raise ModelError("fresh sketches of trained classes have no split; leave out --split or --trained-on")
        data_set = files.read_data(folder := files.data_folder())
        trained = data_set.of(classes_of(folder, trained_on.split("+"), data_set))
        queries = files.split_fresh(trained)[1].sketches
        about = (f"fresh sketches of {trained_on}; most photos of the gallery are no fresh ones",)
        return Task(fine_grained(Corpus(queries, trained.photos)), protocol, about=about)
    return _read_optional(protocol, split or "val", trained_on)


def _read_optional(protocol: Protocol, split: str, trained_on: str | None) -> Task:
    everything = files.read_data(folder := files.data_folder())
    groups, about = {}, []
    if split == "all":
        corpus = answerable(everything)
    elif split in PARTS:
        corpus = everything.of(files.read_split(folder, split))
    else:
        corpus, sentence = choose_standard_split(everything, split, "unseen")
        about.append(sentence)
    if protocol == "fine-grained":
        return Task(fine_grained(Corpus(corpus.sketches, corpus.photos)), protocol, about=tuple(about))
    if split == "unseen":
        groups = {SUBSET: frozenset(WITHOUT_NAMESAKE)}
        about.append(f"{SUBSET} in ImageNet-1k: {', '.join(WITHOUT_NAMESAKE)}")
    whole = corpus.protocol()
    if protocol == "generalised":
        parts = (trained_on or "train").split("+")
        seen = classes_of(folder, parts, everything)
        if seen & set(corpus.labels):
            raise ModelError(f"{split} has classes of {trained_on or 'train'}; name another --split")
        alone = len(whole.photos)
        whole = choose_generalised(everything, seen, corpus.labels).protocol()
        about.append(_held_out(len(whole.photos) - alone, parts))
    elif protocol == "cross-data-set":
        trained = trained_on or "sketchy"
        crossed = split_by_data_set(corpus, trained)[1].protocol()
        whole = answerable(crossed)
        about.append(f"valid for a checkpoint that was trained on {trained} alone")
        if lost := len({p.label for p in crossed.sketches} - {p.label for p in whole.sketches}):
            about.append(f"{lost} classes are left out, of which the gallery has no photo")
    return Task(whole, protocol, groups, about=tuple(about))


def _read_folders(protocol: Protocol, split: str | None, trained_on: str | None, data: Path) -> Task:
    corpus = files.read_class_folders(data)
    if protocol != "generalised" and split in STANDARD_SPLITS:
        corpus = choose_classes(corpus, standard_split(split)[1])
    if protocol == "cross-data-set":
        if trained_on not in STANDARD_SPLITS:
            remedy = f"name their split with --trained-on, one of {', '.join(STANDARD_SPLITS)}"
            raise ModelError(f"across data sets a folder is measured without the classes trained on: {remedy}")
        corpus = choose_classes(corpus, standard_split(trained_on)[0], exclude=True)
        return Task(corpus, protocol, about=(f"classes outside the training classes of {trained_on}",))
    if protocol == "generalised":
        if split in STANDARD_SPLITS:
            seen, unseen = (choose_classes(corpus, labels).labels for labels in standard_split(split))
        else:
            unseen = corpus.labels[::5]
            seen = tuple(set(corpus.labels) - set(unseen))
        whole = choose_generalised(corpus, seen, unseen)
        return Task(whole, protocol, about=(_held_out(len(whole.photos) - len(corpus.of(unseen).photos), ["seen"]),))
    halves = {half: {p.label for p in pictures} for half, pictures in vars(corpus).items()}
    alone = {half: sorted(labels - corpus.shared) for half, labels in halves.items()}
    about = tuple(f"classes with {half} alone ({len(c)}): {', '.join(c)}" for half, c in alone.items() if c)
    return Task(files.with_pairs(corpus) if protocol == "fine-grained" else corpus, protocol, about=about)


def _held_out(count: int, parts: list[str]) -> str:
    return (
        f"the gallery holds {count} photos, {HELD_OUT:.0%} of each {' and '.join(parts)} class; valid for "
        "a checkpoint that was trained without them"
    )


def _read_large(protocol: Protocol, split: str | None, trained_on: str | None) -> Task:
    """Reads fresh sketches against fresh photos, against ordinary photos, or with new classes against all of these."""
    folder = files.data_folder()
    if split is not None and protocol != "everything":
        raise ModelError(f"--protocol {protocol} has no split; leave out --split")
    data = files.read_both(folder)
    if protocol == "everyday":
        if trained_on is not None:
            raise ModelError("ordinary photos do not depend on what was trained on; leave out --trained-on")
        scenes = files.read_scenes(folder)
        classes = {label for scene in scenes for label in scene.shares}
        photos = tuple(scene.picture for scene in scenes)
        corpus = answerable(Corpus(files.split_fresh(data.of(classes))[1].sketches, photos))
        shares = np.array([[scene.shares.get(s.label, 0.0) for scene in scenes] for s in corpus.sketches])
        sizes = {name: (shares > 0) & (shares >= low) & (shares < high) for name, low, high in SIZES}
        return Task(corpus, protocol, _groups(corpus, {label: {label} for label in sorted(classes)}), sizes=sizes)
    split = split or "val"
    trained_on = trained_on or ("train" if (protocol, split) == ("everything", "val") else _ALL_TRAINED)
    trained = classes_of(folder, trained_on.split("+"), files.read_data(folder))
    fresh = files.split_fresh(data.of(trained))[1]
    if protocol == "fresh":
        return Task(answerable(fresh), protocol)
    unseen = set(files.read_split(folder, split))
    if both := sorted(trained & unseen):
        raise ModelError(f"{split} has classes of {trained_on} ({both[0]}, ...); name another --split or --trained-on")
    new, ordinary = data.of(unseen).protocol(), tuple(scene.picture for scene in files.read_scenes(folder))
    corpus = answerable(Corpus(fresh.sketches + new.sketches, fresh.photos + new.photos + ordinary))
    return Task(corpus, protocol, _groups(corpus, {TRAINED: trained, UNSEEN: unseen}))


def _groups(corpus: Corpus, labels_of: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    queried = {picture.label for picture in corpus.sketches}
    groups = {name: frozenset(labels) & queried for name, labels in labels_of.items()}
    return {name: labels for name, labels in groups.items() if labels}


def hold_out(corpus: Corpus) -> tuple[Corpus, tuple[Picture, ...]]:
    """Splits off a fifth of the photos of each class, from every set, by the names alone: the rest, and them."""
    named = {photo: (photo.label, photo.path.stem.lower()) for photo in corpus.photos}
    names = sorted({*named.values()}, key=lambda name: hashlib.sha256("/".join(name).encode()).digest())
    of_class = rows_by_label(label for label, _ in names).values()
    held = {names[row] for rows in of_class for row in rows[: round(HELD_OUT * len(rows))]}
    kept = Corpus(corpus.sketches, tuple(photo for photo in corpus.photos if named[photo] not in held))
    return kept, tuple(photo for photo in corpus.photos if named[photo] in held)


def choose_generalised(corpus: Corpus, seen: Collection[str], unseen: Collection[str]) -> Corpus:
    """Chooses queries of the unseen classes. The gallery has their photos and the held-out ones of the seen classes."""
    of_unseen = corpus.of(unseen)
    return Corpus(of_unseen.sketches, of_unseen.photos + hold_out(corpus.of(seen))[1])


def split_by_data_set(corpus: Corpus, source: str) -> tuple[Corpus, Corpus]:
    """Splits off one data set with its photos: Sketchy has its own, the other sets share all others."""
    if source not in SKETCH_SETS:
        raise ModelError(f"there is no data set {source!r} with sketches; choose one of {', '.join(SKETCH_SETS)}")

    def goes_with(photo: Picture) -> bool:
        return (photo.source == _WITH_PHOTOS) == (source == _WITH_PHOTOS)

    of_set = corpus.kept(lambda sketch: sketch.source == source, goes_with)
    return of_set, corpus.kept(lambda sketch: sketch.source != source, lambda photo: not goes_with(photo))


def fine_grained(corpus: Corpus) -> Corpus:
    """Keeps the first sketch by file name that was drawn from each photo, and all photos."""
    paired = files.with_pairs(corpus)
    first: dict[int, Picture] = {}
    for sketch, target in zip(paired.sketches, files.find_drawn_photos(paired).tolist(), strict=True):
        first.setdefault(target, sketch)
    return Corpus(tuple(first.values()), corpus.photos)


def answerable(corpus: Corpus) -> Corpus:
    """Removes the sketches whose class has no photo."""
    there = {label for p in corpus.photos for label in (p.label, *p.also)}
    return corpus.kept(lambda sketch: sketch.label in there, lambda photo: True)


def standard_split(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the seen and the unseen classes of one of STANDARD_SPLITS. Raises ModelError for another name."""
    if name not in STANDARD_SPLITS:
        raise ModelError(f"there is no standard split {name!r}; choose one of {', '.join(STANDARD_SPLITS)}")

    def classes(part: str) -> tuple[str, ...]:
        lines = (_SPLITS / f"{name}.{part}.txt").read_text(encoding="utf-8").splitlines()
        return tuple(line for line in lines if line and not line.startswith("#"))

    return classes("seen"), classes("unseen")


def choose_standard_split(corpus: Corpus, name: str, part: Literal["seen", "unseen"]) -> tuple[Corpus, str]:
    """Chooses a standard split's seen or unseen classes, and says which are missing. Raises ModelError."""
    names = standard_split(name)[part == "unseen"]
    chosen = choose_classes(corpus, names)
    source = name.partition("_")[0]
    of_set = chosen.kept(lambda sketch: sketch.source == source, lambda photo: True)
    seen_part = of_set.of(of_set.shared)
    keys = set(map(class_key, seen_part.labels))
    lacking = [label for label in names if class_key(label) not in keys]
    if not seen_part.labels:
        raise ModelError(f"this data has no sketches of {source} with photos of the {part} classes of {name}")
    sentence = f"{len(names) - len(lacking)} of the {len(names)} {part} classes of {name}"
    return seen_part, sentence + (f"; this data lacks {', '.join(lacking)}" if lacking else "")


def class_key(name: str) -> str:
    """Unifies the names of a class: "hot-air balloon" and "Hot_air_balloon" become "hot_air_balloon"."""
    key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return OTHER_NAMES.get(key, key)


def choose_classes(corpus: Corpus, names: Collection[str], *, exclude: bool = False) -> Corpus:
    """Keeps only the classes of these names in any spelling, or all but them. Raises ModelError if nothing is left."""
    keys = {class_key(name) for name in names}
    labels = [label for label in corpus.labels if (class_key(label) in keys) != exclude]
    if not labels:
        raise ModelError("none of the classes asked for is in the data; check the spelling of its class names")
    return corpus.of(labels)


def some_of_each(pictures: Sequence[Picture], most: int) -> tuple[Picture, ...]:
    """Chooses ``most`` pictures at most of each class, evenly spaced over their order, which they keep."""
    of_each = rows_by_label(picture.label for picture in pictures).values()
    return tuple(pictures[row] for row in sorted(row for rows in of_each for row in rows[:: -(-len(rows) // most)]))


def write_folders(task: Task, folder: Path) -> None:
    """Copies to photo/<class> or photo/other, and <group>/sketch/<class>. Raises ModelError unless empty."""
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"{folder} has files already; name an empty or a new folder")
    labels_of = [(photo, {photo.label, *photo.also} - {""} or {"other"}) for photo in task.corpus.photos]
    copies = [(photo, folder / "photo" / label) for photo, labels in labels_of for label in labels]
    for group, labels in task.groups.items():
        copies += [(s, folder / group / "sketch" / s.label) for s in task.corpus.sketches if s.label in labels]
    for picture, place in copies:
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture.path, place / f"{picture.source}-{picture.path.name}")


@dataclass(frozen=True)
class Drawn:
    """A thing of a photo. sketch: another one of its class. box: where the thing is in the photo."""

    sketch: Picture
    box: Box

    @property
    def label(self) -> str:
        return self.sketch.label


@dataclass(frozen=True)
class Remembered:
    """A photo as it is remembered. photo: its number in the gallery. things: at least one."""

    photo: int
    things: tuple[Drawn, ...]


@dataclass(frozen=True)
class RememberedTask:
    """Remembered photos, once for each of the ``draws``, and the gallery.

    kinds: what each photo of the gallery shows. about: sentences for the figures.
    """

    protocol: RememberedProtocol
    queries: tuple[Remembered, ...]
    photos: tuple[Picture, ...]
    kinds: tuple[frozenset[str], ...]
    draws: int
    about: tuple[str, ...]

    @property
    def corpus(self) -> Corpus:
        """The sketches of all queries, and the gallery."""
        return Corpus(tuple(thing.sketch for query in self.queries for thing in query.things), self.photos)


def read_remembered(protocol: RememberedProtocol, half: str = HALVES[0], among: Sequence[Path] = ()) -> RememberedTask:
    """Reads remembered photos of one of HALVES, each drawn four times; all photos are the gallery.

    among: folders, or archives of the data, with more photos for it, without those named as ordinary photos are.

    Scenes have two to four things of two kinds at least; for colours each is remembered by itself. Raises ModelError.
    """
    if half not in HALVES:
        raise ModelError(f"--protocol {protocol} has the halves {' and '.join(HALVES)}, not {half}")
    scenes = files.read_scenes(folder := files.data_folder())
    drawn = files.read_both(folder).of({label for scene in scenes for label in scene.shares})
    sketches = files.split_fresh(drawn)[1].sketches
    draws = [choose_remembered(scenes, sketches, protocol, HALVES.index(half), seed) for seed in range(_DRAWS)]
    chosen = tuple(chain.from_iterable(draws))
    if not chosen:
        raise ModelError(f"no ordinary photo has things for --protocol {protocol} of which there are sketches")
    said = f"{half}: every second photo; things whose boxes cover at least {_LEAST_SHARE:.0%} of it"
    about: tuple[str, ...] = (f"{said}; the means of {_DRAWS} choices of sketches, seeds 0 to {_DRAWS - 1}",)
    photos, kinds = [scene.picture for scene in scenes], [frozenset(scene.shares) for scene in scenes]
    names = {photo.path.name for photo in photos}
    for more in among:
        folder = files.unpack(more) if more.name.endswith(".tar.gz") else more
        new = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PHOTOS and path.name not in names)
        photos += (Picture(path, "", more.name) for path in new)
        kinds += [frozenset()] * len(new)
    if among:
        about = (*about, f"among {len(photos):,} photos")
    return RememberedTask(protocol, chosen, tuple(photos), tuple(kinds), _DRAWS, about)


def choose_remembered(
    scenes: Sequence[Scene], sketches: Sequence[Picture], protocol: RememberedProtocol, half: int, seed: int = 0
) -> tuple[Remembered, ...]:
    """Chooses a sketch of each thing of every second photo, from the photo of number ``half`` on."""
    rows, chance = rows_by_label(sketch.label for sketch in sketches), np.random.default_rng(seed)
    queries = list[Remembered]()
    for number in range(half, len(scenes), 2):
        sized = [(label, box, (box[2] - box[0]) * (box[3] - box[1])) for label, box in scenes[number].boxes]
        large = [(label, box) for label, box, share in sized if label in rows and share >= _LEAST_SHARE]
        things = tuple(Drawn(sketches[int(chance.choice(rows[label]))], box) for label, box in large)
        if protocol == "colours":
            queries += [Remembered(number, (thing,)) for thing in things]
        elif len(things) <= _MOST_THINGS and len({label for label, _ in large}) > 1:
            queries.append(Remembered(number, things))
    return tuple(queries)
