"""Reads photos of the index again: to find the boxes that they lack, and to compare their vectors with those of now."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from PIL import Image

from sketch_search.indexer.building.database import BuildDatabase, CurrentState
from sketch_search.indexer.building.progress import Progress
from sketch_search.indexer.building.staging import MAX_DECODERS, DecodedPhoto, read_ahead
from sketch_search.indexer.store.folders import Folder
from sketch_search.indexer.store.generation import Generation
from sketch_search.indexer.store.roots import FileKey
from sketch_search.indexer.store.rows import are_unseen
from sketch_search.model import Matcher
from sketch_search.model.decoding import Decoders
from sketch_search.model.engine import threads, unit
from sketch_search.model.engine.detector import Detector
from sketch_search.model.errors import ImageError

# Photos whose vectors are compared, and that may be tried for this; and the least mean cosine of equal ones. On a
# processor with AVX2 alone, vectors of before had one of 0.945, and those of different arithmetic that is sound 0.998.
CHECKED, TRIED, LEAST_EQUAL = 8, 16, 0.99
# Photos whose boxes are found between two steps of the bar, and before the time is estimated. What is found is kept.
_BATCH, _FIRST = 64, 8


@dataclass(frozen=True)
class Agreement:
    """The mean cosine of stored vectors and those of now, and the seconds in which a photo is computed."""

    cosine: float
    seconds: float


@dataclass(frozen=True)
class Rereader:
    """Reads photos whose content is known. roots: the folders that the roots' numbers of files mean."""

    roots: Sequence[Folder]
    matcher: Matcher
    max_pixels: int

    def read(self, decoders: Decoders, content: str, files: Sequence[FileKey]) -> DecodedPhoto | None:
        """Decodes the first file that still has this content; None if there is none, or it cannot be decoded now."""
        for root, path in files:
            try:
                data = self.roots[root].read(path).data
                if hashlib.sha256(data).hexdigest() == content:
                    return DecodedPhoto.of(data, decoders, self.matcher, self.max_pixels)
            except (OSError, MemoryError, ImageError, ValueError, Image.DecompressionBombError):
                continue
        return None

    def compare(self, generation: Generation) -> Agreement | None:
        """Encodes a few photos of a generation, and compares their vectors; None if no photo can be read."""
        table, vectors = generation.open_photo_table(), generation.open_vectors()["vectors"]
        rows = np.linspace(0, generation.manifest.counts.photos - 1, TRIED).astype(np.int64)
        found, started = list[float](), time.monotonic()
        with Decoders(1) as decoders, generation.open_catalog() as catalog:
            for row in np.unique(rows).tolist():
                files = catalog.sharing([int(table.ids[row])])
                keys = [(file.root, file.path) for file in files]
                photo = self.read(decoders, files[0].content_hash or "", keys) if files else None
                if photo is None:
                    continue
                if not found:
                    # Opening the network is no part of the time of a photo.
                    self.matcher.encode(photo.pixels[None], "photo")
                    started = time.monotonic()
                ret = self.matcher.encode(photo.pixels[None], "photo").ret
                found.append(float(unit(ret)[0] @ unit(vectors[row])))
                if len(found) == CHECKED:
                    break
        if not found:
            return None
        return Agreement(float(np.mean(found)), (time.monotonic() - started) / len(found) / threads())

    def find_boxes(
        self, photos: Sequence[tuple[str, list[FileKey]]], database: BuildDatabase, progress: Progress
    ) -> int:
        """Finds the boxes of these contents, and notes them. Returns of how many; the others cannot be read now."""
        detector, workers, count, done = Detector(), min(MAX_DECODERS, threads()), 0, 0
        progress.start("boxes", len(photos))
        started = time.monotonic()
        with Decoders(workers) as decoders, ThreadPoolExecutor(workers, thread_name_prefix="boxes") as pool:

            def look(photo: tuple[str, list[FileKey]]) -> tuple[str, npt.NDArray[np.uint8] | None]:
                decoded = self.read(decoders, *photo)
                return photo[0], None if decoded is None else detector.detect(decoded.whole)

            ready = read_ahead(pool, look, photos, window=_BATCH)
            try:
                while part := [*islice(ready, _BATCH if done else _FIRST)]:
                    found = {content: boxes for content, boxes in part if boxes is not None}
                    database.note_boxes(found)
                    count, done = count + len(found), done + len(part)
                    progress.advance(len(part), len(part) - len(found))
                    if done == len(part):
                        left = (time.monotonic() - started) / done * (len(photos) - done)
                        progress.say(
                            f"{len(photos)} photos were indexed without boxes of their things; finding these takes "
                            f"{about(left)}. If it is stopped, the next build continues."
                        )
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return count


def rows_without_boxes(current: CurrentState, detector: str) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Returns which rows of the sources that have any have no boxes, by their names in the build's database."""
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for beginning, generation in current.catalogs.items() if current.reusable else ():
        if generation.lacks_boxes(detector, current.damaged):
            boxes, table = generation.boxes_by(detector, current.damaged), generation.open_photo_table()
            for number, name in enumerate(generation.manifest.segment_sizes):
                unseen = are_unseen(boxes[table.of_segment(number)])
                if unseen.any():
                    found[f"{beginning}{name}"] = unseen
    return found


def about(seconds: float) -> str:
    """Writes a time to wait in words."""
    if seconds < 90:
        return "a second" if seconds < 1.5 else f"about {round(seconds)} seconds"
    return f"about {round(seconds / 60)} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"
