/** The tools around the paper. */

import { check, choice, choose, element, byId } from "../shared/dom.js";
import { moved, pointAt, turned } from "./ink.js";
import { boxOf, PENS } from "./things.js";

const SMALLEST = 0.05;
// With less of the paper above it, the handle that turns is below.
const LEAST_ABOVE = 0.12;
const LARGER = 1.1;
const STEP = Math.PI / 12;
const KEYS = /** @type {Record<string, number>} */ ({ ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 });

export function connectTools(/** @type {Paper} */ paper, /** @type {Query} */ query) {
  const say = (/** @type {string} */ text) => (byId("hint").textContent = text);
  const picker = element("input", { type: "color", value: "#e58fb0", ariaLabel: "Another colour" });
  const any = element("label", { className: "swatch any", title: "Another colour" }, picker);
  byId("inks").append(...Object.entries(PENS).map(([title, value]) => swatch(title, value, paper.colour)), any);
  choice("tool", (/** @type {Tool} */ value) => (paper.tool = value));
  choice("width", (value) => (paper.width = Number(value)));
  const draw = (/** @type {string} */ colour) => {
    paper.colour = colour;
    check("ink", colour);
    any.classList.toggle("on", colour === picker.value);
    if (["eraser", "move"].includes(paper.tool)) { choose("tool", "pen"); }
  };
  choice("ink", draw);
  picker.addEventListener("input", () => {
    any.style.background = picker.value;
    draw(picker.value);
  });
  for (const name of /** @type {const} */ (["undo", "redo"])) { byId(name).addEventListener("click", () => paper[name]()); }
  byId("turn").addEventListener("click", async () => {
    const { image } = paper;
    await (image ? query.turnImage() : paper.turn());
    byId("heard").textContent = image ? "The image is turned." : `The paper is ${paper.format} now.`;
  });
  paper.addEventListener("start", () => (byId("invitation").hidden = true));
  paper.addEventListener("open", () => say("The bucket fills a closed outline: draw one around this place first."));
  paper.addEventListener("pen", () => (byId("fingers-switch").hidden = false));
  byId("fingers").addEventListener("change", () => (paper.fingers = byId("fingers").checked));
  connectHandles(paper);
  const more = byId("tools-open");
  more.addEventListener("click", () => (more.ariaExpanded = String(more.ariaExpanded === "false")));
  const refresh = () => {
    const isFile = query.isFile();
    byId("undo").disabled = isFile || !paper.canUndo;
    byId("redo").disabled = isFile || !paper.canRedo;
    document.documentElement.style.setProperty("--shape", `${paper.shape}`);
    byId("turn").disabled = isFile;
    byId("turn").title = paper.image ? "Turn the image (T)" : `Paper: ${paper.format}. Press for another shape (T)`;
    byId("invitation").hidden = paper.marks.length > 0;
    say("");
  };
  refresh();
  return refresh;
}

function swatch(/** @type {string} */ title, /** @type {string} */ value, /** @type {string} */ chosen) {
  const radio = element("input", { type: "radio", name: "ink", value, checked: value === chosen, ariaLabel: title });
  const label = element("label", { className: "swatch", title }, radio);
  label.style.backgroundColor = value;
  return label;
}

/** The frame around what is chosen on the paper, with handles that give it another size or turn it. @type {(paper: Paper) => void} */
function connectHandles(paper) {
  const frame = byId("handles");
  paper.addEventListener("choose", show);
  for (const handle of /** @type {HTMLCollectionOf<HTMLElement>} */ (frame.children)) {
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.setPointerCapture(event.pointerId);
      paper.hold(byPoint(handle, paper.pointOf(event)));
    });
    handle.addEventListener("pointermove", (event) => event.buttons && paper.extend(paper.pointOf(event), event.shiftKey));
    handle.addEventListener("lostpointercapture", () => paper.finish());
    handle.addEventListener("keydown", ({ key }) => KEYS[key] && paper.change(byKey(handle, KEYS[key])));
  }

  function show() {
    frame.hidden = !paper.chosen.length;
    if (frame.hidden) { return; }
    const { left, top, right, bottom } = boxOf(paper.chosen);
    const [from, to] = [{ x: left, y: top }, { x: right, y: bottom }].map((corner) => paper.shares(corner));
    const style = { left: from.x, top: from.y, width: to.x - from.x, height: to.y - from.y };
    Object.entries(style).forEach(([name, share]) => frame.style.setProperty(name, `${100 * share}%`));
    frame.classList.toggle("high", from.y < LEAST_ABOVE);
  }

  /** A point of the frame by shares of its sides. @type {(x: number, y: number) => Point} */
  function at(x, y) {
    const { left, top, right, bottom } = boxOf(paper.chosen);
    return pointAt([left, top, right - left, bottom - top], { x, y });
  }

  /** What becomes of marks if a handle goes from a point to another: they turn around the middle, or grow from the other corner. @type {(handle: HTMLElement, grip: Point) => Holding} */
  function byPoint({ dataset: { x, y } }, grip) {
    if (x === undefined) {
      const middle = at(0.5, 0.5);
      const angleOf = (/** @type {Point} */ point) => Math.atan2(point.y - middle.y, point.x - middle.x);
      return (to, regular) => {
        const angle = angleOf(to) - angleOf(grip);
        return (mark) => turned(mark, middle, regular ? STEP * Math.round(angle / STEP) : angle);
      };
    }
    const [from, corner] = [at(1 - Number(x), 1 - Number(y)), at(Number(x), Number(y))];
    const [wide, high] = [corner.x - from.x, corner.y - from.y];
    return (to) => {
      const scale = 1 + ((to.x - grip.x) * wide + (to.y - grip.y) * high) / (wide ** 2 + high ** 2);
      return (mark) => moved(mark, from, from, Math.max(SMALLEST, scale));
    };
  }

  function byKey(/** @type {HTMLElement} */ { dataset: { x, y } }, /** @type {number} */ way) {
    const from = x === undefined ? at(0.5, 0.5) : at(1 - Number(x), 1 - Number(y));
    return (/** @type {Mark} */ mark) => (x === undefined ? turned(mark, from, way * STEP) : moved(mark, from, from, LARGER ** way));
  }
}
