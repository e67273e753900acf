/** The things of a drawing: which marks belong together, by where and when they are drawn; and the areas that a bucket fills. */

import { outline, sheet, WHITE } from "./ink.js";

export const PENS = {
  Black: "#000000",
  Brown: "#7a4a2b",
  Red: "#c8322b",
  Orange: "#e08214",
  Yellow: "#e8c11c",
  Green: "#2e8b57",
  Blue: "#2666b8",
  Purple: "#7b4fa3",
};
// The most things that a server accepts.
const MOST = 8;
// Distances within which a stroke joins a thing, in sides of the paper: usually, by touching it, and if drawn soon after it.
const [NEAR, TOUCHING, NEAR_SOON] = [0.03, 0.02, 0.05];
// Of the points of a line, one in each cell of this size counts.
const CELL = TOUCHING / 8;
const SOON_MS = 3000;
// A stroke that touches several things makes one of them, unless they have been drawn for longer.
const FEW_MARKS = 2;
// The area of a bucket is looked for on a grid of so many cells a side; gaps of twice this width are closed.
const GRID = 256;
const GAP = 2;
const DARK = 200;
const SPARED = 4;
const tracks = new WeakMap();
// What an eraser has left is looked for on a sheet of so many pixels a side.
const SEEN = 128;

/**
 * The things among these marks, in the order in which they were begun. An eraser belongs to none, and with an image all is
 * one thing.
 *
 * @returns {{id: number, marks: object[], box: {left, top, right, bottom}}[]}
 */
export function thingsOf(marks) {
  const drawn = marks.filter(({ kind }) => kind !== "eraser");
  const whole = drawn.some(({ kind }) => kind === "image");
  const found = Map.groupBy(drawn, ({ thing = 0 }) => (whole ? 0 : thing));
  const erased = marks.length > drawn.length;
  const left = [...found].filter(([, own]) => !erased || isSeen(marks.filter((mark) => mark.kind === "eraser" || own.includes(mark))));
  return left.map(([id, own]) => ({ id, marks: own, box: boxOf(own) }));
}

function isSeen(marks) {
  return sheet(marks, SEEN).getImageData(0, 0, SEEN, SEEN).data.some((value) => value < DARK);
}

/**
 * These marks with a further one, which joins the thing that it is drawn at, or begins a new one.
 *
 * @param {{thing: number, at: number} | null} last the thing that was drawn at last, and when, in milliseconds
 */
export function withMark(marks, mark, last) {
  const things = thingsOf(marks);
  const box = boxOf([mark]);
  const middle = { x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2 };
  const near = things.map((thing) => ({ ...thing, gap: gapOf(box, thing.box), ink: inkGap(mark, thing.marks) }));
  const soon = last && performance.now() - last.at < SOON_MS ? near.find(({ id }) => id === last.thing) : undefined;
  const touched = near.filter(({ ink }) => ink <= TOUCHING).sort((a, b) => a.ink - b.ink);
  const around = near.filter((thing) => inside(middle, thing.box)).sort((a, b) => areaOf(a.box) - areaOf(b.box));
  const nearest = [...near].sort((a, b) => a.gap - b.gap || a.ink - b.ink)[0];
  const close = nearest && (nearest.gap <= NEAR || things.length >= MOST) ? nearest : undefined;
  const at = touched.includes(soon) || soon?.gap <= TOUCHING ? soon : (touched[0] ?? around[0]);
  const own = at ?? (soon?.gap <= NEAR_SOON ? soon : close);
  const thing = own?.id ?? unused(marks);
  const alone = mark.kind === "fill" ? [] : touched.filter((other) => other !== own && other.marks.length <= FEW_MARKS);
  // They are no parts to get back: they were drawn as one thing.
  const others = marks.map((one) => (alone.some((other) => other.marks.includes(one)) ? { ...one, thing, piece: undefined } : one));
  return [...others, { ...mark, thing }];
}

/** These marks with the things `a` and `b` as one. */
export function joined(marks, a, b) {
  return marks.map((mark) => (mark.kind !== "eraser" && (mark.thing ?? 0) === b ? moveTo(mark, a) : mark));
}

/**
 * These marks with the thing `id` in parts: those of `least` marks of which it was joined, or else what lies apart; null
 * where there are none.
 */
export function parted(marks, id, least = 1) {
  const own = marks.filter((mark) => mark.kind !== "eraser" && (mark.thing ?? 0) === id);
  const joined = [...Map.groupBy(own, ({ piece, thing = 0 }) => piece ?? thing).values()];
  const pieces = joined.every((piece) => piece.length >= least) ? joined : [];
  const parts = pieces.length > 1 ? pieces : apart(own);
  if (parts.length < 2) {
    return null;
  }
  const next = unused(marks);
  const numbers = new Map(parts.flatMap((part, i) => part.map((mark) => [mark, i ? next + i - 1 : id])));
  return marks.map((mark) => (numbers.has(mark) ? { ...mark, thing: numbers.get(mark), piece: undefined } : mark));
}

