"""The largest metadata fits into the function's memory, whatever the encodings."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import TARGET
from large import HTML, JSON, NPM, Large, LargeUpstream, needed

BINARY = TARGET.resolve() / "debug" / "guard-tokens"
# What `template.yaml` gives the registries, in bytes.
FUNCTION = 1_024 * 1_024 * 1_024


@pytest.fixture(scope="module")
def large() -> Iterator[LargeUpstream]:
    """An upstream of large documents."""
    upstream = LargeUpstream()
    yield upstream
    upstream.stop()


@pytest.mark.parametrize("encoding", ["gzip", "plain"])
@pytest.mark.parametrize("kind", [NPM, JSON, HTML])
def test_metadata_is_rewritten_in_less_than_twice_its_size(
    large: LargeUpstream, tmp_path: Path, kind: str, encoding: str
) -> None:
    document = Large(kind, 20, large.url)
    found = needed(BINARY, tmp_path / "service", large, document, encoding, "gzip")
    assert found.status == 200
    assert found.more < 2 * document.size, found


@pytest.mark.parametrize(("accepted", "status"), [("gzip", 200), ("identity", 422)])
def test_metadata_of_120_megabytes_fits_into_the_functions_memory(
    large: LargeUpstream, tmp_path: Path, accepted: str, status: int
) -> None:
    found = needed(BINARY, tmp_path / "service", large, Large(NPM, 120, large.url), "gzip", accepted)
    assert found.status == status
    assert found.peak < FUNCTION / 2, found
