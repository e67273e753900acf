/** The things of a drawing: which marks belong together, as the server or a person said; and the areas that a bucket fills. */

import { inked, isWhite, outline, placeOf, pointAt, RIM, shapeOf, sharesOf, sheet, WHITE } from "./ink.js";

export const PENS = {
  Black: "#000000", Grey: "#8a8a8a", "Light grey": "#c2c2c2", White: WHITE, Brown: "#7a4a2b", Skin: "#e3ab84", Beige: "#d9c7a0", Red: "#c8322b",
  Pink: "#e58fb0", Orange: "#e08214", Yellow: "#e8c11c", Green: "#2e8b57", "Light blue": "#8cc4e8", Blue: "#2666b8", Purple: "#7b4fa3",
};
// Of the things, one after the other. Colour-blind people can also distinguish them.
export const TINTS = ["#d55e00", "#0072b2", "#b0478a", "#00785a", "#8a6a00", "#5f605a", "#12523f", "#7b2d26"];
// The area of a bucket is looked for on a grid of so many cells a side; gaps of twice this width are closed.
const GRID = 256;
const GAP = 2;
const DARK = 200;
const SPARED = 4;
const MOST_STROKES = 2000;
const DOT = 0.012;
const NONE = -1;
// What an eraser has left is looked for on a sheet of so many pixels a side.
const SEEN = 128;

/**
 * The things among these marks. `thing` of a mark is the number of the thing that the last answer gave it to; what was
 * drawn since belongs to the mark before it. An eraser belongs to none, and with an image all is one thing.
 * @type {(marks: Mark[]) => Thing[]}
 */
