"""Writes the tables of a model card, or of the README, from the reports of `pancrafter eval`.

python examples/write_card.py CARD REPORT [REPORT ...] [--saw PATTERN ...]
Every REPORT is a folder that `pancrafter eval ... --report REPORT` wrote; what several say of a scene and a method, the
last one says. --saw: scenes that the weights were trained on. Between the lines `<!-- NAME -->` and `<!-- /NAME -->` of
CARD these tables are put, as far as the reports hold what they need:

brief: ERGAS and SAM on the scenes that the weights never saw
scores: reduced resolution, the model beside `exp` and the best classical method of each scene
full: the same at full resolution
moved: ERGAS with MS moved against PAN (`--shift`), without and with registration
local: ERGAS on the unseen scenes without local registration (reports with `--no-local-registration`) and with it
consistency: ERGAS and D_S after 0, 1, 2 and 5 back-projections (`--consistency 0,1,2,5`)
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

CLASSICAL = ("brovey", "gsa", "mtf-glp-fs", "mtf-glp-hpm-r", "bdsd-pc")
STEPS = (0, 1, 2, 5)  # back-projections
Scores = dict[str, float]
Rows = dict[str, dict[str, Scores]]  # by scene, then method; the model is "network", or "network/N" with --consistency


def method_of(row: dict[str, Any]) -> str:
    """The method of a row, "network" standing for whatever model it was."""
    name, _, steps = row["method"].partition("/")
    return row["method"] if name in (*CLASSICAL, "exp") else "/".join(filter(None, ("network", steps)))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scores_table(rows: Rows, saw: list[str]) -> str:
    """ERGAS, SAM and Q2n, and what they say of the scenes that the weights never saw."""

    def text(scores: Scores) -> str:
        return f"{scores['ergas']:.3f} / {scores['sam']:.3f} / {scores['q2n']:.4f}"

    lines, unseen = [], []
    for scene, of in rows.items():
        best = min(CLASSICAL, key=lambda name: of[name]["ergas"])
        ratio = of["network"]["ergas"] / of[best]["ergas"]
        seen = any(fnmatch(scene, pattern) for pattern in saw)
        texts = text(of["exp"]), f"{best} {text(of[best])}", text(of["network"]), f"{ratio:.3f}"
        lines.append([scene, "yes" if seen else "no", *texts])
        if not seen:
            best_sam, best_q2n = min(of[n]["sam"] for n in CLASSICAL), max(of[n]["q2n"] for n in CLASSICAL)
            unseen.append((scene, ratio, of["network"]["sam"] < best_sam, of["network"]["q2n"] > best_q2n))
    head = ["scene", "weights saw it", "exp", "best classical by ERGAS", "network", "ratio of ERGAS"]
    counted = [row for row in unseen if counts(row[0], saw)]
    below = ", ".join(f"{sum(ratio < limit for _, ratio, _, _ in counted)} below {limit}" for limit in (1, 0.92))
    with_all = np.mean([ratio for scene, ratio, _, _ in unseen if scene != "spot6-tiny"])
    if not counted:
        return table(head, lines)
    mean = np.mean([ratio for _, ratio, _, _ in counted])
    sam, q2n = (sum(row[column] for row in counted) for column in (2, 3))
    return f"""{table(head, lines)}

Mean ratio over the {len(counted)} unseen scenes without spot6-tiny (whose values lie around zero, where ERGAS means
nothing) and without gf2-rr-train-*: {mean:.3f}; {below}. SAM is better than that of every classical method
on {sam} of them, Q2n on {q2n}. With gf2-rr-train-*, which come from the source of gf2-train-* and may show the same
places, the mean is {with_all:.3f}."""


def brief_table(rows: Rows, saw: list[str]) -> str:
    """ERGAS and SAM on the scenes that count, the lower ERGAS in bold, and the mean ratio."""
    lines, ratios = [], []
    for scene, of in rows.items():
        if not counts(scene, saw):
            continue
        best = min(CLASSICAL, key=lambda name: of[name]["ergas"])
        ours, theirs, exp = (f"{of[n]['ergas']:.3f} / {of[n]['sam']:.3f}" for n in ("network", best, "exp"))
        ratios.append(of["network"]["ergas"] / of[best]["ergas"])
        bold = [f"**{theirs}** ({best})", ours] if ratios[-1] >= 1 else [f"{theirs} ({best})", f"**{ours}**"]
        lines.append([scene, exp, *bold])
    if not ratios:
        return ""
    ahead = sum(ratio < 1 for ratio in ratios)
    return f"""{table(["scene", "exp", "best classical", "pancrafter"], lines)}

