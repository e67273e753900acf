"""Fetches published weights from a hub, only if they are asked for by name, and says soon if it cannot be reached."""

from collections.abc import Sequence
from pathlib import Path

from sketch_search.model.errors import ModelError

# The form in which timm and open_clip name a repository: hf-hub:OWNER/NAME.
HUB = "hf-hub:"
# Seconds in which a hub has to answer. The library itself tries again and again for a minute.
_ANSWER = 5.0


def find_cached(repository: str, files: Sequence[str]) -> Path | None:
    """Finds the first of these files of a repository that is on this disk."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name) for name in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def check_reachable(repository: str) -> None:
    """Raises ModelError if the hub does not answer within seconds, or does not have this repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi().model_info(repository, timeout=_ANSWER)
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no public repository {repository}; check OWNER/NAME") from error
    except OfflineModeIsEnabled as error:
        raise ModelError(f"{repository} is not on this disk, and HF_HUB_OFFLINE forbids to download it") from error
    # The errors of the library's HTTP client, which has changed.
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ModelError(
            f"{repository} is not on this disk, and the hub cannot be reached ({reason}); connect to the network, or "
            "name a file"
        ) from error


def fetch(repository: str, name: str) -> Path:
    """Downloads a file of a repository, unless it is on this disk. Raises ModelError if it cannot be downloaded."""
    from huggingface_hub import hf_hub_download

    if (path := find_cached(repository, [name])) is not None:
        return path
    check_reachable(repository)
    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:
        raise ModelError(f"{repository} has no {name} that can be fetched ({error}); name a file instead") from error
