/** How the marks of a drawing are painted, and where they lie. The records, such as Mark, are in types.d.ts. */

import { element } from "../shared/dom.js";
import { fromDataUrl } from "./picture.js";

export const WHITE = "#ffffff";
/** The formats of a sheet, with its width by its height; the first is that of most photos. @type {Record<Format, number>} */
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

/** Whether a tool draws a shape between two points. The others draw free strokes. @type {(kind: string) => kind is Shape} */
export const isShape = (kind) => SHAPES.includes(kind);

/** Where a sheet of this shape lies in the square around it. @type {(shape: number) => Place} */
export function placeOf(shape) {
  const [width, height] = [Math.min(1, shape), Math.min(1, 1 / shape)];
  return [(1 - width) / 2, (1 - height) / 2, width, height];
}

export const shapeOf = (/** @type {HTMLImageElement} */ { naturalWidth, naturalHeight }) => (naturalWidth || 1) / (naturalHeight || 1);

/** A point of the square as shares of the sides of what lies there, see `placeOf`. @type {(place: Place, point: Point) => Point} */
export const sharesOf = ([left, top, width, height], { x, y }) => ({ x: (x - left) / width, y: (y - top) / height });

/** @type {(place: Place, shares: Point) => Point} */
export const pointAt = ([left, top, width, height], { x, y }) => ({ x: left + x * width, y: top + y * height });

/** The marks that nothing later has taken away, oldest first. @type {(actions: Action[]) => Mark[]} */
export function visible(actions) {
  const last = actions.findLastIndex(({ kind }) => kind === "marks");
  return [...(actions[last]?.marks ?? []), .../** @type {Mark[]} */ (actions.slice(last + 1))];
}

/** Paint a sheet of this shape, whose longer side has `side` pixels. @type {(context: Context, side: number, actions: Action[], shape?: number) => void} */
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

/** @type {(mark: Mark) => Mark[]} */
const rimmed = (mark) => (mark.width && isWhite(mark) ? [{ ...mark, colour: RIM.colour, width: mark.width + RIM.width }, mark] : [mark]);

export const isWhite = (/** @type {Mark} */ { kind, colour }) => colour === WHITE && kind !== "eraser";

/** Paint a stroke around its point `i`, which stays so once the next one is known. @type {(context: Context, mark: Mark, i: number) => void} */
export const piece = (context, mark, i) => drawCurve(context, mark, mark.width * mark.points[i].weight, i, i + 1);

/** Points along a mark, with straight lines between them; none of an image. @type {(mark: Mark) => Point[]} */
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

/** The place of the nearest mark within `reach`, or -1, erasers and images apart. @type {(marks: Mark[], point: Point, reach: number) => number} */
export function markAt(marks, point, reach) {
  const away = marks.map((mark) => {
    if (mark.kind === "eraser") { return Infinity; }
    return mark.kind === "fill" && isIn(mark, point) ? 0 : distance(outline(mark), point) - (mark.width ?? 0) / 2;
  });
  const least = Math.min(...away);
  return least <= reach ? away.lastIndexOf(least) : -1;
}

function isIn(/** @type {Mark} */ mark, /** @type {Point} */ { x, y }) {
  const context = element("canvas", { width: 1, height: 1 }).getContext("2d");
  trace(context, mark);
  return context.isPointInPath(x, y, "evenodd");
}

/** The point nearest to `to` that makes the shape a square, a circle, or a line at a multiple of 45 degrees. @type {(kind: Shape, from: Point, to: Point) => Point} */
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

/** @type {(context: Context, mark: {kind?: string, colour?: string}, width: number) => void} */
export function start(context, { kind, colour }, width) {
  context.strokeStyle = kind === "eraser" ? WHITE : colour;
  context.lineCap = "round";
  context.lineJoin = "round";
  context.lineWidth = width;
  context.beginPath();
}

/** Paint a stroke around these points. @type {(context: Context, mark: Mark, width: number, first: number, end: number) => void} */
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

/** @type {(context: Context | Path2D, here: Point, next?: Point) => void} */
function curve(context, here, next) {
  const to = next ? middle(here, next) : here;
  context.quadraticCurveTo(here.x, here.y, to.x, to.y);
}

