/** The paper: strokes and shapes drawn with mouse, pen, finger or keys. It keeps them as lines, not as pixels. */

import {
  evened, FORMATS, isShape, isWhite, markAt, mirrored, moved, outline, paint, piece, placeOf, pointAt, png, shapeOf, sharesOf, short, start, visible,
} from "./ink.js";
import { boxOf, copied, enclosed, inBox, settled, thingAt, thingsOf } from "./things.js";
import { stepKey } from "../shared/history.js";

// On a sheet for a longer image, the image is narrower than the sheet.
const LONGEST = 2;
const ROOM = 0.96;

// Times the width of the pen: with the pen's own width, erasing would take as many strokes as drawing did.
const ERASER = 4;
// In sides of the square around the paper, as all lengths here. Points nearer to the last one are left out: nobody would see them.
const NEAR = 0.0015;
const REACH = 0.03;
const HALO = { colour: "#8fd0b9", width: 0.03 };
const LASSO = { colour: "#1b6b53", width: 0.003, dash: 0.01 };
const BESIDE = 0.04;
// A press that moves no further than this, in pixels, stays one.
const STILL = 5;
const SCREEN_MS = 500;
const LIGHTEST = 0.35;
const STRONGEST = 1.65;
// PointerEvent.button of a pen's tip, a finger or the left button; and of a pen's eraser end.
const DRAWING_BUTTON = 0;
const ERASER_BUTTON = 5;

/**
 * A sheet on a canvas element. It keeps a list of actions, see ink.js, and each of them can be undone.
 *
 * Events: "start" when a stroke begins; "change" when the drawing has become another one; "choose" when other
 * strokes are chosen, or none; "pen" when a pen is used for the first time.
 */
export class Paper extends EventTarget {
  width = 0.012;
  colour = "#000000";
  /** Whether fingers draw, or scroll the page: as soon as there is a pen, they scroll. */
  fingers = true;

  #canvas;
  #context;
  #past = /** @type {Past} */ ({ first: "landscape", done: [], undone: [] });
  #tool = /** @type {Tool} */ ("pen");
  #mark = /** @type {Mark} */ (null);
  #chosen = /** @type {Mark[]} */ ([]);
  #held = /** @type {{how: Holding, marks: Mark[], within: Mark[]}} */ (null);
  #lasso = /** @type {Point[]} */ (null);
  #pointer = /** @type {number} */ (null);
  #finger = false;
  // Whether its movements tell of buttons: those of some pens never do.
  #buttons = false;
  #ratio = 1;
  #pen = false;
  #scrolling = /** @type {PointerEvent} */ (null);

