"""The script that writes a card's tables from the reports of `eval`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "examples" / "write_card.py"
CLASSICAL = ("brovey", "gsa", "mtf-glp-fs", "mtf-glp-hpm-r", "bdsd-pc")


def row(scene: str, method: str, ergas: float, **more: Any) -> dict[str, Any]:
    scores = {"ergas": ergas, "sam": ergas, "q2n": 1 / ergas}
    return {"scene": scene, "protocol": "reduced", "method": method, "scores": scores, **more}


def scene(name: str, ours: float, best: float = 2.0) -> list[dict[str, Any]]:
    """`exp` has an ERGAS of 4, the classical methods `best` to 1 more, the model `ours`."""
    classical = [row(name, method, best + k / 4) for k, method in enumerate(CLASSICAL)]
    return [row(name, "exp", 4.0), *classical, row(name, "mine", ours)]


def write(
    folder: Path,
    rows: list[dict[str, Any]],
    curve: list[dict[str, Any]] | None = None,
    settings: dict[str, str] | None = None,
) -> Path:
    folder.mkdir()
    (folder / "eval.json").write_text(json.dumps({"rows": rows, "curve": curve or [], "settings": settings or {}}))
    return folder


def run(card: Path, *reports: Path, saw: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(card), *map(str, reports), *(("--saw", *saw) if saw else ())]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tables_stand_between_their_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("before\n<!-- scores -->\nold\n<!-- /scores -->\nafter <!-- moved -->kept<!-- /moved -->\n")
    report = write(tmp_path / "r", scene("seen-1", 3.0) + scene("new-1", 1.0) + scene("new-2", 1.5))
    for _ in range(2):
        assert run(card, report, saw=("seen-*",)).returncode == 0
        text = card.read_text()
        assert text.startswith("before\n<!-- scores -->\n| scene |")
        assert text.endswith("<!-- /scores -->\nafter <!-- moved -->kept<!-- /moved -->\n")
        assert "old" not in text
    assert "| seen-1 | yes | 4.000 / 4.000 / 0.2500 | brovey 2.000 / 2.000 / 0.5000 | 3.000 /" in text
    assert "Mean ratio over the 2 unseen scenes" in text
    assert ": 0.625; 2 below 1, 2 below 0.92" in text


def test_what_local_registration_gains(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("<!-- local -->\n<!-- /local -->\n<!-- scores -->\n<!-- /scores -->\n")
    still = write(
        tmp_path / "still", scene("a", 1.5, 3.0) + scene("seen", 9.0), settings={"local registration": "none"}
    )
    assert run(card, still, write(tmp_path / "r", scene("a", 1.0) + scene("seen", 9.0)), saw=("seen",)).returncode == 0
    text = card.read_text()
    assert "| a | 3.000 | 1.500 | 2.000 | 1.000 |" in text
    assert "is 0.500 of that" in text
    assert "and 0.333 of that of the best one without it. Without it for both it is\n0.500." in text
    assert "| a | no | 4.000 / 4.000 / 0.2500 | brovey 2.000 / 2.000 / 0.5000 | 1.000 /" in text


def test_means_are_over_scenes_that_all_methods_have(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("<!-- moved -->\n<!-- /moved -->\n")
    place = {"registration": "off", "shift": 1.0}
    both = [row("a", "exp", 1.0, **place), row("b", "exp", 9.0, **place), row("a", "mine", 3.0, **place)]
    assert run(card, write(tmp_path / "r", [], both)).returncode == 0
    assert "| exp | 1.000 |\n| network | 3.000 |" in card.read_text()


def test_a_card_is_of_one_model(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("<!-- scores -->\n<!-- /scores -->\n")
    refused = run(card, write(tmp_path / "r", [row("a", "mine", 1.0), row("a", "other", 2.0)]))
    assert refused.returncode == 2
    assert "mine, other" in refused.stderr
    assert card.read_text() == "<!-- scores -->\n<!-- /scores -->\n"
