/**
 * The drawing in the browser's storage: it is still there when the page is loaded again.
 *
 * Each tab has a drawing of its own, so that two tabs do not take each other's. The last one is also kept for the site,
 * for a tab that is opened later.
 */

import { forSite, forTab } from "../shared/storage.js";
import { isShape, paperColour, visible, WHITE } from "./ink.js";

const KEY = "sketch-search-drawing";
const VERSION = 1;
// Browsers give a site about five million characters; a drawing takes at most two fifths of them.
const MOST_CHARACTERS = 2_000_000;
const MOST_POINTS = 200_000;

// The text that this tab has written for the site.
let written = null;

/** Save what can be seen. A drawing that is too large is not saved. */
export function save(actions) {
  const marks = visible(actions).map(({ image, points, ...mark }) => (points ? { ...mark, points: flat(points) } : mark));
  const paper = paperColour(actions);
  const text = JSON.stringify({ version: VERSION, paper, marks });
  const blank = !marks.length && paper === WHITE;
  const kept = text.length > MOST_CHARACTERS ? JSON.stringify({ version: VERSION, paper: WHITE, marks: [] }) : text;
  // A blank sheet is written, too: without it, a reload would bring the drawing of another tab.
  forTab.set(KEY, kept);
  if (kept === text && !blank) {
    forSite.set(KEY, text);
    written = text;
  } else if (forSite.get(KEY) === written) {
    forSite.remove(KEY);
  }
}

/**
 * The saved drawing, as actions; none where nothing was saved or where it cannot be read.
 *
 * @param {(source: string) => Promise<HTMLImageElement>} open decodes an image
 */
export async function restore(open) {
  try {
    const { version, paper, marks } = JSON.parse(forTab.get(KEY) ?? forSite.get(KEY));
    if (version !== VERSION) {
      return [];
    }
    const actions = await Promise.all(marks.map((mark) => readMark(mark, open)));
    return paper === WHITE ? actions : [{ kind: "paper", colour: colour(paper) }, ...actions];
  } catch {
    // Nothing, damaged, or of another version of this page.
    return [];
  }
}

async function readMark(mark, open) {
  if (mark.kind === "image") {
    const as = mark.as === "photo" ? "photo" : "sketch";
    return { kind: "image", source: mark.source, image: await open(dataUrl(mark.source)), as };
  }
  const points = unflat(mark.points);
  const free = mark.kind === "pen" || mark.kind === "eraser";
  if (!free && !(isShape(mark.kind) && points.length === 2)) {
    throw new TypeError("no mark of this page");
  }
  return { kind: mark.kind, colour: colour(mark.colour), width: within(mark.width, 0.0005, 1), points };
}

function flat(points) {
  return points.flatMap(({ x, y, weight }) => [x, y, weight ?? 1]);
}

function unflat(values) {
  if (!values.length || values.length % 3 || values.length > 3 * MOST_POINTS) {
    throw new TypeError("no points");
  }
  return Array.from({ length: values.length / 3 }, (_, i) => ({
    // A stroke may leave the sheet, but not by more than this.
    x: within(values[3 * i], -10, 10),
    y: within(values[3 * i + 1], -10, 10),
    weight: within(values[3 * i + 2], 0.1, 2),
  }));
}

function within(value, least, most) {
  if (typeof value !== "number" || !(value >= least && value <= most)) {
    throw new TypeError("no number in range");
  }
  return value;
}

function colour(text) {
  if (!/^#[0-9a-f]{6}$/.test(text)) {
    throw new TypeError("no colour");
  }
  return text;
}

function dataUrl(text) {
  if (!/^data:image\/(jpeg|png);base64,/.test(text)) {
    throw new TypeError("no image");
  }
  return text;
}
