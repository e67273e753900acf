"""Draws the first page of a PDF file that a drawing program has written."""

from PIL import Image

from sketch_search.model.errors import UndecodableImage, UnsupportedImage

PDF = "application/pdf"
# Pixels of the longer side of the page.
_SIDE = 768
# The most pages that are looked at for one that is not blank.
_PAGES = 10


def is_pdf(head: bytes) -> bool:
    return head.lstrip().startswith(b"%PDF-")


def draw(data: bytes) -> Image.Image:
    """Draws the first page that is not blank, or else the first, on white. Raises ImageError."""
    try:
        import pypdfium2
    except ImportError as error:
        raise UnsupportedImage("PDF needs an extra package: pip install 'sketch-search[pdf]'") from error
    try:
        with pypdfium2.PdfDocument(data) as document:
            first: Image.Image | None = None
            for number in range(min(_PAGES, len(document))):
                page = document[number]
                width, height = page.get_size()
                scale = _SIDE / max(1.0, width, height)
                picture: Image.Image = page.render(scale=scale, may_draw_forms=False).to_pil().convert("RGB")
                if picture.getcolors(1) is None:
                    return picture
                first = first or picture
    except pypdfium2.PdfiumError as error:
        raise UndecodableImage(f"the PDF file cannot be read ({error}); save the drawing as PNG") from error
    if first is None:
        raise UndecodableImage("the PDF file has no pages")
    return first
