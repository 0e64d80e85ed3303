"""Long runs: gone on with after a kill, and the product is the same; memory and disk are looked at before."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from pancrafter_cli.errors import OutOfMemory, OutputError, PancrafterError, UsageError
from pancrafter_cli.geometry.grid import Grid
from pancrafter_cli.raster import journal, outputs, writer
from pancrafter_cli.raster.journal import Moment
from pancrafter_cli.raster.room import check_room
from pancrafter_cli.raster.spec import BandFacts, OutputSpec
from pancrafter_cli.raster.tiff import tile_tables
from pancrafter_cli.raster.writer import SceneWriter
from pancrafter_cli.tasks import memory
from pancrafter_cli.tasks.fusers import FittedFuser
from pancrafter_cli.tasks.memory import estimate_memory, free_memory, parse_bytes, pick_tile, smaller_tile
from pancrafter_cli.tasks.sharpen import sharpen_scene
from pancrafter_cli.tasks.sharpen_options import SharpenOptions, SharpenResult
from tests.pairs import displace
from tests.pairs import write_pair as write_pair_that_tells
from tests.scene_factory import FileFacts, write_pair

ROOT = Path(__file__).parents[1]
SHAPE = (700, 270)  # three rows of two tiles


@dataclass
class Runs:
    """A scene, how it is sharpened, and what a run that nothing disturbed makes of it."""

    folder: Path
    options: SharpenOptions
    whole: dict[str, bytes]

    def sharpen(self, **changes: Any) -> SharpenResult:
        return sharpen_scene(replace(self.options, **changes))

    def interrupt(self, rows: int = 1, error: type[BaseException] = KeyboardInterrupt, **changes: Any) -> list[str]:
        """End a run once rows of tiles are in its journal; what its interruption notes. A kill leaves the same."""
        options = replace(self.options, **changes)
        read, path = FittedFuser.read, options.output.with_name(f".{options.output.name}.part.journal")

        def interrupted(fuser: FittedFuser, y: tuple[int, int], x: tuple[int, int]) -> Any:
            if y[0] < 256 * rows - 128:
                return read(fuser, y, x)
            deadline = time.monotonic() + (10 if options.resume and not outputs.JOURNAL_SECONDS else 0)
            while time.monotonic() < deadline and ((found := journal.load(path)) is None or found.rows < rows):
                time.sleep(0.005)
            raise error(143)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FittedFuser, "read", interrupted)
            with pytest.raises(error) as caught:
                sharpen_scene(options)
        return getattr(caught.value, "__notes__", [])

    def pixels(self, name: str) -> np.ndarray:
        with rasterio.open(self.folder / name / "o.tif") as file:
            return file.read()

    def left(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.options.output.parent.iterdir()}


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] = SHAPE, **scene: Any) -> Runs:
    changes = scene.pop("changes", {})
    monkeypatch.setattr(outputs, "JOURNAL_SECONDS", 0.0)
    write_pair(folder, size=size, **scene)
    files = folder / "pan.tif", (folder / "ms.tif",)
    for name in ("whole", "out"):
        (folder / name).mkdir()
    whole = SharpenOptions(
        *files, folder / "whole" / "o.tif", tile=256, registration="off", **{"method": "exp"} | changes
    )
    runs = Runs(folder, whole, {})
    runs.sharpen()
    runs.whole = runs.left()
    assert list(runs.whole) == ["o.tif"]
    runs.options = replace(whole, output=folder / "out" / "o.tif")
    return runs


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return make(tmp_path, monkeypatch)


# --- killed


def program(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env, check=False, **options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_killed_at_random_moments() -> None:
    done = program(str(ROOT / "examples" / "measure_resume.py"), "--kills", "6", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "files: confidence.tif, out.tif\n" in done.stdout
    assert "bit-identical" in done.stdout
    assert "went on 0 times" not in done.stdout  # or nothing was proved


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("mode", ["new", "overwrite"])
def test_killed_at_any_step_that_touches_a_file(tmp_path: Path, mode: str) -> None:
    write_pair(tmp_path, size=(600, 280), bands=3)
    done = program("-m", "tests.crash_points", str(tmp_path), mode, "7", cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 40


# --- interrupted


SCENES: dict[str, dict[str, Any]] = {
    "plain": {},
    "float": {"dtype": "float32"},
    "a mask": {"dtype": "uint8", "pan": FileFacts(mask=np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 1777 > 20)},
    "bands apart": {"bands": 18, "size": (520, 260)},
    "fitted, back-projected": {"changes": {"method": "gsa", "consistency": 1, "halo": "full"}},
}


@pytest.mark.parametrize("scene", SCENES)
def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: str) -> None:
    runs = make(tmp_path, monkeypatch, **SCENES[scene])
    rows = -(-SCENES[scene].get("size", SHAPE)[0] // 256)
    assert runs.interrupt() == [f"run the same command again to go on from row of tiles 2 of {rows}"]
    assert sorted(runs.left()) == [".o.tif.part.journal", ".o.tif.part.tif"]
    result = runs.sharpen()
    assert result.notices == (f"going on with an unfinished run from row of tiles 2 of {rows}",)
    assert runs.left() == runs.whole


def test_the_confidence_layer_goes_on_too(runs: Runs) -> None:
    whole = runs.sharpen(output=runs.folder / "whole" / "p.tif", confidence=runs.folder / "whole" / "c.tif")
    names = {"output": runs.folder / "out" / "p.tif", "confidence": runs.folder / "out" / "c.tif"}
    for rows in (1, 2):
        runs.interrupt(rows, **names)
    result = runs.sharpen(**names)
    assert "going on" in result.notices[0]
    assert (result.valid, result.drifting, result.disagreeing) == (whole.valid, whole.drifting, whole.disagreeing)
    expected = {name: (runs.folder / "whole" / name).read_bytes() for name in ("c.tif", "p.tif")}
    assert runs.left() == expected


def test_the_layer_takes_its_name_before_the_product(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that is there says that all is there: a batch skips its scene."""
    named: list[str] = []
    take_name = writer.take_name
    monkeypatch.setattr(writer, "take_name", lambda *given: (named.append(given[1].name), take_name(*given)))
    runs.sharpen(confidence=runs.options.output.with_name("c.tif"))
    assert named == ["c.tif", "o.tif"]
    assert sorted(runs.left()) == ["c.tif", "o.tif"]


