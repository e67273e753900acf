"""A build from its plan to its report: list, encode new photos, cluster, write a generation."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sketch_search.indexer.building.database import DATABASE_FILE, BuildDatabase, Settled, ShownPhotos
from sketch_search.indexer.building.folder_listing import FolderListing
from sketch_search.indexer.building.plan import (
    BuildPlan,
    BuildRequest,
    Current,
    check_counts,
    check_network,
    plan_build,
)
from sketch_search.indexer.building.staging import Progress, Rereader, Stager
from sketch_search.indexer.building.writer import (
    ClusterNumbers,
    GenerationDraft,
    GenerationWriter,
    join_clusters,
    make_clusters,
)
from sketch_search.indexer.errors import BadInvocation, IndexRefused
from sketch_search.indexer.store.catalog import GalleryFile, Removals
from sketch_search.indexer.store.generation import Manifest, find_generation, keep_only, used_segments
from sketch_search.indexer.store.location import FileKey, IndexFolder, Root, segment_name, shown_path
from sketch_search.indexer.store.reader import ShardEntry
from sketch_search.indexer.store.remote import Folder
from sketch_search.indexer.store.rows import PhotoArrays, SegmentReader, SegmentRows, are_unseen, with_boxes
from sketch_search.model import Matcher, where_it_computes
from sketch_search.model.answers import UnreadFile
from sketch_search.model.images import Day
from sketch_search.model.limits import System
from sketch_search.model.search.clusters import default_clusters
from sketch_search.model.terminal import plural

# A day in EXIF, and the bytes of a RAW file that are searched for it.
_DAY, _RAW_HEAD = re.compile(rb"(\d{4}:[01]\d:[0-3]\d) \d\d:\d\d:\d\d"), 1 << 17
# The number of photos in the first generation of a growing build: a few seconds' work.
FIRST_GENERATION = 64
# A build merges all segments into one if more than this share of their rows is not shown, and small ones if there would
# be more than this: a server keeps five files of each open, in two generations for a while, and macOS allows it 256.
DEAD_SHARE, MAX_SEGMENTS = 0.1, 10
# The clusters of the two-stage report, and how many photos they have on average at least: of clusters of one, the first
# stage alone would score every photo.
TWO_STAGE_CLUSTERS, LEAST_PHOTOS = 125, 4
# If the user set no number of clusters, a build makes them anew once there are this many times as many photos as they
# were made for.
MAX_GROWTH = 2


@dataclass(frozen=True)
class Written:
    """Describes the index after a build. ``generation`` joins the names of the generations of all shards by '+'."""

    generation: str
    photos: int
    files: int
    clusters: int
    shards: tuple[ShardEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BuildReport(Written):
    """The outcome of a build.

    changed: whether anything was written. settled: what it found out about the files. encoded: photos encoded in this
    run; boxed: earlier ones whose boxes were found in it. damaged: repaired damage, one sentence each. bad,
    bad_before: unusable files now and before. incomplete: photos of damaged files. unlisted: unreadable folders, whose
    photos stay. skipped: entries not indexed, a sentence for each kind. prefixes: names that paths begin with from now
    on. workers: processes at once. seconds: how long it took.
    """

    changed: bool
    settled: Settled
    encoded: int
    boxed: int
    damaged: tuple[str, ...]
    bad: tuple[UnreadFile, ...]
    bad_before: tuple[UnreadFile, ...]
    incomplete: tuple[str, ...]
    unlisted: tuple[UnreadFile, ...]
    skipped: tuple[str, ...]
    prefixes: tuple[str, ...]
    system: System
    embedder: str
    workers: int
    seconds: float
    index: Path

    @property
    def about_system(self) -> str | None:
        """Says what differs from the two-stage report's system; None for the default one."""
        if self.system == "default":
            return None
        stand_in = "" if "open_clip" in self.embedder else "; [Ret] stands in for CLIP (--embedder clip downloads it)"
        few = self.clusters < TWO_STAGE_CLUSTERS
        fewer = f"; fewer clusters than the report's {TWO_STAGE_CLUSTERS}" if few else ""
        return f"two-stage{stand_in}{fewer}"

    @property
    def kept(self) -> list[str]:
        """Sentences on photos that stay in the index although this build did not find them."""
        words = [f"{folder.path}: {folder.reason}; its indexed photos stay." for folder in self.unlisted]
        if self.settled.missing:
            lost = "missing or cannot be read" if self.settled.spoiled else "missing"
            words.append(
                f"{self.settled.missing} of {self.photos} photos are {lost}, more than a tenth of the gallery; they "
                "stay. Mount their disk, or, if they were deleted, run `sketch-search index build --yes`."
            )
        return words

    def facts(self, device: str) -> list[tuple[str, str]]:
        """Returns what a person wants to know, each with its name. device: that the network was loaded on."""
        news, paths = [bad for bad in self.bad if bad not in self.bad_before], ", ".join(self.prefixes)
        more = self.files - self.photos
        duplicates = f" ({self.files} files, {more} of them duplicates)" if more else ""
        by = f", by {where_it_computes(device)}" if self.encoded else ""
        earlier, now = len(self.bad) - len(news), "now current" if self.changed else "unchanged"
        before = f", {earlier} of them before; `sketch-search index info` lists all" if earlier else ""
        took, where = f"{self.seconds:.1f} s", ("index", f"{self.index}, generation {self.generation}, {now}")
        if self.shards:
            took += f", {plural(self.workers, 'worker')}"
            where = "shards", f"{len(self.shards)} in {self.index}, {now}"
        facts: list[tuple[str, str | None]] = [
            *(("was damaged", problem) for problem in self.damaged),
            *(("not indexed", f"{bad.path}: {bad.reason}") for bad in news),
            *(("incomplete", f"{path}: damaged; its readable part is indexed") for path in self.incomplete),
            *(("skipped", skipped) for skipped in self.skipped),
            ("photos", f"{self.photos}{duplicates}"),
            ("paths", f"now begin with the name of their folder: {paths}" if paths else None),
            ("encoded now", f"{self.encoded}{by}"),
            ("boxes", f"found in {plural(self.boxed, 'photo')} of before" if self.boxed else None),
            ("gone", f"{self.settled.gone or ''}"),
            ("moved", f"{self.settled.moved or ''}"),
            ("bad", f"{len(self.bad)}{before}" if self.bad else None),
            ("clusters", f"{self.clusters}, by {self.embedder}"),
            ("system", self.about_system),
            *(
                (each.folder, f"{plural(each.photos, 'photo')}, {plural(each.clusters, 'cluster')}, {each.generation}")
                for each in self.shards
            ),
            ("time", took),
            where,
        ]
        return [(name, fact) for name, fact in facts if fact]


