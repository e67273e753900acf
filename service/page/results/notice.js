/** The message in place of photos: an invitation to draw, a missing part, or an error. */

import { faceOf, png } from "../drawing/ink.js";
import * as api from "../shared/api.js";
import { byId, element, forSite, progress, prose } from "../shared/dom.js";

const FACE = 160;
const SHOWN = 3;
// A drawing is shown if the third of its photos is at most so far away, by [Ret]. In 200 galleries of 100 to 1,500 labelled
// photos, half of them without some of these things, 454 of 469 drawings shown had three photos of what they show; with 1.35
// it was 528 of 599. Using the vocabulary as well changed nothing. A face is not among them: drawn faces find no faces.
const FARTHEST = 1.2;
const KEPT = "sketch-search-examples";

export class Notice {
  #draw;
  #said = "";
  #question = new api.Latest();
  #of = null;
  #kept = JSON.parse(forSite.get(KEPT) ?? "{}");
  #shown = null;

  constructor(draw) {
    this.#draw = draw;
    byId("examples-find").addEventListener("click", () => this.#find());
  }

  know({ index }) { this.#of = index && index.made; }

  /** Show a message, with the completed `share` of a build (null: unknown), and ask for a "key", a "login" or a "folder". */
  say(title, text, share, form) {
    this.hide(false);
    // Written only on change, so that a screen reader does not read the same message twice.
    if (this.#said !== title + text) {
      this.#said = title + text;
      byId("notice-title").textContent = title;
      byId("notice-text").replaceChildren(...prose(text));
    }
    progress(byId("notice-progress"), share);
    byId("key-form").hidden = form !== "key";
    byId("login").hidden = form !== "login";
    byId("folder-choose").hidden = form !== "folder";
  }

  /** Invite to draw, and offer the drawings to start from: nothing is searched for unasked, and once for each generation. */
  invite() {
    this.say("What are you looking for?", "Draw its outline to find photos of it. You can also drop, paste or choose an image, and draw over it.");
    const best = this.#kept.of === this.#of ? this.#kept.best : null;
    byId("ghosts").hidden = false;
    this.#offer(false, best?.length === 0);
    byId("start").hidden = !this.#of;
    if (this.#shown !== best) { void this.#fill(best); }
  }

  hide(all = true) {
    this.#said = all ? "" : this.#said;
    byId("notice").hidden = all;
    byId("start").hidden = true;
    byId("ghosts").hidden = true;
    this.rest();
  }

  /** Do not search: the person is drawing, and should not have to wait. */
  rest() { this.#question.stop(); }

  #offer(trying, none) {
    const textContent = none ? "None of twelve drawings fits these photos" : trying ? "Trying drawings\u2026" : "Show drawings to start from";
    Object.assign(byId("examples-find"), { disabled: trying || none, textContent });
  }

  #find() {
    const of = this.#of;
    this.#offer(true);
    const take = (best) => {
      this.#kept = { of, best };
      forSite.set(KEPT, JSON.stringify(this.#kept));
      this.invite();
    };
    void this.#question.ask(tried, take, () => (byId("start").hidden = true));
  }

  async #fill(best) {
    this.#shown = best;
    const all = new Map((await examples()).map((example) => [example.name, example]));
    // An older version of the page may have stored an example that no longer exists.
    const known = (best ?? []).filter(({ name }) => all.has(name));
    byId("examples").replaceChildren(...known.map(({ name, faces }) => this.#item(all.get(name), faces)));
  }

  #item({ name, marks }, faces) {
    const photos = faces.map((path) => {
      const image = api.picture(`${path}?size=${FACE}`);
      image.addEventListener("error", () => image.remove());
      return image;
    });
    const [ariaLabel, onclick] = [`Start from a sketch: ${name}`, () => this.#draw(marks)];
    return element("li", {}, element("button", { type: "button", title: name, ariaLabel, onclick }, faceOf(marks, FACE), ...photos));
  }
}

/** The drawings with the best matches, and these. */
async function tried(signal) {
  const all = [];
  for (const { name, marks } of await examples()) {
    const { results } = await api.search(await png(marks), { k: SHOWN, fold: true, quality: "fast" }, signal);
    // Vectors can be compared between searches: the score of the last photo shows whether all fit.
    all.push({ name, sure: results.at(-1)?.raw_score ?? -Infinity, faces: results.map(({ thumbnail_url }) => thumbnail_url) });
  }
  return all.filter(({ sure }) => sure >= -FARTHEST).sort((a, b) => b.sure - a.sure).slice(0, SHOWN);
}

/** The sketches by name. examples.json has their `round` or `angular` strokes by points in hundredths of the sheet, x to the right and y down. */
export async function examples() {
  const strokes = JSON.parse(await (await api.file("page/drawing/examples.json")).text());
  return Object.entries(strokes).map(([name, own]) => ({ name, marks: own.map(toMark) }));
}

function toMark(stroke) {
  const [kind, ...numbers] = stroke.split(" ");
  const values = numbers.map((number) => number / 100);
  const pairs = values.flatMap((x, i) => (i % 2 ? [] : [[x, values[i + 1]]]));
  // A point that is there twice makes a corner: the curve around it has no length.
  const places = kind === "round" ? pairs : pairs.flatMap((place) => [place, place]);
  return { kind: "pen", colour: "#000000", width: 0.014, points: places.map(([x, y]) => ({ x, y, weight: 1 })) };
}
