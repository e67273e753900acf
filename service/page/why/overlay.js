/** What is laid over a picture: cells of the patch grid that are lit, and lines around them. */

import { borders } from "../drawing/things.js";
import { element } from "../shared/dom.js";

// Widths in sides of a cell. A halo separates a line from the picture below.
const LINE = 0.14;
const HALO = 0.3;
// How far a badge is moved out of its cell, in radii: otherwise it would hide what it names.
const OUTWARD = 0.45;

export class Overlay {
  #canvas;
  #context;
  #grid;
  #image;
  #cell = 1;

  /** The canvas lies over the image, as large as it is. `grid`: cells along one side; a cell is row * grid + column. */
  constructor(canvas, image, grid) {
    this.#canvas = canvas;
    this.#image = image;
    this.#context = canvas.getContext("2d");
    this.#grid = grid;
  }

  clear() {
    const side = Math.max(1, Math.round(this.#canvas.clientWidth * window.devicePixelRatio));
    this.#canvas.width = side;
    this.#canvas.height = side;
    this.#cell = side / this.#grid;
  }

  /** Make the picture grey and, by `depth`, darker, but for cells with `light`, both 0 to 1. Dark alone is not seen in a dark photo. */
  veil(light, depth) {
    const grey = this.#grey();
    for (let cell = 0; cell < this.#grid ** 2; cell++) {
      const shade = 1 - light(cell);
      const [x, y, width, height] = this.#box(cell);
      this.#context.globalAlpha = shade;
      this.#context.drawImage(grey, x, y, width, height, x, y, width, height);
      this.#context.globalAlpha = 1;
      this.#square(cell, `rgb(18 22 20 / ${depth * shade})`);
    }
  }

  tint(cells, colour) {
    for (const [cell, strength] of cells) {
      this.#context.globalAlpha = strength;
      this.#square(cell, colour);
    }
    this.#context.globalAlpha = 1;
  }

  contour(cells, colour) {
    const path = new Path2D();
    const side = this.#grid + 1;
    for (const ring of borders(cells, this.#grid)) {
      const [first, ...others] = ring.map((corner) => /** @type {const} */ ([(corner % side) * this.#cell, Math.floor(corner / side) * this.#cell]));
      path.moveTo(...first);
      others.forEach((place) => path.lineTo(...place));
      path.closePath();
    }
    this.#context.lineJoin = "round";
    for (const [stroke, wide] of [["rgb(255 255 255 / 90%)", HALO], [colour, LINE]]) {
      this.#context.strokeStyle = stroke;
      this.#context.lineWidth = Math.max(1, wide * this.#cell);
      this.#context.stroke(path);
    }
  }

  /** A round label beyond the upper right corner of a cell. @param {number} before labels there, to its right */
  badge(cell, text, colour, before = 0) {
    const context = this.#context;
    const radius = Math.max(0.5 * this.#cell, 8.5 * window.devicePixelRatio);
    context.font = `700 ${1.15 * radius}px system-ui, sans-serif`;
    // Half of the label's width: a longer text makes it an oval.
    const width = Math.max(radius, context.measureText(text).width / 2 + 0.45 * radius);
    const inside = (value, half) => Math.min(this.#canvas.width - half - 1, Math.max(half + 1, value));
    const x = inside(((cell % this.#grid) + 1) * this.#cell + (OUTWARD - 2 * before) * radius, width);
    const y = inside(Math.floor(cell / this.#grid) * this.#cell - OUTWARD * radius, radius);
    context.beginPath();
    context.roundRect(x - width, y - radius, 2 * width, 2 * radius, radius);
    context.fillStyle = colour;
    context.fill();
    context.lineWidth = Math.max(1, 0.14 * radius);
    context.strokeStyle = "#ffffff";
    context.stroke();
    context.fillStyle = "#ffffff";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(text, x, y + 0.06 * radius);
  }

  #square(cell, colour) {
    this.#context.fillStyle = colour;
    this.#context.fillRect(...this.#box(cell));
  }

  /** Left, top, width and height of a cell in whole pixels: where two cells shared one, a line would be seen. */
  #box(cell) {
    const [left, top] = [cell % this.#grid, Math.floor(cell / this.#grid)];
    const at = (place) => Math.round(place * this.#cell);
    return [at(left), at(top), at(left + 1) - at(left), at(top + 1) - at(top)];
  }

  #grey() {
    const side = this.#canvas.width;
    const sheet = element("canvas", { width: side, height: side });
    const context = sheet.getContext("2d");
    context.drawImage(this.#image, 0, 0, side, side);
    context.globalCompositeOperation = "saturation";
    context.fillStyle = "#808080";
    context.fillRect(0, 0, side, side);
    return sheet;
  }
}
