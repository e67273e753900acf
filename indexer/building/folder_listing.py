"""The image files below the gallery's folders, by name, size and times, without those that the user excludes.

Only local files whose names have no extension, or an odd one, are opened, to check whether they begin like an image.
"""

import errno
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

from pathspec import GitIgnoreSpec

from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.catalog import GalleryFile, Removals
from sketch_search.indexer.store.files import START, is_unicode, name_of_text, text_of_name
from sketch_search.indexer.store.folders import MARKERS, PLACEHOLDER, Entry, Listing
from sketch_search.indexer.store.location import FileKey, Root, is_index, shown_path, with_folders
from sketch_search.model.answers import UnreadFile
from sketch_search.model.images import IMAGE_SUFFIXES, RAW_SUFFIXES, media_type
from sketch_search.model.terminal import plural, resolve

MAX_PATTERNS, MAX_LENGTH = 100, 200
# Pathspec makes regular expressions of patterns, whose time grows by the power of their wildcards. The name "aaa...",
# 255 letters long, is compared with *a*a*a*b for a second, and with *a*a*b for a fortieth of it.
MAX_WILDCARDS, MAX_WILDCARDS_IN_ALL = 3, 4


class Exclusions:
    """Patterns to leave out, of which the last match decides; '!' takes back, but not from a folder left out.

    Accents are equal composed or not. Raises BadInvocation for an invalid or slow pattern, and for too many.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        if len(patterns) > MAX_PATTERNS:
            raise BadInvocation(f"{len(patterns)} patterns are too many; use at most {MAX_PATTERNS}.")
        for pattern in patterns:
            _check(pattern)
        self.patterns = tuple(patterns)
        self._spec = GitIgnoreSpec.from_lines((normalize("NFC", pattern) for pattern in patterns), backend="simple")

    def matches(self, path: str, *, is_folder: bool = False) -> bool:
        """Returns True if a file or folder of a root is left out, provided that the folder it is in is not."""
        return bool(self.patterns) and self._spec.match_file(normalize("NFC", path) + "/" * is_folder)

    def hides(self, path: str) -> bool:
        """Returns True if a file of a root, or a folder that it is in, is left out."""
        folders = with_folders(path)[1:-1]
        return any(self.matches(folder, is_folder=True) for folder in folders) or self.matches(path)


def _check(pattern: str) -> None:
    shown = f"the pattern {pattern[:MAX_LENGTH]!r}"
    if len(pattern) > MAX_LENGTH:
        raise BadInvocation(f"{shown}... is too long; a pattern has at most {MAX_LENGTH} characters.")
    if not is_unicode(pattern):
        raise BadInvocation(f"{shown} is not valid UTF-8; write ? for a character that cannot be typed.")
    wildcards = [1 if part == "**" else part.count("*") for part in pattern.split("/")]
    if max(wildcards) > MAX_WILDCARDS or sum(wildcards) > MAX_WILDCARDS_IN_ALL:
        raise BadInvocation(
            f"{shown} has too many wildcards: at most {MAX_WILDCARDS} * may stand between two slashes, and "
            f"{MAX_WILDCARDS_IN_ALL} in all."
        )
    try:
        compiled = GitIgnoreSpec.from_lines([pattern], backend="simple").patterns
    except (ValueError, re.error) as error:
        raise BadInvocation(f"{shown} cannot be read ({error}); write it as in .gitignore.") from error
    if all(pattern.include is None for pattern in compiled):
        raise BadInvocation(f"{shown} matches no file; write it as in .gitignore, such as '*.png' or '/2019/raw/'.")


@dataclass(frozen=True)
class Mark:
    """Tells what other programs keep beside photos, such as thumbnails, by an expression for its whole name.

    Names are in lower case.

    around: for the name of the folder that it is in. beside: of each of these sets one name must be beside it; they are
    separated by |, and may have groups of its own. said: how reports call it, if not by its name.
    """

    name: str
    _: KW_ONLY
    around: str = ".*"
    beside: tuple[str, ...] = ()
    said: str = ""

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return re.compile(self.name, re.DOTALL), re.compile(self.around, re.DOTALL)

    def fits(self, name: str, around: str, beside: Collection[str]) -> bool:
        of_name, of_around = self.patterns
        return (
            (match := of_name.fullmatch(name)) is not None
            and of_around.fullmatch(around) is not None
            and all(any(match.expand(one) in beside for one in names.split("|")) for names in self.beside)
        )


_FOLDERS = (
    # Synology, QNAP, NetApp and other storage.
    Mark(r"@(eadir|__thumb|tmp|sharebin|transcode|recycle|recently-snapshot|snapshots?)"),
    Mark(r"#(recycle|snapshot)|~snapshot|trashbox"),
    # Windows, macOS and Android.
    Mark(r"\$recycle\.bin|recycle[dr]|found\.\d{3}|system volume information|lost\+found|lost\.dir"),
    Mark(r"__macosx|network trash folder|temporary items|backups\.backupdb"),
    # Lightroom, but for photos that a phone has sent to it, and that are nowhere else; Bridge, ACDSee, iPods, Sony.
    Mark(r"(?!mobile downloads).*\.lrdata|(adobe )?bridge cache|\[originals\]|ipod photo cache|thmbnl"),
    # Apple's libraries but for their own photos, and the deleted ones of iCloud's export, in its languages.
    Mark(
        "(?!(originals|masters)$).*",
        around=r".*\.(photoslibrary|photolibrary|migratedphotolibrary|aplibrary)",
        said="in a photo library",
    ),
    Mark(
        "recently deleted|zuletzt gelöscht|supprimés récemment|suppressions récentes|eliminad[oa]s? recientemente|"
        "eliminad[oi]s? di recente|apagad[oa]s? recentemente|recent verwijderd|nyligen raderat|senest slettet|"
        "ostatnio usunięte|недавно удаленные|最近削除した項目|最近删除|最近刪除|최근 삭제된 항목"
    ),
    # Google's Takeout, in its languages.
    Mark(
        "trash|bin|papierkorb|corbeille|papelera|cestino|lixeira|lixo|prullenbak|papirkurv|papperskorgen|roskakori|"
        "kosz|koš|kuka|корзина|кошик|çöp kutusu|ゴミ箱|回收站|휴지통",
        around=r"google (ph|f)oto\w*",
    ),
    # Nextcloud and ownCloud, Immich, LibrePhotos, Photoview.
    Mark(r"appdata_\w+|files_(trashbin|versions)"),
    Mark("thumbs|profile", beside=("encoded-video",)),
    Mark(r"protected_media|thumbnails_big|square_thumbnails(_\w+)?"),
    Mark("faces", beside=("thumbnails_big|square_thumbnails",)),
    Mark("media[-_]cache"),
    # Piwigo, Lychee.
    Mark("_data", beside=("galleries|upload",)),
    Mark("(small|medium)(2x)?|thumb2x|placeholder", beside=("big|original", "thumb")),
    Mark("thumb", beside=("big|original", "small|medium")),
    # Jellyfin and Emby.
    Mark(r".+\.trickplay|resized-images"),
    Mark("metadata|cache", beside=("root", "data|plugins")),
    Mark("library|people|artists", around="metadata"),
)
_FILES = (
    # Thumbnails that Synology writes, where a copy of its folders has other names.
    Mark("syno(photo|file)_(thumb|film)_.*", said="SYNOPHOTO_THUMB files"),
    # IMG_1-300x200.jpg beside IMG_1.jpg.
    Mark(r"(.+)-\d+x\d+(\.\w+)", beside=(r"\1\2|\1-scaled\2|\1-rotated\2",), said="sizes of WordPress"),
    Mark(r"(.+)-scaled(\.\w+)", beside=(r"\1\2",), said="sizes of WordPress"),
    # thumbnail_IMG_1_jpg_AbCdEf12.jpg
    Mark(r"(thumbnail|highres|video_thumb)_.+_[a-z0-9]+_[a-z0-9]{8}\.jpg", around=r"\d+", said="Photoview's cache"),
    # IMG_1.JPG_240q80cs.webp
    Mark(
        r".+\.(jpe?g|png|gif|webp|hei[cf]|avif|tiff?|bmp|mp4|mov|webm|m4v|avi|mkv|svg|cr2|nef|arw|dng)"
        r"_\d+(q\d+)?[a-z]*\.(jpg|webp)",
        said="PiGallery2's sizes",
    ),
    # 407905f8af94ece4720be997fd291adea487-image-preview-1920.jpg
    Mark(r"[0-9a-f]{7,40}-([a-z-]*preview[a-z0-9-]*|video-poster)\.jpg", said="HomeGallery's previews"),
    # 2021-05-01_0A1B2C3D-overlay.png beside ...-main.jpg, 2021-05-01_overlay~0A1B2C3D.png
    Mark(
        r"\d{4}-\d\d-\d\d_(.+[-_](overlay|caption)|(overlay|caption|thumbnail)~.+)\.(png|webp|jpe?g)",
        said="Snapchat's captions",
    ),
)


def find_mark(name: str, around: str, beside: Collection[str], *, is_folder: bool) -> str | None:
    """Returns how reports call a folder or file that other programs keep; None for any other.

    around: the name of the folder that it is in. beside: the names in that folder, in lower case.
    """
    lower, outer = normalize("NFC", name.lower()), normalize("NFC", around.lower())
    marks = _FOLDERS if is_folder else _FILES
    mark = next((mark for mark in marks if mark.fits(lower, outer, beside)), None)
    return None if mark is None else mark.said or name


# A folder that had photos at the last build.
_EMPTY = "the folder is empty, perhaps because its disk is not mounted"
_NO_PHOTO = "it had photos but is empty now, perhaps because its disk is not mounted"
_ABSENT = "the folder is not there, perhaps because its disk is not mounted"
_LOST = {_EMPTY, _NO_PHOTO, _ABSENT, f"the folder cannot be read: {os.strerror(errno.ENOENT)}"}
# Endings of the photos beside which a camera writes a RAW file of the same name, and beside which phones write the film
# of a Live Photo.
_SHOTS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".heic", ".heif", ".hif", ".avif"})
_FILM = ".mov"
# The ending of a name without one may be a part of a time or of a sentence: "Scan 2019.06.15 10.22".
_ENDING = re.compile(r"\.[a-z0-9_~-]*[a-z_~][a-z0-9_~-]*", re.ASCII)
# The deepest folder that is listed, and the longest path, in characters. A server, or an album, can make up any path,
# and a folder on a server may lead back to itself.
MAX_DEPTH = 100
MAX_PATH = 4096
MAX_FOLDERS = 50_000
# The most characters of a path that was left out that a report shows, and the most endings of names that it lists.
_SHOWN, _NAMED = 200, 5


class FolderListing:
    """The image files of a gallery. A walk through its folders finds them, while they are iterated over, once.

    They come in the order of their shown paths. Links, hidden names, the index itself and what was removed or excluded
    are left out; ``count`` says how many were found so far, ``raws`` has the RAW files beside each photo, which are
    left out, too, and ``elsewhere`` the photos that iCloud keeps. A folder that is empty, or a root without a photo,
    below which files are ``expected``, may not be mounted, and counts as one that could not be listed.
    """

    def __init__(
        self,
        roots: Sequence[Root],
        index: Path,
        removals: Removals | None = None,
        exclusions: Exclusions | None = None,
        expected: Callable[[FileKey], bool] = lambda folder: False,
    ) -> None:
        self.count = 0
        self._roots, self._names = roots, [root.name for root in roots]
        self._index, self._removals, self._expected = str(resolve(index)), removals or Removals(), expected
        self._unlisted: dict[FileKey, UnreadFile] = {}
        # Folders that had photos and now are empty or not there; and the folders in each whose photos count.
        self._empty, self._folders_in = set[FileKey](), dict[FileKey, set[str]]()
        self.elsewhere = set[FileKey]()
        self._exclusions = exclusions or Exclusions()
        self._bare = list[str]()
        self._links = self._special = self._excluded = 0
        self._listed = Counter[int]()
        self.raws: dict[FileKey, list[GalleryFile]] = {}
        self._endings, self._companions, self._not_photos = Counter[str](), Counter[str](), Counter[str]()

    @property
    def unlisted(self) -> tuple[UnreadFile, ...]:
        """The folders that could not be listed so far, and the unreadable files that stay, by path."""
        return tuple(sorted(self._unlisted.values(), key=lambda folder: folder.path))

    @property
    def skipped(self) -> tuple[str, ...]:
        words = [f"{folder}, which has no photo" for folder in self._bare]
        links, special = self._links, self._special
        if folders := self._not_photos.total():
            which = ", ".join(f"{count} {name}" for name, count in self._not_photos.most_common(_NAMED))
            kept = "folder or file" if folders == 1 else "folders or files"
            words.append(f"{folders} {kept} of thumbnails, copies, deleted or hidden photos: {which}")
        if self.elsewhere:
            words.append(f"{plural(len(self.elsewhere), 'photo')} not on this disk but in iCloud: download to index")
        if self._excluded:
            words.append(f"{self._excluded} by --exclude")
        if links:
            words.append(f"{links} symbolic link{'s' * (links > 1)}, not followed; name the folders instead")
        for counts, which in (self._companions, "beside a photo of the same name"), (self._endings, "of other types"):
            if number := counts.total():
                endings = sorted((+counts).items(), key=lambda item: (-item[1], item[0]))
                named = [f"{count} {ending or 'without an ending'}" for ending, count in endings[:_NAMED]]
                if rest := sum(count for _, count in endings[_NAMED:]):
                    named.append(f"{rest} others")
                words.append(f"{number} file{'s' * (number > 1)} {which}: {', '.join(named)}")
        if special:
            words.append(
                f"{special} that {'are' if special > 1 else 'is'} not a regular file: a pipe, socket or device"
            )
        return tuple(words)

    def may_hide(self, file: FileKey, *, moved: bool = False) -> bool:
        """Returns True if a file is elsewhere or its folder could not be listed, unless ``moved`` from an empty one."""
        root, path = file
        if file in self.elsewhere:
            return True
        around = ((root, folder) for folder in with_folders(path)[:-1])
        return any(key in self._unlisted and not (moved and key in self._empty) for key in around)

    def note_absent(self, files: Iterable[FileKey]) -> None:
        """Counts folders as not listed that are not there, with all that they held, these ``files`` among it."""
        for root, path in files:
            for around, folder in pairwise(with_folders(path)[:-1]):
                if self.may_hide((root, path)) or (root, around) not in self._folders_in:
                    break
                if folder not in self._folders_in[root, around]:
                    self._leave_out(root, name_of_text(folder), _ABSENT)
                    self._empty.add((root, folder))

    def forget_empty(self, expected: Callable[[FileKey], bool]) -> None:
        """Counts empty and absent folders below which no file is ``expected`` any longer as listed."""
        for key in [key for key in self._empty if not expected(key)]:
            del self._unlisted[key]

    def check(self, known: Iterable[FileKey]) -> None:
        """Raises BadInvocation if there is nothing to index. known: the places of the index's files."""
        if self.count or any(map(self.may_hide, known)):
            return
        if self._unlisted:
            raise BadInvocation("; ".join(f"{bad.path}: {bad.reason}" for bad in self.unlisted) + ".")
        links = " (symbolic links are not followed)" if self._links else ""
        others = " besides those that --exclude leaves out" if self._excluded else ""
        folders = ", ".join(str(root.folder) for root in self._roots)
        raise BadInvocation(f"there are no image files in {folders}{others}{links}; name a folder of photos.")

    def __iter__(self) -> Iterator[GalleryFile]:
        for number in sorted(range(len(self._roots)), key=lambda number: f"{self._names[number]}/"):
            root = self._roots[number].folder
            try:
                listing = root.listing()
            except OSError as error:
                self._leave_out(number, "", _unread(error))
                continue
            # A stack, because folders may be nested deeper than Python's calls may be.
            folders, before = [self._entries(number, "", listing)], self.count
            while folders:
                for name, entry in folders[-1]:
                    path = text_of_name(name)
                    if entry.kind == "folder":
                        if root.address_of(path) != self._index:
                            folders.append(self._entries(number, name, listing))
                            break
                    elif not self._removals.hides(number, path) and self._is_photo(number, path, entry):
                        self.count += 1
                        reason = f"it cannot be read: {entry.reason}" if entry.reason else None
                        yield GalleryFile(number, path, entry.stamp, reason=reason)
                else:
                    folders.pop()
            elsewhere = any(root == number for root, _ in self.elsewhere)
            if self.count == before and (number, "") not in self._unlisted and not elsewhere:
                if self._expected((number, "")):
                    self._leave_out(number, "", _NO_PHOTO)
                    self._empty.add((number, ""))
                else:
                    self._bare.append(str(root))

    def _entries(self, number: int, folder: str, listing: Listing) -> Iterator[tuple[str, Entry]]:
        """Yields each entry of a folder with its path in the root, in the order of the shown paths."""
        self._listed[number] += 1
        entries: list[Entry] = []
        if folder.count("/") >= MAX_DEPTH:
            self._leave_out(number, folder, f"the folder is not read: it is nested more than {MAX_DEPTH} deep")
        elif self._roots[number].folder.remote and self._listed[number] > MAX_FOLDERS:
            self._leave_out(number, folder, f"the folder is not read: the server has more than {MAX_FOLDERS}")
        else:
            try:
                entries = [*listing(folder)]
            except OSError as error:
                self._leave_out(number, folder, _unread(error))
            else:
                if not entries and self._expected((number, text_of_name(folder))):
                    self._leave_out(number, folder, _EMPTY)
                    self._empty.add((number, text_of_name(folder)))
        if any(len(folder) + len(entry.name) >= MAX_PATH for entry in entries):
            self._leave_out(number, f"{folder}/", f"files in it are left out: their paths exceed {MAX_PATH} characters")
            entries = [entry for entry in entries if len(folder) + len(entry.name) < MAX_PATH]
        if folder and (marker := next((entry.name for entry in entries if entry.name in MARKERS), None)):
            self._not_photos[f"with {marker}"] += 1
            entries = []
        if folder and is_index([entry.name for entry in entries]):
            self._not_photos["of an index"] += 1
            entries = []
        if entries:
            there = {f"{folder}/{entry.name}".lstrip("/") for entry in entries if entry.kind == "folder"}
            self._folders_in[number, text_of_name(folder)] = {*map(text_of_name, there)}
        entries = self._without_placeholders(number, folder, entries)
        names = {entry.name.lower() for entry in entries}
        entries = [entry for entry in entries if not self._is_left_out(folder, entry, names)]
        entries = self._without_companions(number, text_of_name(folder), entries)
        entries.sort(key=lambda entry: text_of_name(entry.name) + "/" * (entry.kind == "folder"))
        return iter([(f"{folder}/{entry.name}" if folder else entry.name, entry) for entry in entries])

    def _is_left_out(self, folder: str, entry: Entry, beside: Collection[str]) -> bool:
        """Returns True for a folder of other programs, or one that the user excludes, and counts it."""
        if self._exclusions.patterns:
            path = text_of_name(f"{folder}/{entry.name}" if folder else entry.name)
            if self._exclusions.matches(path, is_folder=entry.kind == "folder"):
                self._excluded += 1
                return True
        if entry.name in MARKERS:
            return True
        around = folder.rpartition("/")[2]
        if mark := find_mark(entry.name, around, beside, is_folder=entry.kind == "folder"):
            self._not_photos[text_of_name(mark)] += 1
        return mark is not None

    def _without_placeholders(self, number: int, folder: str, entries: Sequence[Entry]) -> list[Entry]:
        """Leaves out, and notes, files that stand for photos that iCloud keeps elsewhere: .IMG_1.HEIC.icloud."""
        kept: list[Entry] = []
        for entry in entries:
            if match := PLACEHOLDER.fullmatch(entry.name):
                path = text_of_name(f"{folder}/{match[1]}" if folder else match[1])
                if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES and not self._exclusions.matches(path):
                    self.elsewhere.add((number, path))
            else:
                kept.append(entry)
        return kept

    def _without_companions(self, number: int, folder: str, entries: Sequence[Entry]) -> list[Entry]:
        """Leaves out, and counts, RAW files and films that have the name of a photo in the same folder."""
        names = [os.path.splitext(entry.name) for entry in entries]
        photos = {stem: stem + ending for stem, ending in names if ending.lower() in _SHOTS}
        kept: list[Entry] = []
        for entry, (stem, ending) in zip(entries, names, strict=True):
            is_raw = ending.lower() in RAW_SUFFIXES
            if stem not in photos or not (is_raw or ending.lower() == _FILM) or entry.kind != "file":
                kept.append(entry)
                continue
            self._companions[ending.lower()] += 1
            path, photo = (text_of_name(f"{folder}/{name}" if folder else name) for name in (entry.name, photos[stem]))
            if is_raw and not self._removals.hides(number, path):
                self.raws.setdefault((number, photo), []).append(GalleryFile(number, path, entry.stamp))
        return kept

    def include_raws(self, raws: Sequence[GalleryFile]) -> Iterator[GalleryFile]:
        """Yields RAW files as listed after all, because the photo beside them does not show the same."""
        for file in raws:
            self._companions[os.path.splitext(file.path)[1].lower()] -= 1
            self.count += 1
            yield file

    def note_unread(self, root: int, path: str, reason: str) -> None:
        """Reports a listed file that could not be read. Its entry in the index stays."""
        self._unlisted[root, path] = UnreadFile(shown_path(self._names, root, path), reason)

    def _leave_out(self, number: int, folder: str, reason: str) -> None:
        text = text_of_name(folder)
        shown = shown_path(self._names, number, text) if folder else str(self._roots[number].folder)
        if reason in _LOST:
            # `index remove` cannot remove a whole gallery.
            removable = folder or len(self._roots) > 1
            moved = "if its photos have moved, `index build FOLDER --yes` finds them there"
            reason += f" ({'`index remove` drops it' if removable else moved})"
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}..."
        self._unlisted[number, text] = UnreadFile(shown, reason)

    def _is_photo(self, number: int, path: str, entry: Entry) -> bool:
        if entry.kind == "link":
            self._links += 1
        elif entry.kind == "special":
            self._special += 1
        else:
            ending = os.path.splitext(entry.name)[1].lower()
            folder = self._roots[number].folder
            if ending in IMAGE_SUFFIXES:
                return True
            # Reading the start of each file from a server would mean waiting for the server each time.
            if not _ENDING.fullmatch(ending) and not folder.remote:
                with suppress(OSError):
                    if media_type(folder.read_part(path, START)) is not None:
                        return True
            self._endings[text_of_name(ending)] += 1
        return False


def _unread(error: OSError) -> str:
    return f"the folder cannot be read: {error.strerror}"
