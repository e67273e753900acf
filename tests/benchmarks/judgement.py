"""How often it is wrong that a photo does not show what a word names: `python -m tests.benchmarks.judgement`.

The photos are those of the validation classes that SKETCH_SEARCH_DATA names, 20 of each; a collection has eight.
What counts is what is said of right photos at rank 1 to 3 when a class is searched for by its word, and of a word
whose class the collection lacks, or of any other thing, some of which are nearly those of the classes.
"""

import random
import tempfile
from collections import defaultdict
from pathlib import Path

from sketch_search import Gallery, model
from sketch_search.indexer import BuildRequest, build
from sketch_search.model.datasets import read_protocol
from sketch_search.service.schemas.explain import LocateParams
from sketch_search.service.schemas.query import SearchQuery

PHOTOS, COLLECTION, WORDS = 20, 8, 200


def main() -> int:
    with tempfile.TemporaryDirectory() as made:
        folder, classes = Path(made), defaultdict[str, list[Path]](list)
        for photo in read_protocol("val").photos:
            if len(classes[photo.label]) < PHOTOS:
                classes[photo.label].append(photo.path)
        for label, files in classes.items():
            (folder / "photos" / label).mkdir(parents=True)
            for number, file in enumerate(files):
                (folder / "photos" / label / f"{number}{file.suffix}").write_bytes(file.read_bytes())
        build(folder / "index", BuildRequest([folder / "photos"]), model.load())
        with Gallery.open(index=folder / "index") as gallery:
            measure(gallery, sorted(classes))
    return 0


def measure(gallery: Gallery, classes: list[str]) -> None:
    engine, book = gallery.engine, gallery.matcher.book
    right, lacking = list[bool](), list[bool]()
    for number, label in enumerate(classes * 3):
        text, drawn = label.replace("_", " "), random.Random(number)
        others = drawn.sample([other for other in classes if other != label], COLLECTION)
        query = SearchQuery(text=text, k=3, view="photos", folder=(label, *others[1:]))
        answer = engine.search(None, query)
        found = [one for one in answer.results if one.paths[0].split("/")[-2] == label]
        for one in found:
            located = engine.locate(None, LocateParams(photo=[one.id], like=one.id, text=text))
            right.append(bool(located.photos[0].unseen) or answer.word_fits is False)
        lacking.append(engine.search(None, query.model_copy(update={"folder": tuple(others)})).word_fits is not False)
    print(f"right photos at rank 1 to 3: {len(right)}, said not to show it: {sum(right) / len(right):.3f}")
    print(f"words of missing classes: {len(lacking)}, not said to be missing: {sum(lacking) / len(lacking):.3f}")
    named = {number for label in classes for number in book.read(label).things[0]}
    vocabulary = gallery.matcher.engine.vocabulary
    assert vocabulary is not None
    others = sorted({book.words[number] for number in vocabulary.drawn if number >= 0 and number not in named})
    answers = [engine.search(None, SearchQuery(text=word)) for word in random.Random(0).sample(others, WORDS)]
    wrong = sum(answer.word_fits is not False for answer in answers)
    print(f"words of other things: {WORDS}, not said to be missing: {wrong / WORDS:.3f}")


if __name__ == "__main__":
    raise SystemExit(main())
