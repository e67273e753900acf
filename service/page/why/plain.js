/** The first view of an explanation: the drawing in its colours beside a photo, each thing joined with its part of it. */

import * as api from "../shared/api.js";
import { asNamed, borders, seenThing, TINTS } from "../drawing/things.js";
import { element, byId } from "../shared/dom.js";
import { fileName, foundThing, guessed, lost, numberOf, sure, thingNames, unclear } from "../shared/words.js";

const LETTERS = "ABCDEFGH";
const SIZE = 512;
// How far a frame is from the ink, as a share of the paper, and at least half as far from its edges: its light rim would hide it.
const AWAY = 0.012;
const ROUND = 8;

export function createPlain() {
  const [pair, drawing, photo, joins] = [byId("why-pair"), byId("why-drawing"), byId("why-photo"), byId("why-joins")];
  let things = [];
  let photos = [];

  new ResizeObserver(join).observe(pair);
  for (const image of [drawing, photo]) {
    image.addEventListener("load", () => {
      image.parentElement.style.setProperty("--ratio", `${image.naturalWidth / image.naturalHeight}`);
      join();
    });
  }
  // A browser cannot show every file that the server reads.
  drawing.addEventListener("error", () => (drawing.parentElement.hidden = true));

  const part = ({ cells, detected }, grid) => (detected ? frame(detected.box) : outline(cells, grid));
  const parts = (one) => one.things.map((thing) => (lost(thing) ? "" : part(thing, one.grid)));
  const outlined = (one) => lines(things, parts(one), one.things.map(unclear));

  const saysOf = (one) =>
    things.flatMap(({ name, letter, colour }, i) => (lost(one.things[i]) && one.things[i].doubted ? [] : [{ letter, colour, text: `${name}: ${foundThing(one.things[i])}` }]));

  function card(one) {
    const image = api.picture(`${one.thumbnail_url}?size=${SIZE}`, { className: "" });
    const says = saysOf(one).map(({ text }) => text).join("; ");
    const figure = element("span", { className: "outlined" }, image, outlined(one));
    const ariaLabel = `${one.number}: ${one.name}. ${says}`;
    one.button = element("button", { type: "button", onclick: () => choose(one), ariaLabel }, figure);
    return element("li", {}, one.button);
  }

  function choose(one) {
    photos.forEach(({ button }) => (button.ariaPressed = String(button === one.button)));
    photo.nextElementSibling.replaceWith(outlined(one));
    photo.alt = one.name;
    void api.show(photo, `${one.thumbnail_url}?size=${SIZE}`);
    byId("why-photo-name").textContent = `${one.number}: ${one.name}`;
    const said = saysOf(one).map(({ letter, colour, text }) => {
      const badge = element("b", { textContent: letter });
      badge.style.background = colour;
      return element("li", {}, badge, text);
    });
    const seen = one.things.flatMap((thing, i) => (thing.doubted && thing.detected ? [things[i].name] : []));
    const unseen = (seen.length && things.length === 1 ? [] : one.unseen ?? []).filter((word) => !seen.includes(word)).map((word) => element("li", { textContent: `No \u201c${word}\u201d seen here.` }));
    byId("why-matches").replaceChildren(...said, ...unseen);
    join();
  }

  /** Draw a line from each thing to its part of the photo. */
  function join() {
    const whole = pair.getBoundingClientRect();
    const [from, to] = [drawing, photo].map((image) => [...image.nextElementSibling.querySelectorAll(".line")]);
    const across = photo.getBoundingClientRect().left >= drawing.getBoundingClientRect().right;
    joins.setAttribute("viewBox", `0 0 ${whole.width} ${whole.height}`);
    joins.replaceChildren();
    if (drawing.parentElement.hidden || !drawing.naturalWidth || !photo.naturalWidth) { return; }
    // Both from left to right; below each other, as if they were turned.
    const rectsOf = (lines) => lines.map((line) => {
      const { left, top, right, bottom } = line.getBoundingClientRect();
      const [x, y] = [whole.left, whole.top];
      return across ? [left - x, top - y, right - x, bottom - y] : [top - y, left - x, bottom - y, right - x];
    });
    const mirror = ([left, top, right, bottom]) => [-right, top, -left, bottom];
    const [starts, ends] = [rectsOf(from), rectsOf(to).map(mirror)];
    starts.forEach((start, i) => {
      const out = way(start, starts);
      const back = way(ends[i], ends).map(([x, y]) => [-x, y]).reverse();
      const [[x0, y0], [x1, y1]] = [out.at(-1), back[0]];
      const points = [...out, [(x0 + x1) / 2, y0], [(x0 + x1) / 2, y1], ...back].map(([x, y]) => (across ? [x, y] : [y, x]).join(" "));
      const d = `M${points.slice(0, out.length).join("L")}C${points.slice(out.length, out.length + 3).join(" ")}L${points.slice(out.length + 2).join("L")}`;
      if (to[i].getAttribute("d")) { joins.append(...stroked(d, things[i].colour, to[i].classList.contains("unclear"))); }
    });
  }

  /** Show an answer of POST /locate of a drawing, of the photo `liked`, named `yours`, or of words; `results` are its photos. */
  return (answer, { blob, strokes, also, guesses }, liked, results, yours) => {
    const seen = answer.things.map(seenThing);
    const words = !blob && !liked;
    const known = asNamed(answer.things, strokes).map(({ word, guess }, i) => [word, guess ?? guesses.get(i)]);
    const names = thingNames(known.map(([word, guess], i) => [word ?? guessed(guess), seen[i].colours]));
    things = seen.map(({ box: { left, top, right, bottom } }, i) => ({
      letter: LETTERS[i],
      colour: TINTS[i],
      name: names[i] || (seen.length > 1 ? "thing" : yours),
      path: frame([...[left, top].map((end) => Math.max(AWAY / 2, end - AWAY)), ...[right, bottom].map((end) => Math.min(1 - AWAY / 2, end + AWAY))]),
    }));
    const doubted = ({ unseen = [] }, i) => (things.length > 1 ? unseen.includes(things[i].name) : unseen.length > 0);
    const own = (one) => one.things.map((thing, i) => ({ ...thing, doubted: words && doubted(one, i), unsure: seen.length > 1 && !(known[i][0] ?? sure(known[i][1])) }));
    photos = answer.photos.map((one, i) => ({ ...one, things: own(one), name: fileName(one.paths[0]), number: numberOf(results[i]), grid: answer.region_grid }));
    drawing.parentElement.hidden = words;
    drawing.alt = yours;
    drawing.nextElementSibling.replaceWith(lines(things, things.map(({ path }) => path)));
    URL.revokeObjectURL(drawing.src);
    drawing.removeAttribute("src");
    if (blob) {
      drawing.src = URL.createObjectURL(blob);
    } else if (liked) {
      void api.show(drawing, `thumbnails/${liked}?size=${SIZE}`);
    }
    const what = words ? "what a word names" : seen.length > 1 ? `the thing of its colour in ${yours}` : yours;
    const dashed = photos.some((one) => one.things.some((thing) => unclear(thing) && !lost(thing))) ? "; a dashed one is a guess" : "";
    byId("why-lead-plain").textContent = `Each outline is the part of the photo that is most like ${what}${dashed}.${also}`;
    byId("why-all").replaceChildren(...photos.map(card));
    byId("why-all").hidden = photos.length < 2;
    choose(photos[0]);
  };
}

