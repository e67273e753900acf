// The parts of an image with a stroke from the middle to the right and a dot: name, cells, and whether it has a face.
async () => {
  const { partsOf, paintPart } = await import("/page/why/regions.js");
  const sheet = Object.assign(document.createElement("canvas"), { width: 60, height: 60 });
  const context = sheet.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, 60, 60);
  context.fillStyle = "#000000";
  context.fillRect(25, 28, 30, 4);
  context.fillRect(3, 3, 4, 4);
  const image = new Image();
  image.src = sheet.toDataURL();
  await image.decode();
  const parts = partsOf({ marks: [{ kind: "image" }], paper: "#ffffff" }, image, 6);
  return parts.map((part) => {
    const face = Object.assign(document.createElement("canvas"), { width: 60, height: 60 });
    paintPart(face, part);
    const painted = [...face.getContext("2d").getImageData(0, 0, 60, 60).data].some((value) => value);
    return [part.name, [...part.cells], painted];
  });
}
