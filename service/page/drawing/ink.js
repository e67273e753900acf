/**
 * The actions that a drawing consists of, and how they are painted.
 *
 * An action is one of
 *   {kind: "pen" | "eraser", colour, width, points: [{x, y, weight}, ...]}
 *   {kind: "line" | "rectangle" | "ellipse", colour, width, points: [from, to]}
 *   {kind: "image", source, image, as}   an image (its source is a data URL); by itself it is searched with as a "sketch" or
 *     as a "photo"
 *   {kind: "fill", colour, points}    an area; a point of weight 0 begins a ring of its outline
 *   {kind: "marks", marks}            these in the place of all before it
 * Positions and widths are in sides of the square around the sheet, from its top left: they are the same on a sheet of any shape,
 * its width by its height. `format` of an action is one that the sheet takes. `thing` says what a mark belongs to, see things.js.
 */

import { element } from "../shared/dom.js";
import { fromDataUrl } from "./picture.js";

export const WHITE = "#ffffff";
/** The formats of a sheet, with its width by its height; the first is that of most photos. */
export const FORMATS = { landscape: 4 / 3, portrait: 3 / 4, square: 1 };
const SHAPES = ["line", "rectangle", "ellipse"];
// What surrounds white strokes, which could not be seen otherwise, in sides of the square around the sheet; the server knows it.
export const RIM = { colour: "#b0b0b0", width: 0.01 };
const ELLIPSE_CORNERS = 128;
// A canvas of one colour tells whether a browser hides what a page paints.
const PROBE = "#808080";
const PROBE_SIDE = 8;
const HARMLESS = 32;
const INK_CONTRAST = 55;

/** Whether a tool draws a shape between two points. The others draw free strokes. */
export const isShape = (kind) => SHAPES.includes(kind);

/** Where a sheet of this shape lies in the square around it: left, top, width and height. */
export function placeOf(shape) {
  const [width, height] = [Math.min(1, shape), Math.min(1, 1 / shape)];
  return [(1 - width) / 2, (1 - height) / 2, width, height];
}

export const shapeOf = ({ naturalWidth, naturalHeight }) => (naturalWidth || 1) / (naturalHeight || 1);

/** A point of the square as shares of the sides of what lies there, see `placeOf`. */
export const sharesOf = ([left, top, width, height], { x, y }) => ({ x: (x - left) / width, y: (y - top) / height });

export const pointAt = ([left, top, width, height], { x, y }) => ({ x: left + x * width, y: top + y * height });

/** The marks that nothing later has taken away, oldest first. */
export function visible(actions) {
  const last = actions.findLastIndex(({ kind }) => kind === "marks");
  return [...(actions[last]?.marks ?? []), ...actions.slice(last + 1)];
}

/** Paint a sheet of this shape, whose longer side has `side` pixels. */
export function paint(context, side, actions, shape = 1) {
  const [left, top] = placeOf(shape);
  context.setTransform(side, 0, 0, side, -left * side, -top * side);
  context.fillStyle = WHITE;
  context.fillRect(0, 0, 1, 1);
  for (const mark of visible(actions).flatMap(rimmed)) {
    if (mark.kind === "image") {
      drawImage(context, mark.image);
    } else if (mark.kind === "fill") {
      trace(context, mark);
      context.fillStyle = mark.colour;
      context.fill("evenodd");
    } else if (isShape(mark.kind)) {
      start(context, mark, mark.width);
      outline(mark).forEach(({ x, y }) => context.lineTo(x, y));
      context.stroke();
    } else if (mark.points.every((point) => point.weight === 1)) {
      // One path: pieces of a stroke of even width would be visible, because their soft edges overlap.
      drawCurve(context, mark, mark.width, 0, mark.points.length);
    } else {
      mark.points.forEach((_, i) => piece(context, mark, i));
    }
  }
}

const rimmed = (mark) => (mark.width && isWhite(mark) ? [{ ...mark, colour: RIM.colour, width: mark.width + RIM.width }, mark] : [mark]);

export const isWhite = ({ kind, colour }) => colour === WHITE && kind !== "eraser";

