/** Marks elsewhere on the paper: moved, of another size, turned or mirrored. */

import { outline } from "./ink.js";

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
