/** The tools around the paper. */

import { check, choice, choose, element, byId } from "../shared/dom.js";
import { connectHandles } from "./handles.js";
import { PENS } from "./things.js";

export function connectTools(paper, query) {
  const say = (text) => (byId("hint").textContent = text);
  const picker = element("input", { type: "color", value: "#e58fb0", ariaLabel: "Another colour" });
  const any = element("label", { className: "swatch any", title: "Another colour" }, picker);
  byId("inks").append(...Object.entries(PENS).map(([title, value]) => swatch(title, value, paper.colour)), any);
  choice("tool", (value) => (paper.tool = value));
  choice("width", (value) => (paper.width = Number(value)));
  const draw = (colour) => {
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
  for (const name of ["undo", "redo"]) { byId(name).addEventListener("click", () => paper[name]()); }
  byId("turn").addEventListener("click", () => {
    paper.turn();
    byId("heard").textContent = `The paper is ${paper.format} now.`;
  });
  paper.addEventListener("start", () => (byId("invitation").hidden = true));
  paper.addEventListener("open", () => say("The bucket fills a closed outline: draw one around this place first."));
  paper.addEventListener("pen", () => (byId("fingers-switch").hidden = false));
  byId("fingers").addEventListener("change", ({ target }) => (paper.fingers = target.checked));
  connectHandles(paper);
  const more = byId("tools-open");
  more.addEventListener("click", () => (more.ariaExpanded = String(more.ariaExpanded === "false")));
  const refresh = () => {
    const isFile = query.isFile();
    byId("undo").disabled = isFile || !paper.canUndo;
    byId("redo").disabled = isFile || !paper.canRedo;
    document.documentElement.style.setProperty("--shape", paper.shape);
    byId("turn").disabled = isFile || Boolean(paper.image);
    byId("turn").title = paper.image ? "The paper has the shape of the image" : `Paper: ${paper.format}. Press for another shape (T)`;
    byId("invitation").hidden = paper.marks.length > 0;
    say("");
  };
  refresh();
  return refresh;
}

function swatch(title, value, chosen) {
  const radio = element("input", { type: "radio", name: "ink", value, checked: value === chosen, ariaLabel: title });
  const label = element("label", { className: "swatch", title }, radio);
  label.style.backgroundColor = value;
  return label;
}
