from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from pancrafter_cli.errors import RasterError, UsageError
from pancrafter_cli.raster import SceneOptions, open_scene
from pancrafter_cli.raster import collar as collar_module
from pancrafter_cli.raster.align import parse_nodata
from pancrafter_cli.raster.collar import find_collar
from tests.scene_factory import FileFacts, ms_transform, smooth_image, write_tif

AUTO = SceneOptions(nodata="auto")


def ms_facts(**changes) -> FileFacts:
    return replace(FileFacts(transform=ms_transform(4)), **changes)


def write(folder, pan, ms, pan_nodata=None, ms_nodata=None):
    return (
        write_tif(folder / "p.tif", pan, FileFacts(nodata=pan_nodata)),
        [write_tif(folder / "m.tif", ms, ms_facts(nodata=ms_nodata))],
    )


def pair(bands=2, dtype="uint16"):
    return smooth_image(1, 32, 40).astype(dtype), smooth_image(bands, 8, 10).astype(dtype)


# --- a value told by the user


def test_a_told_value_takes_the_place_of_what_both_files_declare(tmp_path):
    pan, ms = pair()
    pan[0, 0, 0], pan[0, 9, 9] = 7, 99  # 99 is declared, and wrong
    ms[0, 4, 4], ms[1, 5, 5] = 7, 50
    files = write(tmp_path, pan, ms, 99, 50)
    with open_scene(*files, SceneOptions(nodata=7)) as scene:
        assert np.array_equal(~scene.read_pan(0, 0, 32, 40)[1], pan == 7)
        assert np.array_equal(~scene.read_ms(0, 0, 8, 10)[1], ms == 7)
        assert (scene.nodata, scene.needs_mask) == (7, False)
    with open_scene(*files) as scene:
        assert scene.nodata == 50


def test_a_value_that_one_side_cannot_hold_counts_for_the_other(tmp_path):
    pan, _ = pair()
    ms = smooth_image(1, 8, 10).astype("float32")
    ms[0, 3, 3] = -9999
    files = write(tmp_path, pan, ms, 0)
    with open_scene(*files, SceneOptions(nodata=-9999)) as scene:
        assert scene.read_pan(0, 0, 32, 40)[1].all()
        assert (~scene.read_ms(0, 0, 8, 10)[1]).sum() == 1


def test_a_value_that_no_pixel_can_have_is_refused(tmp_path):
    with pytest.raises(UsageError, match="-9999: no pixel of uint16"):
        open_scene(*write(tmp_path, *pair()), SceneOptions(nodata=-9999.0))


def test_a_mask_still_counts_beside_a_told_value(tmp_path):
    pan, ms = pair()
    ms[:, 2, 2] = 5
    mask = np.ones((8, 10), bool)
    mask[6, 6] = False
    files = [write_tif(tmp_path / "m.tif", ms, ms_facts(mask=mask))]
    with open_scene(write_tif(tmp_path / "p.tif", pan), files, SceneOptions(nodata=5)) as scene:
        gone = ~scene.read_ms(0, 0, 8, 10)[1]
        assert gone[:, 2, 2].all()
        assert gone[:, 6, 6].all()
        assert gone.sum() == 4


@pytest.mark.parametrize(("text", "said"), [(None, None), ("auto", "auto"), ("AUTO", "auto"), ("-1.5", -1.5)])
def test_what_the_flag_can_say(text, said):
    assert parse_nodata(text) == said


def test_what_the_flag_cannot_say():
    assert math.isnan(parse_nodata("nan"))
    with pytest.raises(UsageError, match="'zero' is not possible"):
        parse_nodata("zero")


# --- undeclared collars