class Backend(Protocol):
    """The place of a build, this machine or many. The caller holds the lock of the index.

    path: of the index. workers: processes at once. incomplete: files read here of which a part may be missing.
    """

    path: Path
    workers: int
    matcher: Matcher
    database: BuildDatabase
    incomplete: list[FileKey]

    def encode(self, last: int) -> int:
        """Reads the unread files listed after number ``last``, and stages their rows. Returns how many were encoded."""

    def sources(self, rows: SegmentRows) -> Mapping[str, PhotoArrays]:
        """Opens the arrays from which these rows are read, by the names of their sources."""

    def write(self, draft: GenerationDraft | None) -> Written:
        """Makes this draft current; None if nothing has changed. Deletes files that are no longer needed."""


class LocalBackend:
    """Builds on this machine. Rows are appended to the next segment."""

    def __init__(self, folder: IndexFolder, plan: BuildPlan, matcher: Matcher, progress: Progress) -> None:
        self.path, self.workers, self.incomplete = folder.path, 1, list[FileKey]()
        self._folder, self._plan, self.matcher, self._progress = folder, plan, matcher, progress
        # Nothing of a damaged index is deleted until there is an intact generation.
        if not plan.current.problems:
            keep_only(folder, plan.current.generation, building={plan.key})
        segment = folder.segments / segment_name(folder.next_number(), plan.key)
        self.database = BuildDatabase(folder.building(plan.key) / DATABASE_FILE, segment, used_segments(folder))

    def encode(self, last: int) -> int:
        count, plan = self.database.count_unread(last), self._plan
        self._progress.start("encoding", count)
        if not count:
            return 0
        embedder = plan.embedder.load()
        stager = Stager(plan.settings, self.matcher, embedder, self.database, plan.request.max_pixels)
        unread, step = self.database.unread(last), plan.request.max_new_files or count
        for _ in range(0, count, step):
            stager.stage(islice(unread, step), plan.request.batch, self._progress)
            if stager.encoded:
                break
        self.incomplete += stager.incomplete
        return stager.encoded

    def sources(self, rows: SegmentRows) -> Mapping[str, PhotoArrays]:
        current, kept = self._plan.current, dict[str, PhotoArrays]()
        if current.generation is not None:
            kept = current.generation.open_rows(current.unusable, self._plan.settings.detector)
        opened = {name: with_boxes(arrays, self.database.boxes_of(name)) for name, arrays in kept.items()}
        if self.database.staged:
            opened[self.database.segment.name] = self.database.staged_rows()
        return opened

    def write(self, draft: GenerationDraft | None) -> Written:
        current = self._plan.current
        if draft is not None:
            self._progress.start("writing")
            written = GenerationWriter(self._folder, self._plan.key, draft, current.generation, current.next_id).write()
        else:
            assert current.generation is not None  # the first build has a draft
            written = current.generation
        self.database.close()
        keep_only(self._folder, written, building=set())
        counts = written.manifest.counts
        return Written(written.name, counts.photos, counts.files, counts.clusters)


