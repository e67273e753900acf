/** What is laid over a picture: cells of the patch grid that are lit, and lines around them. */

// Widths in sides of a cell.
const LINE = 0.13;
const HALO = 0.22;

export class Overlay {
  #canvas;
  #context;
  #grid;
  #cell = 1;

  /**
   * @param {HTMLCanvasElement} canvas that lies over the picture, as large as it is
   * @param {number} grid cells along one side; a cell is row * grid + column, from the top left
   */
  constructor(canvas, grid) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.#grid = grid;
  }

  /** Remove everything, and take the size that the picture has now. */
  clear() {
    const side = Math.max(1, Math.round(this.#canvas.clientWidth * window.devicePixelRatio));
    this.#canvas.width = side;
    this.#canvas.height = side;
    this.#cell = side / this.#grid;
  }

  /**
   * Darken the picture except where it is lit.
   *
   * @param {(cell: number) => number} light of a cell, 0 to 1
   * @param {number} depth how dark it gets, 0 to 1
   */
  veil(light, depth) {
    for (let cell = 0; cell < this.#grid ** 2; cell++) {
      this.#square(cell, `rgb(18 22 20 / ${depth * (1 - light(cell))})`);
    }
  }

  /** Tint cells. @param {Map<number, number>} cells how strongly, 0 to 1, by cell */
  tint(cells, colour) {
    for (const [cell, strength] of cells) {
      this.#context.globalAlpha = strength;
      this.#square(cell, colour);
    }
    this.#context.globalAlpha = 1;
  }

  /** A line around these cells. @param {Set<number>} cells */
  contour(cells, colour) {
    const path = new Path2D();
    for (const cell of cells) {
      const [x, y] = [cell % this.#grid, Math.floor(cell / this.#grid)];
      // For each side of the cell: whether its neighbour is inside, too, and the ends of the border between them.
      const sides = [
        [y > 0 && cells.has(cell - this.#grid), x, y, x + 1, y],
        [y < this.#grid - 1 && cells.has(cell + this.#grid), x, y + 1, x + 1, y + 1],
        [x > 0 && cells.has(cell - 1), x, y, x, y + 1],
        [x < this.#grid - 1 && cells.has(cell + 1), x + 1, y, x + 1, y + 1],
      ];
      for (const [, x0, y0, x1, y1] of sides.filter(([inside]) => !inside)) {
        path.moveTo(x0 * this.#cell, y0 * this.#cell);
        path.lineTo(x1 * this.#cell, y1 * this.#cell);
      }
    }
    this.#context.lineCap = "round";
    // A white border separates the line from the picture below.
    for (const [stroke, width] of [["rgb(255 255 255 / 85%)", HALO], [colour, LINE]]) {
      this.#context.strokeStyle = stroke;
      this.#context.lineWidth = Math.max(1, width * this.#cell);
      this.#context.stroke(path);
    }
  }

  /** A round label at the upper right corner of a cell. */
  badge(cell, text, colour) {
    const context = this.#context;
    const radius = Math.max(0.5 * this.#cell, 8.5 * window.devicePixelRatio);
    context.font = `700 ${1.15 * radius}px system-ui, sans-serif`;
    // Half of the label's width: a longer text makes it an oval.
    const width = Math.max(radius, context.measureText(text).width / 2 + 0.45 * radius);
    const inside = (value, half) => Math.min(this.#canvas.width - half - 1, Math.max(half + 1, value));
    const x = inside(((cell % this.#grid) + 1) * this.#cell, width);
    const y = inside(Math.floor(cell / this.#grid) * this.#cell, radius);
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
    const [left, top] = [cell % this.#grid, Math.floor(cell / this.#grid)];
    // Whole pixels: where two squares shared one, a line would be seen.
    const at = (place) => Math.round(place * this.#cell);
    this.#context.fillStyle = colour;
    this.#context.fillRect(at(left), at(top), at(left + 1) - at(left), at(top + 1) - at(top));
  }
}