ERGAS is {np.mean(ratios):.2f} of the best classical method's on average, {min(ratios):.2f} to {max(ratios):.2f}; it is
lower on {ahead} of the {len(ratios)} scenes."""


def counts(scene: str, saw: list[str]) -> bool:
    """Whether a scene counts as unseen: around zero ERGAS means nothing, and gf2-rr-train-* may show places seen."""
    seen = any(fnmatch(scene, pattern) for pattern in saw)
    return not seen and scene != "spot6-tiny" and not scene.startswith("gf2-rr-train")


def full_table(rows: Rows, saw: list[str]) -> str:
    """HQNR and its parts, and on how many scenes the model is ahead."""

    def text(scores: Scores) -> str:
        return f"{scores['hqnr']:.4f} ({scores['d_lambda_k']:.4f}, {scores['d_s']:.4f})"

    lines, ahead = [], {}
    for scene, of in rows.items():
        best = max(CLASSICAL, key=lambda name: of[name]["hqnr"])
        lines.append([scene, text(of["exp"]), f"{best} {text(of[best])}", text(of["network"])])
        ahead[scene] = of["network"]["hqnr"] > max(of["exp"]["hqnr"], of[best]["hqnr"])
    groups: dict[str, list[bool]] = defaultdict(list)
    for scene, is_ahead in ahead.items():
        seen = any(fnmatch(scene, pattern) for pattern in saw)
        name = "that the weights saw" if seen else "gf2-rr-train" if scene.startswith("gf2-rr-train") else "other"
        groups[name].append(is_ahead)
    parts = ", ".join(f"{sum(found)} of the {len(found)} {name}" for name, found in groups.items())
    return (
        f"{table(['scene', 'exp', 'best classical by HQNR', 'network'], lines)}\n\n"
        f"Ahead of all of them in HQNR on {sum(ahead.values())} of {len(ahead)} scenes: {parts}."
    )


def moved_table(curve: dict[tuple[str, str, str], float]) -> str:
    """Mean ERGAS, by scene, method and column, over the scenes that have all of them."""
    scenes = {scene for scene, _, _ in curve}
    names = [name for name in ("exp", *CLASSICAL, "network") if name in {method for _, method, _ in curve}]
    columns = sorted({column for _, _, column in curve}, key=lambda text: (text[:2] == "au", text))
    everywhere = [s for s in scenes if all((s, name, column) in curve for name in names for column in columns)]
    lines = [
        [name, *(f"{np.mean([curve[scene, name, column] for scene in everywhere]):.3f}" for column in columns)]
        for name in names
    ]
    return table(["method", *columns], lines)


def local_table(still: Rows, rows: Rows, saw: list[str]) -> str:
    """ERGAS of the model and of the best classical method without local registration and with it, and mean ratios."""
    lines, numbers = [], []
    for scene, of in rows.items():
        if not counts(scene, saw) or scene not in still:
            continue
        found = [
            f(each) for each in (still[scene], of) for f in (best_classical, lambda each: each["network"]["ergas"])
        ]
        lines.append([scene, *(f"{value:.3f}" for value in found)])
        numbers.append(found)
    if not numbers:
        return ""
    theirs, ours, theirs_moved, ours_moved = np.array(numbers).T
    head = ["scene", "best classical", "network", "best classical, PAN moved", "network, PAN moved"]
    return f"""{table(head, lines)}

With it the network's ERGAS is {np.mean(ours_moved / theirs_moved):.3f} of that of the best classical method with it on
average, and {np.mean(ours_moved / theirs):.3f} of that of the best one without it. Without it for both it is
{np.mean(ours / theirs):.3f}."""


def best_classical(of: dict[str, Scores]) -> float:
    """The lowest ERGAS of the classical methods."""
    return min(of[name]["ergas"] for name in CLASSICAL)


def consistency_table(rows: dict[str, tuple[list[float], list[float]]]) -> str:
    """ERGAS and D_S of the model by the number of back-projections."""
    lines = [[scene, *(f"{value:.3f}" for value in (*ergas, *d_s))] for scene, (ergas, d_s) in rows.items()]
    return table(["scene", "ERGAS 0", "1", "2", "5", "D_S 0", "1", "2", "5"], lines)


def stepped(reduced: Rows, full: Rows) -> dict[str, tuple[list[float], list[float]]]:
    """ERGAS and D_S after each of STEPS, of the scenes that have all of them."""
    names = [f"network/{steps}" for steps in STEPS]
    return {
        scene: ([of[name]["ergas"] for name in names], [full[scene][name]["d_s"] for name in names])
        for scene, of in reduced.items()
        if set(names) <= of.keys() & full.get(scene, {}).keys()
    }


def complete(rows: Rows) -> Rows:
    """The scenes on which all methods were run."""
    return {scene: of for scene, of in rows.items() if {"exp", "network", *CLASSICAL} <= of.keys()}


def replaced(card: str, name: str, text: str) -> str:
    """The card with what stands between the marks of `name` replaced; as it is where there are none."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin not in card or end not in card:
        return card
    before, rest = card.split(begin, 1)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"


def main() -> None:
    """Write the card named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("card", type=Path)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--saw", nargs="*", default=[], help="scenes that the weights saw, as patterns")
    options = parser.parse_args()
    protocols: dict[str, Rows] = {
        name: defaultdict(dict) for name in ("reduced", "full", "still reduced", "still full")
    }
    curve: dict[tuple[str, str, str], float] = {}
    for report in options.reports:
        found = json.loads((report / "eval.json").read_text())
        models = {row["method"].partition("/")[0] for row in found["rows"]} - {"exp", *CLASSICAL}
        if len(models) > 1:
            parser.error(f"{report}: is of several models, {', '.join(sorted(models))}; a card is of one")
        still = "still " if found.get("settings", {}).get("local registration") == "none" else ""
        for row in found["curve"]:
            column = f"{row['registration']}: {row['shift']:g}"
            curve[row["scene"], method_of(row), column] = row["scores"]["ergas"]
        for row in found["rows"]:
            protocols[still + row["protocol"]][row["scene"]][method_of(row)] = row["scores"]
    reduced, full = protocols["reduced"], protocols["full"]
    tables = {
        "brief": (complete(reduced), lambda rows: brief_table(rows, options.saw)),
        "scores": (complete(reduced), lambda rows: scores_table(rows, options.saw)),
        "full": (complete(full), lambda rows: full_table(rows, options.saw)),
        "moved": (curve, moved_table),
        "local": (
            complete(protocols["still reduced"]),
            lambda still: local_table(still, complete(reduced), options.saw),
        ),
        "consistency": (stepped(reduced, full), consistency_table),
    }
    card = options.card.read_text()
    for name, (rows, written) in tables.items():
        if rows:
            card = replaced(card, name, written(rows))
    options.card.write_text(card)


if __name__ == "__main__":
    main()
