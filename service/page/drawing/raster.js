/**
 * A drawing as pixels, computed from its marks.
 *
 * Browsers that guard against fingerprinting disturb the pixels that a page reads back from a canvas. So what is sent to
 * the server is computed here. Marks look as ink.js paints them: round ends and corners, soft edges.
 */

import { isShape, middle, outline, paperColour, visible } from "./ink.js";
import { CHANNELS } from "./png.js";

// Of an ellipse: it is drawn as this many straight lines.
const CORNERS = 192;
// How far a curve may be from the lines in its place, in pixels.
const TOLERANCE = 0.1;
// Longer lines are cut, in pixels: a slanting one has a large box around it, and every pixel of the box is visited.
const LONGEST = 24;

/**
 * The drawing on its paper.
 *
 * @param {object[]} actions see ink.js; images are left out, because they have no marks
 * @param {number} side in pixels
 * @returns {Uint8Array} side * side pixels, row by row from the top, each red, green and blue
 */
export function rasterize(actions, side) {
  const paper = channels(paperColour(actions));
  const pixels = new Uint8Array(CHANNELS * side * side);
  pixels.set(paper);
  // The first pixel, then the first two, the first four and so on.
  for (let done = CHANNELS; done < pixels.length; done *= 2) {
    pixels.copyWithin(done, 0, done);
  }
  const cover = new Cover(side);
  for (const mark of visible(actions).filter(({ kind }) => kind !== "image")) {
    for (const [from, to, width] of segments(mark, side)) {
      cover.line(from, to, width / 2);
    }
    cover.blend(pixels, mark.kind === "eraser" ? paper : channels(mark.colour));
  }
  return pixels;
}

/** Red, green and blue of a colour #rrggbb, each 0 to 255. */
export function channels(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** How much of each pixel the lines of one mark cover. Where lines overlap, the nearest one counts. */
class Cover {
  #side;
  #values;
  #box;

  constructor(side) {
    this.#side = side;
    this.#values = new Float32Array(side * side);
    this.#empty();
  }

  /** Add a line with round ends; all in pixels. */
  line(from, to, radius) {
    const parts = Math.max(1, Math.ceil(Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y)) / LONGEST));
    const [dx, dy] = [(to.x - from.x) / parts, (to.y - from.y) / parts];
    for (let i = 0; i < parts; i++) {
      this.#short(from.x + i * dx, from.y + i * dy, dx, dy, radius);
    }
  }

  /** Paint what is covered with a colour, and begin anew. */
  blend(pixels, colour) {
    const { left, right, top, bottom } = this.#box;
    for (let y = top; y <= bottom; y++) {
      for (let at = y * this.#side + left; at <= y * this.#side + right; at++) {
        const share = this.#values[at];
        if (share) {
          this.#values[at] = 0;
          for (let channel = 0; channel < CHANNELS; channel++) {
            const below = pixels[CHANNELS * at + channel];
            pixels[CHANNELS * at + channel] = Math.round(below + share * (colour[channel] - below));
          }
        }
      }
    }
    this.#empty();
  }

  #short(x0, y0, dx, dy, radius) {
    // A pixel is covered by as much of its breadth as lies within the line, measured from its centre.
    const reach = radius + 0.5;
    const within = (value) => Math.min(this.#side - 1, Math.max(0, Math.floor(value)));
    const [left, right] = [within(Math.min(x0, x0 + dx) - reach), within(Math.max(x0, x0 + dx) + reach)];
    const [top, bottom] = [within(Math.min(y0, y0 + dy) - reach), within(Math.max(y0, y0 + dy) + reach)];
    const values = this.#values;
    const squared = dx * dx + dy * dy;
    const most = Math.min(1, 2 * radius);
    for (let y = top; y <= bottom; y++) {
      const py = y + 0.5 - y0;
      const row = y * this.#side;
      for (let x = left; x <= right; x++) {
        const px = x + 0.5 - x0;
        const along = squared ? Math.min(1, Math.max(0, (px * dx + py * dy) / squared)) : 0;
        const ox = px - along * dx;
        const oy = py - along * dy;
        const away = ox * ox + oy * oy;
        if (away < reach * reach) {
          const share = Math.min(most, reach - Math.sqrt(away));
          if (share > values[row + x]) {
            values[row + x] = share;
          }
        }
      }
    }
    const box = this.#box;
    this.#box = {
      left: Math.min(box.left, left),
      right: Math.max(box.right, right),
      top: Math.min(box.top, top),
      bottom: Math.max(box.bottom, bottom),
    };
  }

  #empty() {
    this.#box = { left: this.#side, right: -1, top: this.#side, bottom: -1 };
  }
}

/** The straight lines that a mark consists of: [from, to, width], in pixels. */
function* segments(mark, side) {
  const scaled = ({ x, y }) => ({ x: x * side, y: y * side });
  if (isShape(mark.kind)) {
    const corners = outline(mark, CORNERS).map(scaled);
    for (let i = 1; i < corners.length; i++) {
      yield [corners[i - 1], corners[i], mark.width * side];
    }
    return;
  }
  const points = mark.points.map(scaled);
  for (const [i, here] of points.entries()) {
    // As ink.js paints it: a curve between the middles of the neighbouring segments, with the point as its control.
    const start = i ? middle(points[i - 1], here) : here;
    const end = i + 1 < points.length ? middle(here, points[i + 1]) : here;
    const width = mark.width * side * mark.points[i].weight;
    let from = start;
    for (const to of curve(start, here, end)) {
      yield [from, to, width];
      from = to;
    }
  }
}

/** Points along a quadratic curve, without its first one. */
function* curve(start, control, end) {
  const bend = Math.hypot(start.x - 2 * control.x + end.x, start.y - 2 * control.y + end.y);
  const parts = Math.max(1, Math.ceil(Math.sqrt(bend / (4 * TOLERANCE))));
  for (let i = 1; i <= parts; i++) {
    const [t, u] = [i / parts, 1 - i / parts];
    yield {
      x: u * u * start.x + 2 * u * t * control.x + t * t * end.x,
      y: u * u * start.y + 2 * u * t * control.y + t * t * end.y,
    };
  }
}