def run_plan(plan: BuildPlan, backend: Backend, progress: Progress) -> BuildReport:
    """Runs a build as planned. The caller holds the folder's lock. An error leaves the current state unchanged."""
    started = time.monotonic()
    current, roots, database = plan.current, plan.roots, backend.database
    progress.start("reading")
    was_removed = plan.was_removed if current.removals.rules else None
    database.take_over(current.catalogs, current.numbers(roots), current.unusable, was_removed)
    hidden = database.hide(lambda root, path: plan.exclusions.hides(path)) if plan.exclusions.patterns else 0
    names = [root.name for root in roots]
    bad_before = database.bad(names)
    listing = FolderListing(roots, backend.path, plan.removals, plan.exclusions, database.has_below)
    take_listed = partial(database.take_listed, reusable=current.reusable, checksum=plan.request.checksum)
    first = take_listed(listing)
    if not plan.request.allow_loss:
        listing.note_absent(database.absent_files())
    progress.skip(*database.count_settled())
    listing.check(database.present_files())
    if not (listing.unlisted or listing.elsewhere):
        check_counts(plan, listing.count)
    encoded = backend.encode(first)
    if raws := _raws_to_index(listing, roots, backend):
        encoded += backend.encode(take_listed(listing.include_raws(raws)))
    settled = database.settle(listing, current.next_id, plan.shown_again, allow_loss=plan.request.allow_loss)
    removals = Removals({**plan.removals.rules, **dict.fromkeys(settled.removed_before, True)})
    plan = replace(plan, removals=removals)
    bad, boxed = database.bad(names), 0
    if photos := [*database.files_of(_rows_without_boxes(plan))]:
        rereader = Rereader(plan.roots, backend.matcher, plan.request.max_pixels)
        boxed = rereader.find_boxes(photos, database, progress)
    manifest = current.manifest
    before = None if manifest is None else (manifest.roots, manifest.excluded, current.removals)
    changed = plan.rewrite or hidden + settled.changed + boxed > 0
    changed = changed or before != (roots, plan.settings.excluded, removals)
    if current.generation is not None and not changed:
        counts, sizes = current.generation.manifest.counts, current.generation.manifest.segment_sizes
        changed = bool(_to_merge(np.array([*sizes.values()]), counts.photos + counts.parts).any())
    if changed:
        progress.start("clustering")
    written = backend.write(_draft_generation(plan, backend, bad) if changed else None)
    return BuildReport(
        **vars(written),
        changed=changed,
        settled=settled,
        encoded=encoded,
        boxed=boxed,
        damaged=current.problems,
        bad=bad,
        bad_before=bad_before,
        incomplete=tuple(sorted(shown_path(names, *file) for file in backend.incomplete)),
        unlisted=listing.unlisted,
        skipped=(*listing.skipped, *_removed_before(settled)),
        prefixes=tuple(root.name for root in roots) if len(current.roots) == 1 < len(roots) else (),
        system=plan.settings.system,
        embedder=plan.settings.embedder.description,
        workers=backend.workers,
        seconds=time.monotonic() - started,
        index=backend.path,
    )


