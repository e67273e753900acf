/** The first view of an explanation: the drawing in its colours beside a photo, each thing joined with its part of it. */

import * as api from "../shared/api.js";
import { borders, seenThing } from "../drawing/things.js";
import { element, byId } from "../shared/dom.js";
import { fileName, foundThing, hardly, numberOf, thingNames } from "../shared/words.js";

// Colour-blind people can also distinguish them, and each has a letter.
const THINGS = ["#d55e00", "#0072b2", "#b0478a", "#00785a", "#8a6a00", "#5f605a", "#12523f", "#7b2d26"];
const LETTERS = "ABCDEFGH";
const SIZE = 512;
// How far a frame is from the ink, as a share of the paper: its light rim would hide it.
const AWAY = 0.012;

export class Plain {
  #pair = byId("why-pair");
  #drawing = byId("why-drawing");
  #photo = byId("why-photo");
  #things = [];
  #photos = [];

  constructor() {
    new ResizeObserver(() => this.#join()).observe(this.#pair);
    for (const image of [this.#drawing, this.#photo]) {
      image.addEventListener("load", () => this.#join());
    }
    // A browser cannot show every file that the server reads.
    this.#drawing.addEventListener("error", () => (this.#drawing.parentElement.hidden = true));
  }

  /** Show an answer of POST /locate of what is in `subject`, named `yours`; `results` are its photos. */
  show({ things, photos, region_grid: grid }, { blob }, liked, results, yours) {
    const seen = things.map(seenThing);
    const names = thingNames(things.map(({ word, guess }, i) => [word ?? guess?.word, seen[i].colours]));
    this.#things = seen.map(({ box: { left, top, right, bottom } }, i) => ({
      letter: LETTERS[i],
      colour: THINGS[i],
      name: names[i] || (things.length > 1 ? "thing" : yours),
      path: `M${left - AWAY} ${top - AWAY}H${right + AWAY}V${bottom + AWAY}H${left - AWAY}Z`,
    }));
    this.#photos = photos.map((photo, i) => ({ ...photo, name: fileName(photo.paths[0]), number: numberOf(results[i]), grid }));
    this.#drawing.parentElement.hidden = false;
    this.#drawing.alt = yours;
    this.#show(blob);
    if (!blob) {
      void api.show(this.#drawing, `thumbnails/${liked}?size=${SIZE}`);
    }
    byId("why-lead-plain").textContent = `Each outline is the part of the photo that is most like ${things.length > 1 ? `the thing of its colour in ${yours}` : yours}.`;
    byId("why-all").replaceChildren(...this.#photos.map((photo) => this.#card(photo)));
    byId("why-all").hidden = photos.length < 2;
    this.#choose(this.#photos[0]);
  }

  #show(blob) {
    URL.revokeObjectURL(this.#drawing.src);
    this.#drawing.removeAttribute("src");
    this.#drawing.nextElementSibling.replaceWith(lines(this.#things, this.#things.map(({ path }) => path)));
    if (blob) {
      this.#drawing.src = URL.createObjectURL(blob);
    }
  }

  #card(photo) {
    const image = api.picture(`${photo.thumbnail_url}?size=${SIZE}`, { className: "" });
    const says = this.#says(photo).map(({ text }) => text).join("; ");
    const onclick = () => this.#choose(photo);
    const figure = element("span", { className: "outlined" }, image, this.#outlined(photo));
    photo.button = element("button", { type: "button", onclick, ariaLabel: `${photo.number}: ${photo.name}. ${says}` }, figure);
    return element("li", {}, photo.button);
  }

  #outlined({ things, grid }) {
    return lines(this.#things, things.map(({ cells }) => outline(cells, grid)), things.map(hardly));
  }

  #says({ things }) {
    return this.#things.map(({ name, letter, colour }, i) => ({ letter, colour, text: `${name}: ${foundThing(things[i])}` }));
  }

  /** Show this photo beside the drawing. */
  #choose(photo) {
    this.#photos.forEach(({ button }) => button.setAttribute("aria-pressed", "false"));
    photo.button.setAttribute("aria-pressed", "true");
    this.#photo.nextElementSibling.replaceWith(this.#outlined(photo));
    this.#photo.alt = photo.name;
    void api.show(this.#photo, `${photo.thumbnail_url}?size=${SIZE}`);
    byId("why-photo-name").textContent = `${photo.number}: ${photo.name}`;
    const said = this.#says(photo).map(({ letter, colour, text }) => {
      const badge = element("b", { textContent: letter });
      badge.style.background = colour;
      return element("li", {}, badge, text);
    });
    byId("why-matches").replaceChildren(...said);
    this.#join();
  }

  /** Draw a line from each thing to its part of the photo. */
  #join() {
    const joins = byId("why-joins");
    const whole = this.#pair.getBoundingClientRect();
    const [from, to] = [this.#drawing, this.#photo].map((image) => [...image.nextElementSibling.querySelectorAll(".line")]);
    const across = this.#photo.getBoundingClientRect().left >= this.#drawing.getBoundingClientRect().right;
    joins.setAttribute("viewBox", `0 0 ${whole.width} ${whole.height}`);
    joins.replaceChildren();
    if (this.#drawing.parentElement.hidden || !this.#drawing.naturalWidth || !this.#photo.naturalWidth) {
      return;
    }
    from.forEach((line, i) => {
      const [a, b] = [line, to[i]].map((one) => one.getBoundingClientRect());
      const [x, y] = [(box) => box.left - whole.left, (box) => box.top - whole.top];
      const ends = across
        ? [x(a) + a.width, y(a) + a.height / 2, x(b), y(b) + b.height / 2]
        : [x(a) + a.width / 2, y(a) + a.height, x(b) + b.width / 2, y(b)];
      const [x0, y0, x1, y1] = ends;
      const bend = across ? `C${(x0 + x1) / 2} ${y0} ${(x0 + x1) / 2} ${y1}` : `C${x0} ${(y0 + y1) / 2} ${x1} ${(y0 + y1) / 2}`;
      joins.append(...stroked(`M${x0} ${y0}${bend} ${x1} ${y1}`, this.#things[i].colour, to[i].classList.contains("hardly")));
    });
  }
}

/** Lines over a picture, each in the colour of its thing. */
function lines(things, paths, faint = []) {
  const svg = shape("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(...paths.flatMap((path, i) => stroked(path, things[i].colour, faint[i])));
  return svg;
}

/** A line with a light rim, so that it is seen on any picture. */
const stroked = (d, stroke, faint) => [shape("path", { d, class: "rim" }), shape("path", { d, class: faint ? "line hardly" : "line", stroke })];

function shape(kind, attributes) {
  const made = document.createElementNS(byId("why-joins").namespaceURI, kind);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

/** The outline of connected cells of a square grid, `side` along each side, as an SVG path within 0..1 with round corners. */
export function outline(cells, side) {
  // With a border of empty cells, no cell is at an edge.
  const wide = side + 2;
  const on = new Uint8Array(wide * wide);
  cells.forEach((cell) => (on[(Math.floor(cell / side) + 1) * wide + (cell % side) + 1] = 1));
  // Shorter rings are holes.
  const ring = borders(on, wide).sort((a, b) => b.length - a.length)[0];
  const points = ring.map((corner) => [(corner % (wide + 1)) - 1, Math.floor(corner / (wide + 1)) - 1].map((at) => at / side));
  const middles = points.map(([x, y], i) => {
    const [x1, y1] = points[(i + 1) % points.length];
    return `${(x + x1) / 2} ${(y + y1) / 2}`;
  });
  return `M${middles.at(-1)}${points.map((point, i) => `Q${point.join(" ")} ${middles[i]}`).join("")}Z`;
}
