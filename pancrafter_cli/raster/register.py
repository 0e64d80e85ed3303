"""Registration of PAN and MS: measured on the scene, and corrected, left alone or refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from pancrafter_cli.errors import GeometryError, UsageError
from pancrafter_cli.geometry.matching import SEARCH
from pancrafter_cli.geometry.parts import NEAR
from pancrafter_cli.geometry.registration import Shift, summarise, window_shifts
from pancrafter_cli.raster.displacement import measure_displacement
from pancrafter_cli.raster.scene import Scene
from pancrafter_cli.raster.undeclared import check_fill

Choice = Literal["auto", "off"] | tuple[float, float]
Outcome = Literal[
    "negligible", "corrected", "unmeasured", "uncertain", "too far", "disagreeing", "unrelated", "given", "off"
]

DEFAULT_REGISTRATION: Choice = "auto"
_SLACK = 0.02  # MS pixels by which the spread of the windows may grow by chance
SMALLEST_SHIFT, LARGEST_SHIFT = 0.05, 2.0  # MS pixels: less is not worth a correction, more is no longer plausible
_DECIMALS = 4  # of a measured shift, in MS pixels

SHIFT_TAG, DISPLACEMENT_TAG = "PANCRAFTER_SHIFT", "PANCRAFTER_DISPLACEMENT"

_WORDS: dict[str, str] = {
    "negligible": "negligible, not corrected",
    "corrected": "corrected",
    "unmeasured": "could not be measured, nothing corrected",
    "uncertain": "too uncertain, not corrected",
    "too far": "too far to be corrected unasked",
    "disagreeing": "windows disagree",
    "unrelated": "PAN and MS show nothing in common",
    "given": "as given",
    "off": "not measured",
}


@dataclass(frozen=True)
class Registration:
    """The shift of MS against PAN and what was made of it.

    dx, dy: MS pixels by which MS content lies further right and down than its georeferencing says; spread: how far
    windows scatter around it (infinite where nothing was measured); windows: how many were matched of those `looked`
    at; applied: whether the scene was corrected by dx, dy; mode: what was asked for. `textured`: whether there was
    detail to match. displacement: median and greatest length, in MS pixels, by which PAN was moved besides, from place
    to place, None where it was not; left: the spread of the windows after that, measured anew.
    """

    dx: float
    dy: float
    spread: float
    windows: int
    looked: int
    applied: bool
    mode: Literal["auto", "off", "given"]
    outcome: Outcome
    textured: bool = False
    displacement: tuple[float, float] | None = None
    left: float = math.inf

    @property
    def mostly_matched(self) -> bool:
        """Whether windows matched, each for itself, wherever they agree or not."""
        return 2 * self.windows > self.looked

    @property
    def uncertainty(self) -> float:
        """How far off PAN may still lie here and there, in MS pixels; infinite where nothing was measured."""
        return self.spread if self.displacement is None else self.left

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should check."""
        if self.outcome not in ("unmeasured", "uncertain") or not self.textured or self.mostly_matched:
            return ()
        return (
            "PAN and MS both have detail, and hardly any of it matches: check that they are of one place and time, and "
            "their georeferencing",
        )

    @property
    def text(self) -> str:
        """All of it in a line for people."""
        return self._as_a_whole + self._from_place_to_place

    @property
    def _as_a_whole(self) -> str:
        if self.outcome in ("off", "unmeasured", "unrelated"):
            seen = f" ({self.windows} of {self.looked} windows matched)" if self.mode == "auto" else ""
            return _WORDS[self.outcome] + seen
        shift = f"{self.dx:+z.2f}, {self.dy:+z.2f} MS pixels (x, y), {_WORDS[self.outcome]}"
        return shift if self.mode == "given" else f"{shift}; {self.certainty}"

    @property
    def _from_place_to_place(self) -> str:
        if self.displacement is None:
            return ""
        median, greatest = self.displacement
        left = f", spread then {self.left:.2f}" if math.isfinite(self.left) else ""
        return f"; besides, from place to place, by {median:.2f} in the median and at most {greatest:.2f}{left}"

    @property
    def certainty(self) -> str:
        """How well it is known, for people."""
        return f"spread {self.spread:.2f}, {self.windows} of {self.looked} windows"

    @property
    def tags(self) -> dict[str, str]:
        """What the product's metadata say: what was corrected (x,y in MS pixels), and how that came about."""
        dx, dy = (self.dx, self.dy) if self.applied else (0.0, 0.0)
        tags = {SHIFT_TAG: f"{dx:.15g},{dy:.15g}", "PANCRAFTER_REGISTRATION": f"{self.mode}: {self.text}"}
        if self.displacement is not None:
            tags[DISPLACEMENT_TAG] = ",".join(f"{length:.3g}" for length in self.displacement)
        return tags