def _removed_before(settled: Settled) -> Iterator[str]:
    if count := len(settled.removed_before):
        files = "1 file of a photo that was" if count == 1 else f"{count} files of photos that were"
        yield f"{files} removed under another name; `sketch-search index add PATH` shows it again"


def _rows_without_boxes(plan: BuildPlan) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Returns which rows of the sources that have any have no boxes, by their names in the build's database."""
    current, detector = plan.current, plan.settings.detector
    lacking: dict[str, npt.NDArray[np.bool_]] = {}
    for beginning, generation in current.catalogs.items() if current.reusable and detector is not None else ():
        boxes = generation.boxes_by(detector, current.damaged)
        if boxes is None or generation.manifest.unseen:
            table = generation.open_photo_table()
            for number, (name, rows) in enumerate(generation.manifest.segment_sizes.items()):
                unseen = np.ones(rows, np.bool_) if boxes is None else are_unseen(boxes[table.of_segment(number)])
                if unseen.any():
                    lacking[f"{beginning}{name}"] = unseen
    return lacking


def _raws_to_index(listing: FolderListing, roots: Sequence[Root], backend: Backend) -> list[GalleryFile]:
    """Returns the RAW files beside photos that cannot be read, are incomplete, or were taken on another day."""
    to_index, incomplete = list[GalleryFile](), set(backend.incomplete)
    for photo, raws in listing.raws.items():
        for raw in raws:
            bad, known, taken = backend.database.photo_beside(photo, (raw.root, raw.path))
            other_day = taken is not None and _is_of_another_day(roots[raw.root].folder, raw.path, taken)
            if bad or known or photo in incomplete or other_day:
                to_index.append(raw)
    return to_index


def _is_of_another_day(folder: Folder, raw: str, taken: float) -> bool:
    """Returns True if the beginning of a RAW file has days but not this one. Files on servers are not checked."""
    if folder.remote:
        return False
    try:
        days = set(_DAY.findall(folder.read_part(raw, _RAW_HEAD)))
    except OSError:
        return False
    return bool(days) and not any(day.startswith(str(Day.of(taken)).replace("-", ":").encode()) for day in days)


