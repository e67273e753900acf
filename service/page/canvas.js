/** The paper: strokes drawn with mouse, pen or finger, kept as lines and not as pixels. */

const INK = "#000";
const WHITE = "#fff";
// Rubbing out with the pen's own width would take as many strokes as drawing did.
const ERASER = 4;
// Points nearer to the last one than this, in sides of the paper, add work and no shape.
const NEAR = 0.0015;
// A pen's pressure is 0 to 1; light strokes stay visible, strong ones stay lines.
const LIGHTEST = 0.35;
const STRONGEST = 1.65;

/**
 * A square sheet on a canvas element. Positions and widths are in sides of the sheet, so that a drawing survives any
 * change of size.
 *
 * Events: "start" when a stroke begins; "change" when the drawing has become another one.
 */
export class Paper extends EventTarget {
  /** "pen" or "eraser": what the next stroke does. */
  tool = "pen";
  /** Width of the next stroke. */
  width = 0.012;

  #canvas;
  #context;
  // What was done, oldest first: strokes, and clearings, which are null. So clearing can be undone too.
  #done = [];
  #undone = [];
  #stroke = null;
  #pointer = null;

  /** @param {HTMLCanvasElement} canvas whose CSS makes it square, with `touch-action: none` */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#extend(event));
    canvas.addEventListener("pointerup", (event) => this.#end(event));
    canvas.addEventListener("pointercancel", (event) => this.#end(event));
    // A long press of a finger or a pen would open it in the middle of a stroke.
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(() => this.#fit()).observe(canvas);
  }

  /** Whether nothing has been drawn, or all of it has been cleared. */
  get empty() {
    return !visible(this.#done).some((stroke) => !stroke.erases);
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** Take back the last stroke or clearing. */
  undo() {
    this.#move(this.#done, this.#undone);
  }

  /** Do again what was taken back last. */
  redo() {
    this.#move(this.#undone, this.#done);
  }

  /** A white sheet again; can be undone. */
  clear() {
    if (!this.empty) {
      this.#do(null);
    }
  }

  /**
   * The drawing as a PNG: black on white paper.
   *
   * @param {number} side in pixels
   * @returns {Promise<Blob>}
   */
  async png(side = 512) {
    const sheet = document.createElement("canvas");
    sheet.width = side;
    sheet.height = side;
    paint(sheet.getContext("2d", { alpha: false }), side, this.#done);
    const blob = await new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
    if (!blob) {
      throw new Error("The browser could not make an image of the drawing.");
    }
    return blob;
  }

  #begin(event) {
    // One stroke at a time: while the pen draws, the palm beside it is a touch that must do nothing.
    // Button 5 is the eraser end of a pen.
    if (this.#pointer !== null || (event.button !== 0 && event.button !== 5)) {
      return;
    }
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    const erases = this.tool === "eraser" || event.button === 5;
    this.#stroke = { erases, width: this.width * (erases ? ERASER : 1), points: [] };
    this.dispatchEvent(new Event("start"));
    this.#add(event);
    // A dot, until it becomes a line.
    piece(this.#context, this.#stroke, 0);
  }

  #extend(event) {
    if (event.pointerId !== this.#pointer) {
      return;
    }
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) {
      this.#add(one);
    }
  }

  #end(event) {
    if (event.pointerId !== this.#pointer) {
      return;
    }
    const stroke = this.#stroke;
    piece(this.#context, stroke, stroke.points.length - 1);
    this.#pointer = null;
    this.#stroke = null;
    this.#do(stroke);
  }

  #add(event) {
    const points = this.#stroke.points;
    const box = this.#canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const y = (event.clientY - box.top) / box.height;
    const last = points.at(-1);
    if (last && Math.hypot(x - last.x, y - last.y) < NEAR) {
      return;
    }
    // Only a pen tells a pressure that means something: a mouse says 0.5, a finger whatever the device likes.
    const pressed = event.pointerType === "pen" && event.pressure > 0;
    points.push({ x, y, weight: pressed ? LIGHTEST + (STRONGEST - LIGHTEST) * event.pressure : 1 });
    if (points.length > 1) {
      piece(this.#context, this.#stroke, points.length - 2);
    }
  }

  #do(action) {
    this.#done.push(action);
    this.#undone = [];
    this.#changed();
  }

  #move(from, to) {
    if (from.length && !this.#stroke) {
      to.push(from.pop());
      this.#changed();
    }
  }

  #changed() {
    this.#paint();
    this.dispatchEvent(new Event("change"));
  }

  #fit() {
    const side = Math.max(1, Math.round(this.#canvas.clientWidth * window.devicePixelRatio));
    if (this.#canvas.width !== side) {
      this.#canvas.width = side;
      this.#canvas.height = side;
    }
    this.#paint();
  }

  #paint() {
    paint(this.#context, this.#canvas.width, this.#stroke ? [...this.#done, this.#stroke] : this.#done);
  }
}

/** The strokes that no later clearing has taken away. */
function visible(actions) {
  return actions.slice(actions.lastIndexOf(null) + 1);
}

function paint(context, side, actions) {
  context.setTransform(side, 0, 0, side, 0, 0);
  context.fillStyle = WHITE;
  context.fillRect(0, 0, 1, 1);
  for (const stroke of visible(actions)) {
    if (stroke.points.every((point) => point.weight === 1)) {
      line(context, stroke);
    } else {
      stroke.points.forEach((_, i) => piece(context, stroke, i));
    }
  }
}

/** A stroke of even width as one path: pieces would show where their soft edges overlap. */
function line(context, { erases, width, points }) {
  start(context, erases, width, points[0]);
  points.forEach((here, i) => curve(context, here, points[i + 1]));
  context.stroke();
}

/**
 * The part of a stroke around its point `i`: a curve from the middle of the segment before to the middle of the one
 * after. So every piece is final once the next point is known, and a growing line never has to be painted again.
 */
function piece(context, { erases, width, points }, i) {
  const here = points[i];
  start(context, erases, width * here.weight, i > 0 ? middle(points[i - 1], here) : here);
  curve(context, here, points[i + 1]);
  context.stroke();
}

function start(context, erases, width, from) {
  context.strokeStyle = erases ? WHITE : INK;
  context.lineCap = "round";
  context.lineJoin = "round";
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(from.x, from.y);
}

function curve(context, here, next) {
  const to = next ? middle(here, next) : here;
  context.quadraticCurveTo(here.x, here.y, to.x, to.y);
}

function middle(a, b) {
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
}