/** The names of the pens that most of a thing is drawn or filled with, but for black: at most two, by area. */
export function coloursOf({ marks }) {
  const areas = new Map();
  for (const { kind, colour, width, points } of marks) {
    const area = kind === "fill" ? polygonArea(points) : kind === "image" ? 0 : width * lengthOf(outline({ kind, points }));
    areas.set(colour, (areas.get(colour) ?? 0) + area);
  }
  const named = Object.entries(PENS).filter(([name, colour]) => name !== "Black" && areas.has(colour));
  const most = Math.max(0, ...areas.values());
  return named
    .filter(([, colour]) => areas.get(colour) >= most / 4)
    .sort(([, a], [, b]) => areas.get(b) - areas.get(a))
    .slice(0, 2)
    .map(([name]) => name.toLowerCase());
}

/**
 * The area around a point that marks close in, as the points of an outline, rings one after the other; null where
 * nothing closes it in, or where there is ink.
 */
export function enclosed(marks, { x, y }) {
  const ink = grown(inkOf(marks), GAP);
  const cell = Math.min(GRID - 1, Math.floor(y * GRID)) * GRID + Math.min(GRID - 1, Math.floor(x * GRID));
  const area = flooded(ink, cell);
  return area && rings(grown(area, GAP + 1));
}

/** A number that is no thing's, nor was one's that has been joined. */
function unused(marks) {
  return Math.max(-1, ...marks.flatMap(({ thing = 0, piece = 0 }) => [thing, piece])) + 1;
}

function moveTo(mark, thing) {
  return { ...mark, thing, piece: mark.piece ?? mark.thing ?? 0 };
}

/** Groups of marks that lie apart from each other. */
function apart(marks) {
  const groups = [];
  for (const mark of marks) {
    const near = groups.filter((group) => inkGap(mark, group) <= NEAR);
    near.forEach((group) => groups.splice(groups.indexOf(group), 1));
    groups.push([...near.flat(), mark]);
  }
  return groups;
}

/** The box of these marks, with the width of their lines. */
function boxOf(marks) {
  const box = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  for (const mark of marks) {
    const half = (mark.width ?? 0) / 2;
    for (const { x, y } of mark.kind === "image" ? [{ x: 0, y: 0 }, { x: 1, y: 1 }] : outline(mark)) {
      box.left = Math.min(box.left, x - half);
      box.top = Math.min(box.top, y - half);
      box.right = Math.max(box.right, x + half);
      box.bottom = Math.max(box.bottom, y + half);
    }
  }
  return box;
}

function gapOf(a, b) {
  return Math.hypot(Math.max(0, a.left - b.right, b.left - a.right), Math.max(0, a.top - b.bottom, b.top - a.bottom));
}

function areaOf({ left, top, right, bottom }) {
  return (right - left) * (bottom - top);
}

function inside({ x, y }, { left, top, right, bottom }) {
  return x >= left && x <= right && y >= top && y <= bottom;
}

/** How far the line of a mark is from those of others. */
function inkGap(mark, others) {
  const own = tracked(mark);
  let least = Infinity;
  for (const other of others.map(tracked)) {
    // Most marks of a large drawing are too far away for their points to matter.
    if (gapOf(own.box, other.box) < least) {
      const away = pointGap(own.points, other.points);
      least = Math.min(least, Math.max(0, away - ((mark.width ?? 0) + other.width) / 2));
    }
  }
  return least;
}

function pointGap(some, others) {
  let least = Infinity;
  for (const a of some) {
    for (const b of others) {
      least = Math.min(least, (a.x - b.x) ** 2 + (a.y - b.y) ** 2);
    }
  }
  return Math.sqrt(least);
}

/** The box and the points of a mark, which are computed once. */
function tracked(mark) {
  if (!tracks.has(mark)) {
    tracks.set(mark, { box: boxOf([mark]), points: dense(outline(mark)), width: mark.width ?? 0 });
  }
  return tracks.get(mark);
}

