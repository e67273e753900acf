/** The parts of a picture that can be pointed at: its ninths. */

import { element } from "../shared/dom.js";
import { inked } from "../drawing/ink.js";

const PLACES = ["top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"];

const placeAt = ({ x, y }) => [y, x].reduce((place, share) => 3 * place + Math.min(2, Math.max(0, Math.floor(3 * share))), 0);

/**
 * The ninths of the `prepared` picture that the network saw, {name, place, cells}, by their cells of a square grid, without bare
 * paper: its tokens match each other well, which means nothing.
 */
export function partsOf(prepared, grid) {
  const { naturalWidth: width, naturalHeight: height } = prepared;
  const context = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(prepared, 0, 0);
  const cellAt = ([x, y]) => Math.floor((y / height) * grid) * grid + Math.floor((x / width) * grid);
  const all = [...new Set(inked(context).map(cellAt))].sort((a, b) => a - b);
  const places = Map.groupBy(all, (cell) => placeAt({ x: ((cell % grid) + 0.5) / grid, y: (Math.floor(cell / grid) + 0.5) / grid }));
  return PLACES.flatMap((name, place) => (places.has(place) ? [{ name: `The ${name}`, place, cells: new Set(places.get(place)) }] : []));
}

/** The parts, those in the middle first: it mostly has what a picture shows. */
export function middleFirst(parts) {
  const away = ({ place }) => Math.hypot((place % 3) - 1, Math.floor(place / 3) - 1);
  return [...parts].sort((a, b) => away(a) - away(b));
}

/** The part at this point of the picture, within 0..1; null where there is none. */
export const partAt = (parts, point) => parts.find(({ place }) => place === placeAt(point)) ?? null;

/** Paint the cells of a part of a picture, where they are in it. */
export function paintPart(canvas, { cells }, picture, grid) {
  const context = canvas.getContext("2d");
  const [from, to] = [picture.naturalWidth / grid, canvas.width / grid];
  for (const cell of cells) {
    const [x, y] = [cell % grid, Math.floor(cell / grid)];
    context.drawImage(picture, x * from, y * from, from, from, x * to, y * to, to, to);
  }
}
