// The cells of things in a picture of which the ink, cropped, fills the middle rows.
async (boxes) => {
  const { cellsOfThings } = await import("/page/why/regions.js");
  const prepared = new Image();
  prepared.src = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256">
    <path fill="white" d="M0 0h256v256H0z"/><path d="M0 64h256v128H0z"/></svg>`;
  await prepared.decode();
  return cellsOfThings(boxes, prepared, 4).map((cells) => [...cells]);
}
