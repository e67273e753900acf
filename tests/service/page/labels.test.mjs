/** Where the labels of things lie on the paper, in pixels. */

import { deepEqual, ok } from "node:assert/strict";
import { test } from "node:test";
import { placeLabels } from "../../../service/page/asking/labels.js";

const SIDE = 720;
const LABEL = { width: 90, height: 30 };
const square = ([left, top, right, bottom]) => ({
  kind: "pen", width: 0.01, points: [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]].map(([x, y]) => ({ x, y })),
});
const thing = (...edges) => {
  const [left, top, right, bottom] = edges.map((edge) => SIDE * edge);
  return { marks: [square(edges)], box: { left, top, right, bottom }, ...LABEL };
};
const boxes = (things, place = [0, 0, 1, 1]) =>
  placeLabels(things.flatMap(({ marks }) => marks), place, SIDE, things).map(({ left, top }) => ({ left, top, right: left + LABEL.width, bottom: top + LABEL.height }));
const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const away = (label, { box }) => Math.max(box.left - label.right, label.left - box.right, box.top - label.bottom, label.top - box.bottom, 0);

test("labels leave neither the paper nor cover each other", () => {
  const same = () => thing(0.9, 0.95, 1, 1);
  const found = boxes([same(), same(), same()]);
  ok(found.every(({ left, top, right, bottom }) => left >= 0 && top >= 0 && right <= SIDE && bottom <= SIDE));
  ok(!found.some((one, i) => found.some((other, k) => k > i && meet(one, other))));
});

test("a label lies over no ink, but near its own", () => {
  const own = thing(0.3, 0.3, 0.6, 0.6);
  const [label] = boxes([own]);
  const { left, top, right, bottom } = own.box;
  const lines = [{ ...own.box, right: left }, { ...own.box, left: right }, { ...own.box, bottom: top }, { ...own.box, top: bottom }];
  ok(!lines.some((line) => meet({ left: line.left - 1, top: line.top - 1, right: line.right + 1, bottom: line.bottom + 1 }, label)));
  ok(away(label, own) < 20);
});

test("a label stays on a sheet that is not square", () => {
  const [{ left, bottom }] = boxes([thing(0, 0.4, 1, 0.5)], [0, 0.25, 1, 0.5]);
  deepEqual([left >= 0, bottom <= SIDE / 2], [true, true]);
});