/** Points from a box to the right: from its middle, or past other boxes that lie in the way. */
function way([left, top, right, bottom], boxes) {
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const others = boxes.filter((one) => one[2] > right && one[0] > x && one[1] < y && one[3] > y);
  if (!others.length) { return [[right, y]]; }
  const [first, last] = [Math.min(...others.map((one) => one[1])) - ROUND, Math.max(...others.map((one) => one[3])) + ROUND];
  const edge = y - first < last - y ? first : last;
  const start = edge > top && edge < bottom ? [[right, edge]] : [[x, edge < y ? top : bottom], [x, edge]];
  return [...start, [Math.max(...others.map((one) => one[2])), edge]];
}

const frame = (/** @type {number[]} */ [left, top, right, bottom]) => `M${left} ${top}H${right}V${bottom}H${left}Z`;

function lines(things, paths, faint = []) {
  const svg = shape("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(...paths.flatMap((path, i) => stroked(path, things[i].colour, faint[i])));
  return svg;
}

/** A line with a light rim, so that it is seen on any picture. */
const stroked = (d, stroke, faint) => [shape("path", { d, class: "rim" }), shape("path", { d, class: faint ? "line unclear" : "line", stroke })];

function shape(kind, attributes) {
  const made = document.createElementNS(byId("why-joins").namespaceURI, kind);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

/** The outline of connected cells of a square grid, `side` along each side, as an SVG path within 0..1 with round corners. */
export function outline(cells, side) {
  const [ring] = borders(new Set(cells), side).sort((a, b) => b.length - a.length);
  const points = ring.map((corner) => [corner % (side + 1), Math.floor(corner / (side + 1))].map((at) => at / side));
  const middles = points.map(([x, y], i) => {
    const [x1, y1] = points[(i + 1) % points.length];
    return `${(x + x1) / 2} ${(y + y1) / 2}`;
  });
  return `M${middles.at(-1)}${points.map((point, i) => `Q${point.join(" ")} ${middles[i]}`).join("")}Z`;
}
