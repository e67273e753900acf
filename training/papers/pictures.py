"""Chooses pictures and word vectors of a training, keeps pixels in memory, and makes the variations of a step."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm import tqdm

from sketch_search.model.engine import Modality, NetworkConfig, SeenClasses
from sketch_search.model.errors import ImageError, ModelError
from sketch_search.model.images import Preprocessing
from sketch_search.model.torch import VitLayout, load_vit, multiplies_bf16
from sketch_search.model.torch.checkpoint import replacing
from sketch_search.model.words import Names, spelling
from sketch_search.training import corpus as files
from sketch_search.training.papers.recipe import Recipe
from sketch_search.training.tasks import STANDARD_SPLITS, choose_standard_split, hold_out, split_by_data_set

# A file with vectors of CLIP's text tower for 2,301 names. It is called a stand-in because it is no word2vec.
STAND_IN = "class_words_clip_text.npy"
# The most frequent words of a word2vec file that are read. All of the large public files' would not fit into memory.
MOST_WORDS = 500_000


@dataclass(frozen=True)
class WordVectors:
    """Words of a file, in its order, with a vector each, (n, d) float32. name: of the file, for messages."""

    name: str
    words: tuple[str, ...]
    vectors: torch.Tensor

    def things(self) -> list[list[int]]:
        """Finds the rows of each thing: several names of one thing have equal vectors in the stand-in."""
        return list(files.rows_by_label(row.tobytes() for row in self.vectors.numpy()).values())

    def synonyms(self) -> list[Names]:
        """Returns the names of each thing that has several."""
        return [tuple(self.words[row].replace("_", " ") for row in rows) for rows in self.things() if len(rows) > 1]


def read_word_vectors(path: Path | None) -> WordVectors:
    """Reads a word2vec file, a .npy with a .txt of words, or, for None, the stand-in. Raises ModelError."""
    if path is None:
        try:
            folder = files.data_folder() / "data"
        except ModelError as error:
            raise ModelError(
                "this recipe needs word vectors of the classes: name a file with --words, or set SKETCH_SEARCH_DATA to "
                "the folder of the optional data, which has some"
            ) from error
        return _of_numpy(folder / STAND_IN, folder / "class_words.txt", f"{STAND_IN}, a stand-in for word2vec")
    if not path.is_file():
        raise ModelError(f"there is no file of word vectors at {path}")
    if path.suffix == ".npy":
        return _of_numpy(path, path.with_suffix(".txt"), path.name)
    return _of_word2vec(path)


def _of_numpy(vectors: Path, words: Path, name: str) -> WordVectors:
    try:
        names = tuple(words.read_text(encoding="utf-8").split("\n"))
        table = np.load(vectors, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"the word vectors {vectors} with their words {words.name} cannot be read: {error}") from error
    names = names[:-1] if names[-1] == "" else names
    if table.ndim != 2 or table.shape[0] != len(names):
        raise ModelError(f"{vectors} must have a row for each of the {len(names)} words in {words.name}")
    return WordVectors(name, names, torch.from_numpy(table.astype(np.float32)))


def _of_word2vec(path: Path) -> WordVectors:
    try:
        from gensim.models import KeyedVectors
    except ImportError as error:
        raise ModelError("word2vec files are read by gensim: pip install 'sketch-search[words]'") from error
    binary = ".bin" in path.suffixes
    try:
        if path.suffix == ".kv":
            table = KeyedVectors.load(str(path))
        else:
            table = KeyedVectors.load_word2vec_format(str(path), binary=binary, limit=MOST_WORDS)
    # For a file of another kind, gensim's error depends on the first bytes.
    except Exception as error:
        raise ModelError(f"{path} is not a word2vec file that gensim can read: {error}") from error
    return WordVectors(path.name, tuple(table.index_to_key), torch.from_numpy(np.array(table.vectors, np.float32)))


def class_rows(
    words: WordVectors, labels: Sequence[str], names: Mapping[str, Sequence[str]], *, lacking: bool = False
) -> dict[str, list[int]]:
    """Finds the rows of each class's words: of ``names``, its name or its parts. Raises ModelError unless lacking."""
    places: dict[str, int] = {}
    for number, word in enumerate(words.words):
        places.setdefault(spelling(word), number)
    rows_of = dict[str, list[int]]()
    for label in labels:
        spellings = [spelling(name) for name in names.get(label, (label,))]
        if label not in names and spellings[0] not in places:
            spellings = spellings[0].split()
        rows_of[label] = [places[word] for word in spellings] if all(word in places for word in spellings) else []
    without = [label for label, rows in rows_of.items() if not rows]
    if without and not lacking:
        raise ModelError(
            f"the word vectors {words.name} lack {', '.join(without)}; name other words for them in the recipe's "
            f'table [names], such as {json.dumps(without[0], ensure_ascii=False)} = ["thing"]'
        )
    return rows_of


