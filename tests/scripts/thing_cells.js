// The cells of things in a picture of which the ink, cropped, fills the middle rows.
async (boxes) => {
  const { cellsOfThings } = await import("/page/why/regions.js");
  const sheet = Object.assign(document.createElement("canvas"), { width: 256, height: 256 });
  const context = sheet.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, 256, 256);
  context.fillStyle = "#000000";
  context.fillRect(0, 64, 256, 128);
  const prepared = new Image();
  prepared.src = sheet.toDataURL();
  await prepared.decode();
  return cellsOfThings(boxes, prepared, 4).map((cells) => [...cells]);
}
