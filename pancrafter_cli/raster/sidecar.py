"""What of GDAL's file beside a raster (.aux.xml) changes how the raster is read."""

from __future__ import annotations

from xml.etree import ElementTree

AUX = ".aux.xml"
_EMPTY_MEANS_NOTHING = ("Metadata", "PAMRasterBand", "PAMDataset")


def aux_facts(content: bytes) -> str:
    """Place, nodata, scale, names and other facts of an .aux.xml as canonical XML; empty where it has none.

    Statistics and histograms are left out: viewers write them at any time, and they change nothing. What is no XML is
    nothing that GDAL would use.
    """
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return ""
    _prune(root)
    return ElementTree.canonicalize(ElementTree.tostring(root), strip_text=True) if len(root) else ""


def _prune(element: ElementTree.Element) -> None:
    """Remove what says nothing of the pixels."""
    for child in list(element):
        _prune(child)
        statistics = child.tag == "Histograms" or child.get("key", "").startswith("STATISTICS_")
        if statistics or (child.tag in _EMPTY_MEANS_NOTHING and not len(child) and not (child.text or "").strip()):
            element.remove(child)
