"""Products of every layout: their corners and content lie where pyproj says."""

from __future__ import annotations

import pytest

from tests.layouts import built, check, real, remote, served

TOLERANCE = 0.1  # PAN pixels
BUILT = [name for name, _ in built(None)]
REAL = ["vhr-henan", "spot6-tiny", "quickbird-paris", "landsat8-bands", "south-up PAN"]


def right(found) -> None:
    assert found.corners < TOLERANCE, found
    assert found.content < TOLERANCE, found


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", BUILT)
def test_built_products(tmp_path, name):
    (tmp_path / "in").mkdir()
    right(check(dict(built(tmp_path / "in"))[name](), tmp_path / "out.tif"))


def test_a_remote_product(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(tmp_path) as address:
        right(check(remote(tmp_path, address), tmp_path / "out.tif"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", REAL)
def test_real_products(scenes, tmp_path, name):
    layouts = dict(real(scenes, tmp_path))
    assert sorted(layouts) == sorted(REAL)
    right(check(layouts[name](), tmp_path / "out.tif"))
