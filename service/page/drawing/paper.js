/** The paper: strokes and shapes drawn with mouse, pen, finger or keys. It keeps them as lines, not as pixels. */

import { evened, isShape, markAt, paint, paperColour, piece, png, visible } from "./ink.js";

// Times the width of the pen: with the pen's own width, erasing would take as many strokes as drawing did.
const ERASER = 4;
// In sides of the paper. Points nearer to the last one are left out: nobody would see them.
const NEAR = 0.0015;
const PRECISION = 10_000;
// How far from a stroke it can be taken, in sides of the paper; and what surrounds the stroke that is chosen.
const REACH = 0.03;
const HALO = { colour: "#8fd0b9", width: 0.03 };
// Factors of the width for a pen's pressure of 0 and 1.
const LIGHTEST = 0.35;
const STRONGEST = 1.65;
// PointerEvent.button of a pen's tip, a finger or the left button; and of a pen's eraser end.
const DRAWING_BUTTON = 0;
const ERASER_BUTTON = 5;

/**
 * A square sheet on a canvas element. It keeps a list of actions, see ink.js, and each of them can be undone.
 *
 * Events: "start" when a stroke begins; "change" when the drawing has become another one; "choose" when another
 * stroke is chosen, or none.
 */
export class Paper extends EventTarget {
  /** Width of the next mark, in sides of the sheet. */
  width = 0.012;
  /** Its colour, as #rrggbb. */
  colour = "#000000";

  #canvas;
  #context;
  #done = [];
  #undone = [];
  #tool = "pen";
  #mark = null;
  // The place of the chosen stroke among the marks; and while it is held, where it was taken and how it lies now.
  #chosen = -1;
  #held = null;
  #pointer = null;
  #finger = false;