export function thingsOf(marks) {
  const drawn = marks.filter(({ kind }) => kind !== "eraser");
  const whole = drawn.some(({ kind }) => kind === "image");
  let last = 0;
  const numbers = drawn.map(({ thing }) => (whole ? 0 : thing === NONE ? NONE : (last = thing ?? last)));
  const erasers = marks.filter(({ kind }) => kind === "eraser").map((mark) => boxOf([mark]));
  const meet = (/** @type {Box} */ a, /** @type {Box} */ b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const found = [...new Set(numbers)].filter((id) => id !== NONE).map((id) => ({ id, marks: drawn.filter((_, i) => numbers[i] === id) }));
  const things = found.map(({ id, marks: own }) => ({ id, marks: own, box: boxOf(own) }));
  const touched = (/** @type {Thing} */ { box }) => erasers.some((one) => meet(one, box));
  const left = (/** @type {Thing} */ one) => sheet(marks.filter((mark) => mark.kind === "eraser" || one.marks.includes(mark)), SEEN);
  return things.filter((one) => !touched(one) || inked(left(one)).length);
}

/** What things are made of: marks; or dots on the ink of a drawn image alone, once the server has put them there. @type {(marks: Mark[]) => Mark[]} */
export const piecesOf = (marks) => dotted(marks) ?? marks;

/** @type {(marks: Mark[], pieces: Mark[]) => Mark[]} */
export const withPieces = (marks, pieces) => (dotted(marks) ? [{ ...marks[0], dots: pieces }] : pieces);

/** @type {(marks: Mark[]) => Mark[] | undefined} */
const dotted = ([mark, ...others]) => (mark?.as === "sketch" && !others.length ? mark.dots : undefined);

/** Put dots on the ink of an image, the only mark, at these points of it, as shares of its sides. @type {(marks: Mark[], points: [number, number][]) => void} */
export function dot([mark, ...others], points) {
  // Equally many are the same: a label that somebody types in is of these.
  if (mark?.image && !others.length && mark.dots?.length !== points.length) {
    const place = placeOf(shapeOf(mark.image));
    mark.dots = points.map(([x, y]) => ({ kind: "dot", width: 0, points: [{ x, y }], at: pointAt(place, { x, y }) }));
  }
}

/** The strokes of a drawing as the server reads them, each with its mark; none if an image is among the marks. @type {(marks: Mark[], place?: Place) => SentStroke[]} */
export function strokesOf(marks, place = placeOf(1)) {
  const whole = marks.some(({ kind }) => kind === "image") ? [] : marks;
  return whole.filter(({ kind }) => kind !== "eraser").slice(-MOST_STROKES).map((mark) => ({
    mark,
    sent: {
      points: outline(mark).map((point) => Object.values(mark.at ? point : sharesOf(place, point))),
      width: (mark.width ?? 0) / place[2],
      filled: mark.kind === "fill",
      ...(mark.told === undefined ? {} : { thing: mark.told }),
      ...(mark.word ? { word: mark.word } : {}),
    },
  }));
}

/** Note in the marks of strokes what belongs together, as an answer says; and in dots the colours of their things. @type {(strokes: SentStroke[], things: AnsweredThing[]) => void} */
export function assign(strokes, things) {
  // A dot that lies under another one belongs to what the dot before it does; a stroke may be of no thing, such as the ground.
  const owned = new Set(things.flatMap(({ strokes: own = [] }) => own));
  strokes.forEach(({ mark }, i) => owned.size && !owned.has(i) && (mark.thing = mark.at ? undefined : NONE));
  things.forEach((one, thing) => {
    const { strokes: own = [], second_half: second = [] } = one;
    own.filter((i) => strokes[i]).forEach((i) => {
      const { mark } = strokes[i];
      Object.assign(mark, { thing, second: second.includes(i) }, mark.at && { colours: seenThing(one).colours });
    });
  });
}

/** These marks, each of which stays in the thing that it is in. @type {(marks: Mark[]) => Mark[]} */
export function settled(marks) {
  const next = unused(marks);
  const told = new Map(thingsOf(marks).flatMap(({ id, marks: own }) => {
    const number = own.find((mark) => mark.told !== undefined)?.told ?? next + id;
    return own.map((mark) => [mark, number]);
  }));
  return marks.map((mark) => ({ ...mark, told: mark.told ?? told.get(mark) }));
}

/** These marks with some of them as one thing, because a person says so. It has the word of one of them. @type {SortMarks} */
export function joined(marks, some) {
  const whole = thingsOf(marks).find((thing) => thing.marks.every((mark) => some.includes(mark)));
  const own = { thing: whole?.id ?? further(marks), told: unused(marks), second: false, word: some.map((mark) => mark.word).find(Boolean) };
  return marks.map((mark) => (some.includes(mark) ? { ...mark, ...own } : mark));
}

/** Copies of some of these settled marks. What is one thing among them is one of its own. @type {SortMarks} */
export function copied(marks, some) {
  const [thing, told] = [further(marks), unused(marks)];
  const numbers = [...new Set(some.map((mark) => mark.told))];
  return some.map((mark) => ({ ...mark, thing: thing + numbers.indexOf(mark.told), told: told + numbers.indexOf(mark.told) }));
}

/** These marks, of which some, a thing, have this word, or none if it is empty, and stay together from now on. @type {(marks: Mark[], some: Mark[], word: string) => Mark[]} */
export function named(marks, some, word) {
  const told = some[0]?.told ?? unused(marks);
  return marks.map((mark) => (some.includes(mark) ? { ...mark, told, word } : mark));
}

/** Whether the last answer has halves of this thing. @type {(thing: Thing) => boolean} */
export const divided = ({ marks }) => new Set(marks.map(({ second = false }) => second)).size > 1;

/** These marks with the thing that some of them are as two, the halves of the last answer, because a person says so. @type {SortMarks} */
export function halved(marks, some) {
  const [told, next, [{ thing: first = 0 }]] = [unused(marks), further(marks), some];
  const said = (/** @type {Mark} */ { second }) => ({ thing: second ? next : first, told: second ? told + 1 : told, second: false });
  return marks.map((mark) => (some.includes(mark) ? { ...mark, ...said(mark) } : mark));
}

/** The names of the pens that most of a thing is drawn or filled with, or that are like these colours, but for black: at most two. @type {(thing: Thing) => string[]} */
export function coloursOf({ marks }) {
  if (marks[0].colours) { return marks[0].colours; }
  const areas = new Map();
  // White areas only cover what is below them.
  for (const { kind, colour, width, points } of marks.filter((mark) => mark.colour && (mark.width || !isWhite(mark)))) {
    const area = kind === "fill" ? polygonArea(points) : width * lengthOf(outline({ kind, points }));
    areas.set(penOf(colour), (areas.get(penOf(colour)) ?? 0) + area);
  }
  const most = Math.max(0, ...areas.values());
  const named = [...areas].filter(([name, area]) => name && area >= most / 4);
  return named.sort(([, a], [, b]) => b - a).slice(0, 2).map(([name]) => name);
}

/** The area around a point that marks close in, as rings of points of its outline; none in the open, or on ink. @type {(marks: Mark[], point: Point) => Point[]} */
export function enclosed(marks, { x, y }) {
  const ink = grown(inkOf(marks), GAP);
  const cell = Math.min(GRID - 1, Math.floor(y * GRID)) * GRID + Math.min(GRID - 1, Math.floor(x * GRID));
  return rings(grown(flooded(ink, cell), GAP + 1));
}

const further = (/** @type {Mark[]} */ marks) => Math.max(...marks.map(({ thing = 0 }) => thing)) + 1;

const unused = (/** @type {Mark[]} */ marks) => Math.max(-1, ...marks.map(({ told = -1 }) => told)) + 1;

export function boxOf(/** @type {Mark[]} */ marks) {
  const box = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  for (const mark of marks) {
    const half = mark.at ? DOT : (mark.width ?? 0) / 2;
    for (const { x, y } of mark.kind === "image" ? [{ x: 0, y: 0 }, { x: 1, y: 1 }] : mark.at ? [mark.at] : outline(mark)) {
      box.left = Math.min(box.left, x - half);
      box.top = Math.min(box.top, y - half);
      box.right = Math.max(box.right, x + half);
      box.bottom = Math.max(box.bottom, y + half);
    }
  }
  return box;
}

export const inBox = (/** @type {Box} */ box, /** @type {Point} */ { x, y }) => x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;

/** The smallest thing whose box a point lies in. @type {(things: Thing[], point: Point) => Thing | undefined} */
export function thingAt(things, point) {
  const around = things.filter(({ box }) => inBox(box, point));
  const area = (/** @type {Thing} */ { box }) => (box.right - box.left) * (box.bottom - box.top);
  return around.sort((a, b) => area(a) - area(b))[0];
}

export const lengthOf = (/** @type {Point[]} */ points) =>
  points.reduce((sum, { x, y }, i) => (i ? sum + Math.hypot(x - points[i - 1].x, y - points[i - 1].y) : 0), 0);

const polygonArea = (/** @type {Point[]} */ points) =>
  Math.abs(points.reduce((sum, { x, y }, i) => sum + points.at(i - 1).x * y - x * points.at(i - 1).y, 0)) / 2;

function inkOf(/** @type {Mark[]} */ marks) {
  const lines = marks.filter(({ kind }) => kind !== "fill").map((mark) => (mark.kind === "eraser" ? { ...mark, colour: WHITE } : { ...mark, colour: "#000000" }));
  const { data } = sheet(lines, GRID).getImageData(0, 0, GRID, GRID);
  return Uint8Array.from({ length: GRID * GRID }, (_, cell) => Number(data[4 * cell] < DARK));
}

/** @type {(cells: Uint8Array, by: number) => Uint8Array} */
function grown(cells, by) {
  const near = (/** @type {number} */ on, /** @type {number} */ cell, /** @type {Uint8Array} */ before) => {
    const x = cell % GRID;
    return Number(on || (x && before[cell - 1]) || (x < GRID - 1 && before[cell + 1]) || before[cell - GRID] || before[cell + GRID] || 0);
  };
  return by ? grown(cells.map(near), by - 1) : cells;
}

/** The cells that are connected with one, without crossing `walls`; none where they reach the edge of the paper. @type {(walls: Uint8Array, start: number) => Uint8Array} */
function flooded(walls, start) {
  const area = new Uint8Array(GRID * GRID);
  const open = [start];
  while (open.length) {
    const cell = open.pop();
    const [x, y] = [cell % GRID, Math.floor(cell / GRID)];
    if (!walls[cell] && !area[cell]) {
      if (!x || !y || x === GRID - 1 || y === GRID - 1) { return new Uint8Array(); }
      area[cell] = 1;
      open.push(cell - 1, cell + 1, cell - GRID, cell + GRID);
    }
  }
  return area;
}

/** The outline of cells: rings of points, of which each begins with a weight of 0. @type {(cells: Uint8Array) => Point[]} */
function rings(cells) {
  const side = GRID + 1;
  // Fewer points look as smooth, since curves lead through them.
  return borders(new Set([...cells.keys()].filter((cell) => cells[cell])), GRID).flatMap((ring) => ring.filter((_, i) => i % SPARED === 0).map((corner, i) => (
    { x: (corner % side) / GRID, y: Math.floor(corner / side) / GRID, weight: i ? 1 : 0 }
  )));
}

/** The borders of a set of cells of a square grid, `grid` along each side: closed rings of corners. @type {(cells: Set<number>, grid: number) => number[][]} */
export function borders(cells, grid) {
  const edges = new Map();
  const add = (/** @type {number} */ from, /** @type {number} */ to) => edges.set(from, [...(edges.get(from) ?? []), to]);
  const side = grid + 1;
  for (const cell of cells) {
    const x = cell % grid;
    const corner = Math.floor(cell / grid) * side + x;
    cells.has(cell - grid) || add(corner, corner + 1);
    (x < grid - 1 && cells.has(cell + 1)) || add(corner + 1, corner + side + 1);
    cells.has(cell + grid) || add(corner + side + 1, corner + side);
    (x && cells.has(cell - 1)) || add(corner + side, corner);
  }
  const found = [];
  for (const start of edges.keys()) {
    const ring = [];
    for (let at = start; edges.get(at)?.length; at = ring.at(-1)) { ring.push(edges.get(at).pop()); }
    if (ring.length) { found.push(ring); }
  }
  return found;
}

/** A thing as the server describes it. Of its colours, the edges of lines make some: the first is named. @type {(seen: AnsweredThing, i?: number) => Thing} */
export const seenThing = ({ box: [left, top, right, bottom], colours }, i) =>
  ({ id: i, box: { left, top, right, bottom }, colours: colours.slice(0, 1).map(penOf) });

/** The things of an answer, each with its word as a person typed it. @type {(things: AnsweredThing[], strokes: SentStroke[]) => AnsweredThing[]} */
export const asNamed = (things, strokes) =>
  things.map((one) => ({ ...one, word: one.strokes?.map((i) => strokes[i]?.mark.word).find(Boolean) ?? one.word }));

/** The name of the pen whose colour is the nearest; "" of the black one, which is no colour to a search. @type {(colour: string) => string} */
function penOf(colour) {
  const [[, black], ...pens] = Object.entries(PENS);
  if (colour === black) { return ""; }
  if (colour === RIM.colour) { return "white"; }
  const parts = (/** @type {string} */ text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  const far = (/** @type {[string, string]} */ [, pen]) => parts(pen).reduce((sum, part, i) => sum + (part - parts(colour)[i]) ** 2, 0);
  const nearest = pens.reduce((best, pen) => (far(pen) < far(best) ? pen : best));
  return nearest[0].toLowerCase();
}