def _draft_generation(plan: BuildPlan, backend: Backend, bad: Sequence[UnreadFile]) -> GenerationDraft:
    """Clusters the photos, and returns the draft to write. Raises BadInvocation if none can be used."""
    current, database, settings = plan.current, backend.database, plan.settings
    photos = database.choose_photos()
    if not (count := len(photos)):
        folders = ", ".join(root.path for root in plan.roots)
        if plan.removals.rules and not bad:
            raise BadInvocation(f"all that {folders} holds was removed; `sketch-search index add PATH` shows it again.")
        reason = bad[0].reason if bad else ""
        raise BadInvocation(f"no file in {folders} can be used ({reason}); name a folder of photos.")
    check_counts(plan, count)
    reader, to_write = SegmentReader(backend.sources(photos.rows)), photos.clusters < 0
    computed = {*settings.computed, *([backend.matcher.arithmetic] if to_write.any() else [])}
    clusters_asked = settings.clusters_asked
    if plan.recluster or current.generation is None or _are_stale(plan, current.generation.manifest, photos):
        two_stage = min(TWO_STAGE_CLUSTERS, -(-count // LEAST_PHOTOS))
        usual = two_stage if settings.system == "two-stage" else default_clusters(count)
        # A shard holds whole clusters, at least one.
        clustering = make_clusters(photos.rows, reader, clusters_asked or max(usual, plan.shards))
    else:
        clustering = join_clusters(photos, reader, current.generation)
        clusters_asked = current.generation.manifest.clusters_asked
    if current.generation is not None:
        sources, where = np.unique(photos.rows.sources[~to_write], return_inverse=True)
        shown = np.bincount(where, weights=1 + photos.parts[~to_write])
        sizes = [current.generation.manifest.segment_sizes[photos.rows.names[source]] for source in sources.tolist()]
        merged = sources[_to_merge(np.array(sizes, np.int64), int(shown.sum()), new=bool(to_write.any()))]
        to_write |= np.isin(photos.rows.sources, merged)
    if settings.system == "two-stage":
        # The features of each cluster lie together, also with those of new photos.
        to_write[:] = to_write.any() or not clustering.as_before
    settings = settings.model_copy(update={"clusters_asked": clusters_asked, "computed": tuple(sorted(computed))})
    return GenerationDraft(settings, plan.removals, database, photos, reader, to_write, clustering)


def _are_stale(plan: BuildPlan, manifest: Manifest, photos: ShownPhotos) -> bool:
    """Returns True if clusters were made for other photos: most are new now, or there are too many for their number."""
    count, most_are_new = len(photos), 2 * (photos.clusters < 0).sum() > len(photos)
    if (clusters_asked := plan.settings.clusters_asked) is not None:
        return bool(most_are_new and clusters_asked <= count)
    return bool(most_are_new or count > MAX_GROWTH * manifest.counts.clusters**2)


def _to_merge(sizes: ClusterNumbers, shown: int, *, new: bool = False) -> npt.NDArray[np.bool_]:
    """Returns which segments, of so many rows, (s,), are merged with each other, and with a new one if there is one."""
    total = int(sizes.sum())
    if total - shown > DEAD_SHARE * total:
        return np.ones(len(sizes), np.bool_)
    if len(sizes) + new <= MAX_SEGMENTS:
        return np.zeros(len(sizes), np.bool_)
    # The largest are kept if they have more rows than all smaller ones, so that few rows are written often.
    largest = np.argsort(-sizes, kind="stable")[: MAX_SEGMENTS // 2]
    merged = np.ones(len(sizes), np.bool_)
    merged[largest] = sizes[largest] <= total - np.cumsum(sizes[largest])
    return merged


def build(index: Path, request: BuildRequest, matcher: Matcher, progress: Progress | None = None) -> BuildReport:
    """Builds, updates, continues or repairs an index. Raises BadInvocation, IndexUnwritable, IndexBusy, IndexRefused"""
    folder = IndexFolder(index)
    request.check(folder.path)
    check_network(matcher)
    with folder.writing():
        plan = plan_build(request, Current.find(folder), matcher, folder.path)
        progress = progress or Progress()
        with progress.of_build(folder.progress):
            backend = LocalBackend(folder, plan, matcher, progress)
            with closing(backend.database):
                return run_plan(plan, backend, progress)


def build_growing(index: Path, request: BuildRequest, matcher: Matcher) -> BuildReport:
    """Builds in generations of twice the photos of the one before; all but the first have clusters of their own."""
    most = FIRST_GENERATION
    with suppress(IndexRefused):  # of a damaged index, all is computed that is missing
        if (current := find_generation(IndexFolder(index))) is not None:
            most = max(most, current.manifest.counts.photos)
    report = build(index, replace(request, max_new_files=most), matcher)
    while report.settled.waiting:
        most = max(FIRST_GENERATION, report.photos)
        report = build(index, replace(request, recluster=True, max_new_files=most), matcher)
    return report
