/** Where the labels of things lie on the paper. */

import { outline, samples } from "../drawing/ink.js";

// The paper has so many cells along its longer side, and labels begin at their corners.
const GRID = 72;
// As much as so many cells of a thing's box cost a cell of another label, and one of ink.
const LABEL = 1000;
const INK = 50;
// A label might as well lie over boxes of others as so many pixels away from the ink of its own thing, or so many too near to that of another.
const NEAR = 24;
const WRONG = 8;
const FAR = 1000;

/**
 * Where each label covers no other and no ink, as little as can be of others' boxes, and lies near the ink of its own thing, nearer
 * than to that of others. `marks` are all on the paper, by age, whose `place` is as in ink.js and `width` in pixels, as boxes and
 * sizes of labels in `things`. The work depends on the number of things, hardly on that of marks.
 * @type {(marks: Mark[], place: Place, width: number, things: Labelled[]) => {left: number, top: number}[]}
 */
export function placeLabels(marks, place, width, things) {
  const [wide, high] = place.slice(2).map((side) => Math.round(GRID * side));
  const pixels = width / wide;
  /** @type {(cells: Uint8Array, left: number, top: number, right: number, bottom: number, value: number) => void} */
  const fill = (cells, left, top, right, bottom, value) => {
    for (let y = Math.max(0, top); y < Math.min(high, bottom); y++) {
      cells.fill(value, y * wide + Math.max(0, left), y * wide + Math.min(wide, Math.max(0, right)));
    }
  };
  const owners = new Uint8Array(wide * high);
  const numbers = new Map(things.flatMap(({ marks: own }, i) => own.map((mark) => [mark, i + 1])));
  for (const mark of marks) {
    const half = ((mark.width ?? 0) / 2) * GRID;
    samples(mark.at ? [mark.at] : outline(mark), GRID).forEach(({ x, y }) => {
      const [left, top] = [(x - place[0]) * GRID, (y - place[1]) * GRID];
      fill(owners, Math.floor(left - half), Math.floor(top - half), Math.floor(left + half) + 1, Math.floor(top + half) + 1, numbers.get(mark) ?? 0);
    });
  }
  const [boxes, labels] = [0, 0].map(() => new Uint8Array(wide * high));
  const covered = things.map(({ box }) => {
    const one = new Uint8Array(wide * high);
    const [left, top, right, bottom] = [box.left, box.top, box.right, box.bottom].map((side) => Math.round(side / pixels));
    fill(one, left, top, right, bottom, 1);
    one.forEach((on, cell) => (boxes[cell] += on));
    return one;
  });
  const inkIn = counter((cell) => Math.min(1, owners[cell]), wide, high);

  return things.map(({ box, width: long, height: tall }, i) => {
    const [w, h] = [Math.min(wide, Math.ceil(long / pixels)), Math.min(high, Math.ceil(tall / pixels))];
    const [across, down] = [wide - w + 1, high - h + 1];
    const [labelsIn, boxesIn] = [counter((cell) => labels[cell], wide, high), counter((cell) => boxes[cell] - covered[i][cell], wide, high)];
    const ownIn = counter((cell) => Number(owners[cell] === i + 1), wide, high);
    const own = gaps((x, y) => ownIn(x, y, w, h), across, down);
    const other = gaps((x, y) => inkIn(x, y, w, h) - ownIn(x, y, w, h), across, down);
    let [least, left, top] = [Infinity, 0, 0];
    for (let y = 0; y < down; y++) {
      for (let x = 0; x < across; x++) {
        const away = own(x, y);
        const far = w * h * pixels * (away / NEAR + Math.max(0, 2 * away - other(x, y)) / WRONG);
        if (far < least) {
          const cost = far + LABEL * labelsIn(x, y, w, h) + INK * inkIn(x, y, w, h) + boxesIn(x, y, w, h) + Math.abs(x - box.left / pixels) / pixels;
          if (cost < least) { [least, left, top] = [cost, x, y]; }
        }
      }
    }
    fill(labels, left, top, left + w, top + h, 1);
    return { left: Math.min(left, Math.max(0, wide - long / pixels)) * pixels, top: Math.min(top, Math.max(0, high - tall / pixels)) * pixels };
  });
}

/** What counts `valueOf` all cells in any box of a grid, by four sums.
 * @type {(valueOf: (cell: number) => number, wide: number, high: number) => (x: number, y: number, w: number, h: number) => number} */
function counter(valueOf, wide, high) {
  const side = wide + 1;
  const sums = new Int32Array(side * (high + 1));
  for (let y = 0; y < high; y++) {
    for (let x = 0, row = 0; x < wide; x++) {
      row += valueOf(y * wide + x);
      sums[(y + 1) * side + x + 1] = sums[y * side + x + 1] + row;
    }
  }
  return (x, y, w, h) => sums[(y + h) * side + x + w] - sums[y * side + x + w] - sums[(y + h) * side + x] + sums[y * side + x];
}

/** What says how many cells a place is away from the nearest one where a box `covers` something.
 * @type {(covers: (x: number, y: number) => number, across: number, down: number) => (x: number, y: number) => number} */
function gaps(covers, across, down) {
  const side = across + 2;
  const far = new Float32Array(side * (down + 2)).fill(FAR);
  for (let y = 1; y <= down; y++) {
    for (let x = 1, at = y * side + 1; x <= across; x++, at++) {
      const nearest = Math.min(Math.min(far[at - 1], far[at - side]) + 1, Math.min(far[at - side - 1], far[at - side + 1]) + Math.SQRT2);
      far[at] = covers(x - 1, y - 1) ? 0 : nearest;
    }
  }
  for (let y = down; y; y--) {
    for (let at = y * side + across; at > y * side; at--) {
      far[at] = Math.min(far[at], Math.min(far[at + 1], far[at + side]) + 1, Math.min(far[at + side + 1], far[at + side - 1]) + Math.SQRT2);
    }
  }
  return (x, y) => far[(y + 1) * side + x + 1];
}