def tilted(height, width):
    """A footprint turned in its raster, as along a satellite's track."""
    y, x = np.mgrid[0:height, 0:width]
    u, v = (x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5
    return (np.abs(0.95 * u + 0.3 * v) < 0.36) & (np.abs(-0.3 * u + 0.95 * v) < 0.36)


def test_a_collar_is_found_and_dark_water_inside_stays(tmp_path):
    pan, ms = pair()
    pan_inside, ms_inside = tilted(32, 40), tilted(8, 10)
    pan[:, ~pan_inside] = 0
    ms[:, ~ms_inside] = 0
    pan[0, 14:18, 16:24] = 0  # a lake
    ms[:, 4, 5] = 0
    files = write(tmp_path, pan, ms)
    with open_scene(*files, AUTO) as scene:
        assert np.array_equal(scene.read_pan(0, 0, 32, 40)[1][0], pan_inside)
        assert np.array_equal(scene.read_ms(0, 0, 8, 10)[1], np.stack([ms_inside] * 2))
        assert (scene.nodata, scene.needs_mask) == (None, True)
        assert scene.read_ms(0, 0, 8, 10)[0][:, 4, 5].tolist() == [0, 0]
    with open_scene(*files) as scene:
        assert scene.read_pan(0, 0, 32, 40)[1].all()


def test_a_collar_of_one_side_only(tmp_path):
    pan, ms = pair()
    pan[:, :5] = 0
    with open_scene(*write(tmp_path, pan, ms), AUTO) as scene:
        assert not scene.valid(0, 0, 5, 40).any()
        assert scene.valid(5, 0, 27, 40).all()


def test_a_collar_is_blank_in_all_bands_of_all_files(tmp_path):
    pan, ms = pair(1)
    other = ms.copy()
    ms[:, :2] = 0
    other[:, :1] = 0
    files = [write_tif(tmp_path / f"{n}.tif", b, ms_facts()) for n, b in (("a", ms), ("b", other))]
    with open_scene(write_tif(tmp_path / "p.tif", pan), files, AUTO) as scene:
        valid = scene.read_ms(0, 0, 8, 10)[1]
        assert not valid[:, 0].any()
        assert valid[:, 1:].all()
        assert scene.needs_mask


def test_black_pixels_at_the_border_without_a_corner_stay(tmp_path):
    pan, ms = pair()
    pan[0, 0, 10:20] = 0
    with open_scene(*write(tmp_path, pan, ms), AUTO) as scene:
        assert scene.valid(0, 0, 32, 40).all()
        assert not scene.needs_mask


def test_a_collar_beyond_declared_nodata_is_found(tmp_path):
    pan, ms = pair(1, "float32")
    ms[0, :, :2] = -9999
    ms[0, :, 2] = 0
    ms[0, 0, :], ms[0, 0, 0] = 0, 0
    files = write(tmp_path, pan, ms, None, -9999)
    with open_scene(*files, AUTO) as scene:
        valid = scene.read_ms(0, 0, 8, 10)[1][0]
        assert not valid[:, :3].any()
        assert not valid[0].any()
        assert valid[1:, 3:].all()


def test_white_is_no_collar(tmp_path):
    pan, ms = pair(2, "uint8")
    pan[0, :9, :9] = 255  # a cloud in the corner
    with open_scene(*write(tmp_path, pan, ms), AUTO) as scene:
        assert scene.valid(0, 0, 32, 40).all()


def test_a_raster_that_is_all_collar_says_so(tmp_path):
    pan, ms = pair()
    with (
        open_scene(*write(tmp_path, pan * 0, ms), AUTO) as scene,
        pytest.raises(RasterError, match="no pixel is valid"),
    ):
        _ = scene.statistics


class Source:
    """An image as a raster gives it."""

    def __init__(self, image):
        self.image = image

    def read(self, row, col, height, width):
        part = self.image[None, row : row + height, col : col + width].astype(np.float32)
        return part, np.ones(part.shape, bool)


@pytest.mark.parametrize("turns", range(4))
def test_a_collar_may_lie_in_one_corner_alone(turns):
    y, x = np.mgrid[:20, :30]
    inside = np.rot90(x + y >= 9, turns)
    found = find_collar(Source(700.0 * inside), inside.shape, "uint16")
    assert found.value == 0
    assert np.array_equal(found.covers(0, 0, *inside.shape), ~inside)


@settings(max_examples=100)
@given(
    image=arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)),
    window=st.integers(1, 5), data=st.data(),
)  # fmt: skip
def test_the_collar_is_what_runs_to_the_border_whatever_the_windows(image, window, data):
    image[0, 0] = 0
    height, width = image.shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collar_module, "_WINDOW", window)
        found = find_collar(Source(image), image.shape, "uint8")
    whole = found.covers(0, 0, height, width)
    for y in range(height):
        for x in range(width):
            rays = image[y, : x + 1], image[y, x:], image[: y + 1, x], image[y:, x]
            assert whole[y, x] == any(not ray.any() for ray in rays)
    labels, _ = ndimage.label(image == 0)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    assert np.isin(labels[whole], border).all()  # what is taken is connected with the border
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    assert np.array_equal(found.covers(row, col, height - row, width - col), whole[row:, col:])
