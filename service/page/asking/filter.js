/** The filter: only photos of some folders, and of some years, months or days. It applies as these are pressed. */

import * as api from "../shared/api.js";
import { byId, closeOutside, element, icon, refill } from "../shared/dom.js";
import { count, day, ends, fileName, filterLine, period } from "../shared/words.js";

// The first day that a server accepts, the most folders of a filter, and the most that a server lists.
const FIRST_DAY = "1900-01-01";
const MOST = 8;
const LISTED = 1000;
// How many characters of YYYY-MM-DD name a unit of time, what its bars are, and how each is labelled.
const UNITS = { 4: ["Years", { year: "numeric" }], 7: ["Months", { month: "short" }], 10: ["Days", { day: "numeric" }] };

export class Filter {
  #box = byId("filter");
  #field = byId("filter-folder");
  #parts;
  // How many photos each folder has, and those of each day as [day, photos].
  #folders = new Map();
  #days = [];
  #open = new Set();
  #question = new api.Latest();
  // The folders in which the days were counted.
  #counted = "";

  /** What it chooses is shown with the `parts` of the query. */
  constructor(parts) {
    this.#parts = parts;
    closeOutside(this.#box);
    this.#box.addEventListener("toggle", () => this.#box.open && this.#read());
    parts.addEventListener("change", () => (this.#box.open && this.#counted !== `${parts.params.folder}` ? this.#count() : this.#show()));
    this.#field.addEventListener("input", () => this.#show());
    for (const name of ["after", "before"]) {
      byId(`filter-${name}`).addEventListener("change", ({ target }) => target.validity.valid && parts.set({ [name]: [target.value].filter(Boolean) }));
    }
    byId("filter-none").addEventListener("click", () => parts.set({ folder: [], after: [], before: [] }));
    byId("filter-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take();
    });
    this.#show();
  }

  get #typed() {
    return this.#field.value.replace(/^\/+|\/+$/g, "").trim();
  }

  #read() {
    this.#field.value = "";
    this.#count(() => {
      const { folder } = this.#parts.params;
      folder.flatMap(above).forEach((path) => this.#open.add(path));
      this.#field.value = this.#folders.size ? "" : (folder[0] ?? "");
    });
  }

  /** Count the photos of each folder, and in the chosen folders those of each day. */
  #count(then = () => undefined) {
    const { folder } = this.#parts.params;
    this.#counted = `${folder}`;
    this.#show();
    const take = ({ below = [], files_below: files = [], days = {} }) => {
      const inOrder = below.map((path, i) => [path, files[i]]).sort(([a], [b]) => (key(a) < key(b) ? -1 : 1));
      this.#folders = new Map(inOrder);
      this.#days = Object.entries(days).sort();
      then();
      this.#show();
    };
    // A collection on many machines does not list its folders.
    void this.#question.ask(() => api.gallery(folder), take, () => take({}));
  }

  /** Take the listed folders, the uppermost of each branch; what is typed itself, if not all folders are known. */
  #take() {
    const typed = this.#typed;
    const named = this.#folders.has(typed) ? [typed] : typed ? this.#listed() : [];
    const upper = named.filter((path) => !above(path).some((other) => named.includes(other))).slice(0, MOST);
    const known = this.#folders.size > 0 && this.#folders.size < LISTED;
    const folder = upper.length || known ? upper : [typed].filter(Boolean);
    if (folder.length || !typed) {
      this.#parts.set({ folder });
    }
  }

  #show() {
    const { after, before } = this.#parts.params;
    this.#box.classList.toggle("on", this.#parts.filtered);
    byId("filter-said").textContent = filterLine(this.#parts.params) || "All photos";
    byId("filter-none").hidden = !this.#parts.filtered;
    byId("filter-after").value = after[0] ?? "";
    byId("filter-before").value = before[0] ?? "";
    byId("filter-before").min = after[0] ?? FIRST_DAY;
    if (this.#box.open) {
      const rows = this.#listed().map((path) => this.#row(path));
      const none = `No folder of this collection has \u201c${this.#typed}\u201d in its name.`;
      refill(byId("filter-folders"), ...(rows.length || !this.#folders.size ? rows : [element("li", { textContent: none })]));
      refill(byId("filter-times"), ...this.#levels());
    }
  }

  /** The folders in sight: those whose name has what is typed, or else those in open folders. */
  #listed() {
    const typed = this.#typed.toLowerCase();
    const paths = [...this.#folders.keys()];
    return typed
      ? paths.filter((path) => (typed.includes("/") ? path : fileName(path)).toLowerCase().includes(typed))
      : paths.filter((path) => above(path).every((one) => !this.#folders.has(one) || this.#open.has(one)));
  }

  /** A folder: a box that adds it to the filter, its name, which replaces the others, and what opens it. */
  #row(path) {
    const { folder } = this.#parts.params;
    const [chosen, typed, others] = [folder.includes(path), this.#typed, folder.filter((one) => one !== path)];
    const inside = !typed && [...this.#folders.keys()].some((one) => one.startsWith(`${path}/`));
    const set = (wanted) => this.#parts.set({ folder: wanted });
    const full = !chosen && others.length >= MOST;
    const added = { type: "checkbox", checked: chosen, disabled: full, ariaLabel: `Also ${path}`, title: "Also this folder" };
    const tick = keyed(`also ${path}`, element("input", { ...added, onchange: () => set(chosen ? others : [...others, path]) }));
    const onclick = () => set(chosen && !others.length ? [] : [path]);
    const shown = [element("span", { textContent: typed ? path : fileName(path) }), element("small", { textContent: number(this.#folders.get(path)) })];
    const name = element("button", { type: "button", className: "name", title: `Only ${path}`, ariaPressed: String(chosen), onclick }, ...shown);
    const open = this.#open.has(path);
    const turn = () => {
      this.#open[open ? "delete" : "add"](path);
      this.#show();
    };
    const more = { type: "button", className: "plain", ariaExpanded: String(open), ariaLabel: `Folders in ${path}`, onclick: turn };
    const item = element("li", {}, tick, keyed(path, name), ...(inside ? [keyed(`in ${path}`, element("button", more, icon("down")))] : []));
    item.style.setProperty("--depth", typed ? 0 : above(path).filter((one) => this.#folders.has(one)).length);
    return item;
  }

  /** The years; the months if the days chosen are of one year, and the days if they are of one month. */
  #levels() {
    const [[from = ""], [until = ""]] = [this.#parts.params.after, this.#parts.params.before];
    const shared = [4, 7].filter((length) => from && from.slice(0, length) === until.slice(0, length));
    return [this.#bars(4, ""), ...shared.map((length) => this.#bars(length + 3, from.slice(0, length)))];
  }

  #bars(length, whole) {
    const photos = new Map();
    for (const [date, files] of this.#days.filter(([one]) => one.startsWith(whole))) {
      photos.set(date.slice(0, length), (photos.get(date.slice(0, length)) ?? 0) + files);
    }
    const [ariaLabel, label] = UNITS[length];
    const most = Math.max(...photos.values());
    const bars = [...photos].map(([unit, files]) => this.#bar(unit, files, files / most, day(unit, label)));
    return element("div", { className: "bars", role: "group", ariaLabel }, ...bars);
  }

  /** A unit of time, which replaces the days chosen, or with Shift extends them; pressed again, it leaves them wider. */
  #bar(unit, files, share, textContent) {
    const [[from], [until]] = [this.#parts.params.after, this.#parts.params.before];
    const [first, last] = ends(unit);
    const chosen = Boolean(from ?? until) && first >= (from ?? first) && last <= (until ?? last);
    const onclick = ({ shiftKey }) => {
      const wider = shiftKey && from && until ? [first < from ? first : from, last > until ? last : until] : null;
      const [after, before] = wider ?? (first === from && last === until ? ends(unit.slice(0, -3)) : [first, last]);
      this.#parts.set({ after: [after].filter(Boolean), before: [before].filter(Boolean) });
    };
    const title = `${period(first, last)}: ${count(files, "photo")}`;
    const bar = element("button", { type: "button", textContent, title, ariaLabel: title, ariaPressed: String(chosen), onclick });
    bar.style.setProperty("--share", share);
    return keyed(unit, bar);
  }
}

/** The folders around one, the outermost first. */
const above = (path) => path.split("/").slice(0, -1).map((_, i, names) => names.slice(0, i + 1).join("/"));

/** So that a folder is followed by what is in it. */
const key = (path) => path.replaceAll("/", "\0");

const number = (files) => files.toLocaleString("en");

function keyed(name, one) {
  one.dataset.key = name;
  return one;
}
