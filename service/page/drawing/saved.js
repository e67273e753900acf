/** The drawing in the browser's storage, for when the page is loaded again, each tab with its own; and in the PNG files that it saves. */

import { forTab } from "../shared/dom.js";
import { FORMATS } from "./ink.js";
import { open } from "./picture.js";
import { strokesOf } from "./things.js";

const KEY = "sketch-search-drawing";
const VERSION = 2;
// Browsers give a site about five million characters; a drawing takes at most two fifths of them.
const MOST_CHARACTERS = 2_000_000;
const STEPS = 20;
// How the text begins that is added to a PNG, before its last chunk, of so many bytes. See model/images/vector.py.
const TEXT = "iTXtsketch-search\0\0\0\0\0";
const LAST = 12;
const BITS = [1, 2, 3, 4, 5, 6, 7, 8];

/** Save the marks of a step, and the format of its sheet. A drawing that is too large is not saved. @type {(drawing: Paper, step: number) => void} */
export function save(drawing, step) {
  const [key, text] = [keyOf(step), toText(drawing)];
  forTab.set(KEY, step);
  forTab.remove(key);
  const others = forTab.keys().filter((one) => one.startsWith(keyOf(""))).sort();
  const done = () => text.length > MOST_CHARACTERS || forTab.set(key, text);
  while (others.length >= STEPS || (!done() && others.length)) { forTab.remove(others.shift()); }
}

/** The drawing of a step, or the last one, as a paper's past; null where none is saved or it cannot be read. @type {(step?: number | string) => Promise<Kept>} */
export async function restore(step = forTab.get(KEY)) {
  const kept = await fromText(forTab.get(keyOf(step)));
  return kept && { past: { first: kept.format, done: kept.marks, undone: [] } };
}

const keyOf = (/** @type {number | string} */ step) => `${KEY} ${step}`;

/** The PNG of a drawing with its strokes as the server reads them, and all that `drawingOf` needs. @type {(blob: Blob, drawing: Paper) => Promise<Blob>} */
export async function withDrawing(blob, drawing) {
  const { marks, place } = drawing;
  const strokes = strokesOf(marks, place).map(({ sent }) => sent);
  if (!strokes.length) { return blob; }
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const picture = bytes.subarray(0, -LAST);
  const lines = [checksum(picture), JSON.stringify(strokes), toText(drawing), ""];
  const chunk = new TextEncoder().encode(TEXT + lines.join("\n"));
  return new Blob([picture, number(chunk.length - 4), chunk, number(checksum(chunk)), bytes.subarray(-LAST)], { type: blob.type });
}

/** The drawing in a PNG that the page saved and nothing changed since, null of other files. @type {(file: File) => Promise<Saved>} */
export const drawingOf = (file) => read(async () => {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const start = new TextDecoder("latin1").decode(bytes).lastIndexOf(TEXT);
  if (start < 0) { return null; }
  const [check, , drawing] = new TextDecoder().decode(bytes.subarray(start + TEXT.length)).split("\n");
  return check === String(checksum(bytes.subarray(0, start - 4))) ? JSON.parse(drawing) : null;
});

/** A drawing as a text, with what is searched for beside it, as the page's address says that. @type {(drawing: {marks: Mark[], format: Format}) => string} */
export function toText({ marks, format }) {
  const kept = marks.map(({ image, points, ...mark }) => (points ? { ...mark, points: flat(points) } : mark));
  return JSON.stringify({ version: VERSION, format, search: location.hash, marks: kept });
}

/** The drawing of a text; null if it cannot be read. @type {(text: string) => Promise<Saved>} */
export const fromText = (text) => read(() => JSON.parse(text));

async function read(/** @type {() => Stored | Promise<Stored>} */ given) {
  try {
    // Once, all sheets were square.
    const { version, format = "square", search = "", marks } = await given();
    return version === VERSION && format in FORMATS ? { format, search, marks: await Promise.all(marks.map(readMark)) } : null;
  } catch {
    return null;
  }
}

/** @type {(stored: StoredMark) => Promise<Mark>} */
const readMark = async ({ points, ...mark }) =>
  mark.kind === "image" ? { ...mark, image: await open(mark.source) } : { ...mark, points: unflat(points) };

const flat = (/** @type {Point[]} */ points) => points.flatMap(({ x, y, weight }) => [x, y, weight ?? 1]);

const unflat = (/** @type {number[]} */ values) =>
  Array.from({ length: values.length / 3 }, (_, i) => ({ x: values[3 * i], y: values[3 * i + 1], weight: values[3 * i + 2] }));

const number = (/** @type {number} */ value) => Uint8Array.from([24, 16, 8, 0], (bits) => value >>> bits);

/** @type {(bytes: Uint8Array) => number} */
const checksum = (bytes) => ~bytes.reduce((sum, byte) => BITS.reduce((rest) => (rest >>> 1) ^ (rest & 1 && 0xedb88320), sum ^ byte), -1) >>> 0;
