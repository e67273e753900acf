/** The tools around the paper. */

import { check, choice, choose, element, byId } from "../shared/dom.js";
import { PENS } from "./things.js";

export class Tools {
  #paper;
  #query;

  constructor(paper, query) {
    this.#paper = paper;
    this.#query = query;
    byId("inks").append(...Object.entries(PENS).map(([title, value]) => swatch(title, value, paper.colour)));
    choice("tool", (value) => (paper.tool = value));
    choice("width", (value) => (paper.width = Number(value)));
    choice("ink", (value) => this.#dip(value));
    byId("undo").addEventListener("click", () => paper.undo());
    byId("redo").addEventListener("click", () => paper.redo());
    byId("remove").addEventListener("click", () => paper.remove());
    byId("save").addEventListener("click", () => void query.save());
    query.addEventListener("change", () => this.refresh());
    paper.addEventListener("choose", () => this.refresh());
    paper.addEventListener("start", () => (byId("invitation").hidden = true));
    paper.addEventListener("open", () => this.#say("The bucket fills a closed outline: draw one around this place first."));
    paper.addEventListener("pen", () => (byId("fingers-switch").hidden = false));
    byId("fingers").addEventListener("change", ({ target }) => (paper.fingers = target.checked));
    const more = byId("tools-open");
    more.addEventListener("click", () => (more.ariaExpanded = String(more.ariaExpanded === "false")));
    this.refresh();
  }

  refresh() {
    const { empty, isFile } = this.#query;
    byId("undo").disabled = isFile || !this.#paper.canUndo;
    byId("redo").disabled = isFile || !this.#paper.canRedo;
    byId("remove").hidden = !this.#paper.chosen;
    byId("save").disabled = empty || isFile;
    byId("invitation").hidden = this.#paper.marks.length > 0;
    this.#say("");
  }

  #say(text) {
    byId("hint").textContent = text;
  }

  #dip(colour) {
    this.#paper.colour = colour;
    check("ink", colour);
    // A colour is chosen to draw with it.
    if (["eraser", "move"].includes(this.#paper.tool)) {
      choose("tool", "pen");
    }
  }
}

function swatch(title, value, chosen) {
  const radio = element("input", { type: "radio", name: "ink", value, checked: value === chosen, ariaLabel: title });
  const label = element("label", { className: "swatch", title }, radio);
  label.style.backgroundColor = value;
  return label;
}