def test_sigterm_keeps_what_can_be_gone_on_with(runs: Runs) -> None:
    assert "from row of tiles" in runs.interrupt(1, SystemExit)[0]
    assert "going on with an unfinished run" in runs.sharpen().notices[0]
    assert runs.left() == runs.whole


def test_before_the_first_row_nothing_is_kept(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FittedFuser, "read", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        runs.sharpen()
    assert not hasattr(caught.value, "__notes__")
    assert runs.left() == {}


def test_a_short_run_keeps_no_journal(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "JOURNAL_SECONDS", 100.0)
    assert runs.interrupt() == []
    assert runs.left() == {}


def test_an_error_leaves_nothing_and_stops_at_once(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    appended: list[int] = []
    encode, append = SceneWriter.encode, SceneWriter.append

    def failing(self: SceneWriter, row: int, col: int, *images: Any) -> Any:
        if (row, col) == (256, 256):
            raise OutputError("the fourth tile is no good", "try another")
        return encode(self, row, col, *images)

    monkeypatch.setattr(SceneWriter, "encode", failing)
    monkeypatch.setattr(SceneWriter, "append", lambda self, block: (appended.append(block.row), append(self, block)))
    with pytest.raises(OutputError, match="fourth"):
        runs.sharpen()
    assert appended == [0, 0, 256]
    assert runs.left() == {}


# Every tile waits, so that there is a run to interrupt however late the signal comes.
CODE = """
import sys
import time
from pancrafter_cli.cli.main import run
from pancrafter_cli.raster import outputs
from pancrafter_cli.tasks import writing
outputs.JOURNAL_SECONDS = 0.0
encode, pause = writing._encode, float(sys.argv.pop(1))
writing._encode = lambda *given: (time.sleep(pause), encode(*given))[1]
sys.argv = ["pancrafter", "sharpen", *sys.argv[1:]]
run()
"""


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    write_pair(tmp_path, size=(6000, 300), bands=3)
    out = tmp_path / "out" / "o.tif"
    out.parent.mkdir()
    words = [str(tmp_path / "pan.tif"), str(tmp_path / "ms.tif"), "-o", str(out)]
    words += ["--method", "gsa", "--tile", "256", "--registration", "off"]
    process = subprocess.Popen([sys.executable, "-c", CODE, "0.5", *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.parent.glob("*.journal")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    error = process.communicate(timeout=180)[1]
    assert process.returncode == 130, error
    assert "error: interrupted\nhint: run the same command again to go on from " in error
    done = subprocess.run([sys.executable, "-c", CODE, "0", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("notice: going on with an unfinished run from ")
    assert list(out.parent.iterdir()) == [out]


# --- what is not of this run


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tile": 512}, "tile"),
        ({"method": "brovey"}, "method or model"),
        ({"consistency": 1}, "method or model"),
        ({"registration": (0.5, 0.0)}, "registration"),
        ({"ms_mtf": 0.2}, "MTF of MS"),
        ({"nodata": 500.0}, "grid, bands or nodata"),
        ({"nodata": "auto"}, "ratio, MS origin or nodata"),
        ({"blend": 8}, "blend"),
        ({"sensor": "QB"}, "sensor"),
    ],
)
def test_other_options_start_over(runs: Runs, changes: dict[str, Any], said: str) -> None:
    runs.interrupt()
    result = runs.sharpen(**changes)
    assert result.notices[0].startswith("starting over: there is an unfinished run, but it was made with other ")
    assert said in result.notices[0]
    runs.sharpen(**changes, output=runs.folder / "whole" / "p.tif")
    assert runs.left() == {"o.tif": (runs.folder / "whole" / "p.tif").read_bytes()}


def test_pan_moved_from_place_to_place_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "JOURNAL_SECONDS", 0.0)
    write_pair_that_tells(tmp_path, seed=3, pan_size=512, ratio=4, bands=3)
    displace(tmp_path / "pan.tif", 0.5)
    options = SharpenOptions(
        tmp_path / "pan.tif", (tmp_path / "ms.tif",), tmp_path / "out" / "o.tif", "exp", tile=256, registration="off"
    )
    options.output.parent.mkdir()
    runs = Runs(tmp_path, options, {})
    runs.interrupt()
    result = runs.sharpen(local_registration=True)
    assert result.registration.displacement is not None
    assert result.notices[0].startswith("starting over: there is an unfinished run, but it was made with other ")
    assert "registration" in result.notices[0]
    assert list(runs.left()) == ["o.tif"]


@pytest.mark.parametrize("resume", [True, False])
def test_the_layer_of_a_run_that_had_one_goes_with_it(runs: Runs, resume: bool) -> None:
    layer = runs.options.output.with_name("c.tif")
    runs.interrupt(confidence=layer)
    assert layer.with_name(".c.tif.part.tif").exists()
    runs.sharpen(resume=resume)
    assert runs.left() == runs.whole


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_another_place_of_ms_starts_over(runs: Runs) -> None:
    for path in (runs.options.pan, *runs.options.ms):
        with rasterio.open(path) as file:
            image, profile = file.read(), {k: v for k, v in file.profile.items() if k not in ("crs", "transform")}
        with rasterio.open(path, "w", **profile) as file:
            file.write(image)
    runs.options = replace(runs.options, ratio=4.0, ms_origin=(0.0, 0.0))
    runs.interrupt()
    assert "ratio, MS origin or nodata" in runs.sharpen(ms_origin=(-0.25, 0.0)).notices[0]


def test_other_inputs_start_over(runs: Runs) -> None:
    runs.interrupt()
    with rasterio.open(runs.options.pan, "r+") as file:
        file.write(file.read() + 1)
    assert "other input files" in runs.sharpen().notices[0]
    runs.sharpen(output=runs.folder / "whole" / "p.tif")
    assert runs.left() == {"o.tif": (runs.folder / "whole" / "p.tif").read_bytes()}


def test_no_resume_starts_over_and_keeps_nothing(runs: Runs) -> None:
    runs.interrupt()
    assert runs.sharpen(resume=False).notices == ()
    assert runs.left() == runs.whole
    runs.options.output.unlink()
    assert runs.interrupt(resume=False) == []
    assert runs.left() == {}


@pytest.mark.parametrize(
    "refused", [{"method": "nonsense"}, {"ms_mtf": 3.0}, {"pan": Path("none.tif")}, {"registration": (900.0, 0.0)}]
)
@pytest.mark.parametrize("asked", [{"resume": False}, {"confidence": None}])
def test_a_refused_command_costs_nothing(runs: Runs, refused: dict[str, Any], asked: dict[str, Any]) -> None:
    runs.options = replace(runs.options, confidence=runs.options.output.with_name("c.tif"))
    runs.interrupt()
    left = runs.left()
    assert {".o.tif.part.tif", ".o.tif.part.journal", ".c.tif.part.tif"} <= left.keys()
    with pytest.raises(PancrafterError):
        runs.sharpen(**refused | asked)
    assert runs.left() == left
    assert "going on" in runs.sharpen().notices[0]


@pytest.mark.parametrize("name", [".o.tif.part.journal", ".o.tif.part.tif"])
@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "empty", "longer"])
def test_damaged_remains_never_make_another_product(runs: Runs, name: str, harm: str) -> None:
    runs.interrupt()
    before = runs.left()
    rng = random.Random(name + harm)
    path = runs.options.output.with_name(name)
    for _ in range(4 if harm in ("cut", "changed") else 1):
        for other, data in before.items():
            path.with_name(other).write_bytes(data)
        data = bytearray(before[name])
        at = rng.randrange(len(data))
        if harm == "changed":
            data[at] ^= 1 << rng.randrange(8)
        data = {"cut": data[:at], "changed": data, "empty": b"", "longer": data + b"x" * 5000, "gone": b""}[harm]
        path.write_bytes(data)
        if harm == "gone":
            path.unlink()
        runs.sharpen()
        assert runs.left() == runs.whole, at
        runs.options.output.unlink()


def test_two_runs_at_once_stay_apart(runs: Runs) -> None:
    said: list[str] = []

    def meanwhile(done: int, total: int) -> None:
        if not said:
            said.extend(runs.sharpen(overwrite=True).notices)

    sharpen_scene(replace(runs.options, overwrite=True), meanwhile)
    assert "another run writes it too" in said[0]
    assert runs.left() == runs.whole


def test_a_run_that_holds_on_does_not_lose_its_file(runs: Runs) -> None:
    """--no-resume of another run removes remains, but not what a living run writes."""
    done: list[int] = []

    def meanwhile(now: int, total: int) -> None:
        if not done:
            done.append(now)
            runs.sharpen(overwrite=True, resume=False)

    sharpen_scene(replace(runs.options, overwrite=True), meanwhile)
    assert runs.left() == runs.whole


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be opened there")
def test_a_journal_survives_a_power_cut_once_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has the new file before the name is its own, and the name before anybody relies on it."""
    path, done = tmp_path / "j", list[tuple[str, bool]]()
    sync, replaced = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file", path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *names: (done.append(("name", path.exists())), replaced(*names)))
    saved = Moment({"tile": "256"}, 1, 3, {"valid": np.int64(7)}, np.zeros((1, 2, 3), np.float32), ())
    journal.save(path, saved)
    assert done == [("file", False), ("name", False), ("folder", True)]
    found = journal.load(path)
    assert found is not None
    assert (found.facts, found.place, found.numbers) == (saved.facts, "row of tiles 2 of 3", {"valid": 7})


def test_a_disk_without_room_for_the_journal_ends_only_that(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "save", full)
    assert runs.sharpen().notices == ("no journal can be kept (No space left on device): killed, this run is lost",)
    assert runs.left() == runs.whole


# --- the file itself


def test_tile_tables_are_where_gdal_finds_them(runs: Runs) -> None:
    data = runs.whole["o.tif"]
    table, *_ = tile_tables(data)
    with rasterio.open(runs.folder / "whole" / "o.tif") as file:
        wide = -(-file.width // 256)
        for k in range(table.count):
            found = [
                int(file.get_tag_item(f"BLOCK_{w}_{k % wide}_{k // wide}", "TIFF", bidx=1)) for w in ("OFFSET", "SIZE")
            ]
            assert found == [int(table.offsets(data)[k]), int(table.sizes(data)[k])]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_tables_hold_only_what_fits() -> None:
    with rasterio.MemoryFile() as memory_file:
        with memory_file.open(
            driver="GTiff", width=600, height=300, count=1, dtype="uint8", tiled=True, blockxsize=256, blockysize=256
        ):
            pass
        (table,) = tile_tables(bytes(memory_file.getbuffer()))
    assert table.count == 6
    fits = np.full(6, 7, np.uint64)
    assert [len(data) for _, data in table.patches(fits, fits)] == [24, 24]
    with pytest.raises(ValueError, match="do not fit"):
        table.patches(fits << np.uint64(40), fits)
    with pytest.raises(ValueError, match="do not fit"):
        table.patches(fits[:5], fits[:5])


# --- room on the disk


def usage(free: int) -> Any:
    return lambda path: shutil._ntuple_diskusage(1 << 40, 0, free)  # type: ignore[attr-defined]


def test_a_disk_that_cannot_hold_it_is_refused_before(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    most = SHAPE[0] * SHAPE[1] * 3 * 2
    monkeypatch.setattr(shutil, "disk_usage", usage(most // 9))
    with pytest.raises(
        OutputError, match=r"cannot be written: 0\.1 MB are needed at the least, 0\.1 MB are free"
    ) as caught:
        runs.sharpen()
    assert "another disk" in caught.value.hint
    assert runs.left() == {}
    monkeypatch.setattr(shutil, "disk_usage", usage(most // 2))
    assert "may take up to" in runs.sharpen().notices[0]
    runs.options.output.unlink()
    monkeypatch.setattr(shutil, "disk_usage", usage(most + 1))
    assert runs.sharpen().notices == ()


def test_what_an_earlier_run_has_written_needs_no_room_again(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.interrupt(2)
    kept = runs.options.output.with_name(".o.tif.part.tif").stat().st_size
    least = SHAPE[0] * SHAPE[1] * 3 * 2 // 8
    monkeypatch.setattr(shutil, "disk_usage", usage(max(0, least - kept)))
    assert any("going on" in notice for notice in runs.sharpen().notices)
    assert runs.left() == runs.whole


def test_the_confidence_layer_needs_room_too(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", usage(SHAPE[0] * SHAPE[1] * 3 * 2 // 8 + 1))
    with pytest.raises(OutputError, match="are needed at the least"):
        runs.sharpen(confidence=runs.options.output.with_name("c.tif"))
    assert runs.left() == {}
    runs.sharpen()
    assert runs.left() == runs.whole


def test_what_is_not_valid_needs_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = OutputSpec(Grid(Affine.identity(), 1000, 1000), "uint8", (BandFacts(),), nodata=0)
    monkeypatch.setattr(shutil, "disk_usage", usage(60_000))
    check_room({Path("o.tif"): spec}, 0.4, lambda text: None)
    with pytest.raises(OutputError):
        check_room({Path("o.tif"): spec}, 0.6, lambda text: None)


# --- memory


def test_the_tile_that_fits_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    def estimate(tile: int) -> int:
        return tile * 1000

    monkeypatch.setattr(memory, "free_memory", lambda: None)
    assert pick_tile(estimate, None, None) == 512
    monkeypatch.setattr(memory, "free_memory", lambda: 300_000)
    assert pick_tile(estimate, None, None) == 256
    monkeypatch.setattr(memory, "free_memory", lambda: 3000)  # told to be short of all; it may do
    assert pick_tile(estimate, None, None) == 256
    assert pick_tile(estimate, 1024, None) == 1024
    assert pick_tile(estimate, None, 600_000) == 512
    assert pick_tile(estimate, None, 511_999) == 256
    assert pick_tile(estimate, 768, 768_000) == 768
    with pytest.raises(UsageError, match="needs 1M") as caught:
        pick_tile(estimate, None, 255_999)
    assert "allow 1M" in caught.value.hint
    with pytest.raises(UsageError, match="tiles of 512 pixels") as caught:
        pick_tile(estimate, 512, 300_000)
    assert "--tile 256" in caught.value.hint
    assert [smaller_tile(n) for n in (1024, 768, 512, 256)] == [512, 256, 256, None]


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2 << 30), ("1.5 GB", 3 << 29), ("800m", 800 << 20), ("4096", 4096), ("2GiB", 2 << 30), (None, None)],
)
def test_sizes_as_people_write_them(text: str | None, size: int | None) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-2G", "0", "2 X", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="expected a size"):
        parse_bytes(text)


def test_free_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    5000 kB\n")
    assert free_memory() == 5000 << 10
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300000\n")
    assert free_memory() == 5000 << 10
    (tmp_path / "memory.max").write_text("3000000\n")
    assert free_memory() == 2_300_000


def test_max_memory_is_kept_to(runs: Runs) -> None:
    assert runs.sharpen(tile=None, max_memory=4 << 30).tile == 512
    runs.options.output.unlink()
    with pytest.raises(UsageError, match="--max-memory"):
        runs.sharpen(tile=None, max_memory=50 << 20)
    assert runs.left() == {}


def test_memory_is_estimated_for_all_that_a_tile_reads(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def estimate(width: int, side: int, bands: int) -> int:
        sides.append(side)
        return estimate_memory(width, side, bands)

    monkeypatch.setattr("pancrafter_cli.tasks.sharpen.estimate_memory", estimate)
    result = runs.sharpen(tile=None, max_memory=4 << 30, consistency=1, halo="full", blend=8)
    assert result.halo > 0
    assert result.tile + 8 + 2 * result.halo in sides


@pytest.mark.parametrize("kind", [MemoryError, OutOfMemory])
def test_out_of_memory_halves_the_tile_once(runs: Runs, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    read = FittedFuser.read

    def short(self: FittedFuser, rows: tuple[int, int], cols: tuple[int, int]) -> Any:
        if rows[1] - rows[0] > 400:
            raise kind("not enough memory")
        return read(self, rows, cols)

    monkeypatch.setattr(FittedFuser, "read", short)
    result = runs.sharpen(tile=None)
    assert (result.tile, result.notices) == (
        256,
        ("not enough memory for tiles of 512 pixels: starting again with 256",),
    )
    assert np.array_equal(runs.pixels("out"), runs.pixels("whole"))
    assert list(runs.left()) == ["o.tif"]
    runs.options.output.unlink()
    with pytest.raises(kind):
        runs.sharpen(tile=1024)
    assert runs.left() == {}


def test_what_is_free_now_does_not_start_a_run_over(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.interrupt()
    assert "going on" in runs.sharpen(tile=None).notices[0]  # 512 would fit
    assert np.array_equal(runs.pixels("out"), runs.pixels("whole"))
    assert list(runs.left()) == ["o.tif"]
