"""`pancrafter inspect`."""

from __future__ import annotations

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import mtf_text, parse_point, print_json, print_rows

EXAMPLES = """Examples:

pancrafter inspect pan.tif ms.tif

pancrafter inspect LC08_B8.TIF LC08_B4.TIF LC08_B3.TIF LC08_B2.TIF --json
"""


def command(
    pan: opt.Pan,
    ms: opt.Ms = None,
    ratio: opt.Ratio = None,
    ms_origin: opt.MsOrigin = None,
    nodata: opt.Nodata = None,
    dem: opt.Dem = None,
    displacement: bool = typer.Option(
        False,
        "--displacement",
        help="Show how far MS lies off PAN in each window, as delivered: x, y in MS pixels.",
    ),
    as_json: opt.AsJson = False,
) -> None:
    """Say what `sharpen` would see: grids, ratio, overlap, nodata, measured shift, model, tiles, memory."""
    from pancrafter_cli.raster.align import parse_nodata
    from pancrafter_cli.tasks.inspect import inspect_scene

    origin, missing = parse_point(ms_origin, "--ms-origin"), parse_nodata(nodata)
    facts = inspect_scene(pan, tuple(ms or ()), ratio, origin, missing, dem, displacement=displacement)
    if as_json:
        print_json(facts)
        return
    print_rows(
        [
            ("product", facts.layout),
            ("PAN", f"{facts.pan_shape[1]} x {facts.pan_shape[0]} pixels, {facts.pan_dtype}{_up_to(facts.pan_peak)}"),
            (
                "MS",
                f"{facts.ms_shape[1]} x {facts.ms_shape[0]} pixels, {facts.bands} bands, "
                f"{facts.dtype}{_up_to(facts.ms_peak)}",
            ),
            ("bands", ", ".join(facts.band_names)),
            ("CRS", facts.crs or "none"),
            (
                "pixel size",
                ", ".join(("PAN {:g} x {:g}".format(*facts.pan_pixel), "MS {:g} x {:g}".format(*facts.ms_pixel))),
            ),
            ("ratio", f"{facts.ratio:.5g}"),
            ("MS warped", "yes, onto the axes of PAN" if facts.warped else "no"),
            (
                "output",
                f"{facts.output_shape[1]} x {facts.output_shape[0]} pixels ({100 * facts.overlap:.1f} % of PAN)",
            ),
            ("nodata", "none" if facts.nodata is None else f"{facts.nodata:g}"),
            ("valid", f"{100 * facts.valid:.1f} % of the sampled pixels, in some band"),
            ("sensor", facts.sensor or "not stated in the files"),
            ("scale", f"{facts.scale:g} DN"),
            ("MS MTF", mtf_text(facts.ms_mtf, facts.ms_mtf_source)),
            ("PAN fit", ", ".join(f"{r:.2f}" for r in facts.correlation) + " (correlation with each band)"),
            ("shift", facts.shift.text),
            ("model", f"{facts.model}, {facts.passes} pass(es) per tile"),
            ("tiles", f"{facts.tiles} of {facts.tile} pixels"),
            ("memory", f"about {facts.memory_bytes / 2**30:.1f} GiB"),
        ]
    )
    for notice in facts.notices + facts.shift.warnings:
        print(f"notice: {notice}")
    for w in facts.displacement or ():
        where = f"MS row {w.row:g}, column {w.col:g}"
        found = f"{w.dx:+z.2f}, {w.dy:+z.2f} +- {w.sigma:.2f}, fit {w.fit:.2f}" if w.matched else "none"
        print(f"{where}: {found}")


def _up_to(peak: float | None) -> str:
    return "" if peak is None else f" up to {peak:g}"
