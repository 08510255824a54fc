"""address.py: which URLs name a team's cache, and that none with a secret in it does."""

import pytest

from stages.buckets.address import check_url


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3://bucket/a/b", "gs://bucket/x", "az://container/prefix", "file:///mnt/team"]
)
def test_places_in_object_stores_are_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:sentinel@bucket/x", "s3://sentinel@bucket/x", "s3://bucket/x?X-Amz-Signature=sentinel",
        "az://container/x?sv=1&sig=sentinel", "s3://bucket/x#sentinel", "https://bucket.s3.amazonaws.com/x?sentinel",
    ],
)  # fmt: skip
def test_a_url_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="credentials come from the environment") as refused:
        check_url(url)
    assert "sentinel" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "", "bucket/x", "/mnt/team", "https://host/x", "s3:bucket", "s3:/bucket", "s3://", "s3:///x", "s3://bucket:80/x",
        "file://relative/x", "file:///", "file:x", "s3://bucket/../other", "file:///mnt/../etc", "s3://[bucket",
    ],
)  # fmt: skip
def test_what_is_no_such_place_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected s3://BUCKET/PREFIX"):
        check_url(url)
