"""Finds the classes of a task that a checkpoint has seen: figures on these are not zero-shot.

Names are compared by the vocabulary of the default, with its synonyms and plurals; files by their contents.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

from sketch_search.model.engine import SeenClasses, config_on_photo_side, default_checkpoint, file_sha256
from sketch_search.model.errors import ModelError
from sketch_search.model.training.corpus import Picture
from sketch_search.model.training.tasks import UNSEEN, Task, class_key
from sketch_search.model.words import WordBook, spelling

# The name of the group of queries whose classes no checkpoint has seen.
ZERO_SHOT = "zero-shot"
_MOST_NAMED = 12


@dataclass(frozen=True)
class Contamination:
    """Queried classes a checkpoint was trained on, chosen on, and never saw; known: whether it lists them.

    near: those whose names contain a seen class, each with it. compared, copies: how many training pictures the task's
    pictures were compared with by their contents, and how many of the task's are among them.
    """

    trained: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    zero_shot: tuple[str, ...] = ()
    known: bool = True
    near: tuple[tuple[str, str], ...] = ()
    compared: int = 0
    copies: int = 0

    @property
    def seen(self) -> tuple[str, ...]:
        return tuple(sorted({*self.trained, *self.chosen}))

    def sentence(self, name: str) -> str:
        """Describes for a reader of figures what the checkpoint ``name`` has seen, and what was compared."""
        if not self.known:
            return f"{name} does not say which classes it has seen, so that none may be called zero-shot"
        count = len(self.seen) + len(self.zero_shot)
        if not self.seen:
            sentence = f"{name} has seen none of the {count} classes: all are zero-shot"
        else:
            sentence = f"{name} was trained on {len(self.trained)} of the {count} classes"
            sentence += f" and chosen on {len(self.chosen)}: " if self.chosen else ": "
            few = ", ".join(self.zero_shot[:_MOST_NAMED]) + (", ..." if len(self.zero_shot) > _MOST_NAMED else "")
            sentence += f"{len(self.zero_shot)} zero-shot ({few})" if few else "none is zero-shot"
        sentence += ", by names, synonyms and plurals"
        if self.compared:
            copies = f"{self.copies} of these pictures are" if self.copies else "none of these pictures is"
            sentence += f"; {copies} among its {self.compared:,} training pictures at hand"
        if self.near:
            sentence += (
                f"; check names near to seen ones: {', '.join(f'{label} ({seen})' for label, seen in self.near)}"
            )
        return sentence


def contamination(task: Task, seen: SeenClasses | None, training: Iterable[Picture] = ()) -> Contamination:
    """Compares a task's classes with those seen; None if unlisted. training: their pictures, compared by content."""
    if seen is None:
        return Contamination(known=False)
    classes = sorted(task.groups.get(UNSEEN) or {sketch.label for sketch in task.corpus.sketches})
    trained, chosen = ({_thing(label)[0]: label for label in labels} for labels in (seen.trained, seen.chosen))
    things, known = {label: _thing(label) for label in classes}, trained | chosen
    new = tuple(label for label, (thing, _) in things.items() if thing not in known)
    near = tuple((label, known[part]) for label in new for part in things[label][1] if part in known)
    pictures = tuple(picture for picture in training if picture.label in seen.trained)
    return Contamination(
        trained=tuple(label for label, (thing, _) in things.items() if thing in trained),
        chosen=tuple(label for label, (thing, _) in things.items() if thing in chosen),
        zero_shot=new,
        near=near,
        compared=len(pictures),
        copies=_copies((*task.corpus.sketches, *task.corpus.photos), pictures),
    )


@cache
def _thing(label: str) -> tuple[str, tuple[str, ...]]:
    """Returns one name for all names of what a class shows, and if it is a phrase, the things named in it."""
    key = class_key(label)
    with suppress(ModelError):  # an unknown word is its own name
        reading = _book().read(key)
        things = tuple(class_key(_book().words[meant[0]]) for meant in reading.things)
        if reading.text != spelling(key):
            return key, things
        if len(reading.things) == len(reading.things[0]) == 1:
            return things[0], ()
    return key, ()


@cache
def _book() -> WordBook:
    config = config_on_photo_side(default_checkpoint("default"))
    return WordBook(config.words if config else ())


def _copies(pictures: Iterable[Picture], training: Iterable[Picture]) -> int:
    """Counts the pictures whose bytes are those of a training picture."""
    paths = {picture.path for picture in training}
    sizes = {path.stat().st_size for path in paths}
    alike = [picture.path for picture in pictures if picture.path.stat().st_size in sizes]
    sizes_alike = {path.stat().st_size for path in alike}
    known = {file_sha256(path) for path in paths if path.stat().st_size in sizes_alike}
    return sum(file_sha256(path) in known for path in alike)


def with_zero_shot(task: Task, reports: list[Contamination]) -> Task:
    """Makes a group of the classes that no checkpoint has seen, if that is neither all nor none, nor unknown."""
    seen = {label for report in reports for label in report.seen}
    new = frozenset(label for report in reports for label in report.zero_shot) - seen
    if not seen or not new or not all(report.known for report in reports) or task.each_class:
        return task
    return replace(task, groups={**task.groups, ZERO_SHOT: new})
