/** Keyboard shortcuts, and the dialog that lists them. */

import { show } from "./shared/dialogs.js";
import { choose, element, part } from "./shared/dom.js";
import { forSite } from "./shared/storage.js";

const OFF = "sketch-search-keys-off";
const TOOLS = { p: "pen", e: "eraser", m: "move", l: "line", r: "rectangle", o: "ellipse" };
const WIDTHS = ["0.007", "0.012", "0.024"];

// The list in the dialog: keys, and what they do.
const HELP = [
  ["P E", "Pen, eraser"],
  ["L R O", "Line, rectangle, ellipse"],
  ["M Delete", "Take a stroke to move it, delete it"],
  ["Shift", "while drawing a shape: straight, square, round"],
  ["[ ]", "Finer, broader"],
  ["C", "Clear"],
  ["I", "Choose an image"],
  ["S", "Save the sketch"],
  ["Enter", "Search"],
  ["W", "Why these photos"],
  ["Ctrl Z", "Undo"],
  ["Ctrl Shift Z", "Redo"],
  ["Arrows, Space", "on the paper: move the pen, put it down and lift it"],
  ["?", "This list"],
];

export class Keys {
  #paper;
  #query;
  #dialog = part("help");

  constructor(paper, query) {
    this.#paper = paper;
    this.#query = query;
    const rows = HELP.map(([keys, does]) => {
      const shown = keys.split(" ").flatMap((key) => [element("kbd", { textContent: key.replace(",", "") }), " "]);
      return element("div", {}, element("dt", {}, ...shown), element("dd", { textContent: does }));
    });
    part("help-list").replaceChildren(...rows);
    const single = part("keys-on");
    single.checked = forSite.get(OFF) === null;
    single.addEventListener("change", () => forSite.mark(OFF, !single.checked));
    part("help-open").addEventListener("click", () => show(this.#dialog));
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  #press(event) {
    const typing = event.target.matches("input[type=text], input[type=date], input[type=range], select, textarea");
    if (typing || event.altKey || document.querySelector("dialog[open]")) {
      return;
    }
    const key = event.key.toLowerCase();
    if (this.#paper.chosen && (key === "delete" || key === "backspace")) {
      event.preventDefault();
      this.#paper.remove();
      return;
    }
    if (event.ctrlKey || event.metaKey ? this.#withControl(key, event) : part("keys-on").checked && this.#alone(key, event)) {
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
      part("search").click();
    } else {
      const button = { c: "clear", i: "pick", s: "save", w: "why-open", "?": "help-open" }[key];
      if (!button || part(button).hidden) {
        return false;
      }
      part(button).click();
    }
    return true;
  }

  #widen(by) {
    const now = WIDTHS.findIndex((width) => Number(width) === this.#paper.width);
    choose("width", WIDTHS[Math.min(WIDTHS.length - 1, Math.max(0, now + by))]);
  }
}