def class_vectors(words: WordVectors, rows: Mapping[str, Sequence[int]]) -> torch.Tensor:
    """Computes the mean direction of each class's words, (c, d) float32. rows: from ``class_rows``."""
    return torch.stack([F.normalize(words.vectors[list(numbers)], dim=1).mean(dim=0) for numbers in rows.values()])


# One of this many class folders is for validation.
VALIDATION_EVERY = 5
FEWEST_CLASSES = 2
# Training pictures are stored at this side, in pixels, and varied at it.
SIDE = 224
# The number of photos that a pretrained ViT encodes at once.
_PHOTOS_AT_ONCE = 32


@dataclass(frozen=True)
class TrainingSet:
    """Training pictures as pixels, with the rows of each class; classes with both sketches and photos come first.

    sketches: (n, 1, 224, 224) uint8; photos: (m, 3, 224, 224) uint8. further_rows: of classes without photos.
    drawn_from: (n,) the row of each sketch's photo, -1 for none. sources: (n,) numbers of sketches' data sets.
    shown: the label of each photo. lines_alone: (c,) bool. key, photos_key: digests of pictures and labels.
    """

    sketches: torch.Tensor
    photos: torch.Tensor
    sketch_rows: tuple[torch.Tensor, ...]
    photo_rows: tuple[torch.Tensor, ...]
    drawn_from: torch.Tensor
    sources: torch.Tensor
    further_rows: tuple[torch.Tensor, ...]
    classes: tuple[str, ...]
    shown: tuple[str, ...]
    lines_alone: torch.Tensor
    key: str
    photos_key: str

    def of(self, modality: Modality) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Returns the pixels of sketches or of photos, and the rows of each class that has both."""
        return (self.sketches, self.sketch_rows) if modality == "sketch" else (self.photos, self.photo_rows)


@dataclass(frozen=True)
class TrainingCorpora:
    """The pictures of a training, and ``further`` ones; validation: None if its classes are trained on."""

    training: files.Corpus
    validation: files.Corpus | None
    further: files.Corpus = field(default_factory=files.Corpus)

    @property
    def seen(self) -> SeenClasses:
        """The classes that a training on these pictures has seen. Of ImageNet's photos only the looks are used."""
        pictures = (*self.training.sketches, *self.training.photos, *self.further.sketches, *self.further.photos)
        trained = frozenset(picture.label for picture in pictures if picture.source != files.IMAGENET_PART)
        return SeenClasses(trained, frozenset(self.validation.labels if self.validation else ()))


