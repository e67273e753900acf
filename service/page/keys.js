/** Keyboard shortcuts, and the dialog that lists them; and drawing by keyboard. */

import { show } from "./shared/history.js";
import { choose, element, byId } from "./shared/dom.js";
import { forSite } from "./shared/storage.js";

const OFF = "sketch-search-keys-off";
const TOOLS = { p: "pen", e: "eraser", f: "fill", m: "move", l: "line", r: "rectangle", o: "ellipse" };
const WIDTHS = ["0.007", "0.012", "0.024"];

// The list in the dialog: keys, and what they do.
const HELP = [
  ["P F E", "Pen, bucket, eraser"],
  ["L R O", "Line, rectangle, ellipse"],
  ["M Delete", "Pick up what is drawn to move it, delete it"],
  ["Shift", "while drawing a shape: straight, square, round"],
  ["[ ]", "Finer, broader"],
  ["C", "Clear"],
  ["I", "Choose an image"],
  ["S", "Save the sketch"],
  ["Enter", "Search"],
  ["W", "Why these photos"],
  ["+ - 0", "on an open photo: zoom in and out, show all of it"],
  ["Ctrl Z", "Undo"],
  ["Ctrl Shift Z", "Redo"],
  ["Arrows, Space", "on the paper: move the pen, put it down and lift it"],
  ["?", "This list"],
];

export class Keys {
  #paper;
  #query;
  #dialog = byId("help");

  constructor(paper, query) {
    this.#paper = paper;
    this.#query = query;
    const rows = HELP.map(([keys, does]) => {
      const shown = keys.split(" ").flatMap((key) => [element("kbd", { textContent: key.replace(",", "") }), " "]);
      return element("div", {}, element("dt", {}, ...shown), element("dd", { textContent: does }));
    });
    byId("help-list").replaceChildren(...rows);
    const single = byId("keys-on");
    single.checked = forSite.get(OFF) === null;
    single.addEventListener("change", () => forSite.mark(OFF, !single.checked));
    byId("help-open").addEventListener("click", () => show(this.#dialog));
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  #press(event) {
    const typing = event.target.matches("input[type=text], input[type=date], input[type=range], select, textarea");
    if (typing || event.altKey || document.querySelector("dialog[open]")) {
      return;
    }
    const key = latin(event);
    if (this.#paper.chosen && (key === "delete" || key === "backspace")) {
      event.preventDefault();
      this.#paper.remove();
      return;
    }
    if (event.ctrlKey || event.metaKey ? this.#withControl(key, event) : byId("keys-on").checked && this.#alone(key, event)) {
      event.preventDefault();
    }
  }

  #withControl(key, event) {
    if (this.#query.isFile || (key !== "z" && key !== "y")) {
      return false;
    }
    if (key === "y" || event.shiftKey) {
      this.#paper.redo();
    } else {
      this.#paper.undo();
    }
    return true;
  }

  #alone(key, event) {
    if (key in TOOLS) {
      choose("tool", TOOLS[key]);
    } else if (key === "[" || key === "]") {
      this.#widen(key === "]" ? 1 : -1);
    } else if (key === "enter" && !event.target.closest("button, summary, a, input")) {
      byId("search").click();
    } else {
      const button = { c: "clear", i: "pick", s: "save", w: "why-open", "?": "help-open" }[key];
      if (!button || byId(button).hidden) {
        return false;
      }
      byId(button).click();
    }
    return true;
  }

  #widen(by) {
    const now = WIDTHS.findIndex((width) => Number(width) === this.#paper.width);
    choose("width", WIDTHS[Math.min(WIDTHS.length - 1, Math.max(0, now + by))]);
  }
}

/** The key of an event; on a keyboard of another script, what is there on a Latin one. */
function latin({ key, code }) {
  const there = { BracketLeft: "[", BracketRight: "]" }[code] ?? code.replace("Key", "");
  return (/^(?!\p{Script=Latin})\p{L}$/u.test(key) ? there : key).toLowerCase();
}

/** Drawing by keyboard: arrow keys move a cursor over the paper, Space puts the pen down and lifts it, or takes a stroke. */
const STEP = 0.025;
const SMALL_STEP = 0.005;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Cursor {
  #paper;
  #mark = byId("cursor");
  #place = { x: 0.5, y: 0.5, weight: 1 };
  #down = false;

  constructor(paper) {
    this.#paper = paper;
    const canvas = byId("paper");
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#leave());
    canvas.addEventListener("pointerdown", () => this.#leave());
  }

  #key(event) {
    const way = ARROWS[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    if (way) {
      this.#move(way, event.shiftKey ? SMALL_STEP : STEP);
    } else if (event.key === " ") {
      this.#press();
    } else if (event.key === "Escape" && this.#down) {
      this.#press();
    } else {
      return;
    }
    event.preventDefault();
  }

  #move([x, y], step) {
    this.#place = {
      x: Math.min(1, Math.max(0, this.#place.x + x * step)),
      y: Math.min(1, Math.max(0, this.#place.y + y * step)),
      weight: 1,
    };
    if (this.#down) {
      this.#paper.extend(this.#place);
    }
    this.#show();
  }

  #press() {
    if (this.#down) {
      this.#down = false;
      this.#paper.finish();
      byId("heard").textContent = this.#paper.chosen ? "Put down." : "Pen up.";
    } else if (!this.#paper.drawing) {
      this.#paper.begin(this.#place);
      this.#down = this.#paper.drawing;
      const place = `${Math.round(this.#place.x * 100)} across, ${Math.round(this.#place.y * 100)} down.`;
      const moving = this.#down ? "Picked up" : "Nothing there";
      byId("heard").textContent = `${this.#paper.tool === "move" ? moving : "Pen down"}, ${place}`;
    }
    this.#show();
  }

  #leave() {
    if (this.#down) {
      this.#press();
    }
    this.#mark.hidden = true;
  }

  #show() {
    this.#mark.hidden = false;
    this.#mark.classList.toggle("down", this.#down);
    this.#mark.style.left = `${this.#place.x * 100}%`;
    this.#mark.style.top = `${this.#place.y * 100}%`;
  }
}
