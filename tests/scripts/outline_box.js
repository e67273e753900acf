// The box of the outline of cells, left, top, width and height within 0..1.
async (cells, side) => {
  const { outline } = await import("/page/why/plain.js");
  const svg = document.body.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  const path = svg.appendChild(document.createElementNS(svg.namespaceURI, "path"));
  path.setAttribute("d", outline(cells, side));
  const { x, y, width, height } = path.getBBox();
  svg.remove();
  return [x, y, width, height].map((value) => Math.round(1000 * value) / 1000);
}
