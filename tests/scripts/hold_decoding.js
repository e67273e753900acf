// Pictures with this id ("" for none) are decoded only once their entry in `window.held` is called, which gives a
// promise of that.
(id) => {
  window.held = [];
  const { decode } = HTMLImageElement.prototype;
  HTMLImageElement.prototype.decode = function () {
    if (this.id !== id) {
      return decode.call(this);
    }
    return new Promise((done, failed) => {
      window.held.push(() => decode.call(this).then(done, failed));
    });
  };
}
