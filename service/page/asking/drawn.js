/** The things of the drawing: their outlines on the paper, and the line that describes the query. */

import { coloursOf, seenThing } from "../drawing/things.js";
import { element, byId } from "../shared/dom.js";
import { thingName } from "../shared/words.js";

// The least marks of a part that is offered as a separate thing if all looks like one.
const MANY_MARKS = 3;
// A thing this near to the edge, in sides of the paper, has no room for a label above.
const HIGH = 0.1;

export class Drawn extends EventTarget {
  #paper;
  #parts;
  #list = byId("things");
  // What each thing was guessed to be, by its number; and the thing that was pressed to be joined with another.
  #guesses = new Map();
  #chosen = null;
  // The things that the server saw in a picture that was not drawn here.
  #seen = [];
  // Whether the places of several things count if they are to; they do not if the index keeps no regions of photos.
  #placed = true;

  /** Events: "change" when places or colours are to count, or not. */
  constructor(paper, parts) {
    super();
    this.#paper = paper;
    this.#parts = parts;
    for (const name of ["places", "colours"]) {
      byId(name).addEventListener("change", () => this.dispatchEvent(new Event("change")));
    }
    byId("parts-apart").addEventListener("click", () => paper.part(paper.things[0].id));
  }

  /** Whether places and colours count, as parameters of a search with what is drawn, see Query.snapshot. */
  params({ things }) {
    const all = this.#searched(things);
    const coloured = this.#inColour(all);
    return {
      ...(things.length === 1 ? { things: "one" } : {}),
      ...(all.length > 1 && !byId("places").checked ? { places: "no" } : {}),
      ...(coloured && !byId("colours").checked ? { colours: "no" } : {}),
    };
  }

  /** Take what the things of a search were guessed to be. */
  know(things, answer) {
    const told = answer.things ?? [];
    const whole = things.length === 1 ? answer.guesses : [];
    this.#seen = things.length ? [] : told.map(seenThing);
    this.#guesses = new Map(this.#searched(things).map(({ id }, i) => [id, (told[i]?.guess ?? whole[0])?.word]));
    if (told.length > 1 && byId("places").checked) {
      this.#placed = Boolean(answer.placed);
    }
    this.show();
  }

  /** Something else is drawn. */
  changed() {
    this.#seen = [];
    this.show();
  }

  /** Show the things of the drawing as they are now. */
  show() {
    const drawn = this.#paper.things;
    const things = this.#seen.length ? this.#seen : drawn;
    const several = things.length > 1;
    this.#chosen = drawn.some(({ id }) => id === this.#chosen) ? this.#chosen : null;
    this.#draw(drawn.length > 1 ? drawn : []);
    const inColour = this.#inColour(things);
    const parts = !several && drawn.length > 0 && this.#paper.canPart(drawn[0].id, MANY_MARKS);
    byId("places-switch").hidden = !several || !this.#placed;
    byId("colours-switch").hidden = !inColour;
    byId("parts-apart").hidden = !parts;
    this.#parts.describe(several || inColour ? this.#names(things).join(", ") : parts ? "Drawing" : "");
  }

  /** The things of a search: those drawn here, or those that the server saw. */
  #searched(things) {
    return things.length ? things : this.#seen;
  }

  /** Whether things have colours. Those that the server saw have none while colours do not count. */
  #inColour(things) {
    return things.some((thing) => namesOf(thing).length) || (this.#seen.length > 0 && !byId("colours").checked);
  }

  #names(things) {
    const boxes = this.#placed ? things.map(({ box }) => box) : [];
    return things.map((thing) => thingName(this.#guesses.get(thing.id), namesOf(thing), thing.box, boxes));
  }

  #draw(things) {
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.dataset.thing : null;
    this.#list.replaceChildren(...things.map((thing) => this.#item(thing)));
    this.#list.querySelector(`[data-thing="${focused}"]`)?.focus({ preventScroll: true });
  }

  /** A thing's outline, with a button that joins it with another, or parts it. */
  #item({ id, box }) {
    const guess = this.#guesses.get(id) ?? "thing";
    const parts = this.#chosen === id && this.#paper.canPart(id);
    const action = this.#chosen === null ? guess : this.#chosen !== id ? `Join with ${guess}` : parts ? "Split" : "Cancel";
    const title = this.#chosen === null ? `${guess}: join it with another thing, or split it` : action;
    const button = element("button", { type: "button", textContent: action, title, onclick: () => this.#press(id, parts) });
    button.dataset.thing = id;
    const item = element("li", {}, button);
    item.classList.toggle("chosen", this.#chosen === id);
    item.classList.toggle("high", box.top < HIGH);
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

  #press(id, parts) {
    const first = this.#chosen;
    this.#chosen = first === null ? id : null;
    if (first === null || (first === id && !parts)) {
      this.show();
    } else if (first === id) {
      this.#paper.part(id);
    } else {
      this.#paper.join(first, id);
    }
  }
}

/** The names of a thing's colours. */
function namesOf(thing) {
  return thing.colours ?? coloursOf(thing);
}