def training_corpora(folder: Path | None, recipe: Recipe) -> TrainingCorpora:
    """Chooses training and validation pictures, none of them fresh or too near to what is measured.

    folder: of which every fifth class is held out, or of one class of instances a fifth of the photos, unless the
    recipe has "val"; None for the data that SKETCH_SEARCH_DATA names. Raises ModelError if data is missing.
    """
    if folder is not None:
        # A folder counts as one set.
        return _all_but_held(files.read_class_folders(folder), str(folder), replace(recipe, data_set=None))
    data = files.data_folder()
    first = files.read_data(data)
    if standard := [part for part in recipe.split if part in STANDARD_SPLITS]:
        if len(recipe.split) > 1:
            raise ModelError(f"a recipe trains on {standard[0]} alone, not on {', '.join(recipe.split)}")
        seen = choose_standard_split(files.split_fresh(first)[0], standard[0], "seen")[0]
        alone = _all_but_held(seen, standard[0], recipe)
        return replace(alone, validation=alone.validation and alone.validation.protocol())
    classes, everything, lines = files.classes_of(data, recipe.split, first), first, tuple[files.Picture, ...]()
    if {"more", "ship", files.IMAGENET_PART, files.DRAWINGS_PART, files.PACS_PART} & set(recipe.split):
        more = files.read_more(data)
        sketches = first.sketches + more.sketches
        if recipe.further:
            sketches += files.read_drawings(data)
        if files.PACS_PART in recipe.split:
            sketches += files.read_pacs(data)
        everything = files.Corpus(sketches, first.photos + more.photos)
        near = files.too_near(data, recipe.split)
        classes -= near
        if files.DRAWINGS_PART in recipe.split:
            lines = tuple(p for p in files.read_line_drawings(data, recipe.split) if p.label not in near)
    chosen = everything.of(classes)
    seen = files.split_fresh(files.Corpus(chosen.sketches + lines, chosen.photos))[0]
    allowed = _allowed(seen, recipe)
    training = allowed.of(allowed.shared)
    validation = None if "val" in recipe.split else first.of(files.read_split(data, "val")).protocol()
    if not recipe.further:
        return TrainingCorpora(training, validation)
    trained = set(training.labels)
    further = allowed.kept(lambda picture: picture.label not in trained)
    looks = files.split_fresh(files.read_imagenet(data))[0].photos if files.IMAGENET_PART in recipe.split else ()
    return TrainingCorpora(training, validation, files.Corpus(further.sketches, further.photos + looks))


def _all_but_held(corpus: files.Corpus, name: str, recipe: Recipe) -> TrainingCorpora:
    if len(corpus.labels) == recipe.fewest_classes == 1:
        # No other class is left for validation: a fifth of the photos is, with the sketches that were drawn from them.
        kept, out = hold_out(corpus)
        validation = files.with_pairs(files.Corpus(corpus.sketches, out))
        drawn = set(validation.sketches)
        rest = kept.kept(lambda sketch: sketch not in drawn, lambda photo: True)
        return TrainingCorpora(_allowed(rest, recipe), validation)
    held = () if "val" in recipe.split else corpus.labels[::VALIDATION_EVERY]
    trained = [label for label in corpus.labels if label not in held]
    if len(trained) < FEWEST_CLASSES:
        raise ModelError(
            f"{name} has too few classes to train on ({', '.join(trained) or 'none'}), beside {len(held)} for "
            f"validation; at least {FEWEST_CLASSES} are needed, because a network learns by telling them apart: "
            'add class folders, or name a recipe that trains on all of them (split = ["train", "val"])'
        )
    return TrainingCorpora(_allowed(corpus.of(trained), recipe), corpus.of(held) if held else None)


def _allowed(corpus: files.Corpus, recipe: Recipe) -> files.Corpus:
    if recipe.hold_out:
        corpus = hold_out(corpus)[0]
    return corpus if not recipe.data_set else split_by_data_set(corpus, recipe.data_set)[0]


def training_set(
    corpus: files.Corpus, further: files.Corpus | None = None, *, fewest: int = FEWEST_CLASSES
) -> TrainingSet:
    """Prepares pixels. Raises ModelError for fewer classes than ``fewest``, or without sketches or photos."""
    labels, further = corpus.labels, further or files.Corpus()
    if len(labels) < fewest:
        raise ModelError(
            f"the training pictures are of {len(labels)} class only; at least {FEWEST_CLASSES} are needed, because the "
            "losses push different classes apart: add class folders"
        )
    rows = []
    for what, pictures in (("sketches", corpus.sketches), ("photos", corpus.photos)):
        rows_of = files.rows_by_label(picture.label for picture in pictures)
        if lacking := [label for label in labels if label not in rows_of]:
            remedy = "every class that is trained on needs sketches and photos, in folders of the same name"
            raise ModelError(f"there are no {what} of {', '.join(lacking)}; {remedy}")
        rows.append(tuple(torch.tensor(rows_of[label]) for label in labels))
    look, drawn_from = Preprocessing(), torch.from_numpy(files.find_drawn_photos(corpus))
    sketches, photos = corpus.sketches + further.sketches, corpus.photos + further.photos
    beside = files.rows_by_label(sketch.label for sketch in further.sketches)
    classes, photos_key = (*labels, *beside), pictures_key(photos, "photo", look)
    otherwise = {sketch.label for sketch in sketches if sketch.source != files.DRAWINGS_PART}
    return TrainingSet(
        sketches=prepare_pixels(sketches, "sketch", look),
        photos=prepare_pixels(photos, "photo", look),
        sketch_rows=rows[0],
        photo_rows=rows[1],
        drawn_from=torch.cat([drawn_from, torch.full((len(further.sketches),), -1)]),
        sources=torch.from_numpy(np.unique([sketch.source for sketch in sketches], return_inverse=True)[1]),
        further_rows=tuple(len(corpus.sketches) + torch.tensor(rows_of) for rows_of in beside.values()),
        classes=classes,
        shown=tuple(photo.label for photo in photos),
        lines_alone=torch.tensor([label not in otherwise for label in classes]),
        key=pictures_key(sketches, "sketch", look) + photos_key,
        photos_key=photos_key,
    )