/** Paint a free stroke around its point `i`: a curve between the middles of its segments, which never changes once the next point is known. */
export const piece = (context, mark, i) => drawCurve(context, mark, mark.width * mark.points[i].weight, i, i + 1);

/** Points along a mark, with straight lines between them; none of an image. */
export function outline({ kind, points }) {
  if (kind === "image") { return []; }
  const [a, b] = points;
  if (kind === "rectangle") { return [a, { x: b.x, y: a.y }, b, { x: a.x, y: b.y }, a]; }
  if (kind === "ellipse") {
    const centre = middle(a, b);
    return Array.from({ length: ELLIPSE_CORNERS + 1 }, (_, i) => {
      const turn = (2 * Math.PI * i) / ELLIPSE_CORNERS;
      return { x: centre.x + (Math.cos(turn) * (b.x - a.x)) / 2, y: centre.y + (Math.sin(turn) * (b.y - a.y)) / 2 };
    });
  }
  return points;
}

/** The place among the marks of the one nearest to a point, within `reach` of it; -1 without one. Erasers and images do not count. */
export function markAt(marks, point, reach) {
  const away = marks.map((mark) => {
    if (mark.kind === "eraser") { return Infinity; }
    return mark.kind === "fill" && isIn(mark, point) ? 0 : distance(outline(mark), point) - (mark.width ?? 0) / 2;
  });
  const least = Math.min(...away);
  return least <= reach ? away.lastIndexOf(least) : -1;
}

function isIn(mark, { x, y }) {
  const context = element("canvas", { width: 1, height: 1 }).getContext("2d");
  trace(context, mark);
  return context.isPointInPath(x, y, "evenodd");
}

/** The point nearest to `to` that makes the shape a square, a circle, or a line at a multiple of 45 degrees. */
export function evened(kind, from, to) {
  const [x, y] = [to.x - from.x, to.y - from.y];
  if (kind === "line") {
    const turn = (Math.round(Math.atan2(y, x) / (Math.PI / 4)) * Math.PI) / 4;
    const length = Math.hypot(x, y);
    return { x: from.x + length * Math.cos(turn), y: from.y + length * Math.sin(turn) };
  }
  const side = Math.max(Math.abs(x), Math.abs(y));
  return { x: from.x + Math.sign(x) * side, y: from.y + Math.sign(y) * side };
}

export function start(context, { kind, colour }, width) {
  context.strokeStyle = kind === "eraser" ? WHITE : colour;
  context.lineCap = "round";
  context.lineJoin = "round";
  context.lineWidth = width;
  context.beginPath();
}

/** Paint the parts of a stroke around its points from `first` until before `end`. */
function drawCurve(context, mark, width, first, end) {
  const { points } = mark;
  const { x, y } = first > 0 ? middle(points[first - 1], points[first]) : points[first];
  start(context, mark, width);
  if (points.length === 1) {
    // A circle, because browsers paint nothing for a line without length.
    context.fillStyle = context.strokeStyle;
    context.arc(x, y, width / 2, 0, 2 * Math.PI);
    context.fill();
    return;
  }
  context.moveTo(x, y);
  for (let i = first; i < end; i++) { curve(context, points[i], points[i + 1]); }
  context.stroke();
}

function curve(context, here, next) {
  const to = next ? middle(here, next) : here;
  context.quadraticCurveTo(here.x, here.y, to.x, to.y);
}

function trace(context, { points }) {
  context.beginPath();
  points.forEach((here, i) => {
    const next = points[i + 1];
    if (here.weight) { curve(context, here, next?.weight ? next : undefined); } else { context.moveTo(here.x, here.y); }
  });
}

function drawImage(context, image) {
  const box = placeOf(shapeOf(image));
  // What is transparent in an image is white, whatever the colour of the paper.
  context.fillStyle = WHITE;
  context.fillRect(...box);
  context.drawImage(image, ...box);
}

/** A small square picture of a drawing. */
export function faceOf(marks, side) {
  const face = element("canvas", { className: "face", width: side, height: side });
  paint(face.getContext("2d"), side, marks);
  return face;
}

