/** The parts of a sketch that can be pointed at: its strokes, and which cells of the patch grid they cross. */

import { element } from "../shared/dom.js";
import { inked, outline, placeOf, samples, sharesOf, sheet } from "../drawing/ink.js";
import { lengthOf } from "../drawing/things.js";

const MOST_PARTS = 12;
// With fewer strokes than this the long ones are cut: then the roof of a house drawn in one line can also be pointed at.
const FEWEST_PARTS = 4;
const SHORTEST_CUT = 0.35;
// A part of more than this share of all lines would light most of a photo.
const LARGEST = 0.5;
// How far from a stroke the pointer may be, in sides of the picture.
const REACH = 0.1;
const SAMPLES_A_CELL = 4;
const SHEET_SIDE = 512;
const SHEET_CONTRAST = 40;
// The prepared picture has black ink on white, with grey edges.
const PREPARED_CONTRAST = 60;
const PLACES = ["top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"];

/**
 * The parts of what was searched with, {name, path, cells}, in the `prepared` picture that the network saw, with `grid` cells along
 * its side; paths within 0..1. Of an image no line is known: its parts are pieces of the picture.
 */
export function partsOf({ marks, shape = 1 }, prepared, grid) {
  // The server crops an image to its ink, which is not known here.
  const moved = marks.length && marks.every(({ kind }) => kind !== "image") ? mapping(box(sheet(marks, SHEET_SIDE, shape), SHEET_CONTRAST), prepared) : null;
  if (!moved) { return placesOf(prepared, grid); }
  const place = placeOf(shape);
  const lines = linesOf(marks).map((points) => points.map((point) => moved(sharesOf(place, point))));
  return longest(cut(lines.map((points) => samples(points, grid * SAMPLES_A_CELL)))).map((path, i) => ({
    name: `Part ${i + 1}`,
    path,
    cells: new Set(path.map((point) => cellAt(point, grid))),
  }));
}

/** From shares of the paper's sides, where all ink is in the box `from`, to places in the prepared picture. */
function mapping(from, prepared) {
  const to = box(painted(prepared), PREPARED_CONTRAST);
  return from && to && (({ x, y }) => ({
    x: to.left + ((x - from.left) / (from.right - from.left)) * (to.right - to.left),
    y: to.top + ((y - from.top) / (from.bottom - from.top)) * (to.bottom - to.top),
  }));
}

const linesOf = (marks) => marks.filter(({ kind }) => !["eraser", "fill", "image"].includes(kind)).map((mark) => outline(mark));

export const largestFirst = (parts) => [...parts].sort((a, b) => b.cells.size - a.cells.size);

/** The parts of a photo, those in the middle first: it mostly has what the photo shows. */
export function middleFirst(parts) {
  const away = ({ path }) => path.reduce((sum, { x, y }) => sum + Math.hypot(x - 0.5, y - 0.5), 0) / path.length;
  return [...parts].sort((a, b) => away(a) - away(b));
}

/** The part at this point of the picture, within 0..1; null where there is none. */
export function partAt(parts, point) {
  const far = parts.map(({ path }) => Math.min(...path.map((other) => Math.hypot(other.x - point.x, other.y - point.y))));
  const nearest = far.indexOf(Math.min(...far));
  return far[nearest] <= REACH ? parts[nearest] : null;
}

export function paintPart(canvas, { path, cells, picture, grid }) {
  const context = canvas.getContext("2d");
  const side = canvas.width;
  if (picture) {
    const [from, to] = [picture.naturalWidth / grid, side / grid];
    for (const cell of cells) {
      const [x, y] = [cell % grid, Math.floor(cell / grid)];
      context.drawImage(picture, x * from, y * from, from, from, x * to, y * to, to, to);
    }
    return;
  }
  context.lineCap = "round";
  context.lineJoin = "round";
  context.lineWidth = 0.07 * side;
  context.strokeStyle = "#1e1f1c";
  context.beginPath();
  path.forEach(({ x, y }) => context.lineTo(x * side, y * side));
  context.stroke();
}

function cellAt({ x, y }, grid) {
  const within = (value) => Math.min(grid - 1, Math.max(0, Math.floor(value * grid)));
  return within(y) * grid + within(x);
}

/** Ninths of the picture, without bare paper. Tokens of bare paper match each other well, which means nothing. */
function placesOf(prepared, grid) {
  const all = inkedCells(painted(prepared), grid);
  const middle = (cell) => ({ x: ((cell % grid) + 0.5) / grid, y: (Math.floor(cell / grid) + 0.5) / grid });
  return PLACES.map((name, i) => {
    const cells = all.filter((cell) => {
      const { x, y } = middle(cell);
      return Math.floor(3 * x) === i % 3 && Math.floor(3 * y) === Math.floor(i / 3);
    });
    return { name: `The ${name}`, path: cells.map(middle), cells: new Set(cells), picture: prepared, grid };
  }).filter(({ cells }) => cells.size);
}

function inkedCells(picture, grid) {
  const { width, height } = picture.canvas;
  const cells = new Set(inked(picture, PREPARED_CONTRAST).map(([x, y]) => cellAt({ x: x / width, y: y / height }, grid)));
  return [...cells].sort((a, b) => a - b);
}

/** The same lines; the longest one is halved again and again until there are enough and none is most of the drawing. */
function cut(lines) {
  const all = [...lines];
  const whole = all.reduce((sum, line) => sum + lengthOf(line), 0);
  for (;;) {
    const lengths = all.map(lengthOf);
    const most = Math.max(...lengths);
    if (most < SHORTEST_CUT || (all.length >= FEWEST_PARTS && most <= LARGEST * whole)) { return all; }
    const at = lengths.indexOf(most);
    const middle = Math.floor(all[at].length / 2);
    all.splice(at, 1, all[at].slice(0, middle + 1), all[at].slice(middle));
  }
}

function longest(lines) {
  const kept = new Set([...lines].sort((a, b) => lengthOf(b) - lengthOf(a)).slice(0, MOST_PARTS));
  return lines.filter((line) => kept.has(line));
}

function painted(image) {
  const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context;
}

function box(picture, contrast) {
  const places = inked(picture, contrast);
  if (!places.length) { return null; }
  const ends = (axis, side) => {
    const [least, most] = places.reduce(([a, b], place) => [Math.min(a, place[axis]), Math.max(b, place[axis])], [side, 0]);
    return [least / side, (most + 1) / side];
  };
  const [[left, right], [top, bottom]] = [ends(0, picture.canvas.width), ends(1, picture.canvas.height)];
  return { left, right, top, bottom };
}
