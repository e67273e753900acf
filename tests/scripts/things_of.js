// So many lines are drawn from left to right and an answer of things arrives; then come the actions: ["join", id, id],
// ["split", id] or ["settle", 0]. The thing of each line, and the number that the next search tells of it.
async (count, answer, actions) => {
  const { assign, divided, halved, joined, settled, strokesOf, thingsOf } = await import("/page/drawing/things.js");
  const points = (i) => [0.2, 0.8].map((y) => ({ x: (i + 0.5) / count, y, weight: 1 }));
  let marks = Array.from({ length: count }, (_, i) => ({ kind: "pen", colour: "#000000", width: 0.01, points: points(i) }));
  const known = answer.flatMap(([strokes]) => strokes).length;
  assign(strokesOf(marks.slice(0, known)), answer.map(([strokes, half]) => ({ strokes, second_half: half })));
  for (const [action, ...ids] of actions) {
    const some = thingsOf(marks).filter(({ id }) => ids.includes(id));
    const own = some.flatMap((thing) => thing.marks);
    marks = action === "settle" ? settled(marks) : action === "join" ? joined(marks, own) : divided(some[0]) ? halved(marks, own) : marks;
  }
  const things = thingsOf(marks);
  return strokesOf(marks).map(({ mark, sent }) => [things.findIndex((thing) => thing.marks.includes(mark)), sent.thing ?? null]);
}
