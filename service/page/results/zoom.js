/** Zooming into a picture and panning it: by wheel, pinch, drag, double click, and the keys + - 0. */

const MOST = 8;
const STEP = 1.5;
const KEYS = { "+": STEP, "=": STEP, "-": 1 / STEP, 0: 0 };

export class Zoom {
  #image;
  #stage;
  #scale = 1;
  #shift = [0, 0];
  // The fingers, or the mouse while it is pressed, by their ids: where each is.
  #pointers = new Map();

  constructor(image) {
    this.#image = image;
    this.#stage = image.parentElement;
    const on = (kind, react) => this.#stage.addEventListener(kind, react, { passive: false });
    on("wheel", (event) => {
      event.preventDefault();
      this.#by(Math.exp(-event.deltaY / 300), placeOf(event));
    });
    on("dblclick", (event) => this.#by(this.#scale > 1 ? 0 : STEP ** 2, placeOf(event)));
    on("pointerdown", (event) => {
      this.#pointers.set(event.pointerId, placeOf(event));
      this.#stage.setPointerCapture(event.pointerId);
    });
    on("pointermove", (event) => this.#pointers.has(event.pointerId) && this.#move(event));
    ["pointerup", "pointercancel"].forEach((kind) => on(kind, ({ pointerId }) => this.#pointers.delete(pointerId)));
  }

  /** Zoom by the key of this event. Returns whether it is one that does. */
  press({ key }) { return key in KEYS && this.#by(KEYS[key]); }
  reset() { this.#by(0); }

  #move(event) {
    const before = [...this.#pointers.values()];
    this.#pointers.set(event.pointerId, placeOf(event));
    const after = [...this.#pointers.values()];
    const [from, to] = [before, after].map((all) => [0, 1].map((axis) => all.reduce((sum, place) => sum + place[axis], 0) / all.length));
    this.#shift = this.#shift.map((shift, axis) => shift + to[axis] - from[axis]);
    const apart = ([a, b]) => (b ? Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1])) : 1);
    this.#by(apart(after) / apart(before), to);
  }

  /** Enlarge by this factor, so that what is at a place stays there; by 0: back to the whole picture. */
  #by(factor, place) {
    const { left, top, width, height } = this.#stage.getBoundingClientRect();
    const scale = Math.min(MOST, Math.max(1, this.#scale * factor));
    const most = [this.#image.clientWidth, this.#image.clientHeight].map((side) => (side * (scale - 1)) / 2);
    this.#shift = [left + width / 2, top + height / 2].map((middle, axis) => {
      const away = place ? place[axis] - middle : 0;
      return Math.min(most[axis], Math.max(-most[axis], away - ((away - this.#shift[axis]) * scale) / this.#scale));
    });
    this.#scale = scale;
    this.#image.style.transform = scale > 1 ? `translate(${this.#shift[0]}px, ${this.#shift[1]}px) scale(${scale})` : "";
    return true;
  }
}

const placeOf = ({ clientX, clientY }) => [clientX, clientY];
