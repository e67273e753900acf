// The cells of the two longest parts of a drawing in a corner of the sheet, where the network saw it enlarged.
async () => {
  const [{ partsOf }, { paint }] = await Promise.all([
    import("/page/why/regions.js"),
    import("/page/drawing/ink.js"),
  ]);
  const line = (from, to) => ({ kind: "line", colour: "#000000", width: 0.01, points: [from, to] });
  const lines = (from, to) => [
    line({ x: from, y: from }, { x: to, y: from }),
    line({ x: from, y: from }, { x: from, y: to }),
    ...[1, 2].map(() => line({ x: from, y: from }, { x: from, y: from + 0.001 })),
  ];
  const sheet = Object.assign(document.createElement("canvas"), { width: 256, height: 256 });
  paint(sheet.getContext("2d"), 256, lines(0.05, 0.95));
  const prepared = new Image();
  prepared.src = sheet.toDataURL();
  await prepared.decode();
  const parts = partsOf({ marks: lines(0.5, 0.8), paper: "#ffffff" }, prepared, 4);
  return parts.slice(0, 2).map(({ cells }) => [...cells]);
}