def balance(rows: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Repeats rows (n,) of one class until each of its sources has nearly as many; sources: (m,), of all rows."""
    parts = [rows[sources[rows] == source] for source in sorted(set(sources[rows].tolist()))]
    most = max(map(len, parts))
    return torch.cat([part.repeat(most // len(part)) for part in parts])


def keep_tensors(path: Path, make: Callable[[], Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Reads tensors from a file by their names. If there is no file, makes the tensors and writes it, atomically."""
    if path.exists():
        return load_file(path)
    tensors = {name: tensor.contiguous() for name, tensor in make().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_file(tensors, partial)
    return tensors


def prepare_pixels(pictures: Sequence[files.Picture], modality: Modality, preprocessing: Preprocessing) -> torch.Tensor:
    """Prepares pixels (n, c, H, W) uint8, kept in the cache, memory-mapped; c is 1 for sketches, 3 for photos."""
    shape = (len(pictures), 1 if modality == "sketch" else 3, preprocessing.image_size, preprocessing.image_size)
    if not pictures:
        return torch.empty(shape, dtype=torch.uint8)
    cache = files.cache_folder() / "pixels"
    key = pictures_key(pictures, modality, preprocessing)
    target = cache / f"{modality}-{shape[1]}-{preprocessing.image_size}-{key[:16]}.npy"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        bar = tqdm(pictures, desc=f"preparing each {modality}", unit="image", mininterval=1, disable=None)
        with replacing(target) as partial:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            for row, picture in enumerate(bar):
                try:
                    pixels = preprocessing.pixels(preprocessing.open(picture.path, modality), modality)
                except ImageError as error:
                    raise ModelError(f"{picture.path}: {error}; remove it or repair it") from error
                array[row] = pixels.transpose(2, 0, 1)[: shape[1]]
            array.flush()
            del array
    return torch.from_numpy(np.load(target, mmap_mode="c"))


def pictures_key(pictures: Sequence[files.Picture], modality: Modality, preprocessing: Preprocessing) -> str:
    key = hashlib.sha256(preprocessing.fingerprint(modality).encode())
    for picture in pictures:
        stat = picture.path.stat()
        key.update(f"{picture.label}:{picture.path.absolute()}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return key.hexdigest()


def normalize(pictures: torch.Tensor, look: NetworkConfig | Preprocessing) -> torch.Tensor:
    """Scales and normalises pictures (b, c, H, W), uint8 or in [0, 1], for a network: (b, 3, side, side) float32."""
    if pictures.dtype == torch.uint8:
        pictures = pictures.float() / 255
    side = look.image_size
    if pictures.shape[-1] != side:
        pictures = F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (look.mean, look.std))
    return (pictures.expand(-1, 3, -1, -1) - mean) / std


@torch.no_grad()
def class_tokens(
    layout: VitLayout, weights: dict[str, torch.Tensor], pixels: torch.Tensor, look: NetworkConfig | Preprocessing
) -> torch.Tensor:
    """Computes the class token that a pretrained ViT gives to each photo (n, 3, H, W) uint8: (n, d) float32."""
    vit = layout.build(look.image_size)
    load_vit(vit, weights)
    dtype = torch.bfloat16 if multiplies_bf16() else torch.float32
    vit.eval().to(dtype)
    batches = tqdm(torch.split(pixels, _PHOTOS_AT_ONCE), desc="asking the pretrained ViT", unit="batch", disable=None)
    return torch.cat([vit(normalize(part, look).to(dtype)).float() for part in batches])


def class_batch(
    data: TrainingSet, size: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws classes (b,), and a sketch (b, 1, H, W) and a photo (b, 3, H, W) of each; all before any a second time."""
    classes = len(data.photo_rows)
    rounds = [torch.randperm(classes, generator=generator) for _ in range(-(-size // classes))]
    labels = torch.cat(rounds)[:size]
    sketches, photos = (draw_of_each(rows, labels, generator) for rows in (data.sketch_rows, data.photo_rows))
    return labels, data.sketches[sketches], data.photos[photos]


def draw_of_each(rows: Sequence[torch.Tensor], labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draws one of the rows of each class that ``labels`` (b,) names -> (b,)."""
    return torch.stack([draw_some(rows[label], 1, generator)[0] for label in labels.tolist()])


def draw_some(rows: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draws some of the rows (n,), with repeats -> (count,)."""
    return rows[torch.randint(len(rows), (count,), generator=generator)]


def find_pairs(drawn_from: torch.Tensor, photos: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """Finds those of the photos that a sketch was drawn from, each with the rows of its sketches."""
    pairs = ((photo, torch.nonzero(drawn_from == photo).flatten()) for photo in photos.tolist())
    return [(photo, sketches) for photo, sketches in pairs if len(sketches)]


class Augmentation:
    """Draws variations of ink (b, 1, H, W) in [0, 1], 1 where the pen was, reproducibly from a seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def sketches(self, ink: torch.Tensor, *, posed: bool = False) -> torch.Tensor:
        """Varies pose, pen and parts of sketches. posed: hardly turns and never mirrors, to stay like the photo."""
        ink = self._pen(ink)
        grid = self._affine(len(ink), posed)
        bends = 0.05 * torch.randn(len(ink), 2, 5, 5, generator=self.generator)
        bends = F.interpolate(bends, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
        grid = grid + bends.permute(0, 2, 3, 1)
        return self._erase(F.grid_sample(ink, grid, padding_mode="zeros", align_corners=False))

    def _pen(self, ink: torch.Tensor) -> torch.Tensor:
        choice = torch.randint(0, 4, (len(ink), 1, 1, 1), generator=self.generator)
        thick = F.max_pool2d(ink, 3, stride=1, padding=1)
        soft = gaussian_blur(ink, [5, 5], [0.8, 0.8])
        soft = soft / soft.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-3)
        ink = torch.where(choice == 0, thick, torch.where(choice == 1, soft, ink))
        return ink * self._uniform(len(ink), 0.7, 1.0).view(-1, 1, 1, 1)

    def _erase(self, ink: torch.Tensor) -> torch.Tensor:
        b, _, h, w = ink.shape
        centre = torch.rand(b, 2, 1, generator=self.generator)
        half = self._uniform(b, 0.05, 0.18).view(b, 1)
        rows = ((torch.arange(h) / h)[None] - centre[:, 0]).abs() < half
        columns = ((torch.arange(w) / w)[None] - centre[:, 1]).abs() < half
        chosen = self._uniform(b, 0, 1).view(b, 1, 1) < 0.3
        hole = rows[:, :, None] & columns[:, None, :] & chosen
        return ink.masked_fill(hole[:, None], 0.0)

    def _affine(self, b: int, posed: bool) -> torch.Tensor:
        """Draws a sampling grid (b, SIDE, SIDE, 2)."""
        turned, leaning, least, most, mirrored = (8, 0.06, 0.9, 1.12, 0.0) if posed else (15, 0.15, 0.85, 1.2, 0.5)
        angle = self._uniform(b, -turned, turned) * math.pi / 180
        zoom = self._uniform(b, least, most)
        mirror = torch.where(self._uniform(b, 0, 1) < mirrored, -1.0, 1.0)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        lean = self._uniform(b, -leaning, leaning)
        across, down = self._uniform(b, -0.08, 0.08), self._uniform(b, -0.08, 0.08)
        theta = torch.stack([cos * mirror, lean - sin, across, sin * mirror, cos, down], dim=1).view(b, 2, 3)
        return F.affine_grid(theta, [b, 1, SIDE, SIDE], align_corners=False)

    def _uniform(self, count: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=self.generator) * (high - low) + low
