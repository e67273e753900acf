// Runs before the page: whatever is read back from a canvas has noise in it, as where a browser guards against
// fingerprinting.
() => {
  const noise = () => Math.floor(256 * Math.random());
  const { getImageData } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.getImageData = function (...box) {
    const pixels = getImageData.apply(this, box);
    pixels.data.forEach((value, at) => (pixels.data[at] = value ^ noise()));
    return pixels;
  };
  for (const name of ["toBlob", "toDataURL"]) {
    const original = HTMLCanvasElement.prototype[name];
    HTMLCanvasElement.prototype[name] = function (...options) {
      const copy = Object.assign(document.createElement("canvas"), { width: this.width, height: this.height });
      const context = copy.getContext("2d");
      context.drawImage(this, 0, 0);
      for (let i = 0; i < 1000; i++) {
        context.fillStyle = `rgb(${noise()} ${noise()} ${noise()})`;
        context.fillRect(Math.random() * this.width, Math.random() * this.height, 1, 1);
      }
      return original.apply(copy, options);
    };
  }
}
