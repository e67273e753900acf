"""The words of a vocabulary: the classes of the training's data, and those that the pretrained ViT was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from model.words import Names, spelling, why_no_name


@dataclass(frozen=True)
class Entry:
    """One word.

    Attributes:
        names: the first is the one that is shown.
        labels: classes of the data that mean it; empty where none does.
        classes: indices of the classifier's classes that mean it; empty where none does.
    """

    names: Names
    labels: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()


# Names of one word, at most: as many as a checkpoint takes.
_MOST_NAMES = 16


def word_list(labels: Iterable[str], classes: Sequence[Names], synonyms: Iterable[Names] = ()) -> tuple[Entry, ...]:
    """The words of the data's classes, and then of the classifier's.

    A class of the data and one of the classifier are one word where the classifier's first name is that of the data; or
    any of its names, if no other of its classes has it: a "harp" is not a harmonica, which is called so, too. Classes
    of the classifier with the same first name are one word, such as the two cranes. A name that several words have is
    left to the one that shows it, or else to none. A class that cannot be a word, such as "?", is left out.

    synonyms: names of one thing each. The word that shows one of them gets the others, as further names.
    """
    first: dict[str, list[int]] = {}
    others: dict[str, list[int]] = {}
    for index, names in enumerate(classes):
        first.setdefault(spelling(names[0]), []).append(index)
        for key in {spelling(name) for name in names[1:]}:
            others.setdefault(key, []).append(index)
    named: dict[str, list[str]] = {}
    for label in labels:
        if why_no_name(label) is None:
            named.setdefault(spelling(label), []).append(label)
    entries: list[Entry] = []
    taken: set[int] = set()
    for key, same in named.items():
        found = first.get(key) or (others[key] if len(others.get(key, ())) == 1 else [])
        found = [index for index in found if index not in taken]
        taken |= set(found)
        shown = " ".join(same[0].replace("_", " ").split())
        entries.append(Entry((shown, *(name for index in found for name in classes[index])), tuple(same), tuple(found)))
    for found in first.values():
        if left := [index for index in found if index not in taken]:
            entries.append(Entry(tuple(name for index in left for name in classes[index]), (), tuple(left)))
    shown_names = {spelling(entry.names[0]) for entry in entries}
    shared = Counter(key for entry in entries for key in {spelling(name) for name in entry.names})
    return _with_synonyms([_with_own_names(entry, shown_names, shared) for entry in entries], synonyms)


def _with_synonyms(entries: Sequence[Entry], synonyms: Iterable[Names]) -> tuple[Entry, ...]:
    """The entries with the synonyms of the name that each shows, but for those that mean two words, or two things."""
    named = {spelling(name) for entry in entries for name in entry.names}
    shown = {spelling(entry.names[0]): number for number, entry in enumerate(entries)}
    words_of: dict[str, list[int | None]] = {}
    spelt: dict[str, str] = {}
    for names in synonyms:
        keys = {spelling(name): name for name in names if why_no_name(name) is None}
        words = {shown[key] for key in keys if key in shown}
        word = words.pop() if len(words) == 1 else None
        for key, name in keys.items():
            # "Bat animal" only says which bat is meant.
            explained = any(key.startswith(f"{other} ") for other in keys)
            words_of.setdefault(key, []).append(None if explained or key in named else word)
            spelt[key] = name
    added: dict[int | None, list[str]] = {}
    for key, found in words_of.items():
        if len(found) == 1:
            added.setdefault(found[0], []).append(spelt[key])
    return tuple(
        replace(entry, names=(*entry.names, *added.get(number, ()))[:_MOST_NAMES])
        for number, entry in enumerate(entries)
    )


def _with_own_names(entry: Entry, shown: set[str], shared: Counter[str]) -> Entry:
    """The entry with its shown name, and those further ones that are no other word's."""
    names = {spelling(entry.names[0]): entry.names[0]}
    for name in entry.names[1:]:
        key = spelling(name)
        if key not in shown and shared[key] == 1:
            names.setdefault(key, name)
    return Entry(tuple(names.values()), entry.labels, entry.classes)
