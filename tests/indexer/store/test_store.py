"""The index against a model of a few lines: whatever happens to files, in whatever order, and whatever is run."""

import os
import shutil
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from sketch_search import model
from sketch_search.indexer import BuildReport, BuildRequest, build, open_index, remove, verify
from tests.benchmarks.results import soak
from tests.indexer.galleries import catalog, save_photo

# The sentence that the soak writes down.
SOAKED = "Files changed and commands run in random order. The index is then what a simple model of it expects"

PATHS = ("a.png", "b.png", "in/a.png", "in/c.png", "in/deep/d.png", "in between.png")
FOLDERS = ("in", "in/deep")
CONTENTS = range(5)
EVERYTHING = ""


class Store(stateful.RuleBasedStateMachine):
    """Files and commands in any order.

    What is expected of the index: ``files``, the contents there are by path; ``hidden``, the paths and folders taken
    out, the nearest rule winning; ``read``, the contents that builds have read by path; ``ids``, as they were first
    seen; ``live``, what the last build or removal left.
    """

    matcher: model.Matcher
    # The number of comparisons of the index, in all sequences.
    compared = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.photos = Path(self.folder.name) / "photos"
        self.index = Path(self.folder.name) / "index"
        self.photos.mkdir()
        self.files: dict[str, int] = {}
        self.hidden: dict[str, bool] = {}
        self.read: dict[str, int] = {}
        self.live: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        self.computed: set[int] = set()
        self.time = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @stateful.initialize(content=st.sampled_from(CONTENTS))
    def first_build(self, content: int) -> None:
        self.write("a.png", content)
        build(self.index, BuildRequest([self.photos]), self.matcher)
        self.built()

    @stateful.rule(path=st.sampled_from(PATHS), content=st.sampled_from(CONTENTS))
    def write(self, path: str, content: int) -> None:
        """A new file, a changed one, or one saved again."""
        save_photo(self.photos / path, content)
        self._touch(path)
        self.files[path] = content

    @stateful.precondition(lambda self: len(self.files) > 1)
    @stateful.rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.files)))
        (self.photos / path).unlink()
        self._leave_no_empty_folder(path)
        del self.files[path]

    @stateful.rule(data=st.data(), name=st.sampled_from(PATHS))
    def rename(self, data: st.DataObject, name: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.files)))
        (self.photos / name).parent.mkdir(parents=True, exist_ok=True)
        (self.photos / path).rename(self.photos / name)
        self._leave_no_empty_folder(path)
        self.files[name] = self.files.pop(path)

    def _leave_no_empty_folder(self, path: str) -> None:
        # It would count as a disk that is not mounted.
        for folder in (self.photos / path).parents:
            if folder != self.photos and not any(folder.iterdir()):
                folder.rmdir()
            else:
                return

    @stateful.rule(data=st.data(), name=st.sampled_from(PATHS))
    def duplicate(self, data: st.DataObject, name: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.files)))
        if path != name:
            (self.photos / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.photos / path, self.photos / name)
            self._touch(name)
            self.files[name] = self.files[path]

    @stateful.rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        self._touch(data.draw(st.sampled_from(sorted(self.files))))

    def _touch(self, path: str) -> None:
        # The clock would do this if it were finer.
        self.time += 1
        os.utime(self.photos / path, ns=(self.time, self.time))

    @stateful.precondition(lambda self: self.expected())
    @stateful.rule(recluster=st.booleans())
    def build(self, recluster: bool) -> None:
        there, new = self.there(), set(self.expected().values()) - self.computed
        report = build(self.index, BuildRequest([self.photos], recluster=recluster), self.matcher)
        # Nothing that has a row is computed, and nothing twice.
        assert report.encoded <= len(set(there.values()))
        assert report.encoded >= len(new)
        self.built(report)

    @stateful.precondition(lambda self: self.expected())
    @stateful.rule()
    def build_twice(self) -> None:
        build(self.index, BuildRequest([self.photos]), self.matcher)
        self.built()
        reports = [build(self.index, BuildRequest(), self.matcher) for _ in range(2)]
        # The rows of a removed photo, which were read under another name, are left out by the build that follows.
        assert not reports[0].changed or self.hidden
        assert not reports[1].changed
        assert [report.encoded for report in reports] == [0, 0]

    @stateful.rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted({*self.live, *(f for f in FOLDERS if self.below(f, self.live))})))
        if len(self.below(path, self.live)) < len(self.live):
            remove([str(self.photos / path) if data.draw(st.booleans()) else path], self.index)
            self.say(path, hidden=True)
            self.live = {file: content for file, content in self.live.items() if not self.is_hidden(file)}

    @stateful.rule(data=st.data())
    def remove_by_id(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.live)))
        same = [file for file, content in self.live.items() if content == self.live[path]]
        if len(same) < len(self.live):
            remove([], self.index, ids=[self.ids[path]])
            for file in same:
                self.say(file, hidden=True)
                del self.live[file]

    @stateful.rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        there = [folder for folder in FOLDERS if (self.photos / folder).is_dir()]
        path = data.draw(st.sampled_from([EVERYTHING, *there, *sorted(self.files)]))
        before = self.hidden
        self.say(path, hidden=False)
        if self.expected(path):
            self.built(build(self.index, BuildRequest(added=[self.photos / path]), self.matcher), path)
        else:
            self.hidden = before

    def built(self, report: BuildReport | None = None, added: str | None = None) -> None:
        there, self.live = self.there(), self.expected(added)
        self.read |= there
        for path in there.keys() - self.live.keys():
            self.say(path, hidden=True)
        self.computed |= set(self.live.values())
        if report is not None:
            assert (report.files, report.photos) == (len(self.live), len(set(self.live.values())))

    def there(self) -> dict[str, int]:
        return {path: content for path, content in self.files.items() if not self.is_hidden(path)}

    def expected(self, added: str | None = None) -> dict[str, int]:
        """Returns what is there, but no new copy of a photo that was removed everywhere, unless it is ``added``."""
        there = self.there()
        kept = {content for path, content in there.items() if self.read.get(path) == content}
        removed = {content for path, content in self.read.items() if self.is_hidden(path)}
        removed -= {*self.live.values(), *kept}
        again = [] if added is None else self.below(added, there)
        return {path: content for path, content in there.items() if content not in removed or path in again}

    def below(self, place: str, paths: dict[str, int]) -> list[str]:
        return [path for path in paths if not place or path == place or path.startswith(f"{place}/")]

    def is_hidden(self, path: str) -> bool:
        around = [place for place in self.hidden if self.below(place, {path: 0})]
        return self.hidden[max(around, key=len)] if around else False

    def say(self, place: str, *, hidden: bool) -> None:
        inside = [other for other in self.hidden if self.below(place, {other: 0})]
        self.hidden = {other: said for other, said in self.hidden.items() if other not in inside} | {place: hidden}

    @stateful.invariant()
    def the_index_holds_what_it_should(self) -> None:
        if not self.live:
            return
        type(self).compared += 1
        assert verify(self.index) == []
        found = catalog(self.index)
        for path, entry in found.items():
            assert self.ids.setdefault(path, entry[0]) == entry[0]
        assert len(set(self.ids.values())) == len(self.ids)
        assert {path for path, entry in found.items() if entry[1] == "indexed"} == self.live.keys()
        together = defaultdict(list)
        for path, content in self.live.items():
            together[content].append(path)
        expected = sorted(sorted(paths, key=self.ids.__getitem__) for paths in together.values())
        with open_index(self.index, self.matcher) as index:
            shown = index.ids.tolist()
            assert len(shown) == len(set(shown)) == index.photo_count == index.cluster_sizes.sum()
            assert sorted(list(index.photo(photo).paths) for photo in shown) == expected
            assert all(min(self.ids[path] for path in index.photo(photo).paths) == photo for photo in shown)


def check(matcher: model.Matcher, examples: int, steps: int) -> int:
    """Runs the machine, and returns how often the index was compared with what it should be."""

    class Machine(Store):
        pass

    Machine.matcher = matcher
    kept = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    stateful.run_state_machine_as_test(
        Machine, settings=settings(kept, max_examples=examples, stateful_step_count=steps)
    )
    return Machine.compared


def test_any_sequence_of_changes_leaves_the_index_that_a_plain_model_expects(matcher: model.Matcher) -> None:
    assert check(matcher, examples=8, steps=12) > 8


@pytest.mark.soak
def test_many_long_sequences_of_changes_leave_what_a_plain_model_expects(matcher: model.Matcher) -> None:
    with soak(SOAKED) as run:
        run.times = check(matcher, examples=100, steps=40)
