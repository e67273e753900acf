/** The drawing in the browser's storage: it is still there when the page is loaded again. Each tab has one of its own. */

import { forTab } from "../shared/storage.js";
import { FORMATS } from "./ink.js";
import { open } from "./picture.js";

const KEY = "sketch-search-drawing";
const VERSION = 2;
// Browsers give a site about five million characters; a drawing takes at most two fifths of them.
const MOST_CHARACTERS = 2_000_000;

/** Save marks, and the format of its sheet. A drawing that is too large is not saved. */
export function save({ marks, format }) {
  const flatly = marks.map(({ image, points, ...mark }) => (points ? { ...mark, points: flat(points) } : mark));
  const text = JSON.stringify({ version: VERSION, format, marks: flatly });
  if (text.length > MOST_CHARACTERS) {
    forTab.remove(KEY);
  } else {
    forTab.set(KEY, text);
  }
}

/** The saved drawing, as marks and the format of its sheet; an empty sheet where nothing was saved or where it cannot be read. */
export async function restore() {
  try {
    // Once, all sheets were square.
    const { version, format = "square", marks } = JSON.parse(forTab.get(KEY));
    if (version === VERSION && format in FORMATS) {
      return { format, marks: await Promise.all(marks.map(readMark)) };
    }
  } catch {
    // Nothing, or damaged.
  }
  return { format: "landscape", marks: [] };
}

const readMark = async ({ points, ...mark }) =>
  mark.kind === "image" ? { ...mark, image: await open(mark.source) } : { ...mark, points: unflat(points) };

const flat = (points) => points.flatMap(({ x, y, weight }) => [x, y, weight ?? 1]);

const unflat = (values) =>
  Array.from({ length: values.length / 3 }, (_, i) => ({ x: values[3 * i], y: values[3 * i + 1], weight: values[3 * i + 2] }));
