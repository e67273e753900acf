/** The query beside the drawing: photos, words and filters; and the line that shows all its parts. */

import * as api from "../shared/api.js";
import { read, rewrite, steps, write } from "../shared/history.js";
import { element, byId } from "../shared/dom.js";
import { fileName, inFolders, period } from "../shared/words.js";

const FACE = 128;
const PHOTOS = /** @type {PhotoPart[]} */ (["like", "unlike", "unlike_kind"]);
const PHOTO_WORDS = { like: ["+", "More like"], unlike: ["\u2212", "Not"], unlike_kind: ["\u2212\u2212", "None like"] };
const FILTERS = /** @type {PartName[]} */ (["folder", "after", "before"]);

/** The query beside the drawing, as the address says it; `removeDrawing` is called when a person removes the drawing from the line.
 * @param {() => void} removeDrawing */
export function createParts(removeDrawing) {
  const listeners = /** @type {(() => void)[]} */ ([]);
  let wanted = read();
  let drawing = /** @type {Kind | null} */ (null);
  let described = "";
  /** How many photos behind each unwanted one look like it, by its id. @type {Map<string, number>} */
  let alike = new Map();
  let earlier = /** @type {string[]} */ ([]);
  /** Names of photos by their ids. An address has ids only, so that some may be unknown. @type {Map<string, string>} */
  const names = new Map();

  byId("parts-drawing").addEventListener("click", removeDrawing);
  byId("parts-undo").addEventListener("click", () => history.back());
  window.addEventListener("popstate", () => become(read()));

  const filtered = () => FILTERS.some((name) => wanted[name].length);
  const none = () => Object.values(wanted).every((values) => !values.length);
  const likes = (/** @type {Photo} */ { id }) => wanted.like.includes(String(id));
  const nameOf = (/** @type {string} */ id) => names.get(id) ?? `photo ${id}`;

  function become(/** @type {Wanted} */ other) {
    const before = wanted;
    wanted = other;
    show();
    if (!same(before, wanted)) {
      // What the next search hides, nobody knows yet.
      byId("parts-hidden").textContent = "";
      listeners.forEach((react) => react());
    }
  }

  /** Replace the values of these parts. @param {Partial<Wanted>} some */
  function set(some) {
    const other = { ...wanted, ...some };
    if (!same(other, wanted)) {
      earlier = some.text ? wanted.text : earlier;
      write(other);
      become(other);
    }
  }

  /** @type {(parts: PartName[]) => Wanted} */
  const emptied = (parts) => /** @type {Wanted} */ (Object.fromEntries(parts.map((name) => [name, /** @type {string[]} */ ([])])));

  function put(/** @type {Named} */ { id, paths }, /** @type {PhotoPart} */ name) {
    names.set(String(id), fileName(paths[0]));
    const rest = Object.fromEntries(PHOTOS.map((one) => [one, wanted[one].filter((other) => other !== String(id))]));
    set({ ...rest, [name]: [...rest[name], String(id)] });
  }

  /** Show the line with the parts, in the order in which they count; with a drawing alone there is none. */
  function show() {
    byId("parts").hidden = none() && !described;
    byId("parts-undo").hidden = !steps();
    byId("word").placeholder = wanted.text.length ? "Change word" : "Add a word";
    const button = byId("parts-drawing");
    const photo = drawing === "photo";
    button.querySelector("use").setAttribute("href", photo ? "#i-image" : "#i-pen");
    button.ariaLabel = `Remove the ${photo ? "photo" : "drawing"}`;
    button.title = button.ariaLabel;
    button.hidden = !drawing;
    byId("parts-things").textContent = described || (photo ? "Photo" : "Drawing");
    const chips = (/** @type {PartName[]} */ ...kinds) => kinds.flatMap((name) => wanted[name].map((value) => chip(name, value)));
    byId("parts-first").replaceChildren(...filters(), ...chips("text", "like"));
    byId("parts-list").replaceChildren(...chips("unlike", "unlike_kind"));
  }

  function filters() {
    const { folder, after, before } = wanted;
    const all = /** @type {[string, PartName[]][]} */ ([[inFolders(folder), ["folder"]], [period(after[0], before[0]), ["after", "before"]]]);
    return all.filter(([says]) => says).map(([says, parts]) => element("li", {}, part("filter", says, [says], emptied(parts))));
  }

  /** A button that removes this part, and for an unwanted photo one that hides those like it. @type {(name: PartName, value: string) => HTMLElement} */
  function chip(name, value) {
    const without = { [name]: wanted[name].filter((other) => other !== value) };
    if (name === "text") { return element("li", {}, part("word", `The word ${value}`, [`\u201c${value}\u201d`], without)); }
    const [sign, word] = PHOTO_WORDS[/** @type {PhotoPart} */ (name)];
    const removal = part(name, `${word} ${nameOf(value)}`, [sign, face(value)], without);
    const number = name === "unlike" ? alike.get(value) : 0;
    return element("li", {}, removal, ...(number ? [others(value, number)] : []));
  }

  /** @type {(kind: string, says: string, shown: [string, ...HTMLElement[]], without: Partial<Wanted>) => HTMLElement} */
  function part(kind, says, [shown, ...more], without) {
    const title = `Remove: ${says}`;
    const properties = { type: "button", className: `part ${kind}`, title, ariaLabel: title, onclick: () => set(without) };
    return element("button", properties, element("span", { textContent: shown }), ...more, element("i", { className: "cross" }));
  }

  function others(/** @type {string} */ id, /** @type {number} */ number) {
    const title = `Also hide the photos behind ${nameOf(id)} that look like it; those before it stay`;
    const onclick = () => put({ id, paths: [nameOf(id)] }, "unlike_kind");
    return element("button", { type: "button", className: "quiet", title, onclick }, `Hide ${number.toLocaleString("en")}`, element("span", { textContent: "like it" }));
  }

  /** The thumbnail of a photo, or its name where there is none: an address may name a photo that was removed. @param {string} id */
  function face(id) {
    const image = api.picture(`thumbnails/${id}?size=${FACE}`);
    image.addEventListener("error", () => image.replaceWith(element("span", { textContent: nameOf(id) })));
    return image;
  }

  return {
    filtered, none, likes, nameOf, set, show,
    enough: () => wanted.like.length > 0 || wanted.text.length > 0 || filtered(),
    params: () => wanted,
    onChange: (/** @type {() => void} */ react) => listeners.push(react),
    like: (/** @type {Photo} */ photo) => put(photo, "like"),
    unlike: (/** @type {Photo} */ photo) => put(photo, "unlike"),
    clear: () => set(emptied([...PHOTOS, ...FILTERS, "text"])),
    /** Take the names of these photos, which an address does not contain. @param {Photo[]} photos */
    know(photos) {
      photos.forEach(({ id, paths }) => names.set(String(id), fileName(paths[0])));
      show();
    },
    /** Take from the answer of a search what unwanted photos hide. @param {Answer} answer */
    hide({ unliked = [], hidden = 0 }) {
      alike = new Map(unliked.map((photo) => [String(photo.id), photo.alike]));
      byId("parts-hidden").textContent = hidden ? `${hidden.toLocaleString("en")} hidden` : "";
      show();
    },
    /** Drop an unusable word, `beside` other parts for the one before it, as if it had never been there. @type {(beside: boolean) => string} */
    dropWord(beside) {
      const [word] = wanted.text;
      wanted = { ...wanted, text: earlier.filter((other) => beside && other !== word) };
      earlier = [];
      rewrite(wanted);
      show();
      return word;
    },
    /** A step to another drawing. `anew`: without words and photos, or with other parts. @type {(anew: boolean | Wanted, counts: boolean) => void} */
    turn(anew, counts) {
      const before = wanted;
      wanted = { ...before, ...(anew === true ? emptied([...PHOTOS, "text"]) : anew || {}) };
      write(wanted, counts || !same(before, wanted));
      show();
    },
    /** Show whether there is a drawing, or a photo in its place, too. @param {Kind | null} kind */
    draw(kind) {
      drawing = kind;
      show();
    },
    describe(/** @type {string} */ text) {
      described = text;
      show();
    },
  };
}

const same = (/** @type {Wanted} */ one, /** @type {Wanted} */ other) => JSON.stringify(one) === JSON.stringify(other);
