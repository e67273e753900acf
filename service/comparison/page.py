"""A comparison as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io

from model.images import open_image
from service.comparison.searches import THUMBNAIL, Comparison, Found, NetworkResults, Sketch

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { margin: 1rem auto; max-width: 80rem; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem .75rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
section { border-top: 1px solid GrayText; margin-top: 1.5rem; padding-top: .5rem; }
section { display: grid; grid-template-columns: 8rem 1fr; gap: 0 1.5rem; }
figure { margin: 0; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: .25rem 0; }
ol { display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; margin: 0; padding: 0; }
img { background: white; border: 3px solid transparent; box-sizing: border-box; }
img { height: 5.5rem; max-width: 100%; object-fit: contain; }
.right img { border-color: #1a7f37; }
.mark { display: block; font-size: .75rem; text-align: center; }
"""


def comparison_page(comparison: Comparison) -> str:
    """The figures, and for each sketch one row of photos for each network. Photos that are right have a mark."""
    title = " and ".join(network.name for network in comparison.networks)
    sections = "\n".join(
        _section(sketch, number, comparison.networks) for number, sketch in enumerate(comparison.sketches)
    )
    said = f"{len(comparison.sketches):,} sketches, {comparison.photos:,} photos, the first {comparison.k} results"
    if comparison.labelled:
        said += f"; {comparison.labelled:,} sketches lie in a folder named like one of the photos"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
<h1>{html.escape(title)}</h1>
<p>{said}.</p>
{_table(comparison)}
{sections}
</html>
"""


def _table(comparison: Comparison) -> str:
    # Without labels nobody knows what is right.
    judged = (f"mAP@{comparison.k}", f"P@{comparison.k}") if comparison.labelled else ()
    head = ("checkpoint", "network", "method", *judged, "ms a search")
    lines = ["<table>", "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for network in comparison.networks:
        texts = (network.name, network.network, network.method)
        figures = [f"{value:.3f}" for value in (network.map, network.precision) if value is not None]
        numbers = (*figures, f"{network.milliseconds:.0f}")
        cells = [f"<td>{html.escape(text)}</td>" for text in texts] + [f'<td class="number">{n}</td>' for n in numbers]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _section(sketch: Sketch, number: int, networks: tuple[NetworkResults, ...]) -> str:
    named = sketch.path.name if sketch.label is None else f"{sketch.label}/{sketch.path.name}"
    rows = "\n".join(
        f"<h2>{html.escape(network.name)}</h2>\n<ol>{''.join(_photo(p) for p in network.results[number])}</ol>"
        for network in networks
    )
    drawn = f'<img src="{_png(sketch)}" alt="the sketch {html.escape(named)}">'
    caption = f"<figcaption>{html.escape(named)}</figcaption>"
    return f"<section>\n<figure>{drawn}{caption}</figure>\n<div>\n{rows}\n</div>\n</section>"


def _photo(photo: Found) -> str:
    path = html.escape(photo.path)
    source = f"data:image/jpeg;base64,{base64.b64encode(photo.thumbnail).decode()}"
    kind, mark = (' class="right"', '<span class="mark">right</span>') if photo.right else ("", "")
    return f'<li{kind}><img src="{source}" alt="{path}" title="{path}">{mark}</li>'


def _png(sketch: Sketch) -> str:
    image = open_image(sketch.path, sketch=True)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