/** Points along a line, none further than TOUCHING from the next, and not many more, also where it covers an area. */
function dense(points) {
  const kept = [];
  const cells = new Set();
  let last = null;
  const keep = (point) => {
    const cell = Math.floor(point.x / CELL) * 1e6 + Math.floor(point.y / CELL);
    if (!cells.has(cell)) {
      cells.add(cell);
      kept.push(point);
    }
  };
  for (const point of points) {
    const steps = last ? Math.floor(Math.hypot(point.x - last.x, point.y - last.y) / TOUCHING) : 1;
    for (let step = 1; step <= steps; step++) {
      keep(last ? between(last, point, step / steps) : point);
    }
    last = steps ? point : last;
  }
  points.slice(-1).forEach(keep);
  return kept;
}

function between(a, b, share) {
  return { x: a.x + (b.x - a.x) * share, y: a.y + (b.y - a.y) * share };
}

function lengthOf(points) {
  return points.reduce((sum, { x, y }, i) => (i ? sum + Math.hypot(x - points[i - 1].x, y - points[i - 1].y) : 0), 0);
}

function polygonArea(points) {
  const twice = points.reduce((sum, { x, y }, i) => {
    const next = points[(i + 1) % points.length];
    return sum + x * next.y - next.x * y;
  }, 0);
  return Math.abs(twice) / 2;
}

/** The cells in which there are lines. */
function inkOf(marks) {
  const lines = marks.filter(({ kind }) => kind !== "fill").map((mark) => (mark.kind === "eraser" ? { ...mark, colour: WHITE } : { ...mark, colour: "#000000" }));
  const { data } = sheet(lines, GRID).getImageData(0, 0, GRID, GRID);
  return Uint8Array.from({ length: GRID * GRID }, (_, cell) => Number(data[4 * cell] < DARK));
}

/** These cells, and all within so many of them. */
function grown(cells, by) {
  let now = cells;
  for (let round = 0; round < by; round++) {
    const before = now;
    now = before.map((on, cell) => {
      const [x, y] = [cell % GRID, Math.floor(cell / GRID)];
      return Number(on || (x && before[cell - 1]) || (x < GRID - 1 && before[cell + 1]) || (y && before[cell - GRID]) || before[cell + GRID] || 0);
    });
  }
  return now;
}

/** The cells that are connected with one, without crossing `walls`; null where they reach the edge of the paper. */
function flooded(walls, start) {
  const area = new Uint8Array(GRID * GRID);
  const open = [start];
  if (walls[start]) {
    return null;
  }
  area[start] = 1;
  while (open.length) {
    const cell = open.pop();
    const [x, y] = [cell % GRID, Math.floor(cell / GRID)];
    if (!x || !y || x === GRID - 1 || y === GRID - 1) {
      return null;
    }
    for (const next of [cell - 1, cell + 1, cell - GRID, cell + GRID]) {
      if (!walls[next] && !area[next]) {
        area[next] = 1;
        open.push(next);
      }
    }
  }
  return area;
}

/** The outline of cells: rings of points, of which each begins with `ring: true`. */
function rings(cells) {
  // From each corner, where the edges between an inner and an outer cell lead; the inner one is on their right.
  const edges = new Map();
  const add = (from, to) => edges.set(from, [...(edges.get(from) ?? []), to]);
  const side = GRID + 1;
  cells.forEach((on, cell) => {
    if (on) {
      const [x, y] = [cell % GRID, Math.floor(cell / GRID)];
      const corner = y * side + x;
      !cells[cell - GRID] && add(corner, corner + 1);
      !cells[cell + 1] && add(corner + 1, corner + side + 1);
      !cells[cell + GRID] && add(corner + side + 1, corner + side);
      !cells[cell - 1] && add(corner + side, corner);
    }
  });
  const points = [];
  for (const start of edges.keys()) {
    const ring = [];
    for (let at = start; edges.get(at)?.length; at = ring.at(-1)) {
      ring.push(edges.get(at).pop());
    }
    // Fewer points look as smooth, since curves lead through them.
    ring.filter((_, i) => i % SPARED === 0).forEach((corner, i) => {
      points.push({ x: (corner % side) / GRID, y: Math.floor(corner / side) / GRID, weight: i ? 1 : 0 });
    });
  }
  return points;
}

/** A thing as the server describes it. Of its colours, the edges of lines make some: the first is named. */
export function seenThing({ box: [left, top, right, bottom], colours }, i) {
  return { id: `seen ${i}`, box: { left, top, right, bottom }, colours: colours.slice(0, 1).map(penOf) };
}

/** The name of the pen that is nearest to a colour, #rrggbb. */
function penOf(colour) {
  const parts = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  const far = (pen) => parts(pen).reduce((sum, part, i) => sum + (part - parts(colour)[i]) ** 2, 0);
  const nearest = Object.entries(PENS).reduce((best, pen) => (far(pen[1]) < far(best[1]) ? pen : best));
  return nearest[0].toLowerCase();
}
