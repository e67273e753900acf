/** The filter: only photos of some folders, and of some years, months or days. It applies as these are pressed. */

import * as api from "../shared/api.js";
import { byId, closeOutside, element, icon, refill } from "../shared/dom.js";
import { count, day, ends, fileName, folderName, inFolders, period, undatedNote } from "../shared/words.js";

const MOST = 8;
const LISTED = 1000;
// How many characters of YYYY-MM-DD name a unit of time, what its bars are, and how each is labelled.
/** @type {Record<number, [string, Intl.DateTimeFormatOptions]>} */
const UNITS = { 4: ["Years", { year: "numeric" }], 7: ["Months", { month: "short" }], 10: ["Days", { day: "numeric" }] };

/** Offer the folders and days of the collection; what is chosen is shown with the `parts` of the query. @param {Parts} parts */
export function offerFilter(parts) {
  const [box, field] = [byId("filter"), byId("filter-folder")];
  const question = new api.Latest();
  const opened = new Set();
  let folders = /** @type {Map<string, number>} */ (new Map());
  let days = /** @type {[string, number][]} */ ([]);
  // How many photos have the day of their file, and whether it is known that no folder has others in it.
  let undated = 0;
  let flat = false;
  let counted = "";
  const typed = () => field.value.replace(/^\/+|\/+$/g, "").trim();

  closeOutside(box);
  box.addEventListener("toggle", () => {
    if (box.open) {
      field.value = "";
      recount(() => {
        const { folder } = parts.params();
        folder.flatMap(above).forEach((path) => opened.add(path));
        field.value = folders.size ? "" : (folder[0] ?? "");
      });
    }
  });
  parts.onChange(() => (box.open && counted !== `${parts.params().folder}` ? recount() : show()));
  field.addEventListener("input", show);
  for (const name of /** @type {const} */ (["after", "before"])) {
    const day = byId(`filter-${name}`);
    // Each digit changes a day that is typed, which counts once Enter is pressed or the field is left.
    let typing = false;
    const end = () => {
      typing = false;
      day.validity.valid && parts.set({ ...moved(name, day.value), [name]: [day.value].filter(Boolean) });
    };
    day.addEventListener("keydown", ({ key }) => (key === "Enter" ? end() : (typing = true)));
    day.addEventListener("change", () => typing || end());
    day.addEventListener("blur", end);
  }
  byId("filter-none").addEventListener("click", () => parts.set({ folder: [], after: [], before: [] }));
  byId("filter-form").addEventListener("submit", (event) => {
    event.preventDefault();
    take();
  });
  show();

  /** The other end of the days, moved to this one if they cross. @type {(name: "after" | "before", value: string) => Partial<Wanted>} */
  function moved(name, value) {
    const other = name === "after" ? "before" : "after";
    const [end] = parts.params()[other];
    return value && end && (name === "after" ? value > end : value < end) ? { [other]: [value] } : {};
  }

  /** Count the photos of each folder, and in the chosen folders those of each day. */
  function recount(then = () => {}) {
    const { folder } = parts.params();
    counted = `${folder}`;
    show();
    const fill = (/** @type {Partial<Collection>} */ { below, files_below: files = [], days: dated = {}, ...more }) => {
      flat = below?.length === 0;
      undated = more.undated ?? 0;
      folders = new Map((below ?? []).map((path, i) => /** @type {const} */ ([path, files[i]])).sort(([a], [b]) => (key(a) < key(b) ? -1 : 1)));
      days = Object.entries(dated).sort();
      then();
      show();
    };
    // A collection on many machines does not list its folders.
    void question.ask(() => api.gallery(folder), fill, () => fill({}));
  }

  /** Take the listed folders, the uppermost of each branch; what is typed itself, if not all folders are known. */
  function take() {
    const name = typed();
    const named = folders.has(name) ? [name] : name ? listed() : [];
    const upper = named.filter((path) => !above(path).some((other) => named.includes(other))).slice(0, MOST);
    const known = folders.size > 0 && folders.size < LISTED;
    const folder = upper.length || known ? upper : [name].filter(Boolean);
    if (folder.length || !name) { parts.set({ folder }); }
  }

  function show() {
    const { folder, after, before } = parts.params();
    box.classList.toggle("on", parts.filtered());
    byId("filter-said").textContent = [inFolders(folder), period(after[0], before[0])].filter(Boolean).join(" \u00b7 ") || "All photos";
    byId("filter-none").hidden = !parts.filtered();
    byId("filter-after").value = after[0] ?? "";
    byId("filter-before").value = before[0] ?? "";
    if (box.open) {
      const rows = listed().map(row);
      const none = `No folder of this collection has \u201c${typed()}\u201d in its name.`;
      refill(byId("filter-folders"), ...(rows.length || !folders.size ? rows : [element("li", { textContent: none })]));
      field.parentElement.hidden = flat && !folder.length;
      refill(byId("filter-times"), ...(days.length > 1 || folder.length ? levels() : []));
      byId("filter-undated").textContent = undatedNote(undated, days.reduce((sum, [, files]) => sum + files, 0));
    }
  }

  /** The folders in sight: those whose name has what is typed, or else those in open folders. */
  function listed() {
    const name = typed().toLowerCase();
    const paths = [...folders.keys()];
    return name
      ? paths.filter((path) => (name.includes("/") ? path : fileName(path)).toLowerCase().includes(name))
      : paths.filter((path) => above(path).every((one) => !folders.has(one) || opened.has(one)));
  }

  /** A folder: a box that adds it to the filter, its name, which replaces the others, and what opens it. @type {(path: string) => HTMLElement} */
  function row(path) {
    const { folder, after, before } = parts.params();
    const [chosen, found, others] = [folder.includes(path), typed(), folder.filter((one) => one !== path)];
    const inside = !found && [...folders.keys()].some((one) => one.startsWith(`${path}/`));
    const set = (/** @type {string[]} */ wanted) => parts.set({ folder: wanted });
    const full = !chosen && others.length >= MOST;
    const added = { type: "checkbox", checked: chosen, disabled: full, ariaLabel: `Also ${folderName(path)}`, title: "Also this folder" };
    const tick = keyed(`also ${path}`, element("input", { ...added, onchange: () => set(chosen ? others : [...others, path]) }));
    const onclick = () => set(chosen && !others.length ? [] : [path]);
    const textContent = fileName(path) === "." ? "In no subfolder" : found ? path : fileName(path);
    // They are counts of all days.
    const files = after.length || before.length ? "" : number(folders.get(path));
    const shown = [element("span", { textContent }), element("small", { textContent: files })];
    const name = element("button", { type: "button", className: "name", title: `Only ${folderName(path)}`, ariaPressed: String(chosen), onclick }, ...shown);
    const open = opened.has(path);
    const turn = () => {
      opened[open ? "delete" : "add"](path);
      show();
    };
    const more = { type: "button", className: "plain", ariaExpanded: String(open), ariaLabel: `Folders in ${path}`, onclick: turn };
    const item = element("li", {}, tick, keyed(path, name), ...(inside ? [keyed(`in ${path}`, element("button", more, icon("down")))] : []));
    item.style.setProperty("--depth", `${found ? 0 : above(path).filter((one) => folders.has(one)).length}`);
    return item;
  }

  /** The years; the months if the days chosen are of one year, and the days if they are of one month. */
  function levels() {
    const { after: [from = ""], before: [until = ""] } = parts.params();
    const shared = [4, 7].filter((length) => from && from.slice(0, length) === until.slice(0, length));
    return [bars(4, ""), ...shared.map((length) => bars(length + 3, from.slice(0, length)))];
  }

  function bars(/** @type {number} */ length, /** @type {string} */ whole) {
    const photos = /** @type {Map<string, number>} */ (new Map());
    for (const [date, files] of days.filter(([one]) => one.startsWith(whole))) {
      photos.set(date.slice(0, length), (photos.get(date.slice(0, length)) ?? 0) + files);
    }
    const [ariaLabel, label] = UNITS[length];
    const most = Math.max(...photos.values());
    const units = [...photos].map(([unit, files]) => bar(unit, files, files / most, day(unit, label)));
    return element("div", { className: "bars", role: "group", ariaLabel }, ...units);
  }

  /** A unit of time; it replaces the days, or by Shift extends them. @type {(unit: string, files: number, share: number, textContent: string) => HTMLElement} */
  function bar(unit, files, share, textContent) {
    const { after: [from], before: [until] } = parts.params();
    const [first, last] = ends(unit);
    const chosen = Boolean(from ?? until) && first >= (from ?? first) && last <= (until ?? last);
    const onclick = (/** @type {MouseEvent} */ { shiftKey }) => {
      const wider = shiftKey && from && until ? [first < from ? first : from, last > until ? last : until] : null;
      const [after, before] = wider ?? (first === from && last === until ? ends(unit.slice(0, -3)) : [first, last]);
      parts.set({ after: [after].filter(Boolean), before: [before].filter(Boolean) });
    };
    const title = `${period(first, last)}: ${count(files, "photo")}`;
    const made = element("button", { type: "button", textContent, title, ariaLabel: title, ariaPressed: String(chosen), onclick });
    made.style.setProperty("--share", `${share}`);
    return keyed(unit, made);
  }
}

const above = (/** @type {string} */ path) => path.split("/").slice(0, -1).map((_, i, names) => names.slice(0, i + 1).join("/"));

const key = (/** @type {string} */ path) => path.toLowerCase().replaceAll("/", "\0");
const number = (/** @type {number} */ files) => files.toLocaleString("en");
/** @type {<Kind extends HTMLElement>(name: string, one: Kind) => Kind} */
const keyed = (name, one) => Object.assign(one.dataset, { key: name }) && one;
