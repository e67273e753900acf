/** The things of a drawing: which strokes belong together, as answers and a person say, and what the next search tells of it. */

import { deepEqual, equal } from "node:assert/strict";
import { test } from "node:test";
import * as things from "../../../service/page/drawing/things.js";

const { assign, divided, halved, joined, settled, strokesOf, thingsOf } = things;
const line = (...ends) => ({ kind: "pen", colour: "#000000", width: 0.01, points: ends.map(([x, y]) => ({ x, y, weight: 1 })) });
const lines = (count) => Array.from({ length: count }, (_, i) => line([(i + 0.5) / count, 0.2], [(i + 0.5) / count, 0.8]));
const some = (marks, ...ids) => thingsOf(marks).filter(({ id }) => ids.includes(id)).flatMap((thing) => thing.marks);

/** So many lines after an answer of things, each as [strokes, those of its second half]. */
function answered(count, ...answer) {
  const marks = lines(count);
  const known = answer.flatMap(([strokes]) => strokes).length;
  assign(strokesOf(marks.slice(0, known)), answer.map(([strokes, half = []]) => ({ strokes, second_half: half, colours: [], box: [0, 0, 1, 1] })));
  return marks;
}

/** Of each line, the place of its thing, and the number that the next search tells of it. */
function said(marks) {
  const all = thingsOf(marks);
  return strokesOf(marks).map(({ mark, sent }) => [all.findIndex((thing) => thing.marks.includes(mark)), sent.thing ?? null]);
}

test("before any answer, all strokes are one thing", () => deepEqual(said(answered(3)), [[0, null], [0, null], [0, null]]));

test("things are as the answer says", () => deepEqual(said(answered(3, [[0, 2]], [[1]])), [[0, null], [1, null], [0, null]]));

test("what was drawn since the answer belongs to the line before it", () =>
  deepEqual(said(answered(4, [[0]], [[1, 2]])), [[0, null], [1, null], [1, null], [1, null]]));

test("what a person joins is told to the server, and the rest stays as the network has it", () => {
  const marks = answered(3, [[0]], [[1]], [[2]]);
  deepEqual(said(joined(marks, some(marks, 0, 1))), [[0, 0], [0, 0], [1, null]]);
});

test("a thing that is split becomes the halves of the answer", () => {
  const marks = answered(3, [[0, 1], [1]], [[2]]);
  deepEqual(said(halved(marks, some(marks, 0))), [[0, 0], [1, 1], [2, null]]);
});

test("things that are joined one after the other are one", () => {
  const marks = answered(3, [[0]], [[1]], [[2]]);
  const both = joined(marks, some(marks, 0, 1));
  deepEqual(said(joined(both, both)), [[0, 1], [0, 1], [0, 1]]);
});

test("what stays as it is is told, too, so that the network does not divide it anew", () => {
  const marks = settled(answered(3, [[0, 1], [1]], [[2]]));
  deepEqual(said(halved(marks, some(marks, 0))), [[0, 2], [1, 3], [2, 1]]);
  const three = settled(answered(3, [[0]], [[1]], [[2]]));
  deepEqual(said(settled(joined(three, some(three, 0, 1)))), [[0, 3], [0, 3], [1, 2]]);
});

test("a thing of which the answer has no halves cannot be divided", () => {
  const [whole] = thingsOf(answered(2, [[0, 1]]));
  const [halves] = thingsOf(answered(2, [[0, 1], [1]]));
  deepEqual([divided(whole), divided(halves)], [false, true]);
});

test("a stroke that an answer gives to no thing, such as the ground, is of none", () => {
  const marks = lines(3);
  assign(strokesOf(marks), [{ strokes: [0] }, { strokes: [2] }]);
  deepEqual(said(marks).map(([thing]) => thing), [0, -1, 1]);
});

test("a copied thing is a thing of its own", () => {
  const marks = settled(answered(2, [[0]], [[1]]));
  deepEqual(said([...marks, ...things.copied(marks, some(marks, 0, 1))]), [[0, 0], [1, 1], [2, 2], [3, 3]]);
});

test("a word stays with its thing, and with what that is joined with", () => {
  const marks = answered(2, [[0]], [[1]]);
  const named = things.named(marks, some(marks, 0), "car");
  deepEqual(strokesOf(named).map(({ sent }) => sent.word), ["car", undefined]);
  deepEqual(joined(named, named).map(({ word }) => word), ["car", "car"]);
  deepEqual(things.asNamed([{ strokes: [1], word: "bus" }, { strokes: [0], word: "van" }], strokesOf(named)).map(({ word }) => word), ["bus", "car"]);
});

test("with an image all is one thing, of which no strokes are sent", () => {
  const marks = [{ kind: "image", as: "sketch" }, ...answered(2, [[0]], [[1]])];
  deepEqual([thingsOf(marks).length, strokesOf(marks)], [1, []]);
});

test("strokes are sent as shares of the sheet", () => {
  const [{ sent }] = strokesOf([line([0, 0.125], [1, 0.5])], [0, 0.125, 1, 0.75]);
  deepEqual(sent, { points: [[0, 0], [1, 0.5]], width: 0.01, filled: false });
});

test("a thing has the colours of most of its ink, but no black", () => {
  const red = { ...line([0, 0], [1, 0]), colour: things.PENS.Red };
  const blue = { ...line([0, 0], [0.2, 0]), colour: things.PENS.Blue };
  deepEqual(things.coloursOf({ marks: [red] }), ["red"]);
  deepEqual(things.coloursOf({ marks: [red, blue] }), ["red"]);
  deepEqual(things.coloursOf({ marks: [red, blue, blue] }), ["red", "blue"]);
  deepEqual(things.coloursOf({ marks: [line([0, 0], [1, 0])] }), []);
});

test("the smallest thing around a point is the one that is pressed", () => {
  const [large, small] = [{ left: 0, top: 0, right: 1, bottom: 1 }, { left: 0.4, top: 0.4, right: 0.6, bottom: 0.6 }].map((box, id) => ({ id, box }));
  equal(things.thingAt([large, small], { x: 0.5, y: 0.5 }), small);
  equal(things.thingAt([large, small], { x: 0.1, y: 0.5 }), large);
  equal(things.thingAt([small], { x: 0.1, y: 0.5 }), undefined);
});

test("the border of a ring of cells has an outer and an inner ring of corners", () => {
  const rings = things.borders(new Set([0, 1, 2, 4, 6, 8, 9, 10]), 4);
  deepEqual(rings.map((ring) => ring.length).sort((a, b) => a - b), [4, 12]);
});
