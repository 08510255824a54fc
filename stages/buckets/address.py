"""Owns which URLs name a team's cache. Opens nothing (object_store.py)."""

from urllib.parse import urlsplit

SCHEMES = ("s3", "gs", "az", "file")
_FORM = "expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"


def check_url(url: str) -> None:
    """Raises ValueError, without the URL in it, for one that is of another form or has a secret in it.

    A URL is written to records and shown, so user names, passwords, and signatures after a `?` are refused.
    """
    try:
        parts = urlsplit(url)
        named = parts.hostname
    except ValueError as error:
        raise ValueError(f"it is no URL; {_FORM}") from error
    if "@" in parts.netloc or parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError(
            "a user, password or signature in the URL would be shown and recorded; leave it out: credentials come "
            "from the environment (AWS_..., GOOGLE_..., AZURE_...)"
        )
    of_folder = parts.scheme == "file" and not parts.netloc and parts.path.strip("/") != ""
    of_bucket = parts.scheme in SCHEMES[:-1] and bool(named) and ":" not in parts.netloc
    if not (of_folder or of_bucket) or not url.startswith(f"{parts.scheme}://"):
        raise ValueError(f"it names no place in an object store; {_FORM}")
    if any(part in (".", "..") for part in parts.path.split("/")):
        raise ValueError(f"its path has a . or .. in it; {_FORM}")


def split_url(url: str) -> tuple[str, str]:
    """The URL of the bucket that an object is in, of file:// that of the root folder; and its name there."""
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return "file:///", rest.lstrip("/")
    bucket, _, name = rest.partition("/")
    return f"{scheme}://{bucket}", name
