// The parts of a picture with a stroke from the middle to the right and a dot: name, cells, and whether it has a face.
async () => {
  const { partsOf, paintPart } = await import("/page/why/regions.js");
  const image = new Image();
  image.src = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="60" height="60">
    <path fill="white" d="M0 0h60v60H0z"/><path d="M25 28h30v4H25zM3 3h4v4H3z"/></svg>`;
  await image.decode();
  const parts = partsOf(image, 6);
  return parts.map((part) => {
    const face = Object.assign(document.createElement("canvas"), { width: 60, height: 60 });
    paintPart(face, part, image, 6);
    const painted = [...face.getContext("2d").getImageData(0, 0, 60, 60).data].some((value) => value);
    return [part.name, [...part.cells], painted];
  });
}