def register(
    scene: Scene, choice: Choice = DEFAULT_REGISTRATION, local: bool | None = None
) -> tuple[Scene, Registration]:
    """The scene with MS brought to where its content lies, and what was found.

    "auto" measures: below 0.05 MS pixel nothing is done, up to 2 MS pixels the shift is corrected, and a scene in
    which too little can be matched is left as it is. "off" does nothing; (dx, dy) is taken without measuring.
    local: whether PAN is then moved, from place to place, to where MS shows the same; by default where "auto" could
    measure a shift.

    Raises GeometryError for a shift beyond 2 MS pixels, for windows that disagree and for PAN and MS whose detail has
    nothing in common, RasterError when a file cannot be read or holds an undeclared fill value, and UsageError for a
    shift that is not finite.
    """
    check_fill(scene)
    return register_locally(*_register_as_a_whole(scene, choice), local)


def register_locally(scene: Scene, found: Registration, local: bool | None = None) -> tuple[Scene, Registration]:
    """The last step of `register`, after which PAN lies everywhere where MS shows the same."""
    measured = found.outcome in ("negligible", "corrected") or (found.outcome == "uncertain" and found.mostly_matched)
    displacement = measure_displacement(scene) if (measured if local is None else local) else None
    if displacement is None:
        return scene, found
    moved = scene.with_displacement(displacement)
    left = summarise(window_shifts(moved)).spread
    # What was measured otherwise has the last word: the windows must not lie worse than before.
    if local is None and left > found.spread + _SLACK:
        return scene, found
    return moved, replace(found, displacement=displacement.lengths, left=left)


def _register_as_a_whole(scene: Scene, choice: Choice) -> tuple[Scene, Registration]:
    if choice == "off":
        return scene, Registration(0.0, 0.0, math.inf, 0, 0, False, "off", "off")
    if not isinstance(choice, str):
        return _given(scene, *choice)
    found = judge(summarise(window_shifts(scene)))
    if found.outcome in ("too far", "disagreeing", "unrelated"):
        raise _refusal(found)
    return scene.with_shift(found.dx, found.dy) if found.applied else scene, found


def judge(shift: Shift) -> Registration:
    """What "auto" makes of a measured shift, with those that `register` refuses."""
    outcome = _outcome(shift)
    applied = outcome == "corrected"
    # To what can be written down: the product's tag, given as --registration, corrects exactly the same.
    dx, dy = round(shift.dx, _DECIMALS), round(shift.dy, _DECIMALS)
    facts = dx, dy, shift.spread, shift.windows, shift.looked
    return Registration(*facts, applied, "auto", outcome, shift.textured)


def _outcome(shift: Shift) -> Outcome:
    if not shift.reliable and shift.unrelated:
        return "unrelated"
    if shift.windows == 0:
        return "unmeasured"
    if shift.disagrees:
        return "disagreeing"
    if not shift.reliable:
        return "uncertain"
    size = math.hypot(shift.dx, shift.dy)
    if size < SMALLEST_SHIFT:
        return "negligible"
    return "corrected" if size <= LARGEST_SHIFT else "too far"


def locally(choice: Choice, local: bool | None) -> bool:
    """Whether `register` looks from place to place, where that was left to it, and it could measure."""
    return choice == "auto" if local is None else local


def parse_registration(text: str) -> Choice:
    """'auto', 'off' or 'DX,DY'. Raises UsageError."""
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    try:
        dx, dy = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--registration {text}: expected auto, off or two numbers DX,DY",
            "for example --registration=-0.5,0.25, in MS pixels to the right and down",
        ) from error
    return dx, dy


def _given(scene: Scene, dx: float, dy: float) -> tuple[Scene, Registration]:
    if not (math.isfinite(dx) and math.isfinite(dy)):
        raise UsageError(f"a registration of {dx},{dy} is not possible", "give two finite numbers, in MS pixels")
    return scene.with_shift(dx, dy), Registration(dx, dy, math.inf, 0, 0, True, "given", "given")


def _refusal(shift: Registration) -> GeometryError:
    if shift.outcome == "unrelated":
        return GeometryError(
            f"PAN and MS show nothing in common within {SEARCH} MS pixels of where their georeferencing puts them: "
            f"both have detail, and {shift.windows} of {shift.looked} windows match",
            "check that they are of one place and time, and their geotransforms (gdalinfo); if you know better, say "
            "where MS lies with --registration=DX,DY, or trust the georeferencing with --registration off",
        )
    numbers = f"{shift.dx:+z.2f}, {shift.dy:+z.2f} MS pixels (x, y)"
    if shift.outcome == "too far":
        found = f"MS lies {numbers} from where its georeferencing puts it on PAN, more than {LARGEST_SHIFT:g}"
        besides = ""
    else:
        found = f"MS lies elsewhere on PAN in every part of the scene; on the whole {numbers}"
        besides = f" (`sharpen`: and --local-registration, which follows up to {NEAR} MS pixels from place to place)"
    return GeometryError(
        f"{found} ({shift.certainty})",
        "check that PAN and MS belong together; then correct it with "
        f"--registration={shift.dx:.2f},{shift.dy:.2f}{besides}, or trust the georeferencing with --registration off",
    )