  /** @param {HTMLCanvasElement} canvas whose CSS gives it the shape of the sheet, with `touch-action: pinch-zoom` */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#draw(event));
    // Anywhere: a pointer that could not be captured may be lifted beside the sheet.
    window.addEventListener("pointerup", (event) => this.#lift(event));
    window.addEventListener("pointercancel", (event) => this.#cancel(event));
    // A long press of a finger or a pen would open the context menu in the middle of a stroke.
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(() => this.#fit()).observe(canvas);
    // Not every browser tells that the window has come to a screen with other pixels.
    setInterval(() => this.#ratio === window.devicePixelRatio || this.#fit(), SCREEN_MS);
  }

  /** Have labels lie over the sheet: a press on one is its own, and a movement from there a stroke. @param {HTMLElement} labels */
  lieUnder(labels) {
    let pressed = /** @type {PointerEvent} */ (null);
    labels.addEventListener("pointerdown", (event) => {
      // In a text that is being typed, a movement selects.
      pressed = event.target === document.activeElement ? null : event;
      capture(/** @type {Element} */ (event.target), event);
    });
    labels.addEventListener("pointermove", (event) => {
      if (event.buttons && pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) > STILL) {
        document.activeElement.blur();
        capture(this.#canvas, event);
        this.#press(pressed);
        this.#draw(event);
        pressed = null;
      }
    });
  }

  /** What the next stroke does: draw a "pen", "line", "rectangle" or "ellipse", "fill", be an "eraser", or "move": choose and move marks. */
  get tool() { return this.#tool; }

  set tool(tool) {
    this.#tool = tool;
    this.choose([]);
  }

  get chosen() { return this.#chosen; }
  get empty() { return this.marks.every((mark) => mark.kind === "eraser"); }
  get marks() { return visible(this.#done); }
  get things() { return thingsOf(this.marks); }

  get format() { return this.#formatAfter(this.#done); }
  get image() { return this.marks.find(({ kind }) => kind === "image")?.image; }

  /** The shape of the sheet, as it is seen and sent: an image's own. */
  get shape() { return this.image ? Math.min(LONGEST, Math.max(1 / LONGEST, shapeOf(this.image))) : FORMATS[this.format]; }

  get place() { return placeOf(this.shape); }

  shares(/** @type {Point} */ point) { return sharesOf(this.place, point); }

  /** The first format of the sheet, the actions done on it, and those undone: nothing changes in it. */
  get past() { return this.#past; }

  set past(past) {
    this.#past = past;
    this.#changed();
  }

  get #done() { return this.#past.done; }
  get canUndo() { return this.#done.length > 0; }
  get canRedo() { return this.#past.undone.length > 0; }
  /** Take the last action back; the words and photos that were cleared with it come back by the step of the history. */
  undo() { this.#done.at(-1)?.step === stepKey() ? history.back() : this.#move("done", "undone"); }
  redo() { this.#move("undone", "done"); }

  /** @param {number} [step] the key of the step of the history that cleared more than the sheet */
  clear(step) {
    if (this.marks.length) { this.do({ kind: "marks", marks: [], step }); }
  }

  remove() {
    if (this.#chosen.length) { this.replace(this.marks.filter((mark) => !this.#chosen.includes(mark))); }
  }

  /** Put a copy of what is chosen beside it, of which each thing is one of its own, and choose that. */
  copy() {
    const [marks, from] = [settled(this.marks), { x: 0, y: 0 }];
    const copies = copied(marks, this.#indices.map((i) => marks[i])).map((mark) => moved(mark, from, { x: BESIDE, y: BESIDE }));
    this.replace([...marks, ...copies]);
    this.choose(copies);
  }

  mirror() {
    const { left, right } = boxOf(this.#chosen);
    this.change((mark) => mirrored(mark, (left + right) / 2));
  }

  /** Have what is chosen lie as `how` of each mark says. @param {(mark: Mark) => Mark} how */
  change(how) {
    this.hold(() => how);
    this.extend();
    this.finish();
  }

  /** Hold what is chosen until `finish`: it lies as `how` says of the point to which it is extended. @param {Holding} how */
  hold(how, within = this.#chosen) { this.#held = { how, marks: this.#chosen, within }; }

  get #indices() { return this.#chosen.map((mark) => this.marks.indexOf(mark)); }

  replace(/** @type {Mark[]} */ marks) { this.do({ kind: "marks", marks }); }

  /** Have the next of the FORMATS. What is drawn keeps its form, and after a whole round its size. */
  turn() {
    const names = /** @type {Format[]} */ (Object.keys(FORMATS));
    const format = names[(names.indexOf(this.format) + 1) % names.length];
    const before = this.#done.slice(0, this.#done.findLastIndex(({ turn }) => !turn) + 1);
    const drawn = visible(before);
    const marks = format === this.#formatAfter(before) ? drawn : fitted(drawn, placeOf(FORMATS[format]));
    this.do({ kind: "marks", marks, format, turn: true });
  }

  #formatAfter(/** @type {Action[]} */ actions) { return actions.findLast(({ format }) => format)?.format ?? this.#past.first; }

  add(/** @type {Mark[]} */ marks) { this.do(...fitted(marks, this.place)); }

  /** @param {Action[]} actions */
  do(...actions) { this.past = { ...this.#past, done: [...this.#done, ...actions], undone: [] }; }

  /** Begin a mark at a point; or choose what is there, or `also` that, or fill it. @param {Point} point */
  begin(point, tool = this.tool, also = false) {
    if (tool === "move") {
      this.#take(point, also);
      return;
    }
    if (this.#chosen.length) { this.choose([]); }
    if (tool === "fill") {
      this.#fill(point);
      return;
    }
    const width = this.width * (tool === "eraser" ? ERASER : 1);
    this.#mark = { kind: tool, colour: this.colour, width, points: [point] };
    this.dispatchEvent(new Event("start"));
    if (!isShape(tool)) { this.#grow(0); }
  }

  /** Take the thing at a point, or what is chosen, to move it; else begin a line around something. @type {(point: Point, also: boolean) => void} */
  #take(point, also) {
    const { things, marks, image } = this;
    const mark = marks[markAt(marks, point, REACH)];
    const again = this.#chosen.includes(mark);
    if (also && mark) {
      this.choose(again ? this.#chosen.filter((one) => one !== mark) : [...this.#chosen, mark]);
      return;
    }
    // Over an image, nobody knows what belongs together.
    const own = mark && !image ? things.find((thing) => thing.marks.includes(mark)).marks : [mark].filter(Boolean);
    const taken = again || (!mark && inBox(boxOf(this.#chosen), point)) ? this.#chosen : own;
    this.choose(taken);
    if (taken.length) {
      this.hold((to) => (one) => moved(one, point, to), again ? [mark] : taken);
    } else {
      this.#lasso = [point];
    }
  }

  /** Choose what mostly lies within the line that was drawn; if it is a point, the thing around it. */
  #surround() {
    const [points, path] = [this.#lasso, new Path2D()];
    this.#lasso = null;
    points.forEach(({ x, y }) => path.lineTo(x, y));
    // Lines on the sheet are painted in other units than pixels.
    const context = new OffscreenCanvas(1, 1).getContext("2d");
    const inside = (/** @type {Point} */ { x, y }) => context.isPointInPath(path, x, y);
    const surrounded = this.marks.filter((mark) => mark.kind !== "eraser" && 2 * outline(mark).filter(inside).length > outline(mark).length);
    this.choose(points.length > 1 ? surrounded : this.image ? [] : (thingAt(this.things, points[0])?.marks ?? []));
  }

  /** Draw on to this point; `regular` makes squares, circles and lines at multiples of 45 degrees. @param {Point} [point] */
  extend(point, regular = false) {
    if (this.#held) {
      this.#held.marks = this.#chosen.map(this.#held.how(point, regular));
      this.#paint();
    }
    if (this.#lasso) {
      this.#lasso.push(point);
      this.#paint();
    }
    if (!this.#mark) { return; }
    const { kind, points } = this.#mark;
    if (isShape(kind)) {
      points[1] = regular ? evened(kind, points[0], point) : point;
      this.#paint();
      return;
    }
    const last = points.at(-1);
    if (Math.hypot(point.x - last.x, point.y - last.y) >= NEAR) {
      points.push(point);
      this.#grow(points.length - 2);
    }
  }

  /** Paint the mark that is being drawn from this point on: all anew if it has a rim. @param {number} from */
  #grow(from) { isWhite(this.#mark) ? this.#paint() : piece(this.#context, this.#mark, from); }

  finish() {
    if (this.#held) { this.#drop(); }
    if (this.#lasso) { this.#surround(); }
    if (!this.#mark) { return; }
    const mark = this.#mark;
    this.#mark = null;
    const [from, to] = mark.points;
    if (isShape(mark.kind) && (!to || Math.hypot(to.x - from.x, to.y - from.y) < NEAR)) {
      this.#paint();
      return;
    }
    this.do(mark);
  }

  get drawing() { return Boolean(this.#mark ?? this.#held ?? this.#lasso); }
  /** @param {number} [side] */
  png(side) { return png(this.#done, this.shape, side); }

  #fill(/** @type {Point} */ point) {
    const points = enclosed(this.marks, point);
    if (points.length) {
      this.do({ kind: "fill", colour: this.colour, points });
    } else {
      this.dispatchEvent(new Event("open"));
    }
  }

  #press(/** @type {PointerEvent} */ event) {
    const { pointerType } = event;
    if (pointerType === "pen" && !this.#pen) {
      this.#pen = true;
      this.fingers = false;
      this.dispatchEvent(new Event("pen"));
    }
    if (this.#finger && pointerType !== "mouse") {
      // What touched the paper first was the palm of the hand with the pen, or two fingers zoom the page.
      this.#giveUp();
      if (pointerType === "touch") { return; }
    }
    if (pointerType === "touch" && !this.fingers) {
      this.#scrolling = event;
      return;
    }
    // One mark at a time: while a pen draws, the palm beside it also touches the screen, and must not draw.
    const known = event.button === DRAWING_BUTTON || event.button === ERASER_BUTTON;
    if (this.drawing || !known) { return; }
    this.#finger = event.pointerType === "touch";
    event.preventDefault();
    capture(this.#canvas, event);
    this.#pointer = event.pointerId;
    this.#buttons = event.pointerType === "mouse";
    this.begin(this.#point(event), event.button === ERASER_BUTTON ? "eraser" : this.tool, event.shiftKey);
  }

  #giveUp() {
    this.#mark = null;
    this.#pointer = null;
    this.#finger = false;
    this.#changed();
  }

  #cancel(/** @type {PointerEvent} */ event) {
    if (event.pointerId === this.#pointer && this.#finger) {
      // The system takes it for a palm, or for a gesture of its own.
      this.#giveUp();
    } else {
      this.#lift(event);
    }
  }

  #draw(/** @type {PointerEvent} */ event) {
    if (event.pointerId === this.#scrolling?.pointerId) {
      window.scrollBy(this.#scrolling.clientX - event.clientX, this.#scrolling.clientY - event.clientY);
      this.#scrolling = event;
    }
    if (event.pointerId !== this.#pointer) { return; }
    if (!event.buttons && this.#buttons) {
      // The release was lost: to a menu, an alert or another window.
      this.#lift(event);
      return;
    }
    this.#buttons ||= event.buttons > 0;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) { this.extend(this.#point(one), event.shiftKey); }
  }

  #lift(/** @type {PointerEvent} */ event) {
    if (event.pointerId === this.#pointer) {
      this.#pointer = null;
      this.#finger = false;
      this.finish();
    }
  }

  pointOf(/** @type {MouseEvent} */ { clientX, clientY }) {
    const box = this.#canvas.getBoundingClientRect();
    return pointAt(this.place, { x: (clientX - box.left) / box.width, y: (clientY - box.top) / box.height });
  }

  #point(/** @type {PointerEvent} */ event) {
    // Only a pen's pressure is measured: a mouse reports 0.5, and for a finger it depends on the device.
    const pressed = event.pointerType === "pen" && event.pressure > 0;
    const { x, y } = this.pointOf(event);
    return { x: short(x), y: short(y), weight: pressed ? short(LIGHTEST + (STRONGEST - LIGHTEST) * event.pressure) : 1 };
  }

  #move(/** @type {"done" | "undone"} */ from, /** @type {"done" | "undone"} */ to) {
    const { [from]: first, [to]: second } = this.#past;
    if (first.length && !this.drawing) {
      this.past = { ...this.#past, [from]: first.slice(0, -1), [to]: [...second, first.at(-1)] };
    }
  }

  choose(/** @type {Mark[]} */ marks) {
    this.#held = null;
    this.#chosen = marks;
    this.#paint();
    this.dispatchEvent(new Event("choose"));
  }

  #drop() {
    const { marks, within } = this.#held;
    const [chosen, before, places] = [this.#chosen, this.marks, this.#indices];
    if (marks === chosen) {
      // A second press without a movement chooses one stroke of a thing.
      this.choose(within);
      return;
    }
    // Who moves a whole thing, of several that an answer tells apart, has seen that they are right.
    const told = this.things.length > 1 && before.every(({ kind, thing }) => kind === "eraser" || thing !== undefined);
    const whole = this.things.some(({ marks: own }) => own.length === chosen.length && own.every((mark) => chosen.includes(mark)));
    const after = told && whole ? settled(this.#withHeld()) : this.#withHeld();
    this.replace(after);
    this.choose(places.map((i) => after[i]));
  }

  #withHeld() { return this.marks.map((mark) => this.#held?.marks[this.#chosen.indexOf(mark)] ?? mark); }

  #changed() {
    this.#lasso = null;
    this.choose([]);
    this.dispatchEvent(new Event("change"));
  }

  #fit() {
    const { clientWidth, clientHeight } = this.#canvas;
    this.#ratio = window.devicePixelRatio;
    const [width, height] = [clientWidth, clientHeight].map((side) => Math.max(1, Math.round(side * this.#ratio)));
    if (this.#canvas.width !== width || this.#canvas.height !== height) { Object.assign(this.#canvas, { width, height }); }
    this.#paint();
  }

  #paint() {
    const begun = this.#mark && (!isShape(this.#mark.kind) || this.#mark.points.length === 2);
    const shown = this.#chosen.length ? this.#withHalo() : begun ? [...this.#done, this.#mark] : this.#done;
    paint(this.#context, Math.max(this.#canvas.width, this.#canvas.height), shown, this.shape);
    if (this.#lasso) {
      start(this.#context, LASSO, LASSO.width);
      this.#context.setLineDash([LASSO.dash, LASSO.dash]);
      this.#lasso.forEach(({ x, y }) => this.#context.lineTo(x, y));
      this.#context.stroke();
      this.#context.setLineDash([]);
    }
  }

  #withHalo() {
    const marks = this.#withHeld();
    const chosen = this.#held?.marks ?? this.#chosen;
    const lines = chosen.filter(({ width }) => width);
    return [...lines.map((mark) => ({ ...mark, colour: HALO.colour, width: mark.width + HALO.width })), ...marks];
  }
}

function capture(/** @type {Element} */ target, /** @type {PointerEvent} */ { pointerId }) {
  try {
    target.setPointerCapture(pointerId);
  } catch {
    // The pointer has just gone. Without it, what was drawn stays.
  }
}

/** These marks within a place: smaller if it has no room for them, and moved no further than that takes. @type {(marks: Mark[], place: Place) => Mark[]} */
function fitted(marks, [left, top, width, height]) {
  const drawn = boxOf(marks.filter(({ kind }) => kind !== "eraser"));
  const [wide, high] = [drawn.right - drawn.left, drawn.bottom - drawn.top];
  const scale = Math.min(1, (ROOM * width) / wide, (ROOM * height) / high);
  /** @type {(first: number, size: number, from: number, room: number) => number} */
  const start = (first, size, from, room) => Math.min(from + room - scale * size, Math.max(from, first + ((1 - scale) * size) / 2));
  const to = { x: start(drawn.left, wide, left, width), y: start(drawn.top, high, top, height) };
  return marks.map((mark) => moved(mark, { x: drawn.left, y: drawn.top }, to, scale));
}
