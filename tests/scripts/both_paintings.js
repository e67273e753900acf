// The same drawing as the page paints it on a canvas and as it computes what it sends: [red, green, blue, ...] of each.
async (actions, side) => {
  const [{ paint }, { rasterize }] = await Promise.all([
    import("/page/drawing/ink.js"),
    import("/page/drawing/raster.js"),
  ]);
  const sheet = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const context = sheet.getContext("2d", { alpha: false, willReadFrequently: true });
  paint(context, side, actions);
  const painted = [...context.getImageData(0, 0, side, side).data].filter((_, at) => at % 4 < 3);
  return [painted, [...rasterize(actions, side)]];
}
