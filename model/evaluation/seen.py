"""Finds the classes of a task that a checkpoint has seen: figures on these are not zero-shot."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sketch_search.model.datasets import UNSEEN, Task, class_key
from sketch_search.model.engine import SeenClasses

# The name of the group of queries whose classes no checkpoint has seen.
ZERO_SHOT = "zero-shot"
_MOST_NAMED = 12


@dataclass(frozen=True)
class Contamination:
    """Queried classes a checkpoint was trained on, chosen on, and never saw; known: whether it lists them."""

    trained: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    zero_shot: tuple[str, ...] = ()
    known: bool = True

    @property
    def seen(self) -> tuple[str, ...]:
        return tuple(sorted({*self.trained, *self.chosen}))

    def sentence(self, name: str) -> str:
        """Describes for a reader of figures what the checkpoint ``name`` has seen."""
        if not self.known:
            return f"{name} does not say which classes it has seen, so that none may be called zero-shot"
        count = len(self.seen) + len(self.zero_shot)
        if not self.seen:
            return f"{name} has seen none of the {count} classes: all are zero-shot"
        said = f"{name} was trained on {len(self.trained)} of the {count} classes"
        said += f" and chosen on {len(self.chosen)}: " if self.chosen else ": "
        if not self.zero_shot:
            return said + "none is zero-shot"
        few = ", ".join(self.zero_shot[:_MOST_NAMED]) + (", ..." if len(self.zero_shot) > _MOST_NAMED else "")
        return said + f"{len(self.zero_shot)} zero-shot ({few})"


def contamination(task: Task, seen: SeenClasses | None) -> Contamination:
    """Compares a task's queried or unseen classes, in any spelling, with those seen; None if they are not listed."""
    if seen is None:
        return Contamination(known=False)
    asked = sorted(task.groups.get(UNSEEN) or {sketch.label for sketch in task.corpus.sketches})
    trained, chosen = ({class_key(label) for label in labels} for labels in (seen.trained, seen.chosen))
    return Contamination(
        trained=tuple(label for label in asked if class_key(label) in trained),
        chosen=tuple(label for label in asked if class_key(label) in chosen),
        zero_shot=tuple(label for label in asked if class_key(label) not in trained | chosen),
    )


def with_zero_shot(task: Task, found: list[Contamination]) -> Task:
    """Makes a group of the classes that no checkpoint has seen, if that is neither all nor none, nor unknown."""
    seen = {label for one in found for label in one.seen}
    new = frozenset(label for one in found for label in one.zero_shot) - seen
    if not seen or not new or not all(one.known for one in found) or task.each_class:
        return task
    return replace(task, groups={**task.groups, ZERO_SHOT: new})
