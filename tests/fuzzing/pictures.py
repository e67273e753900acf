"""Picture files of every format that is opened, with random edits of their bytes."""

from __future__ import annotations

import os
import resource
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image

from model.errors import ImageError
from model.images import media_type, open_image
from tests.fuzzing.campaign import Case
from tests.fuzzing.limited import MOST_SECONDS, Outcome
from tests.fuzzing.mutations import mutated, with_right_checksums
from tests.pictures import ODD_FILES, drawing, encoded, oriented, photo

_SIDE = 96
# Files of one case.
_TOGETHER = 25


class Pictures:
    """The service and the indexer open such files: each gives a picture or an ``ImageError``, within the limits."""

    name = "pictures"

    def make(self, chance: Random, folder: Path) -> Case:
        """Some of the valid files, mutated. A process for each would take most of the time."""
        files = valid_files()
        made: list[tuple[str, int | None]] = []
        for number in range(_TOGETHER):
            name = chance.choice(sorted(files))
            kind = media_type(files[name])
            alike = [data for data in files.values() if media_type(data) == kind]
            data = mutated(files[name], chance, alike)
            if kind == "image/png" and chance.random() < 0.7:
                data = with_right_checksums(data)
            made.append((f"{number} {name}", chance.choice((None, None, 64))))
            (folder / made[-1][0]).write_bytes(data)
        return Case("pictures, mutated", open_pictures, (folder, made), seconds=_TOGETHER * MOST_SECONDS)

    def judge(self, case: Case, outcome: Outcome) -> list[str]:
        """Opened, or refused."""
        assert outcome.code == 0, f"ends with {outcome.code}"
        return [line.split(": ")[1] for line in outcome.out.splitlines()]


def open_pictures(folder: Path, made: list[tuple[str, int | None]]) -> int:
    """Say what comes of opening each; the last line names the one at which it went wrong, if it did."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    for name, least_side in made:
        used = sum(os.times()[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (min(hard, int(used) + 1 + MOST_SECONDS), hard))
        print(name, end=": ", flush=True)
        try:
            picture = open_image((folder / name).read_bytes(), least_side=least_side)
        except ImageError as error:
            print(f"{type(error).__name__}: {' '.join(str(error).split())}")
            continue
        assert picture.mode == "RGB"
        assert min(picture.size) > 0
        print("opened")
    return 0


@cache
def valid_files() -> dict[str, bytes]:
    """A file of every kind that is read, by name."""
    files = {odd.name: odd.data for odd in ODD_FILES if odd.opens and len(odd.data) < 200_000}
    small, lines = photo("star", _SIDE), drawing("house", _SIDE)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a description", 6
    exif.get_ifd(0x8769)[0x9286] = b"a comment"
    icc = {"icc_profile": _profile()}
    return files | {
        "baseline.jpg": encoded(small, "JPEG"),
        "progressive and small.jpg": encoded(small, "JPEG", progressive=True, subsampling=2),
        "restarts.jpg": encoded(small, "JPEG", restart_marker_blocks=2),
        "exif and profile.jpg": encoded(small, "JPEG", exif=exif, **icc),
        "two pictures.jpg": encoded(small, "MPO", save_all=True, append_images=[lines]),
        "turned.jpg": oriented(small, 6),
        "exif and profile.png": encoded(small, "PNG", exif=exif, **icc),
        "palette.png": encoded(small.quantize(16)),
        "exif.webp": encoded(small, "WEBP", exif=exif, **icc),
        "lossless.webp": encoded(lines, "WEBP", lossless=True),
        "palette.bmp": encoded(small.quantize(16), "BMP"),
        "one bit.bmp": encoded(lines.convert("1"), "BMP"),
        "exif.tif": encoded(small, "TIFF", exif=exif),
        **{
            f"{compression}.tif": encoded(picture, "TIFF", compression=compression)
            for compression, picture in {
                "tiff_adobe_deflate": small,
                "packbits": small,
                "jpeg": small,
                "group3": lines.convert("1"),
                "group4": lines.convert("1"),
                "zstd": small,
                "lzma": small,
            }.items()
        },
    }


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