function trace(/** @type {Context} */ context, /** @type {Mark} */ { points }) {
  context.beginPath();
  points.forEach((here, i) => {
    const next = points[i + 1];
    if (here.weight) { curve(context, here, next?.weight ? next : undefined); } else { context.moveTo(here.x, here.y); }
  });
}

function drawImage(/** @type {Context} */ context, /** @type {HTMLImageElement} */ image) {
  const box = placeOf(shapeOf(image));
  // What is transparent in an image is white, whatever the colour of the paper.
  context.fillStyle = WHITE;
  context.fillRect(...box);
  context.drawImage(image, ...box);
}

/** A small square picture of a drawing. @type {(marks: Mark[], side: number) => HTMLCanvasElement} */
export function faceOf(marks, side) {
  const face = element("canvas", { className: "face", width: side, height: side });
  paint(face.getContext("2d"), side, marks);
  return face;
}

/** The drawing on a canvas of its own, see `paint`, whose pixels can be read. @type {(actions: Action[], side: number, shape?: number) => Context} */
export function sheet(actions, side, shape = 1) {
  const [, , width, height] = placeOf(shape).map((share) => Math.round(share * side));
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  paint(context, side, actions, shape);
  return context;
}

/** The pixels of a canvas that are at least so much darker than white in a channel. @type {(context: Context) => [x: number, y: number][]} */
export function inked(context) {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  const dark = /** @type {[number, number][]} */ ([]);
  for (let i = 0; i < width * height; i++) {
    if (Math.min(data[4 * i], data[4 * i + 1], data[4 * i + 2]) < 255 - INK_CONTRAST) { dark.push([i % width, Math.floor(i / width)]); }
  }
  return dark;
}

/** The drawing as a PNG file. Fails where the browser hides what is painted. @type {(actions: Action[], shape?: number, side?: number) => Promise<Blob>} */
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

/** How far a point is from lines through these; without any, Infinity. @type {(points: Point[], point: Point) => number} */
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

/** Points along lines through these, each at most the `least` part of a side away from the next one. @type {(points: Point[], least: number) => Point[]} */
export const samples = (points, least) => points.flatMap((from, i) => {
  const to = points[i + 1] ?? from;
  const steps = Math.max(1, Math.ceil(least * Math.hypot(to.x - from.x, to.y - from.y)));
  return Array.from({ length: steps }, (_, k) => ({ x: from.x + ((to.x - from.x) * k) / steps, y: from.y + ((to.y - from.y) * k) / steps }));
});

export const middle = (/** @type {Point} */ a, /** @type {Point} */ b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });

const PRECISION = 10_000;

/** Rounded: exact enough to look at, and short in the browser's storage. @type {(value: number) => number} */
export const short = (value) => Math.round(value * PRECISION) / PRECISION;

/** The same mark, as far away as `to` is from `from`, and larger. @type {(mark: Mark, from: Point, to: Point, scale?: number) => Mark} */
export const moved = (mark, from, to, scale = 1) =>
  placed({ ...mark, width: mark.width && scale * mark.width }, ({ x, y }) => ({ x: to.x + scale * (x - from.x), y: to.y + scale * (y - from.y) }));

export const mirrored = (/** @type {Mark} */ mark, /** @type {number} */ middle) => placed(mark, ({ x, y }) => ({ x: 2 * middle - x, y }));

/** The same mark, turned; a shape with two corners becomes a stroke. @type {(mark: Mark, around: Point, angle: number) => Mark} */
export function turned(mark, { x: left, y: top }, angle) {
  const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
  const at = (/** @type {Point} */ { x, y }) => ({ x: left + cos * (x - left) - sin * (y - top), y: top + sin * (x - left) + cos * (y - top) });
  if (mark.kind !== "rectangle" && mark.kind !== "ellipse") { return placed(mark, at); }
  const points = outline(mark).flatMap(({ x, y }) => Array(mark.kind === "rectangle" ? 2 : 1).fill({ x, y, weight: 1 }));
  return placed({ ...mark, kind: "pen", points }, at);
}

const placed = (/** @type {Mark} */ mark, /** @type {(point: Point) => Point} */ at) => ({
  ...mark,
  points: mark.points.map((point) => {
    const { x, y } = at(point);
    return { ...point, x: short(x), y: short(y) };
  }),
});
