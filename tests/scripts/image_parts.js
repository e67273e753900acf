// The parts of a picture with a stroke from the middle to the right and a dot: name, cells, and which ninth it is.
async () => {
  const { partsOf } = await import("/page/why/views.js");
  const image = new Image();
  image.src = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="60" height="60">
    <path fill="white" d="M0 0h60v60H0z"/><path d="M25 28h30v4H25zM3 3h4v4H3z"/></svg>`;
  await image.decode();
  return partsOf(image, 6).map(({ name, cells, place }) => [name, [...cells], place]);
}
