from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from indexer.store.catalog import Removals

FILES = [(root, path) for root in (0, 1) for path in ("a", "b/a", "b/c/a", "b/c/d", "bc", "b c/a")]
PLACES = [*FILES, *((root, path) for root in (0, 1) for path in ("", "b", "b/c", "b c"))]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(PLACES)), max_size=12))
def test_the_last_word_about_a_file_or_a_folder_around_it_holds(steps: list[tuple[bool, tuple[int, str]]]) -> None:
    removals = Removals()
    hidden: dict[tuple[int, str], bool] = dict.fromkeys(FILES, False)
    for remove, (root, path) in steps:
        removals = removals.removing(root, path) if remove else removals.readmitting(root, path)
        hidden |= {
            file: remove
            for file in FILES
            if file[0] == root and (not path or file[1] == path or file[1].startswith(f"{path}/"))
        }
        assert {file: removals.hides(*file) for file in FILES} == hidden


def test_rules_follow_their_roots_and_go_with_them() -> None:
    removals = Removals({(0, "a"): True, (1, "b"): True, (2, "c"): True})
    assert removals.renumbered([1, None, 0]) == Removals({(0, "c"): True, (1, "a"): True})
