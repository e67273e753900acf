/** The things of the drawing: their outlines on the paper, and the line that describes the query. */

import { assign, coloursOf, gapOf, halved, joined, named, seenThing } from "../drawing/things.js";
import { element, byId, refill } from "../shared/dom.js";
import { thingNames } from "../shared/words.js";

// Labels are put beside things so far away, and elsewhere at places so far apart, in pixels.
const GAP = 2;
const APART = 6;
// A label farther away than this, in pixels, might as well lie over ink.
const NEAR = 60;
const SWITCHES = { places: "Match where each thing stands", colours: "Match the colours of things" };
const OFF = "Does not count: this search compares whole photos";

export class Drawn extends EventTarget {
  #paper;
  #parts;
  #complete;
  #list = byId("things");
  // What each thing was guessed to be, by its number.
  #guesses = new Map();
  // The things that the server saw in a picture that was not drawn here.
  #seen = [];
  // The word of a thing that no search has accepted yet.
  #typed = null;
  // Whether places and colours are to count, and whether they do: not if the search compares no regions of photos.
  #wanted = { places: true, colours: true };
  #counts = { places: true, colours: true };

  /** `complete` offers words that begin so. Events: "change" when places or colours are to count, or not. */
  constructor(paper, parts, complete) {
    super();
    this.#paper = paper;
    this.#parts = parts;
    this.#complete = complete;
    for (const name of ["places", "colours"]) {
      byId(name).addEventListener("change", ({ target }) => {
        this.#wanted[name] = target.checked;
        this.dispatchEvent(new Event("change"));
      });
    }
    new ResizeObserver(() => this.#place()).observe(this.#list.parentElement);
    byId("parts-apart").addEventListener("click", () => this.#part(paper.things[0].id));
  }

  /** Whether places and colours count, as parameters of a search with what is drawn, see Query.snapshot. */
  params({ things }) {
    const all = this.#searched(things);
    const coloured = this.#inColour(all);
    return {
      ...(all.length > 1 && !this.#wanted.places ? { places: "no" } : {}),
      ...(coloured && !this.#wanted.colours ? { colours: "no" } : {}),
    };
  }

  /** Take what the things of a search are, and what they were guessed to be. */
  know({ strokes, things: drawn }, answer) {
    const told = answer.things ?? [];
    this.#typed = null;
    assign(strokes, told);
    this.#seen = strokes.length || drawn.length ? [] : told.map(seenThing);
    const ids = this.#seen.length ? this.#seen.map(({ id }) => id) : told.length ? told.map((_, i) => i) : drawn.map(({ id }) => id);
    const whole = ids.length === 1 ? answer.guesses : [];
    this.#guesses = new Map(ids.map((id, i) => [id, (told[i]?.guess ?? whole[0])?.word]));
    const regions = answer.region_grid !== undefined;
    const asked = { places: told.length > 1 && this.#wanted.places, colours: this.#wanted.colours && this.#inColour(this.#searched(drawn)) };
    this.#counts = { places: !asked.places || answer.placed === true, colours: !asked.colours || regions };
    this.show();
  }

  /** Take back an unusable word of a thing. @returns {string | null} the word, if there was one */
  dropWord() {
    const word = this.#typed;
    if (word !== null) {
      this.#typed = null;
      this.#paper.undo();
    }
    return word;
  }

  /** Let places and colours count again. */
  reset() {
    this.#wanted = { places: true, colours: true };
    this.show();
  }

  changed() {
    this.#seen = [];
    this.show();
  }

  show() {
    const drawn = this.#paper.things;
    const things = this.#seen.length ? this.#seen : drawn;
    const several = things.length > 1;
    this.#draw(drawn.length > 1 ? drawn : []);
    const inColour = this.#inColour(things);
    const parts = !several && drawn.length > 0 && this.#halves(drawn[0].id) !== null;
    this.#offer("places", several);
    this.#offer("colours", inColour);
    byId("parts-apart").hidden = !parts;
    this.#parts.describe(several || inColour ? this.#names(things).join(", ") : parts ? "Drawing" : "");
  }

  /** Show a switch, off if what it is for does not count. */
  #offer(name, yes) {
    const counts = this.#counts[name];
    Object.assign(byId(name), { checked: counts && this.#wanted[name], disabled: !counts });
    byId(`${name}-switch`).hidden = !yes;
    byId(`${name}-switch`).title = counts ? SWITCHES[name] : OFF;
  }

  /** The things of a search: those drawn here, or those that the server saw. */
  #searched(things) {
    return things.length ? things : this.#seen;
  }

  /** Whether things have colours. Those that the server saw have none while colours do not count. */
  #inColour(things) {
    return things.some((thing) => namesOf(thing).length) || (this.#seen.length > 0 && !this.#wanted.colours);
  }

  /** What a thing is: as a person says, or else by its guess. */
  #said({ id, marks = [] }) {
    return marks.find(({ word }) => word)?.word ?? this.#guesses.get(id);
  }

  #halves(id) {
    return halved(this.#paper.marks, id);
  }

  #part(id) {
    this.#paper.replace(this.#halves(id));
  }

  #names(things) {
    const names = thingNames(things.map((thing) => [this.#said(thing), namesOf(thing)]));
    return names.some(Boolean) ? names.map((name) => name || "thing") : [things.length > 1 ? `${things.length} things` : ""];
  }

  #draw(things) {
    // A word that is being typed stays.
    if (document.activeElement.matches("#things input")) {
      return;
    }
    refill(this.#list, ...things.map((thing) => this.#item(thing)));
    this.#place();
  }

  /** A thing's outline, with what it is, which can be typed over, and buttons that split it or join it with the nearest. */
  #item(thing) {
    const { id, box } = thing;
    const guess = this.#said(thing) ?? "";
    const about = guess || "thing";
    const parts = this.#halves(id) ? [this.#button(id, "Split", `Split the ${about} into two things`, () => this.#part(id))] : [];
    const join = this.#button(id, "Join", `Join the ${about} with the nearest thing`, () => this.#paper.replace(joined(this.#paper.marks, id)));
    const item = element("li", {}, element("p", {}, this.#name(id, guess), ...parts, join));
    const within = (value) => Math.min(1, Math.max(0, value));
    const [left, top, right, bottom] = [within(box.left), within(box.top), within(box.right), within(box.bottom)];
    Object.assign(item.style, {
      left: `${100 * left}%`,
      top: `${100 * top}%`,
      width: `${100 * (right - left)}%`,
      height: `${100 * (bottom - top)}%`,
    });
    return item;
  }

  /** Put each label within the paper, where it covers no other and as little as can be of the things, near its own. */
  #place() {
    const paper = this.#list.parentElement.getBoundingClientRect();
    const items = [...this.#list.children];
    const things = items.map((item) => item.getBoundingClientRect());
    const labels = [];
    items.forEach(({ firstElementChild: label }, i) => {
      const [own, { offsetWidth: width, offsetHeight: height }] = [things[i], label];
      const cost = (box) =>
        1000 * covered(box, labels) + covered(box, things) + (width * height * gapOf(box, own)) / NEAR + Math.abs(box.left - own.left);
      const lefts = places(paper.left, paper.right - width, [own.left, own.right - width, own.left - width - GAP, own.right + GAP]);
      const tops = places(paper.top, paper.bottom - height, [own.top - height - GAP, own.bottom + GAP, own.top]);
      const boxes = tops.flatMap((top) => lefts.map((left) => ({ left, top, right: left + width, bottom: top + height })));
      const best = boxes.map((box) => [cost(box), box]).reduce((least, one) => (one[0] < least[0] ? one : least))[1];
      labels.push(best);
      Object.assign(label.style, { left: `${best.left - own.left - items[i].clientLeft}px`, top: `${best.top - own.top - items[i].clientTop}px` });
    });
  }

  #name(id, guess) {
    const field = element("input", { type: "text", value: guess, size: Math.max(5, guess.length), maxLength: 100, ariaLabel: "What this thing is" });
    field.autocomplete = "off";
    field.placeholder = "Name it";
    field.setAttribute("list", "words");
    field.addEventListener("input", () => {
      this.#complete(field.value.trim());
      this.#place();
    });
    field.addEventListener("change", () => {
      field.blur();
      this.#typed = field.value.trim();
      this.#paper.replace(named(this.#paper.marks, id, this.#typed));
    });
    field.addEventListener("blur", () => field.value === guess && this.show());
    return field;
  }

  #button(id, textContent, title, onclick) {
    const button = element("button", { type: "button", textContent, title, ariaLabel: title, onclick });
    button.dataset.key = `${textContent} ${id}`;
    return button;
  }
}

const namesOf = (thing) => thing.colours ?? coloursOf(thing);

/** These places, as far as they are between two, and those that are `APART`. */
function places(first, last, preferred) {
  const all = Array.from({ length: Math.max(1, Math.floor((last - first) / APART)) }, (_, i) => first + i * APART);
  return [...preferred.filter((place) => place >= first && place <= last), ...all];
}

/** How much of a box others cover, in pixels. */
const covered = (box, others) => others.reduce((sum, other) => sum + shared(box, other, "left", "right") * shared(box, other, "top", "bottom"), 0);

const shared = (box, other, from, to) => Math.max(0, Math.min(box[to], other[to]) - Math.max(box[from], other[from]));
