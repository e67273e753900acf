"""What other programs keep beside photos: thumbnails, other sizes, deleted files. One table says what marks it."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from unicodedata import normalize


@dataclass(frozen=True)
class Mark:
    """What folders or files are called, in lower case: expressions for the whole name.

    around: for the name of the folder that it is in. beside: of each of these sets one name must be beside it; they are
    separated by |, and may have groups of its own. said: how reports call it, if not by its name.
    """

    name: re.Pattern[str]
    around: re.Pattern[str] = field(default=re.compile(".*", re.DOTALL), kw_only=True)
    beside: tuple[str, ...] = field(default=(), kw_only=True)
    said: str = field(default="", kw_only=True)

    def fits(self, name: str, around: str, beside: Collection[str]) -> bool:
        match = self.name.fullmatch(name)
        return (
            match is not None
            and self.around.fullmatch(around) is not None
            and all(any(match.expand(one) in beside for one in names.split("|")) for names in self.beside)
        )


_FOLDERS = (
    # Synology, QNAP, NetApp and other storage.
    Mark(re.compile(r"@(eadir|__thumb|tmp|sharebin|transcode|recycle|recently-snapshot|snapshots?)")),
    Mark(re.compile(r"#(recycle|snapshot)|~snapshot|trashbox")),
    # Windows, macOS and Android.
    Mark(re.compile(r"\$recycle\.bin|recycle[dr]|found\.\d{3}|system volume information|lost\+found|lost\.dir")),
    Mark(re.compile(r"__macosx|network trash folder|temporary items|backups\.backupdb")),
    # Lightroom, but for photos that a phone has sent to it, and that are nowhere else; Bridge, ACDSee, iPods, Sony.
    Mark(re.compile(r"(?!mobile downloads).*\.lrdata|(adobe )?bridge cache|\[originals\]|ipod photo cache|thmbnl")),
    # Apple's libraries but for their own photos, and the deleted ones of iCloud's export, in its languages.
    Mark(
        re.compile("(?!(originals|masters)$).*", re.DOTALL),
        around=re.compile(r".*\.(photoslibrary|photolibrary|migratedphotolibrary|aplibrary)", re.DOTALL),
        said="in a photo library",
    ),
    Mark(
        re.compile(
            "recently deleted|zuletzt gelöscht|supprimés récemment|suppressions récentes|eliminad[oa]s? recientemente|"
            "eliminad[oi]s? di recente|apagad[oa]s? recentemente|recent verwijderd|nyligen raderat|senest slettet|"
            "ostatnio usunięte|недавно удаленные|最近削除した項目|最近删除|最近刪除|최근 삭제된 항목"
        )
    ),
    # Google's Takeout, in its languages.
    Mark(
        re.compile(
            "trash|bin|papierkorb|corbeille|papelera|cestino|lixeira|lixo|prullenbak|papirkurv|papperskorgen|roskakori|"
            "kosz|koš|kuka|корзина|кошик|çöp kutusu|ゴミ箱|回收站|휴지통"
        ),
        around=re.compile(r"google (ph|f)oto\w*"),
    ),
    # Nextcloud and ownCloud, Immich, LibrePhotos, Photoview.
    Mark(re.compile(r"appdata_\w+|files_(trashbin|versions)")),
    Mark(re.compile("thumbs|profile"), beside=("encoded-video",)),
    Mark(re.compile(r"protected_media|thumbnails_big|square_thumbnails(_\w+)?")),
    Mark(re.compile("faces"), beside=("thumbnails_big|square_thumbnails",)),
    Mark(re.compile("media[-_]cache")),
    # Piwigo, Lychee.
    Mark(re.compile("_data"), beside=("galleries|upload",)),
    Mark(re.compile("(small|medium)(2x)?|thumb2x|placeholder"), beside=("big|original", "thumb")),
    Mark(re.compile("thumb"), beside=("big|original", "small|medium")),
    # Jellyfin and Emby.
    Mark(re.compile(r".+\.trickplay|resized-images", re.DOTALL)),
    Mark(re.compile("metadata|cache"), beside=("root", "data|plugins")),
    Mark(re.compile("library|people|artists"), around=re.compile("metadata")),
)
_FILES = (
    # Thumbnails that Synology writes, where a copy of its folders has other names.
    Mark(re.compile("syno(photo|file)_(thumb|film)_.*", re.DOTALL), said="SYNOPHOTO_THUMB files"),
    # IMG_1-300x200.jpg beside IMG_1.jpg.
    Mark(re.compile(r"(.+)-\d+x\d+(\.\w+)"), beside=(r"\1\2|\1-scaled\2|\1-rotated\2",), said="sizes of WordPress"),
    Mark(re.compile(r"(.+)-scaled(\.\w+)"), beside=(r"\1\2",), said="sizes of WordPress"),
    # thumbnail_IMG_1_jpg_AbCdEf12.jpg
    Mark(
        re.compile(r"(thumbnail|highres|video_thumb)_.+_[a-z0-9]+_[a-z0-9]{8}\.jpg"),
        around=re.compile(r"\d+"),
        said="Photoview's cache",
    ),
    # IMG_1.JPG_240q80cs.webp
    Mark(
        re.compile(
            r".+\.(jpe?g|png|gif|webp|hei[cf]|avif|tiff?|bmp|mp4|mov|webm|m4v|avi|mkv|svg|cr2|nef|arw|dng)"
            r"_\d+(q\d+)?[a-z]*\.(jpg|webp)"
        ),
        said="PiGallery2's sizes",
    ),
    # 407905f8af94ece4720be997fd291adea487-image-preview-1920.jpg
    Mark(re.compile(r"[0-9a-f]{7,40}-([a-z-]*preview[a-z0-9-]*|video-poster)\.jpg"), said="HomeGallery's previews"),
    # 2021-05-01_0A1B2C3D-overlay.png beside ...-main.jpg, 2021-05-01_overlay~0A1B2C3D.png
    Mark(
        re.compile(r"\d{4}-\d\d-\d\d_(.+[-_](overlay|caption)|(overlay|caption|thumbnail)~.+)\.(png|webp|jpe?g)"),
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
