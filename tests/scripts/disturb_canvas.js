// Runs before the page: what is read back from a canvas is noise, as where a browser guards against fingerprinting.
() => {
  const { getImageData } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.getImageData = function (...box) {
    const pixels = getImageData.apply(this, box);
    pixels.data.forEach((_, at) => (pixels.data[at] = Math.floor(256 * Math.random())));
    return pixels;
  };
}
