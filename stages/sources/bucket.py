"""Owns listing images and archives below a URL, by one listing of objects. Not their bytes (blobs.py)."""

from cache.errors import Unusable
from stages.buckets import address
from stages.buckets.object_store import Absent
from stages.sources import blobs
from stages.sources.blobs import Blob
from stages.sources.listing import ARCHIVES, EXTENSIONS, SYSTEM, Listing, extension_of


def check_url(url: str, called: str) -> None:
    """Raises Unusable for a URL that is none, or has a secret in it; the message doesn't show it then."""
    try:
        address.check_url(url)
    except ValueError as error:
        raise Unusable(f"{called}: {error}") from error


def list_bucket(url: str) -> tuple[Listing, dict[str, Blob]]:
    """Images below a URL, with versions, and archives; hidden objects, and those of systems, are ignored.

    Raises Denied and Unreachable, Unusable without obstore.
    """
    found, archives = Listing(), dict[str, Blob]()
    versions: dict[str, str] = {}
    bucket, prefix = address.split_url(url)  # not a client of the URL, which would take %20 in it for a space
    for listed in blobs.open_store(bucket).list(prefix):
        name = listed.name.removeprefix(f"{prefix}/")
        parts, kind = name.split("/"), extension_of(name)
        blob = blobs.blob_of(f"{url}/{name}", listed)
        if any(part.startswith(".") for part in parts):
            found.ignored["hidden"] += 1
        elif SYSTEM & {*parts[:-1]}:
            found.ignored["of a system"] += 1
        elif kind in EXTENSIONS:
            versions[name] = blob.version if blob.settled else ""
        elif kind in ARCHIVES:
            archives[name] = blob
        else:
            found.ignored[kind or "without extension"] += 1
    found.names, found.versions = sorted(versions), versions
    return found, archives


def list_object(url: str, name: str) -> tuple[Listing, dict[str, Blob]]:
    """The one image or archive of that name below a URL, as `list_bucket` gives it. Raises Unusable where it is not."""
    bucket, whole = address.split_url(f"{url}/{name}")
    try:
        listed = blobs.open_store(bucket).head(whole)
    except Absent as error:
        raise Unusable(f"{url}/{name} is not there", "name an image, an archive, or what is before them") from error
    blob = blobs.blob_of(f"{url}/{name}", listed)
    if extension_of(name) in ARCHIVES:
        return Listing(), {name: blob}
    return Listing([name], {name: blob.version if blob.settled else ""}), {}
