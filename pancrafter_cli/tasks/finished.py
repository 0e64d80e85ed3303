"""Whether a scene's product is there already, as its tags tell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pancrafter_cli.errors import RasterError
from pancrafter_cli.raster.inputs import open_raster
from pancrafter_cli.raster.outputs import Finished, read_finished
from pancrafter_cli.raster.sidecar import AUX
from pancrafter_cli.raster.stac import item_path
from pancrafter_cli.raster.targets import is_there
from pancrafter_cli.tasks.provenance import input_file, input_tags, request_tags
from pancrafter_cli.tasks.sharpen import resolve_product
from pancrafter_cli.tasks.sharpen_options import SharpenOptions

_OVERVIEWS = ".ovr"  # made at any time, and no pixel is read from them
Contents = list[tuple[str, str | None]]  # name and hash of each file


@dataclass(frozen=True)
class State:
    """What is there of a scene's product.

    "none"; "partial": the product, or its layer, less the files beside it; "finished"; "stale": of other inputs, model
    or options, or no product at all, `reason` says how it differs. product: the file as it is, where it could be read.
    """

    kind: Literal["none", "partial", "finished", "stale"]
    reason: str = ""
    product: Finished | None = None


def find_state(options: SharpenOptions, model_sha256: str | None) -> State:
    """Compare what is there with what `options` and the model's hash would make; reads the inputs for their hashes.

    Raises UsageError or RasterError for inputs that cannot serve, OutputError for names that no file can have.
    """
    wanted = [path for path in (options.output, options.confidence) if path is not None]
    item = [item_path(options.output)] if options.stac else []
    there = [path for path in wanted if is_there(path)]
    if not there:
        orphan = next((path for path in item if is_there(path)), None)
        return State("stale", f"{orphan.name} exists without its product") if orphan else State("none")
    asked = resolve_product(options)[0]
    inputs: Contents | None = None
    product = None
    for path in there:
        try:
            found = read_finished(path)
        except RasterError as error:
            return State("stale", error.message)
        product = found if path == options.output else product
        reason = _differing_options(found.tags, asked, model_sha256)
        if not reason:
            inputs = inputs or _inputs(asked)
            reason = _differing_inputs(found.tags, inputs)
        if reason:
            return State("stale", f"{path.name} exists, {reason}", product)
    complete = all(is_there(path) for path in (*wanted, *item))
    return State("finished" if complete else "partial", product=product)


def input_files(options: SharpenOptions) -> list[Path]:
    """All files that a scene depends on. Raises UsageError or RasterError for what cannot be opened."""
    asked = resolve_product(options)[0]
    files: list[Path] = []
    for path in (asked.pan, *asked.ms, *(() if asked.dem is None else (asked.dem,))):
        with closing(open_raster(path)) as opened:
            files += opened.files
    return list(dict.fromkeys(files))


def _differing_options(tags: Mapping[str, str], options: SharpenOptions, model_sha256: str | None) -> str:
    """How a product's request and model differ from what is asked for now; empty when they do not."""
    if "PANCRAFTER_REQUEST" not in tags:
        return "and does not say how it was made"
    had, asked = json.loads(tags["PANCRAFTER_REQUEST"]), json.loads(request_tags(options)["PANCRAFTER_REQUEST"])
    changed = [
        f"{name} {_shown(had.get(name))}, now {_shown(asked.get(name))}"
        for name in sorted(had.keys() | asked.keys())
        if repr(had.get(name)) != repr(asked.get(name))  # nan is not equal to itself
    ]
    if changed:
        return f"made with {'; '.join(changed)}"
    if model_sha256 not in (tags.get("PANCRAFTER_MODEL_SHA256"), tags.get("PANCRAFTER_ONNX_SHA256")):
        return "made with other weights"
    return ""


def _shown(value: Any) -> str:
    return "not given" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _differing_inputs(tags: Mapping[str, str], inputs: Contents) -> str:
    """How a product's inputs differ from those of now; empty when they do not."""
    had = _contents(json.loads(tags.get("PANCRAFTER_INPUTS", "[]")))
    if had == inputs:
        return ""
    changed = list(dict.fromkeys(name for name, _ in _less(had, inputs) + _less(inputs, had)))
    return f"made from other contents of {', '.join(changed)}" if changed else "made from its files in another order"


def _less(first: Contents, second: Contents) -> Contents:
    """What the first has more of than the second."""
    return list((Counter(first) - Counter(second)).elements())


def _inputs(options: SharpenOptions) -> Contents:
    """All files that the scene depends on."""
    files = tuple(input_file(path) for path in input_files(options) if not path.name.endswith(_OVERVIEWS))
    return _contents(json.loads(input_tags(files)["PANCRAFTER_INPUTS"]))


def _contents(entries: Sequence[Mapping[str, Any]]) -> Contents:
    """Names and hashes of input files, in order, without those that no pixel depends on.

    Of an .aux.xml what counts is compared: viewers write statistics to it at any time.
    """
    listed = [(e["name"], e.get("facts_sha256") if e["name"].endswith(AUX) else e["sha256"]) for e in entries]
    return [
        (name, digest)
        for name, digest in listed
        if not name.endswith(_OVERVIEWS) and (digest or not name.endswith(AUX))
    ]
