// The lines of a drawing to start from, as a pointer draws them: [[x, y], ...] each, in sides of the sheet.
async (wanted) => {
  const { examples } = await import("/page/results/notice.js");
  const { middle } = await import("/page/drawing/ink.js");
  const { marks } = (await examples()).find(({ name }) => name === wanted);
  return marks.map(({ points }) =>
    points.flatMap((here, i) => {
      // As ink.js paints it: a curve between the middles of the neighbouring segments.
      const from = i ? middle(points[i - 1], here) : here;
      const to = i + 1 < points.length ? middle(here, points[i + 1]) : here;
      const along = (t, name) => (1 - t) ** 2 * from[name] + 2 * (1 - t) * t * here[name] + t * t * to[name];
      return [0, 0.25, 0.5, 0.75, 1].map((t) => [along(t, "x"), along(t, "y")]);
    }),
  );
}
