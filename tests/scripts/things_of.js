// The number of the thing of each mark, where these lines are drawn one after the other on an empty paper, each at once or
// long after the one before; then the same after the actions: ["join", a, b] or ["part", a].
async (lines, actions) => {
  const { joined, parted, thingsOf, withMark } = await import("/page/drawing/things.js");
  let marks = [];
  let last = null;
  for (const { points, soon } of lines) {
    const line = points.map(([x, y]) => ({ x, y, weight: 1 }));
    marks = withMark(marks, { kind: "pen", colour: "#000000", width: 0.01, points: line }, soon ? last : null);
    last = { thing: marks.at(-1).thing, at: performance.now() };
  }
  for (const [action, ...things] of actions) {
    marks = action === "join" ? joined(marks, ...things) : (parted(marks, ...things) ?? marks);
  }
  const numbers = thingsOf(marks).map(({ id }) => id);
  return marks.map(({ thing }) => numbers.indexOf(thing));
}