  /** @param {HTMLCanvasElement} canvas whose CSS makes it square, with `touch-action: pinch-zoom` */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#draw(event));
    canvas.addEventListener("pointerup", (event) => this.#lift(event));
    canvas.addEventListener("pointercancel", (event) => this.#lift(event));
    // A long press of a finger or a pen would open the context menu in the middle of a stroke.
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(() => this.#fit()).observe(canvas);
  }

  /** What the next stroke does: draw a "pen", "line", "rectangle" or "ellipse", or be an "eraser", or "move" what is there. */
  get tool() {
    return this.#tool;
  }

  set tool(tool) {
    this.#tool = tool;
    this.#choose(-1);
  }

  /** Whether a stroke is chosen, which `remove` deletes. */
  get chosen() {
    return this.#chosen >= 0;
  }

  /** Whether there is nothing to see on it. */
  get empty() {
    return this.marks.every((mark) => mark.kind === "eraser");
  }

  /** What can be seen, oldest first. */
  get marks() {
    return visible(this.#done);
  }

  get background() {
    return paperColour(this.#done);
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  undo() {
    this.#move(this.#done, this.#undone);
  }

  redo() {
    this.#move(this.#undone, this.#done);
  }

  /** An empty sheet of the same colour. */
  clear() {
    if (this.marks.length) {
      this.replace([]);
    }
  }

  remove() {
    if (this.chosen) {
      this.replace(this.marks.toSpliced(this.#chosen, 1));
    }
  }

  /** These marks in the place of all. */
  replace(marks) {
    this.do({ kind: "marks", marks });
  }

  /** Do these actions, as if they had been drawn. */
  do(...actions) {
    this.#done.push(...actions);
    this.#undone = [];
    this.#changed();
  }

  /** Change the colour of the paper. What was erased stays erased. */
  lay(colour) {
    if (colour !== this.background) {
      this.do({ kind: "paper", colour });
    }
  }

  /** Begin a mark at {x, y, weight}, the weight a factor of the width, or take the mark there to move it. */
  begin(point, tool = this.tool) {
    if (tool === "move") {
      const at = markAt(this.marks, point, REACH);
      this.#choose(at);
      this.#held = at < 0 ? null : { from: point, mark: this.marks[at] };
      return;
    }
    const width = this.width * (tool === "eraser" ? ERASER : 1);
    this.#mark = { kind: tool, colour: this.colour, width, points: [point] };
    this.dispatchEvent(new Event("start"));
    if (!isShape(tool)) {
      // A dot, until it becomes a line.
      piece(this.#context, this.#mark, 0, this.background);
    }
  }

  /** Draw on to this point; `regular` makes squares, circles and lines at multiples of 45 degrees. */
  extend(point, regular = false) {
    if (this.#held) {
      this.#held.mark = moved(this.marks[this.#chosen], this.#held.from, point);
      this.#paint();
    }
    if (!this.#mark) {
      return;
    }
    const { kind, points } = this.#mark;
    if (isShape(kind)) {
      points[1] = regular ? evened(kind, points[0], point) : point;
      this.#paint();
      return;
    }
    const last = points.at(-1);
    if (Math.hypot(point.x - last.x, point.y - last.y) >= NEAR) {
      points.push(point);
      piece(this.#context, this.#mark, points.length - 2, this.background);
    }
  }

  /** End the mark, or put down what was moved. */
  finish() {
    if (this.#held) {
      this.#drop();
    }
    if (!this.#mark) {
      return;
    }
    const mark = this.#mark;
    this.#mark = null;
    const [from, to] = mark.points;
    if (isShape(mark.kind) && (!to || Math.hypot(to.x - from.x, to.y - from.y) < NEAR)) {
      this.#paint();
      return;
    }
    this.do(mark);
  }

  /** Whether a mark has begun, or is moved, and this has not ended. */
  get drawing() {
    return this.#mark !== null || this.#held !== null;
  }

  /** The drawing as a PNG file. @returns {Promise<Blob>} */
  png(side) {
    return png(this.#done, side);
  }

  #press(event) {
    if (this.#finger && event.pointerType === "touch") {
      this.#giveUp();
      return;
    }
    // One mark at a time: while a pen draws, the palm beside it touches the screen, too, and must not draw.
    const known = event.button === DRAWING_BUTTON || event.button === ERASER_BUTTON;
    if (this.drawing || !known) {
      return;
    }
    this.#finger = event.pointerType === "touch";
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.begin(this.#point(event), event.button === ERASER_BUTTON ? "eraser" : this.tool);
  }

  /** A second finger came: the two zoom the page. */
  #giveUp() {
    this.#mark = null;
    this.#pointer = null;
    this.#finger = false;
    this.#changed();
  }

  #draw(event) {
    if (event.pointerId !== this.#pointer) {
      return;
    }
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) {
      this.extend(this.#point(one), event.shiftKey);
    }
  }

  #lift(event) {
    if (event.pointerId === this.#pointer) {
      this.#pointer = null;
      this.#finger = false;
      this.finish();
    }
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    // Only a pen's pressure is measured: a mouse reports 0.5, and for a finger it depends on the device.
    const pressed = event.pointerType === "pen" && event.pressure > 0;
    return {
      x: short((event.clientX - box.left) / box.width),
      y: short((event.clientY - box.top) / box.height),
      weight: pressed ? short(LIGHTEST + (STRONGEST - LIGHTEST) * event.pressure) : 1,
    };
  }

  #move(from, to) {
    if (from.length && !this.drawing) {
      to.push(from.pop());
      this.#changed();
    }
  }

  #choose(at) {
    this.#held = null;
    this.#chosen = at;
    this.#paint();
    this.dispatchEvent(new Event("choose"));
  }

  /** Put down the stroke that is held. It stays chosen. */
  #drop() {
    const [at, { mark }] = [this.#chosen, this.#held];
    if (mark !== this.marks[at]) {
      this.replace(this.marks.with(at, mark));
    }
    this.#choose(at);
  }

  #changed() {
    this.#chosen = -1;
    this.#held = null;
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
    const begun = this.#mark && (!isShape(this.#mark.kind) || this.#mark.points.length === 2);
    const shown = this.chosen ? this.#withHalo() : begun ? [...this.#done, this.#mark] : this.#done;
    paint(this.#context, this.#canvas.width, shown);
  }

  #withHalo() {
    const mark = this.#held?.mark ?? this.marks[this.#chosen];
    const halo = { ...mark, colour: HALO.colour, width: mark.width + HALO.width };
    return [{ kind: "paper", colour: this.background }, ...this.marks.toSpliced(this.#chosen, 1, halo, mark)];
  }
}

/** The same mark, as far away as `to` is from `from`. */
function moved(mark, from, to) {
  const points = mark.points.map((one) => ({ ...one, x: short(one.x + to.x - from.x), y: short(one.y + to.y - from.y) }));
  return { ...mark, points };
}

/** Rounded: exact enough to look at, and short in the browser's storage. */
function short(value) {
  return Math.round(value * PRECISION) / PRECISION;
}