/** The drawing on a canvas of its own, see `paint`, whose pixels can be read. @returns {CanvasRenderingContext2D} */
export function sheet(actions, side, shape = 1) {
  const [, , width, height] = placeOf(shape).map((share) => Math.round(share * side));
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  paint(context, side, actions, shape);
  return context;
}

/** The pixels of a canvas that are at least so much darker than white in a channel, as [x, y]. */
export function inked(context) {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  const dark = [];
  for (let i = 0; i < width * height; i++) {
    if (Math.min(data[4 * i], data[4 * i + 1], data[4 * i + 2]) < 255 - INK_CONTRAST) { dark.push([i % width, Math.floor(i / width)]); }
  }
  return dark;
}

/** The drawing as a PNG file, see `paint`. Fails where the browser hides from pages what they have painted. */
export async function png(actions, shape = 1, side = 512) {
  if (hidden()) {
    throw new Error("This browser's fingerprinting protection hides the drawing. Allow this page to read canvases.");
  }
  // At once, and not when the browser is idle, as toBlob.
  return fromDataUrl(sheet(actions, side, shape).canvas.toDataURL("image/png"));
}

/** Whether pixels read from a canvas are other ones. Some browsers change them by one or two, which does no harm. */
function hidden() {
  const context = element("canvas", { width: PROBE_SIDE, height: PROBE_SIDE }).getContext("2d");
  context.fillStyle = PROBE;
  context.fillRect(0, 0, PROBE_SIDE, PROBE_SIDE);
  return context.getImageData(0, 0, PROBE_SIDE, PROBE_SIDE).data.some((value, at) => at % 4 < 3 && Math.abs(value - 128) > HARMLESS);
}

/** How far a point is from lines through these; without any, Infinity. */
function distance(points, { x, y }) {
  const away = points.map((from, i) => {
    const to = points[i + 1] ?? from;
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const along = ((x - from.x) * dx + (y - from.y) * dy) / (dx * dx + dy * dy || 1);
    const share = Math.min(1, Math.max(0, along));
    return Math.hypot(from.x + share * dx - x, from.y + share * dy - y);
  });
  return Math.min(...away);
}

/** Points along lines through these, each at most the `least` part of a side away from the next one. */
export const samples = (points, least) => points.flatMap((from, i) => {
  const to = points[i + 1] ?? from;
  const steps = Math.max(1, Math.ceil(least * Math.hypot(to.x - from.x, to.y - from.y)));
  return Array.from({ length: steps }, (_, k) => ({ x: from.x + ((to.x - from.x) * k) / steps, y: from.y + ((to.y - from.y) * k) / steps }));
});

export const middle = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });

const PRECISION = 10_000;

/** Rounded: exact enough to look at, and short in the browser's storage. */
export const short = (value) => Math.round(value * PRECISION) / PRECISION;

/** The same mark, as far away as `to` is from `from`; and `scale` times as large, seen from there. */
export const moved = (mark, from, to, scale = 1) =>
  placed({ ...mark, width: mark.width && scale * mark.width }, ({ x, y }) => ({ x: to.x + scale * (x - from.x), y: to.y + scale * (y - from.y) }));

export const mirrored = (mark, middle) => placed(mark, ({ x, y }) => ({ x: 2 * middle - x, y }));

/** The same mark, turned around a point. Its shape becomes a stroke if it has two corners that are not turned. */
export function turned(mark, { x: left, y: top }, angle) {
  const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
  const at = ({ x, y }) => ({ x: left + cos * (x - left) - sin * (y - top), y: top + sin * (x - left) + cos * (y - top) });
  if (mark.kind !== "rectangle" && mark.kind !== "ellipse") { return placed(mark, at); }
  const points = outline(mark).flatMap(({ x, y }) => Array(mark.kind === "rectangle" ? 2 : 1).fill({ x, y, weight: 1 }));
  return placed({ ...mark, kind: "pen", points }, at);
}

const placed = (mark, at) => ({
  ...mark,
  points: mark.points.map((point) => {
    const { x, y } = at(point);
    return { ...point, x: short(x), y: short(y) };
  }),
});
