/** Keyboard shortcuts, and drawing by keyboard. */

import { show } from "./shared/history.js";
import { byId, choose, forSite } from "./shared/dom.js";

const OFF = "sketch-search-keys-off";
const TOOLS = { p: "pen", e: "eraser", f: "fill", m: "move", l: "line", r: "rectangle", o: "ellipse" };
const BUTTONS = { c: "clear", d: "held-copy", g: "held-one", h: "held-mirror", i: "pick", j: "held-join", s: "save", t: "turn", w: "why-open", "?": "help-open" };
const WIDTHS = ["0.007", "0.012", "0.024"];
const TYPING = "input[type=text], input[type=date], input[type=range], select, textarea";

/** Listen to the shortcuts, which the dialog `help` lists. */
export function listenToShortcuts(paper, query) {
  const single = byId("keys-on");
  single.checked = forSite.get(OFF) === null;
  single.addEventListener("change", () => forSite.mark(OFF, !single.checked));
  byId("help-open").addEventListener("click", () => show(byId("help")));

  function actionOf(key, { ctrlKey, metaKey, shiftKey, target }) {
    if (paper.chosen.length && (key === "delete" || key === "backspace")) { return () => paper.remove(); }
    if (ctrlKey || metaKey) {
      const undoes = { z: shiftKey ? "redo" : "undo", y: "redo" }[key];
      return !query.isFile() && undoes && (() => paper[undoes]());
    }
    if (!single.checked) { return false; }
    if (key in TOOLS) { return () => choose("tool", TOOLS[key]); }
    if (key === "[" || key === "]") {
      const now = WIDTHS.findIndex((width) => Number(width) === paper.width);
      const next = Math.min(WIDTHS.length - 1, Math.max(0, now + (key === "]" ? 1 : -1)));
      return () => choose("width", WIDTHS[next]);
    }
    const button = key === "enter" && !target.closest("button, summary, a, input") ? "search" : BUTTONS[key];
    return button && !byId(button).closest("[hidden]") && (() => byId(button).click());
  }

  document.addEventListener("keydown", (event) => {
    const elsewhere = event.altKey || /** @type {Element} */ (event.target).matches(TYPING) || document.querySelector("dialog[open]");
    const act = !elsewhere && actionOf(latin(event), event);
    if (act) {
      event.preventDefault();
      act();
    }
  });
}

/** The key of an event; on a keyboard of another script, what is there on a Latin one. */
function latin({ key, code }) {
  const there = { BracketLeft: "[", BracketRight: "]" }[code] ?? code.replace("Key", "");
  return (/^(?!\p{Script=Latin})\p{L}$/u.test(key) ? there : key).toLowerCase();
}

// How far an arrow key moves the pen, in longer sides of the paper; and with Shift.
const STEP = 0.025;
const SMALL_STEP = 0.005;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Draw by keyboard: arrow keys move a cursor over the paper, Space puts the pen down and lifts it, or takes a stroke. */
export function drawByKeys(paper) {
  const [canvas, mark] = [byId("paper"), byId("cursor")];
  let place = { x: 0.5, y: 0.5, weight: 1 };
  let down = false;

  canvas.addEventListener("keydown", (event) => {
    const way = ARROWS[event.key];
    const presses = event.key === " " || (event.key === "Escape" && down);
    if (event.ctrlKey || event.metaKey || event.altKey || !(way || presses)) { return; }
    event.preventDefault();
    move(way ?? [0, 0], event.shiftKey ? SMALL_STEP : STEP);
    if (presses) { press(); }
    const { x, y } = paper.shares(place);
    mark.hidden = false;
    mark.classList.toggle("down", down);
    Object.assign(mark.style, { left: `${100 * x}%`, top: `${100 * y}%` });
  });
  for (const leaving of ["blur", "pointerdown"]) {
    canvas.addEventListener(leaving, () => {
      if (down) { press(); }
      mark.hidden = true;
    });
  }

  function move([x, y], step) {
    const [left, top, width, height] = paper.place;
    const within = (value, first, size) => Math.min(first + size, Math.max(first, value));
    place = { x: within(place.x + x * step, left, width), y: within(place.y + y * step, top, height), weight: 1 };
    if (down) { paper.extend(place); }
  }

  function press() {
    if (down) {
      down = false;
      const held = paper.chosen.length;
      paper.finish();
      byId("heard").textContent = held ? "Put down." : paper.chosen.length ? "Selected." : "Pen up.";
    } else if (!paper.drawing) {
      paper.begin(place);
      down = paper.drawing;
      const moving = paper.chosen.length ? "Picked up" : "Nothing there";
      const { x, y } = paper.shares(place);
      const where = `${Math.round(x * 100)} across, ${Math.round(y * 100)} down.`;
      byId("heard").textContent = `${paper.tool === "move" ? moving : "Pen down"}, ${where}`;
    }
  }
}
