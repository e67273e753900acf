// Runs before the page: the picture of an explanation is decoded only once its entry in `window.held` is called, which
// gives a promise of that.
() => {
  window.held = [];
  const { decode } = HTMLImageElement.prototype;
  HTMLImageElement.prototype.decode = function () {
    if (this.id !== "why-sketch-image") {
      return decode.call(this);
    }
    return new Promise((done, failed) => {
      window.held.push(() => decode.call(this).then(done, failed));
    });
  };
}
