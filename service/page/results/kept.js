/** Searches that a person keeps in this browser under a name: offered, the last ones, while nothing is searched for. */

import { faceOf } from "../drawing/ink.js";
import { fromText, toText } from "../drawing/saved.js";
import { byId, element, forSite, icon } from "../shared/dom.js";
import { show } from "../shared/history.js";

const KEY = "sketch-search-kept ";
const OFFERED = 20;
const FACE = 96;
const FULL = "This browser has no room for it. Save it as a PNG, or remove some of the kept searches.";

/** `query` opens what was kept, and saves it as a PNG; `name` says what is searched for. */
export function createKept(paper, query, name) {
  const [dialog, field, note] = [byId("keep"), byId("keep-name"), byId("keep-note")];

  byId("save").addEventListener("click", () => {
    field.value = name();
    note.textContent = "";
    byId("keep-png").hidden = query.empty();
    show(dialog);
    field.select();
  });
  byId("keep-png").addEventListener("click", () => {
    dialog.close();
    void query.save(field.value.trim());
  });
  byId("keep-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = JSON.stringify({ name: field.value.trim(), drawing: toText(paper) });
    note.textContent = forSite.set(`${KEY}${Date.now()}`, text) ? "" : FULL;
    if (note.textContent) { return; }
    dialog.close();
    byId("hint").textContent = "Kept. It is offered while the paper is empty.";
    void fill();
  });
  void fill();

  async function fill() {
    const items = [];
    // One after the other, so that the page is never busy for long.
    for (const key of forSite.keys().filter((one) => one.startsWith(KEY)).sort().reverse().slice(0, OFFERED)) {
      const { name: called, drawing } = JSON.parse(forSite.get(key) ?? "{}");
      const kept = await fromText(drawing);
      if (kept) { items.push(item(key, called, kept)); }
    }
    byId("kept-list").replaceChildren(...items);
    byId("kept-offer").hidden = !items.length;
  }

  function item(key, called, kept) {
    const open = element("button", { type: "button", onclick: () => void query.open(kept) }, faceOf(kept.marks, FACE), called);
    const remove = element("button", { type: "button", className: "plain", ariaLabel: `Remove ${called}`, title: "Remove" }, icon("close"));
    remove.addEventListener("click", () => {
      const sure = remove.textContent;
      Object.assign(remove, { textContent: "Sure?", ariaLabel: `Really remove ${called}` });
      if (!sure) { return; }
      forSite.remove(key);
      void fill();
    });
    return element("li", {}, open, remove);
  }
}
