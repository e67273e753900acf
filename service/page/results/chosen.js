/** Photos chosen in the grid, to download as a ZIP file or as a list of paths. */

import * as api from "../shared/api.js";
import { download, byId } from "../shared/dom.js";
import { chosenCount, trouble } from "../shared/words.js";

const MOST = 64;

export class Chosen {
  #ids = new Set();
  #button = byId("choose");

  constructor() {
    this.#button.addEventListener("click", () => {
      this.#button.ariaPressed = String(!this.on);
      this.#ids.clear();
      this.offer(true);
      this.#refresh();
    });
    byId("chosen-all").addEventListener("click", () => this.#add(...this.#buttons.map(({ dataset }) => Number(dataset.photo))));
    this.#saving("chosen-zip", (ids) => api.downloadFrom("photos.zip", { id: ids }, "photos.zip"));
    this.#saving("chosen-list", async (ids) => {
      const lines = (await api.photos(ids)).map(({ paths, files = paths }) => `${files[0]}\n`);
      download(new Blob(lines, { type: "text/plain" }), "photos.txt");
    });
  }

  get on() { return this.#button.ariaPressed === "true"; }

  offer(yes) {
    this.#button.hidden = !yes;
    byId("chosen").hidden = !yes || !this.on;
  }

  turn({ id }) { this.#add(...(this.#ids.delete(id) ? [] : [id])); }

  mark(button, { id }) {
    button.dataset.photo = id;
    button.ariaPressed = this.on ? String(this.#ids.has(id)) : null;
  }

  get #buttons() { return [...document.querySelectorAll("#results .photo")]; }

  #add(...ids) {
    this.#ids = new Set([...this.#ids, ...ids].slice(0, MOST));
    this.#refresh();
  }

  #refresh() {
    this.#buttons.forEach((button) => this.mark(button, { id: Number(button.dataset.photo) }));
    byId("chosen-count").textContent = chosenCount(this.#ids.size, MOST);
    for (const name of /** @type {const} */ (["chosen-zip", "chosen-list"])) { byId(name).disabled = !this.#ids.size; }
  }

  #saving(name, save) {
    byId(name).addEventListener("click", async () => {
      try {
        await save([...this.#ids]);
      } catch (error) {
        byId("chosen-count").textContent = trouble(error).join(": ");
      }
    });
  }
}
