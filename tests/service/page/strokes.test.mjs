/** Marks on the sheet: where they lie, and what becomes of them. */

import { deepEqual, equal } from "node:assert/strict";
import { test } from "node:test";
import * as ink from "../../../service/page/drawing/ink.js";
import { fromText, toText } from "../../../service/page/drawing/saved.js";
import { boxOf } from "../../../service/page/drawing/things.js";

const at = (x, y) => ({ x, y });
const pen = (...points) => ({ kind: "pen", colour: "#000000", width: 0.02, points: points.map(([x, y]) => ({ x, y, weight: 1 })) });
const places = ({ points }) => points.map(({ x, y }) => [x, y]);

test("a sheet lies in the middle of the square around it", () => {
  deepEqual(ink.placeOf(2), [0, 0.25, 1, 0.5]);
  deepEqual(ink.placeOf(0.5), [0.25, 0, 0.5, 1]);
});

test("shares of a place and points in it are the inverse of each other", () => {
  deepEqual(ink.sharesOf([0, 0.25, 1, 0.5], at(0.5, 0.25)), at(0.5, 0));
  deepEqual(ink.pointAt([0, 0.25, 1, 0.5], at(0.5, 0)), at(0.5, 0.25));
});

test("what replaces all marks hides those before it", () => {
  const [a, b, c] = [pen([0, 0]), pen([1, 0]), pen([0, 1])];
  deepEqual(ink.visible([a, { kind: "marks", marks: [b] }, c]), [b, c]);
  deepEqual(ink.visible([a, c]), [a, c]);
});

test("the outline of a rectangle is closed, and that of an ellipse touches its box", () => {
  const rectangle = { ...pen([0, 0], [1, 0.5]), kind: "rectangle" };
  deepEqual(ink.outline(rectangle).map(({ x, y }) => [x, y]), [[0, 0], [1, 0], [1, 0.5], [0, 0.5], [0, 0]]);
  const { left, top, right, bottom } = boxOf([{ ...rectangle, kind: "ellipse", width: 0 }]);
  deepEqual([left, top, right, bottom].map(ink.short), [0, 0, 1, 0.5]);
  deepEqual(ink.outline({ kind: "image" }), []);
});

test("the nearest mark within reach is taken, the upper one of two, and no eraser", () => {
  const [low, high] = [pen([0, 0], [1, 0]), pen([0, 0.5], [1, 0.5])];
  equal(ink.markAt([low, high], at(0.5, 0.45), 0.1), 1);
  equal(ink.markAt([low, high], at(0.5, 0.25), 0.1), -1);
  equal(ink.markAt([low, low], at(0.5, 0.01), 0.1), 1);
  equal(ink.markAt([low, { ...low, kind: "eraser" }], at(0.5, 0.01), 0.1), 0);
});

test("an evened shape is a square, and an evened line lies at a multiple of 45 degrees", () => {
  deepEqual(ink.evened("rectangle", at(0, 0), at(0.5, -0.2)), at(0.5, -0.5));
  const { x, y } = ink.evened("line", at(0, 0), at(1, 0.9));
  deepEqual([ink.short(x), ink.short(y)], [0.9513, 0.9513]);
});

test("a mark that is moved and enlarged keeps its form and becomes broader", () => {
  const mark = ink.moved(pen([0.1, 0.1], [0.2, 0.3]), at(0.1, 0.1), at(0.5, 0.5), 2);
  deepEqual([mark.width, places(mark)], [0.04, [[0.5, 0.5], [0.7, 0.9]]]);
});

test("a mirrored mark lies as far from the middle on the other side", () => deepEqual(places(ink.mirrored(pen([0.1, 0.2]), 0.3)), [[0.5, 0.2]]));

test("a turned stroke keeps its points, and a turned shape becomes a stroke", () => {
  deepEqual(places(ink.turned(pen([1, 0.5]), at(0.5, 0.5), Math.PI / 2)), [[0.5, 1]]);
  equal(ink.turned({ ...pen([0, 0], [1, 1]), kind: "rectangle" }, at(0, 0), 1).kind, "pen");
  equal(ink.turned({ ...pen([0, 0], [1, 1]), kind: "line" }, at(0, 0), 1).kind, "line");
});

test("samples along a line are at most so far apart", () => {
  deepEqual(ink.samples([at(0, 0), at(1, 0)], 4).map(({ x }) => x), [0, 0.25, 0.5, 0.75, 1]);
});

test("a drawing is the same after it was stored, and a damaged one is none", async () => {
  globalThis.location = { hash: "#like=4" };
  const drawing = { format: "square", marks: [{ ...pen([0.1, 0.2], [0.3, 0.4]), word: "car" }] };
  deepEqual(await fromText(toText(drawing)), { ...drawing, search: "#like=4" });
  const line = { kind: "line", colour: "#ffffff", width: 1 };
  const damaged = ["{", "null", JSON.stringify({ version: 3, marks: [] }), JSON.stringify({ version: 2, marks: [line] })];
  deepEqual(await Promise.all(damaged.map(fromText)), [null, null, null, null]);
});
