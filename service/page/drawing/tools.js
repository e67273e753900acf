/** The tools around the paper. */

import { check, choice, choose, closeOutside, element, part } from "../shared/dom.js";
import { channels } from "./ink.js";

const INKS = {
  Black: "#000000",
  Grey: "#7a7a76",
  Red: "#c8322b",
  Orange: "#e08214",
  Yellow: "#e8c11c",
  Green: "#2e8b57",
  Blue: "#2666b8",
  Purple: "#7b4fa3",
  Brown: "#7a4a2b",
  White: "#ffffff",
};
const PAPERS = { White: "#ffffff", Cream: "#f6edd8", Grey: "#c9c9c4", Blue: "#cfe3f2", Black: "#1b1b1b" };

export class Tools {
  #paper;
  #query;

  constructor(paper, query) {
    this.#paper = paper;
    this.#query = query;
    part("inks").append(...swatches("ink", INKS, paper.colour));
    part("papers").append(...swatches("sheet", PAPERS, paper.background));
    choice("tool", (value) => (paper.tool = value));
    choice("width", (value) => (paper.width = Number(value)));
    choice("ink", (value) => this.#dip(value));
    choice("sheet", (value) => paper.lay(value));
    part("ink-other").addEventListener("input", (event) => this.#dip(event.target.value));
    part("undo").addEventListener("click", () => paper.undo());
    part("redo").addEventListener("click", () => paper.redo());
    part("clear").addEventListener("click", () => (paper.chosen ? paper.remove() : query.clear()));
    part("save").addEventListener("click", () => void query.save());
    query.addEventListener("change", () => this.refresh());
    paper.addEventListener("choose", () => this.refresh());
    paper.addEventListener("start", () => (part("invitation").hidden = true));
    closeOutside(part("colours"));
    const more = part("tools-open");
    more.addEventListener("click", () => (more.ariaExpanded = String(more.ariaExpanded === "false")));
    this.refresh();
  }

  /** Show what can be done now. */
  refresh() {
    const { empty, isFile } = this.#query;
    part("undo").disabled = isFile || !this.#paper.canUndo;
    part("redo").disabled = isFile || !this.#paper.canRedo;
    part("clear").disabled = empty;
    const [textContent, title] = this.#paper.chosen ? ["Delete", "Delete the stroke (Delete)"] : ["Clear", "Clear (C)"];
    Object.assign(part("clear"), { textContent, title });
    part("save").disabled = empty || isFile;
    part("search").disabled = empty;
    part("invitation").hidden = this.#paper.marks.length > 0;
    const dark = luminance(this.#paper.background) < 0.4;
    part("sheet").classList.toggle("dark", dark);
    check("sheet", this.#paper.background);
    // Black ink on dark paper, and white ink on light paper, could not be seen.
    if (this.#paper.colour === "#000000" && dark) {
      choose("ink", "#ffffff");
    } else if (this.#paper.colour === "#ffffff" && !dark) {
      choose("ink", "#000000");
    }
  }

  #dip(colour) {
    this.#paper.colour = colour;
    part("ink-now").style.backgroundColor = colour;
    part("ink-other").value = colour;
    check("ink", colour);
    // A colour is chosen to draw with it.
    if (["eraser", "move"].includes(this.#paper.tool)) {
      choose("tool", "pen");
    }
  }
}

function swatches(name, colours, chosen) {
  return Object.entries(colours).map(([title, value]) => {
    const radio = element("input", { type: "radio", name, value, checked: value === chosen, ariaLabel: title });
    const label = element("label", { className: "swatch", title }, radio);
    label.style.backgroundColor = value;
    return label;
  });
}

/** How light a colour #rrggbb is, about 0 to 1. */
function luminance(colour) {
  const [red, green, blue] = channels(colour);
  return (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
}
